"""A published network that teaches: its loss, the training that hears it, who is chosen."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nas.spaces.naming import get_elastic_space
from nas.training.dataset import Dataset, load_dataset
from nas.training.supernet.average import Average
from nas.training.supernet.batches import Augmentation, Batches
from nas.training.supernet.finetune import Finetuned, finetune, fresh
from nas.training.supernet.teacher import TEMPERATURE, Teacher, distillation_loss
from nas.training.supernet.train import Recipe

SIDE = (32, 32)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", images=160)


def teacher(data: Dataset, seed: int = 0) -> Teacher:
    """Return one that is sure of the labels, but for noise."""
    noise = np.random.default_rng(seed).normal(size=(data.count("train"), 10)).astype(np.float32)
    return Teacher.of("someone", 4 * np.eye(10, dtype=np.float32)[data.labels("train")] + noise)


def test_the_loss_is_hintons() -> None:
    scores, other = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    target = F.one_hot(torch.arange(5) % 4, 4).float()
    soft = (other / TEMPERATURE).softmax(1)
    assert float(distillation_loss(scores, target, soft, 0.0)) == pytest.approx(float(F.cross_entropy(scores, target)))
    divergence = F.kl_div((scores / TEMPERATURE).log_softmax(1), soft, reduction="batchmean") * TEMPERATURE**2
    entropy = -(soft * soft.log()).sum(1).mean() * TEMPERATURE**2
    assert float(distillation_loss(scores, target, soft, 1.0)) == pytest.approx(float(divergence + entropy), rel=1e-5)


def test_its_distributions_are_mixed_as_pictures_are(data: Dataset) -> None:
    batches, indices = Batches(data, "train", SIDE, torch.device("cpu")), torch.arange(6)
    labels = F.one_hot(batches.labels[indices], 10).float()
    mixed = Augmentation(mixup=1.0)
    _, target, _ = batches.augmented(indices, mixed, 0.0, np.random.default_rng(0), soft_targets=labels)
    assert target.shape == (6, 20)
    assert torch.equal(target[:, :10], target[:, 10:])
    assert bool((target.max(1).values < 1).any())


def run(data: Dataset, path: Path, recipe: Recipe, stop_after: int | None = None, listens: bool = True) -> Finetuned:
    space = get_elastic_space("hybrid-s", num_classes=10, resolution=SIDE)
    module = fresh(space, space.extreme(False), num_classes=10, resolution=SIDE, seed=1)
    taught = teacher(data) if listens else None
    return finetune(module, space.extreme(False), data, path, recipe, resolution=SIDE, seed=2, stop_after=stop_after, teacher=taught)


def test_a_pupil_with_averaged_weights_resumes_to_the_same_bits(data: Dataset, tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch=32, learning_rate=3e-3, window=0.1)
    whole, alone = run(data, tmp_path / "a", recipe), run(data, tmp_path / "c", recipe, 1, listens=False)
    for stop in (1, None):
        broken = run(data, tmp_path / "b", recipe, stop)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert broken.history == whole.history
    assert alone.history[0] != whole.history[0]


def test_an_average_follows_and_stands_in_for_a_while() -> None:
    module = torch.nn.Linear(2, 1, bias=False)
    module.weight.data.zero_()
    average = Average(module)
    module.weight.data.fill_(1.0)
    average.add(0.75)
    with average.in_place():
        assert module.weight.tolist() == [[0.25, 0.25]]
    assert module.weight.tolist() == [[1.0, 1.0]]
    average.add(0.0)
    assert average.weights["weight"].tolist() == [[1.0, 1.0]]
