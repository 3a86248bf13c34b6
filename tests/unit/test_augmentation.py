"""Mixed pictures, windows of others, random operations: what each does to pictures and targets."""

import numpy as np
import pytest
import torch

from nas.training.dataset import Dataset, load_dataset
from nas.training.supernet.batches import Augmentation, Batches, prepare
from nas.training.supernet.randaugment import OPERATIONS, draw_strengths, tone, warp
from nas.training.supernet.train import Recipe

SIDE = (32, 32)
STILL = Augmentation(shift=0.0, scale=0.0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", images=160)


def test_a_window_is_pasted_and_the_target_follows_its_area(data: Dataset) -> None:
    batches, n = Batches(data, "train", SIDE, torch.device("cpu")), 6
    cut = Augmentation(shift=0.0, scale=0.0, cutmix=1.0)
    (x,), target, labels = batches.augmented(torch.arange(n), cut, 0.0, np.random.default_rng(4))
    plain = prepare(data, data.pixels("train", SIDE)[:n], SIDE)
    share = float(target.gather(1, labels[:, None]).min())
    assert 0 < share < 1
    for i in range(n):
        own = (x[i] - plain[i]).abs().amax(0) < 1e-5
        partners = [j for j in range(n) if bool((own | ((x[i] - plain[j]).abs().amax(0) < 1e-5)).all())]
        assert any(float(target[i, labels[j]]) == pytest.approx(1.0 if labels[i] == labels[j] else 1 - share) for j in partners)
        assert float(own.float().mean()) >= share - 0.1  # rounded to pixels; equal pixels count as its own


def test_so_many_operations_are_drawn_for_each_picture() -> None:
    strengths = draw_strengths(50, 2, 0.3, np.random.default_rng(0))
    assert strengths.shape == (50, len(OPERATIONS))
    assert ((strengths != 0).sum(1) == 2).all()
    assert set(np.abs(strengths[strengths != 0])) == {0.3}
    assert (strengths > 0).any()
    assert (strengths < 0).any()


def test_without_strength_nothing_changes_and_a_turn_is_a_turn() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3)).astype(np.uint8))
    none, theta = np.zeros((3, len(OPERATIONS))), np.tile(np.eye(2, 3), (3, 1, 1))
    assert torch.allclose(tone(pixels, none), pixels.float(), atol=1e-4)
    assert np.array_equal(warp(theta, none), theta)
    turned = warp(theta, np.eye(3, len(OPERATIONS))[[0, 0, 0]])[0, :, :2]
    assert turned @ turned.T == pytest.approx(np.eye(2))
    assert np.degrees(np.arcsin(turned[1, 0])) == pytest.approx(30)


def test_tones_change_what_they_are_called(data: Dataset) -> None:
    pixels = torch.tensor([[[[200, 100, 0], [40, 40, 40]]]], dtype=torch.uint8)
    each = {name: tone(pixels, np.eye(len(OPERATIONS))[[i]] * -1) for i, name in enumerate(OPERATIONS)}
    assert float(each["brightness"].max()) == pytest.approx(20)
    assert float(each["contrast"].std()) == pytest.approx(0.1 * float(pixels.float().std()))
    assert float(each["colour"][0, 0, 0].std()) == pytest.approx(0.1 * float(pixels[0, 0, 0].float().std()))
    batches = Batches(data, "train", SIDE, torch.device("cpu"))
    (x,), _, _ = batches.augmented(torch.arange(4), Augmentation(operations=2), 0.0, np.random.default_rng(0))
    (y,), _, _ = batches.augmented(torch.arange(4), Augmentation(), 0.0, np.random.default_rng(0))
    assert not torch.equal(x, y)


def test_what_is_not_used_is_not_in_a_checkpoint() -> None:
    assert "cutmix" not in Recipe().entries["augmentation"]
    assert Recipe(augmentation=Augmentation(operations=2)).entries["augmentation"]["operations"] == 2
