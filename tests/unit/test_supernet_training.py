"""Training: resumable to the bit, the same in two processes as in one, and stopped by a clear line where it fails."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from nas.errors import ArtifactError, TrainingError, UnknownNameError, UsageError
from nas.events import Event, EventBus, PhaseAdvanced, PhaseStarted
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_space
from nas.spaces.space import Choice
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.recipe import Moment, compose, recipes
from nas.training.recipes.efficient_train import EfficientTrain
from nas.training.recipes.progressive_shrinking import lowest_open
from nas.training.recipes.ssld import Ssld
from nas.training.supernet.batches import Batches, prepare
from nas.training.supernet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from nas.training.supernet.draws import fair_members
from nas.training.supernet.epoch import Length
from nas.training.supernet.footprint import predicted_memory_bytes
from nas.training.supernet.train import (
    Recipe,
    Trained,
    Training,
    learning_rate_at,
    load_supernet,
    train,
)
from nas.training.supernet.weights import Supernet

SIDE = (32, 32)
TINY = Recipe(epochs=3, batch=32, learning_rate=1e-3)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", images=80)


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    space = get_space("hybrid-s", num_classes=10, resolution=(128, 128))
    assert isinstance(space, ElasticSpace)
    return space


def run(space: ElasticSpace, data: Dataset, path: Path, recipe: Recipe = TINY, stop_after: int | None = None, **more: object) -> Trained:
    return train(space, data, path, recipe, resolution=SIDE, seed=5, device="cpu", stop_after=stop_after, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def unbroken(space: ElasticSpace, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    path = tmp_path_factory.mktemp("train") / "supernet.safetensors"
    return run(space, data, path), path


@pytest.mark.slow
def test_resumed_training_gives_the_same_bits(space: ElasticSpace, data: Dataset, unbroken: tuple[Trained, Path], tmp_path: Path) -> None:
    path = tmp_path / "supernet.safetensors"
    for stop in (1, 2, None):
        events: list[Event] = []
        found = run(space, data, path, stop_after=stop, bus=EventBus([events.append]))
    assert torch.equal(found.supernet.flat, unbroken[0].supernet.flat)
    assert found.history == unbroken[0].history
    assert isinstance(events[0], PhaseStarted)
    assert (events[0].total, events[0].done) == (3, 2)
    assert [event.done for event in events if isinstance(event, PhaseAdvanced) and not event.part] == [3]
    assert path.read_bytes() == unbroken[1].read_bytes()


@pytest.mark.slow
def test_a_training_that_was_killed_inside_an_epoch_gives_the_same_bits(
    space: ElasticSpace, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.training.supernet.epoch.REPORT_S", 0.0)
    monkeypatch.setattr("nas.training.supernet.epoch.CHECKPOINT_S", 0.0)
    recipe, path, parts = replace(TINY, epochs=1, batch=16), tmp_path / "supernet.safetensors", list[float]()
    whole = run(space, data, tmp_path / "whole.safetensors", recipe)

    def kill(event: Event) -> None:
        if isinstance(event, PhaseAdvanced) and event.part:
            parts.append(event.done + event.part)
            if len(parts) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(space, data, path, recipe, bus=EventBus([kill]))
    found = run(space, data, path, recipe, bus=EventBus([kill]))
    assert torch.equal(found.supernet.flat, whole.supernet.flat)
    assert found.history == whole.history
    assert 0 < parts[0] < parts[1] == parts[2] < 1  # the step that had been reported but not written is done again, the one before is not


def test_a_finished_training_is_loaded_not_repeated(space: ElasticSpace, data: Dataset, unbroken: tuple[Trained, Path]) -> None:
    events: list[Event] = []
    again = run(space, data, unbroken[1], bus=EventBus([events.append]))
    assert not any(isinstance(event, PhaseAdvanced) for event in events)
    assert again.supernet.key == load_supernet(unbroken[1], space).key == unbroken[0].supernet.key
    assert not any(name.startswith("optimizer/") for name in read_checkpoint(unbroken[1], "supernet").tensors)


def test_foreign_and_broken_checkpoints_are_refused(
    space: ElasticSpace, data: Dataset, unbroken: tuple[Trained, Path], tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(unbroken[1].read_bytes())
    with pytest.raises(ArtifactError, match="of another training, got recipe"):
        run(space, data, path, replace(TINY, learning_rate=2e-3))
    with pytest.raises(ArtifactError, match="of another space, got 'hybrid-s'"):
        load_supernet(path, get_space("hybrid-npu-s"))  # type: ignore[arg-type]
    assert load_supernet(path, space, data).key == unbroken[0].supernet.key
    with pytest.raises(ArtifactError, match=r"trained on other pictures or splits, got data .* and --seed 5"):
        load_supernet(path, space, load_dataset("digits", images=80, seed=1))
    fewer = copy(data)
    fewer.classes = data.classes[:3]
    with pytest.raises(ArtifactError, match=r"trained on other pictures or splits, got classes 10\. Expected 3"):
        load_supernet(path, space, fewer)
    path.write_bytes(unbroken[1].read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="damaged or foreign"):
        load_supernet(path, space)
    path.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(ArtifactError, match="a pickle, which is never loaded"):
        load_supernet(path, space)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ArtifactError, match="a pickle, which is never loaded"):
        load_supernet(path, space)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ArtifactError, match="foreign, got format None"):
        load_supernet(path, space)
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_supernet(tmp_path / "none.safetensors", space)
    path.unlink()
    run(space, data, path, stop_after=1)
    with pytest.raises(ArtifactError, match="unfinished, got 1 of 3 epochs"):
        load_supernet(path, space)


def test_divergence_and_collapse_stop_with_a_line(
    space: ElasticSpace, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="diverged in epoch 1"):
        run(space, data, tmp_path / "a", replace(TINY, learning_rate=1e30, warmup=0.0, clip=1e30, optimizer="sgd"))
    with pytest.raises(UsageError, match="the learning rate must be positive"):
        replace(TINY, learning_rate=float("nan"))
    monkeypatch.setattr("nas.training.supernet.train.Training.step", lambda *_: ([1.0, 1.0], 3.0, {7}))
    with pytest.raises(TrainingError, match="collapsed by epoch 2, the largest member gives every picture class 7"):
        run(space, data, tmp_path / "b")


def test_memory_is_predicted_before_anything_starts(
    space: ElasticSpace, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = predicted_memory_bytes(space, 10, TINY.batch, SIDE)
    assert predicted_memory_bytes(space, 10, 64, SIDE) > needed
    monkeypatch.setattr("nas.training.supernet.footprint.available_memory_bytes", lambda: int(needed / 2))
    with pytest.raises(TrainingError, match=r"predicted to need .* GB, got .* GB on cpu\. Do this: a smaller batch"):
        run(space, data, tmp_path / "a")


def test_evaluator_is_pure(space: ElasticSpace, data: Dataset, unbroken: tuple[Trained, Path]) -> None:
    evaluator = SupernetEvaluator(unbroken[0].supernet, data)
    a, b = space.sample(np.random.default_rng(0)), space.sample(np.random.default_rng(1))
    first = evaluator.evaluate(a)
    evaluator.evaluate(b)
    assert evaluator.evaluate(a) == first
    assert first.split == "validation"
    assert 0 <= first.accuracy_pct <= 100
    other = SupernetEvaluator(load_supernet(unbroken[1], space), data)
    assert other.key == evaluator.key
    assert other.evaluate(a) == first
    assert SupernetEvaluator(unbroken[0].supernet, data, "test").key != evaluator.key


def test_settings_are_drawn_equally_often(space: ElasticSpace) -> None:
    place = [choice.name for choice in space.choices].index("stage0.block0.mixer")
    values = space.choices[place].values
    drawn = [m.genes[place] for step in range(len(values)) for m in fair_members(space, 3, step, 2)]
    assert all(drawn.count(value) == 2 for value in values)


def test_schedule_rises_and_falls() -> None:
    rates = [learning_rate_at(step, 100, Recipe(warmup=0.2, learning_rate=1.0)) for step in range(100)]
    assert max(rates) == rates[19] == 1.0
    assert rates[:20] == sorted(rates[:20])
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert 0 <= rates[-1] < 0.01


def test_augmentation_is_a_function_of_its_generator(data: Dataset) -> None:
    batches = Batches(data, "train", SIDE, torch.device("cpu"))
    first, second, other = (
        batches.augmented(torch.arange(8), replace(TINY.augmentation, mixup=0.2), 0.1, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first[0][0], second[0][0])
    assert not torch.equal(first[0][0], other[0][0])
    assert torch.allclose(first[1].sum(1), torch.ones(8))
    still = replace(TINY.augmentation, shift=0.0, scale=0.0)
    (plain,), target, labels = batches.augmented(torch.arange(8), still, 0.0, np.random.default_rng(0))
    assert torch.allclose(plain, prepare(data, data.pixels("train", SIDE)[:8], SIDE), atol=1e-5)
    assert torch.equal(target.argmax(1), labels)


WORKER = """
import json, sys, torch
from pathlib import Path
from accelerate import Accelerator
from nas.training.dataset import load_dataset
from nas.spaces.naming import get_space
from nas.spaces.space import Choice
from nas.training.supernet.batches import Batches
from nas.training.supernet.train import Recipe, Training
from nas.training.supernet.weights import Supernet

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # in single precision, rounding grows to 1e-4 by the second step
torch.Tensor.float = torch.Tensor.double
accelerator = Accelerator(cpu=True)
space, data = get_space("hybrid-xs", num_classes=10), load_dataset("digits", images=80)
net = Supernet(space, 10, (32, 32), seed=5)
net.synchronised = accelerator.num_processes > 1
recipe = Recipe(epochs=1, batch=8, learning_rate=1e-3)
training = Training(net, Batches(data, "train", (32, 32), accelerator.device), recipe, 5, accelerator)
order = training.batches.order(5, 0)
losses = [training.step(i, order[8 * i : 8 * i + 8])[0] for i in range(2)]
if accelerator.is_main_process:
    Path(sys.argv[1]).write_text(json.dumps({"processes": accelerator.num_processes, "losses": losses}))
"""


@pytest.mark.slow
def test_two_gloo_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    found = {}
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        together = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            [sys.executable, *together, str(script), str(out)], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found[processes] = json.loads(out.read_text())
    assert found[2]["processes"] == 2
    assert np.allclose(found[1]["losses"], found[2]["losses"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    """As a training leaves them that diverged, or a disk that rots."""
    path = tmp_path / "w.safetensors"
    weights = torch.ones(3, 4, dtype=dtype)
    identity = {"space": "hybrid-s", "classes": 3, "resolution": [32, 32]}
    progress = {"epoch": 1, "epochs": 1, "history": [{}]}
    write_checkpoint(path, Checkpoint("supernet", identity, progress, {"head.weight": weights}))
    assert read_checkpoint(path, "supernet").tensors["head.weight"].dtype == dtype
    weights[1, 2] = value
    write_checkpoint(path, Checkpoint("supernet", identity, progress, {"head.weight": weights}))
    with pytest.raises(ArtifactError, match=r"checkpoint: damaged .*head\.weight holds numbers that are not finite") as caught:
        load_supernet(path, get_space("hybrid-s", num_classes=3))
    assert "\n" not in str(caught.value)


def test_a_header_of_any_length_is_no_pickle(tmp_path: Path) -> None:
    path, lows = tmp_path / "w.safetensors", set()
    for length in range(0, 256, 8):  # the length's low byte takes every value that it can, a pickle's first byte among them
        write_checkpoint(
            path,
            Checkpoint(
                "supernet",
                {"filler": "x" * length, "classes": 1, "resolution": [8, 8]},
                {"epoch": 1, "epochs": 1, "history": [{}]},
                {"a": torch.ones(1)},
            ),
        )
        lows.add(path.read_bytes()[0])
        assert len(read_checkpoint(path, "supernet").identity["filler"]) == length
    assert 0x80 in lows


@pytest.mark.slow
def test_quantised_members_are_scored_as_they_will_run(
    space: ElasticSpace, data: Dataset, unbroken: tuple[Trained, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At fp16 the score is the float one; at so few bits that it must show, a quantised part costs accuracy, and more parts cost more."""
    import nas.quantisation.simulate
    from nas.spaces.precision import PrecisionSpace
    from nas.training.evaluators.quantised import QuantisedEvaluator

    supernet = unbroken[0].supernet
    monkeypatch.setattr(nas.quantisation.simulate, "activation_bits", {"w8a8": 2, "w8a16": 16, "fp16": 0, "fp32": 0}.__getitem__)
    choosing = PrecisionSpace(space, ("fp16", "w8a16", "w8a8"))
    evaluator = QuantisedEvaluator(supernet, data, space=choosing, split="train")
    member = space.extreme(True)
    plain = SupernetEvaluator(supernet, data, split="train").right(member)
    half, word, byte = (evaluator.right(choosing.with_precision(member, p)) for p in ("fp16", "w8a16", "w8a8"))
    assert (half == plain).mean() > 0.98  # a path and an extracted member add in another order
    assert (word == plain).mean() > 0.98
    genes = dict(choosing.describe(choosing.with_precision(member, "fp16"))) | {"stage3.precision": "w8a8"}
    part = evaluator.right(choosing.architecture(list(genes.values())))
    changed = [float((found != plain).mean()) for found in (half, part, byte)]
    assert changed[0] < changed[1] < changed[2]
    assert QuantisedEvaluator(supernet, data, "w8a8").key != QuantisedEvaluator(supernet, data, "w8a16").key != evaluator.key
    assert np.array_equal(QuantisedEvaluator(supernet, data, "w8a8", split="train").right(member), byte)


def test_a_curriculum_sees_low_frequencies_first_and_costs_less() -> None:
    side, curriculum = (224, 224), EfficientTrain()
    assert [curriculum.size(progress, side)[0] for progress in (0.0, 0.59, 0.6, 0.79, 0.8, 1.0)] == [160, 160, 192, 192, 224, 224]
    shares = [curriculum.size(i / 1000, side)[0] ** 2 / 224**2 for i in range(1000)]
    assert 1000 / sum(shares) > 1.5  # the paper's own claim for the time of a training
    x = torch.randn(2, 3, 28, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small = curriculum.shrink(x.float(), (20, 24))
    torch.testing.assert_close(small.mean((2, 3)), x.float().mean((2, 3)))
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(32) / 32).expand(1, 1, 28, 32)  # a low frequency is the same wave on a coarser grid
    expected = torch.cos(2 * torch.pi * 3 * torch.arange(24) / 24).expand(1, 1, 20, 24)
    torch.testing.assert_close(curriculum.shrink(wave, (20, 24)), expected, rtol=0, atol=1e-5)
    assert curriculum.shrink(x, (28, 32)) is x


def test_the_divergence_is_jensens_and_shannons() -> None:
    scores, teacher = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    p, q = scores.softmax(1), teacher.softmax(1)
    m = (p + q) / 2
    expected = 0.5 * ((p * (p / m).log()).sum(1) + (q * (q / m).log()).sum(1))
    torch.testing.assert_close(Ssld().loss(scores, p, q, 1.0), expected)
    assert float(Ssld().loss(scores, p, p, 1.0).abs().max()) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_recipes_train_and_resume_to_the_same_bits(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=2, methods=("efficient-train", "ssld"), random_members=1)
    whole = run(space, data, tmp_path / "a", recipe)
    run(space, data, tmp_path / "b", recipe, stop_after=1)
    assert torch.equal(run(space, data, tmp_path / "b", recipe).supernet.flat, whole.supernet.flat)
    assert "methods" not in TINY.entries
    with pytest.raises(ArtifactError, match="of another training"):
        run(space, data, tmp_path / "b", replace(recipe, methods=("efficient-train",)))


def moment(space: ElasticSpace, step: int, steps: int = 100) -> Moment:
    return Moment(space, step, steps, 3, 2, partial(fair_members, space, 3), lambda member: float(space.lower(member).cost.params))


def test_recipes_choose_the_members_of_a_step(space: ElasticSpace) -> None:
    most = max(len(choice.values) for choice in space.choices)
    counts = {
        "sandwich": 4,
        "single-path": 1,
        "path-importance": 1,
        "fair": most,
        "shared-batch": 4,
        "progressive-shrinking": 4,
        "pareto": 4,
    }
    assert set(counts) == {name for name in recipes.names() if recipes.get(name).aspect == "members"}
    for name, count in counts.items():
        plan = compose([name])
        plan.members.begin(space, 32)
        members = plan.members.members(moment(space, 7))
        assert len(members) == count, name
        assert list(members) == list(plan.members.members(moment(space, 7))), name
        assert plan.teaching.taught is plan.members.teaches
        for member in members:
            space.validate(member)
        if plan.members.teaches:
            assert members[0] == space.at_end(members[0], -1)


def test_strict_fairness_trains_every_setting_of_the_widest_gene_once(space: ElasticSpace) -> None:
    widest = max(range(len(space.choices)), key=lambda i: len(space.choices[i].values))
    members = compose(["fair"]).members.members(moment(space, 5))
    assert sorted(str(m.genes[widest]) for m in members) == sorted(map(str, space.choices[widest].values))


def test_shrinking_opens_settings_from_the_upper_end_one_kind_after_the_other() -> None:
    width, depth = Choice("stage0.width", (1, 2, 3), ordered=True), Choice("stage0.depth", (1, 2), ordered=True)
    kinds = ("depth", "width")
    assert [lowest_open(depth, p, kinds) for p in (0.0, 0.2, 0.3, 0.5, 1.0)] == [1, 1, 1, 0, 0]
    assert [lowest_open(width, p, kinds) for p in (0.0, 0.5, 0.66, 0.79, 0.8, 1.0)] == [2, 2, 1, 1, 0, 0]
    assert lowest_open(Choice("mixer", ("a", "b")), 0.0, kinds) == 0


def test_shrinking_follows_the_schedule_that_a_time_limit_cuts(space: ElasticSpace, data: Dataset) -> None:
    recipe = replace(TINY, epochs=1000, methods=("progressive-shrinking",))
    batches = Batches(data, "train", SIDE, torch.device("cpu"))
    training = Training(Supernet(space, data.num_classes, SIDE), batches, recipe, 0, Accelerator(cpu=True))
    begun = training.members(7, torch.arange(2))[1]
    training.length.steps = 8
    done = training.members(7, torch.arange(2))[1]
    assert begun != space.at_end(begun, 0)
    assert done == space.at_end(done, 0)


def test_recipes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="two decide the members of a step, got 'fair' and 'sandwich'"):
        compose(["fair", "sandwich"])
    with pytest.raises(UsageError, match="ssld needs a teacher, got 'single-path'"):
        compose(["ssld", "single-path"])
    with pytest.raises(UnknownNameError, match="recipe"):
        compose(["sandwhich"])


@pytest.mark.parametrize("methods", [("shared-batch", "low-resolution"), ("pareto",)], ids=",".join)
def test_a_recipe_trains(space: ElasticSpace, data: Dataset, tmp_path: Path, methods: tuple[str, ...]) -> None:
    trained = run(space, data, tmp_path / "a", replace(TINY, epochs=1, random_members=1, methods=methods))
    assert all(np.isfinite(value) for value in trained.history[0].values())
    assert 0 <= trained.history[0]["train_accuracy_pct"] <= 100


def test_a_batch_that_cannot_be_shared_is_refused(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few pictures a step to be shared"):
        run(space, data, tmp_path / "a", replace(TINY, batch=4, methods=("shared-batch",)))


def test_a_schedule_is_cut_to_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("nas.training.supernet.epoch.time.monotonic", lambda: now_s[0])

    def trained(first_s: float, later_s: float) -> Length:
        now_s[0], length = 0.0, Length(100, lambda: 40.0 - now_s[0])
        for step in range(100):
            length.fit(step)
            if step >= length.steps:
                break
            now_s[0] += first_s if step < 10 else later_s
            length.done = step + 1
        return length

    steady, slower = trained(1.0, 1.0), trained(1.0, 3.0)
    assert (steady.done, steady.over) == (40, True)
    assert slower.over
    assert 17 <= slower.done <= 20  # ten steps of a second, then ten of three
    assert (trained(0.1, 0.1).done, trained(50.0, 50.0).done) == (100, 1)


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_schedule_in_sizes_is_cut_by_steps_not_by_time(monkeypatch: pytest.MonkeyPatch, sessions: int) -> None:
    """Half of the steps see half of the side, however little of the time they take; interrupted trainings alike."""
    now_s, pictures = [0.0], compose(["low-resolution"]).pictures
    monkeypatch.setattr("nas.training.supernet.epoch.time.monotonic", lambda: now_s[0])
    seen, percents, step, kept = Counter[int](), list[float](), 0, dict[str, float]()
    for session in range(sessions):
        length = Length(100_000, lambda: 1000.0 - now_s[0], pictures)
        length.go_on(kept, step)
        while True:
            length.fit(step)
            if step >= length.steps or now_s[0] > 1000 * (session + 1) / sessions:
                break
            side, _ = pictures.size(step / length.steps, (32, 32))
            seen[side] += 1
            now_s[0] += (side / 32) ** 2
            step += 1
            percents.append(sum(length.percent(step / length.steps)))
        kept = length.progress
        assert sum(length.percent(length.share)) == pytest.approx(percents[-1], abs=0.1)  # what the next session is told
    assert sum(seen.values()) == pytest.approx(1000 / pictures.cost, rel=0.01)
    assert [seen[side] / step for side in (16, 24, 32)] == pytest.approx([0.5, 0.25, 0.25], abs=0.01)
    assert percents == pytest.approx(sorted(percents), abs=0.01)
    assert percents[-1] == pytest.approx(100, abs=0.1)
    assert percents[step // 2] == pytest.approx(100 * 0.125 / pictures.cost, abs=1)
