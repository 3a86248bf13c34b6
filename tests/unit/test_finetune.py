"""Training of one network: resumable to the bit, the best epoch kept, what is loaded is what was scored."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import ArtifactError, TrainingError
from nas.events import EventBus, PhaseStarted
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_space
from nas.training.dataset import Dataset, load_dataset
from nas.training.recipe import compose
from nas.training.supernet.batches import Batches
from nas.training.supernet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from nas.training.supernet.finetune import Finetuned, alone_recipe, finetune, finetuning_recipe, fresh, load_member
from nas.training.supernet.statistics import predictions, recalibrated
from nas.training.supernet.train import Recipe
from nas.training.threads import quickest_threads
from search_spaces.reparam.depth import ParallelLayer, share_at

SIDE = (32, 32)
TINY = Recipe(epochs=4, batch=32, learning_rate=3e-3)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", images=160)


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    space = get_space("hybrid-s", num_classes=10, resolution=SIDE)
    assert isinstance(space, ElasticSpace)
    return space


def run(space: ElasticSpace, data: Dataset, path: Path, recipe: Recipe = TINY, stop_after: int | None = None) -> Finetuned:
    architecture = space.extreme(False)
    module = fresh(space, architecture, num_classes=10, resolution=SIDE, seed=1)
    return finetune(module, architecture, data, path, recipe, resolution=SIDE, seed=2, stop_after=stop_after)


@pytest.fixture(scope="module")
def unbroken(space: ElasticSpace, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finetuned, Path]:
    path = tmp_path_factory.mktemp("finetune") / "member.safetensors"
    return run(space, data, path), path


def test_it_learns_and_resumes_to_the_same_bits(
    space: ElasticSpace, data: Dataset, unbroken: tuple[Finetuned, Path], tmp_path: Path
) -> None:
    assert unbroken[0].history[-1]["loss"] < unbroken[0].history[0]["loss"]
    path = tmp_path / "member.safetensors"
    for stop in (1, 3, None):
        found = run(space, data, path, stop_after=stop)
    assert path.read_bytes() == unbroken[1].read_bytes()
    assert found.history == unbroken[0].history
    assert np.array_equal(found.right, unbroken[0].right)
    again = run(space, data, path)
    assert again.validation_accuracy_pct == found.validation_accuracy_pct


def test_a_whitening_start_is_part_of_the_recipe_and_resumes_to_the_same_bits(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(TINY, whitening=True)
    assert recipe.entries == TINY.entries | {"whitening": True}
    run(space, data, tmp_path / "a.safetensors", recipe)
    for stop in (1, None):
        run(space, data, tmp_path / "b.safetensors", recipe, stop_after=stop)
    run(space, data, tmp_path / "plain.safetensors", stop_after=1)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (tmp_path / "a.safetensors").read_bytes() != (tmp_path / "plain.safetensors").read_bytes()
    with pytest.raises(ArtifactError):
        run(space, data, tmp_path / "plain.safetensors", recipe)


def test_weights_that_are_trained_already_are_not_whitened(
    space: ElasticSpace, data: Dataset, unbroken: tuple[Finetuned, Path], tmp_path: Path
) -> None:
    still = replace(TINY, epochs=1, learning_rate=1e-12)
    ends = []
    for recipe in (replace(still, whitening=True), still):
        architecture, module, _ = load_member(unbroken[1], space)
        path = tmp_path / f"{recipe.whitening}.safetensors"
        ends.append(finetune(module, architecture, data, path, recipe, resolution=SIDE, seed=2, keep_start=True).module)
    assert all(torch.equal(*pair) for pair in zip(*(end.parameters() for end in ends), strict=True))


def test_parallel_layers_are_apart_first_and_one_by_the_end(data: Dataset, tmp_path: Path) -> None:
    space = get_space("vit-parallel-n", num_classes=10, resolution=SIDE)
    member = space.architecture(["32x32", 48, "6x2", "sum", "sum"])
    trained, scored = list[float](), list[float]()

    def once(path: Path, stop_after: int | None = None, *, keep_start: bool = False) -> None:
        module = fresh(space, member, num_classes=10, resolution=SIDE, seed=1)
        layer = next(part for part in module.modules() if isinstance(part, ParallelLayer))
        layer.register_forward_pre_hook(lambda part, _: (trained if torch.is_grad_enabled() else scored).append(part.share))
        finetune(module, member, data, path, TINY, resolution=SIDE, seed=2, stop_after=stop_after, keep_start=keep_start)

    once(tmp_path / "a.safetensors")
    steps = TINY.epochs * (data.count("train") // TINY.batch)
    assert trained == [share_at(step / steps) for step in range(steps)]
    assert set(scored) == {1.0}
    for stop in (2, None):
        once(tmp_path / "b.safetensors", stop)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    trained.clear()
    once(tmp_path / "c.safetensors", 1, keep_start=True)
    assert set(trained) == {1.0}


def test_a_network_of_any_size_sees_small_pictures_first_and_costs_as_much_less(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, vit = get_space("residual-s", num_classes=10, resolution=SIDE), get_space("vit-n", num_classes=10)
    recipe, pictures = alone_recipe(space, data), compose(alone_recipe(space, data).methods).pictures
    other = alone_recipe(vit, data)
    assert (other.methods, other.optimizer, recipe.optimizer) == ((), "adamw", "sgd")
    assert recipe.epochs == other.epochs == 200  # few pictures
    assert (recipe.augmentation.operations, other.augmentation.operations) == (2, 0)
    monkeypatch.setattr(data, "count", lambda _: 30_000)
    many = alone_recipe(space, data)
    assert (many.epochs, many.augmentation.operations) == (20, 0)
    monkeypatch.undo()
    module, seen = fresh(space, space.extreme(False), num_classes=10, resolution=SIDE, seed=1), list[tuple[int, ...]]()  # type: ignore[attr-defined]
    module.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])) if torch.is_grad_enabled() else None)
    finetune(module, space.extreme(False), data, tmp_path / "m.safetensors", replace(recipe, epochs=4, batch=32), resolution=SIDE)  # type: ignore[attr-defined]
    steps = 4 * (data.count("train") // 32)
    assert seen == [(16, 16)] * (steps // 2) + [(24, 24)] * (steps // 4) + [(32, 32)] * (steps // 4)
    assert pictures.cost == pytest.approx((2 * (1 / 4) + 9 / 16 + 1) / 4)


def test_steps_have_the_threads_with_which_they_are_quickest(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    own = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert quickest_threads(lambda: time.sleep(0.002 * torch.get_num_threads())) == 1
        assert quickest_threads(lambda: time.sleep(0.02 / torch.get_num_threads())) == 4
        path, module = tmp_path / "m.safetensors", fresh(space, space.extreme(False), num_classes=10, resolution=SIDE, seed=1)
        run(space, data, tmp_path / "unlimited.safetensors", stop_after=1)
        assert read_checkpoint(tmp_path / "unlimited.safetensors", "member").progress["threads"] == []
        finetune(module, space.extreme(False), data, path, TINY, resolution=SIDE, seed=2, stop_after=1, left_s=lambda: 60.0)
        (height, width, count) = read_checkpoint(path, "member").progress["threads"][0]
        assert (height, width) == SIDE
        assert count in (1, 2, 4)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(own)


def test_under_a_time_limit_the_next_session_is_told_how_much_of_it_is_done(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    started, path, smallest = list[PhaseStarted](), tmp_path / "m.safetensors", space.extreme(False)
    bus = EventBus([lambda event: started.append(event) if isinstance(event, PhaseStarted) else None])
    for stop_after in (1, None):
        module = fresh(space, smallest, num_classes=10, resolution=SIDE, seed=1)
        finetune(module, smallest, data, path, TINY, resolution=SIDE, bus=bus, stop_after=stop_after, left_s=lambda: 600.0)
    assert [event.total for event in started] == [100, 100]
    assert (started[0].done, started[0].part) == (0, 0.0)
    assert started[1].done + started[1].part == pytest.approx(25, abs=7)  # one of four epochs, by its last step's beginning


def test_one_that_was_killed_inside_an_epoch_gives_the_same_bits(
    space: ElasticSpace, data: Dataset, unbroken: tuple[Finetuned, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, written = tmp_path / "member.safetensors", []

    def write_and_die(path: Path, checkpoint: Checkpoint) -> None:
        write_checkpoint(path, checkpoint)
        written.append(checkpoint.progress)
        if len(written) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nas.training.supernet.finetune.CHECKPOINT_S", 0.0)
        patch.setattr("nas.training.supernet.finetune.write_checkpoint", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(space, data, path)
    assert (written[-1]["epoch"], written[-1]["step"]) == (1, 1)  # each epoch has four steps
    found = run(space, data, path)
    assert path.read_bytes() == unbroken[1].read_bytes()
    assert found.history == unbroken[0].history


def test_averaged_weights_outlast_a_kill(space: ElasticSpace, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(TINY, epochs=1, window=0.5)
    whole, torn = tmp_path / "whole.safetensors", tmp_path / "torn.safetensors"
    run(space, data, whole, recipe)

    def write_and_die(path: Path, checkpoint: Checkpoint) -> None:
        write_checkpoint(path, checkpoint)
        if checkpoint.progress["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nas.training.supernet.finetune.CHECKPOINT_S", 0.0)
        patch.setattr("nas.training.supernet.finetune.write_checkpoint", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(space, data, torn, recipe)
    run(space, data, torn, recipe)
    assert torn.read_bytes() == whole.read_bytes()
    alone = run(space, data, tmp_path / "alone.safetensors", replace(recipe, window=0.0))
    averaged = load_member(whole, space)[1]
    assert not all(torch.equal(*pair) for pair in zip(averaged.parameters(), alone.module.parameters(), strict=True))


def test_without_time_one_step_is_made_and_the_file_is_whole(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    module, path = fresh(space, space.extreme(False), num_classes=10, resolution=SIDE, seed=1), tmp_path / "member.safetensors"
    found = finetune(module, space.extreme(False), data, path, TINY, resolution=SIDE, left_s=lambda: 0.0)
    assert len(found.history) == 1
    assert load_member(path, space)[0] == space.extreme(False)


def test_what_is_loaded_is_what_was_scored(space: ElasticSpace, data: Dataset, unbroken: tuple[Finetuned, Path]) -> None:
    architecture, module, resolution = load_member(unbroken[1], space)
    assert (architecture, resolution) == (space.extreme(False), SIDE)
    batches = Batches(data, "validation", SIDE, torch.device("cpu"))
    assert np.array_equal(np.equal(predictions(module, batches), data.labels("validation")), unbroken[0].right)
    assert unbroken[0].validation_accuracy_pct == pytest.approx(100 * unbroken[0].right.mean())


def test_an_epoch_is_scored_with_statistics_of_training_pictures_as_the_result_is(unbroken: tuple[Finetuned, Path]) -> None:
    best = max(entry["validation_accuracy_pct"] for entry in unbroken[0].history)
    assert unbroken[0].validation_accuracy_pct == best  # these data have fewer training pictures than either takes


def test_scoring_leaves_the_training_as_it_was(space: ElasticSpace, data: Dataset) -> None:
    module = fresh(space, space.extreme(False), num_classes=10, resolution=SIDE, seed=1).train()
    before, generator = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    with recalibrated(module, [x for x, _ in Batches(data, "train", SIDE, torch.device("cpu")).plain(64)]):
        assert not module.training
        assert any(not torch.equal(value, before[name]) for name, value in module.named_buffers() if "running" in name)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_refusals(space: ElasticSpace, data: Dataset, unbroken: tuple[Finetuned, Path], tmp_path: Path) -> None:
    path = tmp_path / "member.safetensors"
    path.write_bytes(unbroken[1].read_bytes())
    with pytest.raises(ArtifactError, match="of another training, got recipe"):
        run(space, data, path, replace(TINY, epochs=5))
    with pytest.raises(ArtifactError, match="of another space"):
        load_member(path, get_space("hybrid-npu-s"))
    with pytest.raises(TrainingError, match="fine-tuning: diverged in epoch 1"):
        run(space, data, tmp_path / "b", replace(TINY, learning_rate=1e30, warmup=0.0, clip=1e30, optimizer="sgd"))


def test_epochs_follow_the_cost(data: Dataset) -> None:
    cheap, dear = finetuning_recipe(data, 10**6), finetuning_recipe(data, 10**12)
    assert cheap.epochs > dear.epochs == 1 or torch.cuda.is_available()


def test_weights_that_are_trained_already_outlast_a_training_that_spoils_them(
    space: ElasticSpace, data: Dataset, unbroken: tuple[Finetuned, Path], tmp_path: Path
) -> None:
    spoiling = replace(TINY, epochs=1, learning_rate=0.5, warmup=0.0)
    found = {}
    for keep in (False, True):
        architecture, module, _ = load_member(unbroken[1], space)
        path = tmp_path / f"{keep}.safetensors"
        found[keep] = finetune(module, architecture, data, path, spoiling, resolution=SIDE, seed=2, keep_start=keep).validation_accuracy_pct
        assert load_member(path, space)[0] == architecture
    assert found[True] == pytest.approx(unbroken[0].validation_accuracy_pct, abs=10)  # statistics are those of other pictures
    assert found[True] > found[False] + 10
