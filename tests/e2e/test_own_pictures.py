"""Published networks on a user's pictures, from files of weights that the test makes: probed, fine-tuned, compared, handed over."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from nas.errors import ArtifactError, UsageError
from nas.events import Event, EventBus, Notice, PhaseAdvanced
from nas.runs.clock import clocked
from nas.runs.default_space import decide_space
from nas.runs.directory import RunDirectory
from nas.runs.pace import Pace
from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.runs.teaching import check_teachers, teacher_of
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.pretrained.libraries import build_published
from nas.training.evaluator import Evaluator, Metrics
from nas.training.supernet.teacher import Teacher
from nas.training.transfer.probe import read_probe
from tests.e2e.conftest import Result

NETWORK = "mobileone_s0"
COMMON = ("--device", "sa8295p", "--budget", "5ms", "--space", "zoo", "--resolution", "64", "--finetune-epochs", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_file(build_published(NETWORK).state_dict(), folder / f"{NETWORK}.safetensors")
    (folder / "notes.txt").write_text("no weights")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 15), ("test", 4)):
        for i, name in enumerate(("amber", "blue", "grey")):
            (folder / split / name).mkdir(parents=True)
            for j in range(count):
                colour = np.array([[200, 140, 40], [40, 60, 200], [120, 120, 120]][i])
                pixels = np.clip(colour + rng.normal(0, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{j}.png")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing but the folder: what else is installed on this machine plays no part."""
    monkeypatch.setattr("nas.spaces.pretrained.at_hand.PACKAGES", {})
    monkeypatch.setattr("nas.spaces.pretrained.origins._cached", lambda _name: iter(()))


@pytest.mark.slow
def test_a_run_hands_over_a_tested_file(
    nas: Callable[..., Result], weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch)
    answer = nas("search", *COMMON, "--weights-dir", weights, "--data", photos, "--out", tmp_path / "run", "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert "forecast: " in answer.err
    [row] = found["contenders"]
    assert row["network"] == NETWORK
    assert row["resolution"] == 64
    assert row["pictures"] == 9
    assert row["outcome"].startswith("chosen")
    assert found["chosen"]["accuracy_pct"] == row["accuracy_pct"]
    assert found["by_class"]["pictures"] == [4, 4, 4]
    diagonal = sum(found["by_class"]["confusion"][i][i] for i in range(3))
    assert row["accuracy_pct"] == pytest.approx(100 * diagonal / 12)
    assert found["ledger"]["processor_s"] > 0
    assert {phase["phase"] for phase in found["ledger"]["phases"]} >= {"search", "finetune", "export"}
    file = onnx.load(found["model"])
    props = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(props["classes"]) == ["amber", "blue", "grey"]
    assert json.loads(props["mean"]) == [0.485, 0.456, 0.406]  # what the network was trained with, not the pictures' own
    assert file.graph.input[0].type.tensor_type.shape.dim[-1].dim_value == 64
    assert file.graph.output[0].type.tensor_type.shape.dim[-1].dim_value == 3
    text = (tmp_path / "run" / "table.txt").read_text()
    assert "Published networks on these pictures" in text
    assert "cost: " in text
    again = nas("export", tmp_path / "run", "--to", tmp_path / "again.onnx", "--precision", "w8a8", "--format", "json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["accuracy_pct"] is not None


class Killed(BaseException):
    """Ends a run as a kill does: nothing that the run would do at the end is done."""


@pytest.mark.slow
def test_a_killed_run_ends_as_the_unbroken_one(weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nas
    from nas.runs.lifecycle import resume
    from nas.training.supernet.checkpoint import read_checkpoint

    only(monkeypatch)
    monkeypatch.setattr("nas.training.transfer.tuning.CHECKPOINT_S", 0.0)
    monkeypatch.setattr("nas.runs.transfer_search._EVERY_S", 0.0)
    options = {"space": "zoo", "data": photos, "weights_dir": weights, "resolution": 64, "finetune_epochs": 3}

    def kill(event: Event) -> None:
        if isinstance(event, PhaseAdvanced) and event.phase == "finetune" and event.done >= 20:
            raise Killed

    whole = nas.search("sa8295p", "5ms", out=tmp_path / "a", **options)
    with pytest.raises(Killed):
        nas.search("sa8295p", "5ms", out=tmp_path / "b", bus=EventBus([kill]), **options)
    resumed = resume(tmp_path / "b", EventBus())
    same = ("accuracy_pct", "validation_accuracy_pct", "key")
    assert [getattr(whole.chosen, name) for name in same] == [getattr(resumed.chosen, name) for name in same]
    assert resumed.contenders == whole.contenders
    assert not list((tmp_path / "b").glob("tuning-*"))
    first, second = (read_checkpoint(tmp_path / name / "finetuned.safetensors", "member").tensors for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_the_epochs_that_are_asked_for_bound_a_fine_tuning_that_has_more_time(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nas

    only(monkeypatch)
    monkeypatch.setattr("nas.runs.transfer_times._EXPORT_S", 0.0)
    options = {"space": "zoo", "data": photos, "weights_dir": weights, "resolution": 64, "finetune_epochs": 12, "time_limit": "60s"}
    [row] = nas.search("sa8295p", "5ms", out=tmp_path / "run", **options).contenders
    assert 0 < row.epochs <= 12


@pytest.mark.slow
def test_timings_decide_what_is_fine_tuned(
    nas: Callable[..., Result], weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished run whose choice turns out to be too slow hands over the other network; so does a run that times before it fine-tunes."""
    other, both = "lcnet_050", tmp_path / "weights"
    both.mkdir()
    (both / f"{NETWORK}.safetensors").symlink_to(weights / f"{NETWORK}.safetensors")
    save_file(build_published(other).state_dict(), both / f"{other}.safetensors")
    only(monkeypatch)
    words = ("search", *COMMON, "--weights-dir", both, "--data", photos, "--format", "json")
    done = nas(*words, "--out", run := tmp_path / "run")
    assert done.code == 0, done.err
    slow = json.loads(done.out)["chosen"]["network"]
    assert len(json.loads(done.out)["contenders"]) == 2
    script = tmp_path / "time.py"
    script.write_text(f"import os, sys; print(50.0 if (os.path.getsize(sys.argv[1]) > 3.3e6) == {slow == NETWORK} else 1.0)")
    runner = f"{sys.executable} {script} {{onnx}}"
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["request"] |= {"verify": 2, "runner": runner}
    (run / "manifest.json").write_text(json.dumps(manifest))
    (run / "results.json").unlink()
    waiting = json.loads(nas("resume", run, "--format", "json").out)
    assert "this run asks to execute" in waiting["open"][0]
    assert waiting["chosen"]["network"] == slow
    for answer in (
        nas("resume", run, "--yes", "--format", "json"),
        nas(*words, "--verify", 2, "--runner", runner, "--out", tmp_path / "new"),
    ):
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        [quick] = {NETWORK, other} - {slow}
        assert (found["chosen"]["network"], found["chosen"]["latency_ms"]) == (quick, 1.0)
        assert [point["network"] for point in found["front"]] == [quick]
        assert {row["median_ms"] for row in found["verified"]} == {1.0, 50.0}
        rows = {row["network"]: row for row in found["contenders"]}
        assert rows[slow]["outcome"] == "over a budget by the timings"
        assert rows[quick]["outcome"].startswith("chosen")
        assert found["revision"]["count"] == 2
        assert "1 of 2 candidates are within the budgets" in found["revision"]["line"]
        props = {entry.key: entry.value for entry in onnx.load(found["model"]).metadata_props}
        assert json.loads(props["architecture"]) == found["chosen"]["architecture"]
        assert any(cost["phase"] == "verify" for cost in found["ledger"]["phases"])
    script.write_text("print(50.0)")
    none = json.loads(nas(*words, "--verify", 2, "--runner", runner, "--out", tmp_path / "none").out)
    assert none["chosen"]["latency_ms"] == 50.0
    assert {row["latency_ms"] for row in none["contenders"]} == {50.0}
    assert "do not rely on it" in none["revision"]["line"]
    assert "within the budgets by the timings" not in none["why"]
    assert "by the timings no candidate is within the budgets any more" in none["why"]


@pytest.mark.slow
def test_a_network_that_does_not_beat_its_probe_is_not_shipped(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nas

    only(monkeypatch)
    monkeypatch.setattr("nas.training.transfer.tuning.right_on_validation", lambda *_: np.zeros(9, bool))
    found = nas.search(
        "sa8295p",
        "5ms",
        space="zoo",
        data=photos,
        weights_dir=weights,
        resolution=64,
        finetune_epochs=1,
        precision="w8a8",
        out=tmp_path / "run",
    )
    assert "its probe is shipped" in found.why
    [row] = found.contenders
    assert row.validation_accuracy_pct == 0.0
    assert found.chosen is not None
    [probe] = (tmp_path / "run" / "probes").glob("*.safetensors")
    assert found.chosen.validation_accuracy_pct == pytest.approx(read_probe(probe).accuracy_pct)
    assert row.probe_pictures == 9 + 36  # validation, and training pictures by folds
    assert found.chosen.precision == "w8a8"
    assert found.chosen.float_accuracy_pct is not None


def test_without_weights_or_with_useless_options_it_says_what_to_do(
    refused: Callable[..., str], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch)
    (tmp_path / "empty").mkdir()
    run = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "zoo", "--out", tmp_path / "run")
    assert "no published weights are on this machine" in refused(*run, "--data", photos, "--weights-dir", tmp_path / "empty", code=1)
    assert "no such folder" in refused(*run, "--data", photos, "--weights-dir", tmp_path / "none")
    assert "--evals has no effect" in refused(*run, "--data", photos, "--evals", "3")
    assert "time: cannot be read, got 'soon'" in refused(*run, "--data", photos, "--time-limit", "soon")
    assert "--time-limit has no effect" in refused(*run, "--time-limit", "5min")
    assert not (tmp_path / "run").exists()


def test_without_a_space_weights_at_hand_decide(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch)
    asked = Request(devices=("sa8295p",), data="photos", weights_dir=str(weights))
    assert decide_space(asked)[0] == "zoo"
    assert "mobileone_s0" in decide_space(asked)[1]
    with pytest.raises(ArtifactError, match="no published weights"):
        decide_space(asked.model_copy(update={"weights_dir": str(tmp_path)}))
    name, why = decide_space(Request(devices=("sa8295p",), data="photos"))
    assert name == "residual-s"
    assert "no published weights" in why
    name, why = decide_space(Request(devices=("sa8295p",), data="photos", weights_dir=str(weights), evals=3))
    assert name == "hybrid"
    assert "an option speaks of that" in why
    name, why = decide_space(Request(devices=("sa8295p",), data="photos", from_scratch=True))
    assert name == "residual-s"
    assert "--from-scratch" in why
    assert decide_space(Request(devices=("sa8295p",), data="photos", from_scratch=True, mixers=("pool",)))[0] == "hybrid"
    assert decide_space(Request(devices=("sa8295p",), data="photos", from_scratch=True, epochs=3))[0] == "hybrid"
    with pytest.raises(UsageError, match="--from-scratch forbids published weights, got --weights-dir"):
        decide_space(asked.model_copy(update={"from_scratch": True}))
    assert decide_space(Request(devices=("sa8295p",))) == ("hybrid", "")


class Pupil(Evaluator):
    """A choice that names so many of the validation pictures."""

    key = "pupil"

    def __init__(self, share: float) -> None:
        self.share = share

    def evaluate(self, architecture: Architecture) -> Metrics:
        raise AssertionError(architecture)

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_]:
        return np.arange(9) < 9 * self.share


@pytest.mark.slow
def test_the_best_network_at_hand_teaches_a_choice_that_is_worse(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch)
    asked = Request(devices=("sa8295p",), budgets=("5ms",), space="hybrid-s", resolution="32", data=str(photos), weights_dir=str(weights))
    texts: list[str] = []

    def taught(name: str, request: Request, share: float) -> Teacher | None:
        problem, path = make_problem(request), tmp_path / name
        run = RunDirectory(path) if path.exists() else RunDirectory.create(path, "hybrid", request.model_dump(), {})
        bus = EventBus([lambda event: texts.append(event.text) if isinstance(event, Notice) else None])
        assert isinstance(problem.space, ElasticSpace)
        with clocked(run, None, bus) as clock:
            return teacher_of(run, problem, Pupil(share), problem.space.extreme(False), Pace(request, clock), bus)

    first = taught("a", asked, 0.0)
    assert first is not None
    assert first.name == f"{NETWORK} at 96 px"
    assert first.scores.shape == (36, 3)
    assert f"teacher: {NETWORK} at 96 px, since its probe names" in texts[-1]
    again = taught("a", asked, 1.0)  # decided already
    assert again is not None
    assert again.key == first.key
    np.save(tmp_path / "a" / "teacher.npy", np.zeros((3, 3), dtype=np.float32))
    with pytest.raises(ArtifactError, match=r"teacher.npy is damaged, got an array of \(3, 3\)"):
        taught("a", asked, 0.0)
    assert taught("b", asked, 1.0) is None
    assert "is no better" in texts[-1]
    assert taught("c", asked.model_copy(update={"weights_dir": None}), 0.0) is None
    with pytest.raises(UsageError, match="no such folder"):
        check_teachers(make_problem(asked.model_copy(update={"weights_dir": str(tmp_path / "none")})))


@pytest.mark.slow
def test_from_nothing_one_network_has_all_the_time(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nas
    from nas.runs.lifecycle import resume

    only(monkeypatch)
    monkeypatch.setattr("nas.training.evaluators.zero_cost.POOL", 3)
    monkeypatch.setattr("nas.training.supernet.finetune.CHECKPOINT_S", 0.0)
    monkeypatch.setattr("nas.runs.trainable._picture_s", lambda *_: 1e3)  # only the smallest can be trained
    options = {"data": photos, "from_scratch": True, "finetune_epochs": 4, "evals": 2}

    def kill(event: Event) -> None:
        if isinstance(event, PhaseAdvanced) and event.phase == "finetune" and event.done >= 2:
            raise Killed

    with pytest.raises(Killed):
        nas.search("sa8295p", "5ms", out=tmp_path / "run", bus=EventBus([kill]), **options)
    resumed = resume(tmp_path / "run", EventBus())
    whole = nas.search("sa8295p", "5ms", out=tmp_path / "whole", **options)
    assert resumed.chosen is not None
    assert whole.chosen is not None
    assert resumed.chosen.architecture.space == "residual-s"
    assert resumed.chosen.architecture.genes == whole.chosen.architecture.genes
    assert resumed.chosen.accuracy_pct == whole.chosen.accuracy_pct is not None
    assert resumed.chosen.resolution == 64  # the pictures have 40 pixels
    assert resumed.model is not None
    assert any("size: networks of at most" in line and "the least that there are" in line for line in whole.notices)
    assert any("forecast: " in line and "to train the choice" in line for line in whole.notices)
    assert max(point.macs for point in whole.zoo) > whole.chosen.macs  # the bound is no budget of the user's
    assert whole.scored == "training-free rank"
