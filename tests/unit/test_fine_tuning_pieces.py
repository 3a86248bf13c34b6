"""Pieces of fine-tuning published networks: the probe, the schedule that survives a kill, successive halving, the clock."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.errors import ArtifactError, TrainingError, UsageError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.report.results import with_interval
from nas.runs.clock import Clock, moment
from nas.runs.directory import RunDirectory
from nas.runs.forecast import TrainingForecast
from nas.spaces.pretrained.classifier import classifier_of, replace_classifier
from nas.training.dataset import Dataset, load_dataset
from nas.training.supernet.batches import Batches
from nas.training.transfer.halving import halve
from nas.training.transfer.probe import fit_linear, probe, probed, read_probe, write_probe
from nas.training.transfer.recipe import TransferRecipe, transfer_recipe
from nas.training.transfer.tuning import Tuning, keeps_norms
from nas.units import parse_duration, write_duration

SIZE = (16, 16)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits", images=160).normalised_by((0.5,) * 3, (0.5,) * 3)


def network(classes: int = 10) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(16, classes)).eval()


def test_the_classifier_is_the_last_linear_layer_and_takes_other_classes() -> None:
    module = network(1000)
    assert classifier_of(module, (1, 3, 32, 32)) == "7"
    replace_classifier(module, "7", 4)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(UsageError, match="takes no other classes"):
        classifier_of(nn.Sequential(nn.Conv2d(3, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (1, 3, 8, 8))
    with pytest.raises(UsageError, match="takes no other classes"):
        classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1)), (1, 3, 2, 2))


@pytest.mark.parametrize("classes", [2, 3, 24])
def test_a_linear_fit_separates_what_is_separable(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60 if classes < 10 else 120) % classes
    x = torch.from_numpy((10 * np.eye(classes)[labels] + rng.normal(size=(len(labels), classes)) + 100).astype(np.float32))
    weight, bias, crossed = fit_linear(x, labels, classes)
    assert weight.shape == (classes, classes)
    assert ((x @ weight.T + bias).argmax(1).numpy() == labels).all()
    assert crossed.all()
    assert crossed.shape == labels.shape


def test_a_probe_is_judged_by_folds_to_which_it_was_not_fitted() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(200) % 2)
    noise = torch.from_numpy(rng.normal(size=(200, 300)).astype(np.float32))  # more features than pictures: any labels are fitted
    weight, bias, crossed = fit_linear(noise, labels, 2)
    assert ((noise @ weight.T + bias).argmax(1).numpy() == labels).mean() > 0.9
    assert 0.35 < crossed.mean() < 0.65
    assert len(fit_linear(noise[:3], np.array([0, 0, 1]), 2)[2]) == 0  # one picture of a class


def test_a_probed_network_says_what_its_probe_said(digits: Dataset, tmp_path: Path) -> None:
    train, validation = (Batches(digits, split, SIZE, torch.device("cpu")) for split in ("train", "validation"))
    found = probe(network(), "7", train, validation, pictures=64)
    write_probe(tmp_path / "p" / "a.safetensors", found)
    again = read_probe(tmp_path / "p" / "a.safetensors")
    ready = probed(network(), "7", again)
    with torch.no_grad():
        right = np.concatenate([(ready(x).argmax(1) == y).numpy() for x, y in validation.plain(64)])
    assert (right == found.right).all()
    assert (again.crossed == found.crossed).all()
    assert len(found.crossed) == 64
    assert found.accuracy_pct > 30  # ten classes; features of random weights tell digits apart to some degree
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(ArtifactError, match="damaged"):
        read_probe(tmp_path / "bad.safetensors")


RECIPE = TransferRecipe(epochs=2, batch=16, learning_rate=2e-3, warmup=0.1)


def tuning(digits: Dataset, path: Path, recipe: TransferRecipe = RECIPE, steps: int = 12) -> Tuning:
    return Tuning(network(), digits, SIZE, path, recipe, steps, '{"space": "x"}')


def test_a_killed_training_goes_on_as_if_it_had_not_been(digits: Dataset, tmp_path: Path) -> None:
    whole = tuning(digits, tmp_path / "a")
    whole.advance(12)
    for until in (5, 6, 12):  # each in a new object, as in a new process
        broken = tuning(digits, tmp_path / "b")
        broken.advance(until)
    assert broken.step == whole.step == 12
    assert broken.history == whole.history
    for (name, a), b in zip(whole.averaged().state_dict().items(), broken.averaged().state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_of_another_training_is_refused(digits: Dataset, tmp_path: Path) -> None:
    tuning(digits, tmp_path / "a").advance(1)
    with pytest.raises(ArtifactError, match="another training"):
        tuning(digits, tmp_path / "a", TransferRecipe(batch=8))


def test_frozen_norms_stay_and_others_are_taken_anew(digits: Dataset, tmp_path: Path) -> None:
    frozen = tuning(digits, tmp_path / "a", TransferRecipe(batch=16, frozen_norms=True))
    frozen.advance(3)
    assert torch.equal(frozen.averaged()[1].running_mean, network()[1].running_mean)  # type: ignore[index, union-attr]
    anew = tuning(digits, tmp_path / "b")
    anew.advance(3)
    assert not torch.equal(anew.averaged()[1].running_mean, network()[1].running_mean)  # type: ignore[index, union-attr]


def test_norms_stay_where_own_statistics_cost_much(digits: Dataset) -> None:
    module = network()
    train, validation = (Batches(digits, split, SIZE, torch.device("cpu")) for split in ("train", "validation"))
    found = probe(module, "7", train, validation)
    ready = probed(module, "7", found)
    assert keeps_norms(copy.deepcopy(ready), digits, SIZE, np.ones_like(found.right))  # as if it had been right everywhere
    assert not keeps_norms(copy.deepcopy(ready), digits, SIZE, np.zeros_like(found.right))
    norm = ready.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    keeps_norms(ready, digits, SIZE, found.right)
    assert norm.running_mean is not None
    assert not torch.equal(norm.running_mean, torch.zeros(8))


def test_a_loss_that_is_no_number_stops_the_training(digits: Dataset, tmp_path: Path) -> None:
    broken = tuning(digits, tmp_path / "a")
    with torch.no_grad():
        broken.module[0].weight.fill_(float("nan"))  # type: ignore[index, operator, union-attr]
    with pytest.raises(TrainingError, match="diverged at step 1"):
        broken.advance(2)


def test_a_schedule_is_cut_to_the_time_that_is_left(digits: Dataset, tmp_path: Path) -> None:
    timed = tuning(digits, tmp_path / "a", steps=10_000)
    timed.step, timed.seconds = 100, {SIZE: 0.5}
    timed.fit_into(60.0)
    assert 0.9 * 60 <= timed.forecast_s(timed.steps) <= 60
    assert timed.steps > 110
    timed.fit_into(60.0, 110 / timed.epoch_steps)
    assert timed.steps == 110
    for most_epochs in (math.inf, 1 / timed.epoch_steps):
        timed.fit_into(0.0, most_epochs)
        assert timed.steps == 101


def test_pictures_grow_to_the_deployment_size() -> None:
    recipe = transfer_recipe(8000, 6)
    sizes = [recipe.size_at(step, 100, (128, 192)) for step in range(100)]
    assert sizes[0] == (96, 128)
    assert sizes[50:] == [(128, 192)] * 50
    assert sizes == sorted(sizes)
    assert recipe.size_at(0, 100, (20, 20)) == (20, 20)
    assert transfer_recipe(8000, 40).augmentation.mixup > recipe.augmentation.mixup


def test_halving_keeps_the_better_half_and_survives_a_failure() -> None:
    worth = {"a": 3, "b": 5, "c": 8, "d": 7}
    trained: list[tuple[str, int]] = []
    lost: list[str] = []

    def train(name: str, rung: int) -> np.ndarray:
        trained.append((name, rung))
        if name == "d":
            raise TrainingError("diverged")
        return np.arange(10) < worth[name]

    found, left = halve(["a", "b", "c", "d"], train, dropped=lambda name, _: lost.append(name))
    assert left == ("c", "b")
    assert lost == ["d"]
    assert trained == [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("c", 1), ("b", 1)]
    assert found["a"].sum() == 3
    with pytest.raises(TrainingError, match="diverged"):
        halve(["d", "d"], train)
    assert halve(["a"], train)[1] == ("a",)


def test_the_clock_outlasts_the_process(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "x", {}, {})
    first = Clock(run, 100.0)
    first.say({"race": 10.0, "finetune": 20.0})
    first(PhaseStarted("race", 2))
    first(PhaseAdvanced("race", 1))
    first(PhaseFinished("race", 0.0))
    saved = run.read("clock.json")
    assert saved is not None
    second = Clock(run, 100.0)
    second.say({"race": 99.0})  # what was said first stays
    ledger = second.ledger
    assert ledger.seconds > saved["seconds"] > 0
    assert second.left_s < 100
    assert [(cost.phase, cost.forecast_s) for cost in ledger.phases] == [("race", 10.0), ("finetune", 20.0)]
    assert ledger.forecast_s is not None
    assert ledger.forecast_s >= 30
    assert Clock(run, None).left_s == float("inf")


def test_the_clock_counts_what_was_before_the_run(tmp_path: Path) -> None:
    run, (now_s, now_cpu_s) = RunDirectory.create(tmp_path / "run", "x", {}, {}), moment()
    for _ in range(2):  # sessions, each of which reads the data
        Clock(run, None, (now_s - 30.0, now_cpu_s - 20.0)).save()
    clock = Clock(run, 100.0)
    assert clock.left_s == pytest.approx(40.0, abs=1.0)
    assert clock.ledger.processor_s == pytest.approx(40.0, abs=1.0)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5h", 5400), (" 2 m ", 120)])
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0s", "-5min", "5 days", "inf s"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Expected 90s, 30min or 2h"):
        parse_duration(text)


def test_durations_and_intervals_are_written_for_people() -> None:
    assert [write_duration(s) for s in (45, 1500, 7500)] == ["45 s", "25 min", "2.1 h"]
    assert with_interval(67.4, 408) == "67.4 ± 4.5"
    assert with_interval(None, 408) == ""


def test_a_training_from_nothing_is_forecast_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now_s, said = [0.0], list[str]()
    monkeypatch.setattr("nas.runs.forecast.time.monotonic", lambda: now_s[0])
    bus = EventBus([lambda event: said.append(event.text) if isinstance(event, Notice) else None])
    bus.listeners.append(TrainingForecast(bus, 0.02, 120, Clock(RunDirectory(tmp_path), None)))
    bus.emit(PhaseStarted("train", 10))
    for now_s[0], part in ((2.0, 0.01), (8.0, 0.11), (14.0, 0.21)):
        bus.emit(PhaseAdvanced("train", 0, part=part))
    assert len(said) == 1
    assert "forecast: 12 min on this machine" in said[0]  # 60 s an epoch but for its slow start: ten of them, and 120 scores of 1.2 s
    assert "10 min to train 10 epochs" in said[0]
    assert "2 min for 120 scores" in said[0]


def test_a_forecast_of_a_limit_that_is_spent_is_not_below_zero(tmp_path: Path) -> None:
    said = list[str]()
    bus = EventBus([lambda event: said.append(event.text) if isinstance(event, Notice) else None])
    clock = Clock(RunDirectory(tmp_path), 1e-6)  # spent at once
    bus.listeners.append(TrainingForecast(bus, 0.02, 120, clock))
    bus.emit(PhaseStarted("train", 10))
    assert "forecast: 0 s from here" in said[0]
    assert " -" not in said[0]
    assert all(cost.forecast_s == 0 for cost in clock.ledger.phases)
