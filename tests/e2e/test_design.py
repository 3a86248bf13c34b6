"""The main job on a handful of pictures: every phase, and a kill in each of them."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Result

ROOT = Path(__file__).parents[2]
KEYS = {"run_dir", "status", "chosen", "front", "zoo", "model", "evaluations", "proposals", "seconds"}


def write_pictures(folder: Path, per_class: int = 100, levels: tuple[int, int] = (60, 180)) -> Path:
    """Write light and dark pictures of 16 x 16 pixels, two classes."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, level in zip(("dark", "light"), levels, strict=True):
        (folder / label).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(rng.normal(level, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    import nas.runs.problem
    import nas.runs.trained_search
    from nas.results import Fronts

    monkeypatch.setattr(nas.runs.trained_search, "published_front", lambda _problem: Fronts(front=()))
    monkeypatch.setattr(nas.runs.problem, "larger_preset", lambda *_: "")
    data = write_pictures(tmp_path / "data")
    return [
        *("search", "--device", "sa8295p", "--budget", "5ms", "--data", data, "--resolution", "32", "--evals", "4"),
        *("--searcher", "random", "--epochs", "2", "--finetune-epochs", "2", "--out", tmp_path / "run"),
    ]


@pytest.fixture
def small_words(words: list[object]) -> list[object]:
    """The same in the smallest space that has every kind of part: what a step costs is the weights."""
    return [*words[:-2], "--space", "hybrid-xs", *words[-2:]]


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits whose pictures were read, in the order of reading; a connection fails."""
    from nas.spaces.space import Resolution
    from nas.training.dataset import Dataset, Pixels, Split

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    def noted(self: Dataset, split: Split, resolution: Resolution) -> Pixels:
        order.append(split)
        return pixels(self, split, resolution)

    order: list[str] = []
    pixels = Dataset.pixels
    monkeypatch.setattr(Dataset, "pixels", noted)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return order


@pytest.mark.slow
def test_every_phase(nas: Callable[..., Result], words: list[object], splits: list[str], tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from PIL import Image

    runner = tmp_path / "runner.py"  # what a user would write around adb or ssh
    runner.write_text("import os, sys\nprint(os.path.getsize(sys.argv[1]) / 1e7)\n")
    result = nas(*words, "--input", "bytes", "--verify", "2", "--runner", f"{sys.executable} {runner} {{onnx}}", "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found.keys() >= KEYS
    assert found["status"] == "finished"
    assert set(splits) == {"train", "validation", "test"}
    assert set(splits[splits.index("test") :]) == {"test"}  # what is chosen, tuned and calibrated has not seen them
    assert found["evaluations"] == 4
    assert found["chosen"] in found["front"]
    assert found["chosen"]["upper_ms"] <= 5
    assert found["chosen"]["resolution"] == 32
    assert found["chosen"]["accuracy_pct"] is not None
    assert sum(found["by_class"]["pictures"]) == found["blind"]["pictures"]
    assert all(p["supernet_accuracy_pct"] is not None for p in found["front"])
    assert all(found["seconds"][phase] > 0 for phase in ("train", "search", "finetune", "export"))
    assert any("hybrid-s, since there are" in text for text in found["notices"])
    run = tmp_path / "run"
    assert Path(found["model"]) == run / "model.onnx"
    model = onnx.load(run / "model.onnx")
    facts = {p.key: p.value for p in model.metadata_props}
    assert json.loads(facts["architecture"]) == found["chosen"]["architecture"]
    assert json.loads(facts["classes"]) == ["dark", "light"]
    assert json.loads(facts["devices"])["sa8295p"]["basis"] == found["chosen"]["devices"]["sa8295p"]["basis"]
    assert found["revision"]["count"] == len([row for row in found["verified"] if row.get("median_ms")]) > 0
    assert facts["test_accuracy_pct"] == f"{found['chosen']['accuracy_pct']:.4f}"
    shape = onnxruntime.InferenceSession(str(run / "model.onnx")).get_inputs()[0].shape
    assert shape == [1, 3, 32, 32]
    assert json.loads((run / "architecture.json").read_text()) == found["chosen"]["architecture"]
    assert json.loads(nas("resume", run, "--format", "json").out) == found
    assert "choice:" in nas("show", run).out
    check_verified(found)
    assert facts["input"] == "NCHW float32, RGB in 0…255"
    assert "mean" not in facts
    assert nas("export", run, "--to", tmp_path / "unit.onnx", "--input", "unit").code == 0
    assert nas("export", run, "--to", tmp_path / "plain.onnx").code == 0
    picture = np.asarray(Image.open(tmp_path / "data" / "light" / "0.png").resize((32, 32)), np.float32).transpose(2, 0, 1)[None]
    plain = {p.key: p.value for p in onnx.load(tmp_path / "plain.onnx").metadata_props}
    assert "peak" not in plain
    mean, std = (np.array(json.loads(facts["normalisation"])[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    inputs = {"run/model": picture, "unit": picture / 255, "plain": (picture / 255 - mean) / std}
    sessions = {name: onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in inputs}
    scores = [sessions[name].run(None, {"input": x.astype(np.float32)})[0] for name, x in inputs.items()]
    assert all(np.allclose(scores[0], other, rtol=1e-4, atol=1e-4) for other in scores[1:])
    assert scores[0].argmax() == 1
    script = tmp_path / "classify.py"
    page = (ROOT / "docs" / "how-to" / "your-pictures.md").read_text(encoding="utf-8")
    script.write_text(page.partition('title="classify.py"\n')[2].partition("```")[0], encoding="utf-8")
    for name in ("run/model", "plain"):
        command = [sys.executable, script, tmp_path / f"{name}.onnx", tmp_path / "data" / "light" / "0.png"]
        assert "0.png: light (" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_choice_that_its_timings_forbid(nas: Callable[..., Result], small_words: list[object]) -> None:
    runner = f'{sys.executable} -c "print(500.0)" {{onnx}}'
    answer = nas(*small_words, "--verify", "9", "--runner", runner, "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert {point["latency_ms"] for point in found["front"]} == {500.0}
    assert found["chosen"] in found["front"]
    assert "by the timings no candidate is within the budgets any more" in found["why"]
    assert "do not rely on it" in found["revision"]["line"]
    assert json.loads(nas("resume", found["run_dir"], "--format", "json").out) == found


def check_verified(found: dict[str, Any]) -> None:
    """Two finalists were measured, each is told whether its estimate held; the front has the device's word for them."""
    assert len({row["key"] for row in found["verified"]}) == 2
    points = {point["key"]: point for point in found["front"]}
    assert points.keys() & {row["key"] for row in found["verified"]}
    for row in found["verified"]:
        assert f"{row['median_ms']:.3g} ms measured on" in row["line"]
        assert f"({row['error_pct']:+.0f} %)" in row["line"]
        assert ("inside the interval" in row["line"]) == row["inside"]
        if (point := points.get(row["key"])) is not None:
            assert (point["latency_ms"], point["devices"]["sa8295p"]["basis"]) == (row["median_ms"], "measured")


@pytest.mark.slow
def test_resuming_gives_the_run_that_would_have_been(
    nas: Callable[..., Result], small_words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.events import PhaseAdvanced
    from nas.runs.directory import StatusFile

    words = small_words
    whole = json.loads(nas(*words, "--format", "json").out)
    listen = StatusFile.__call__
    stops = iter([("train", 1), ("search", 1), ("search", 3), ("finetune", 1), ("export", None)])
    stop = next(stops)

    def interrupted(self: StatusFile, event: object) -> None:
        listen(self, event)  # type: ignore[arg-type]
        if isinstance(event, PhaseAdvanced) and stop is not None and event.phase == stop[0] and stop[1] in (None, event.done):
            raise KeyboardInterrupt

    monkeypatch.setattr(StatusFile, "__call__", interrupted)
    run = tmp_path / "cut"
    words[-1] = run
    result = nas(*words)
    while stop is not None:
        assert result.code == 1, stop
        shown = json.loads(nas("show", run, "--format", "json").out)
        assert shown["status"] == "interrupted"
        assert shown["phase"] == stop[0]
        assert shown["evaluations"] == {"train": 0, "search": stop[1]}.get(stop[0], 4)
        assert bool(shown["front"]) == (stop[0] not in ("train",) and stop != ("search", 1))
        stop = next(stops, None)
        result = nas("resume", run, "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [p["architecture"] for p in found["front"]] == [p["architecture"] for p in whole["front"]]
    assert [p["supernet_accuracy_pct"] for p in found["front"]] == [p["supernet_accuracy_pct"] for p in whole["front"]]
    assert found["chosen"]["accuracy_pct"] == whole["chosen"]["accuracy_pct"]
    assert (run / "supernet.safetensors").read_bytes() == (tmp_path / "run" / "supernet.safetensors").read_bytes()


SMALL_RUN = """
import os, sys, threading
import nas.runs.problem
import nas.runs.trained_search
from nas.cli import main
from nas.events import PhaseAdvanced, PhaseStarted
from nas.results import Fronts
from nas.runs.directory import StatusFile
nas.runs.trained_search.published_front = lambda _problem: Fronts(front=())
nas.runs.problem.larger_preset = lambda *_: ""
record, moment = StatusFile.__call__, os.environ.get("HOLD_AT")

def held(self, event):
    record(self, event)
    if isinstance(event, PhaseStarted | PhaseAdvanced) and f"{event.phase}:{event.done}" == moment:
        threading.Event().wait()  # to be killed

StatusFile.__call__ = held
main(sys.argv[1:])
"""
"""A run of the command line that stands still when it has recorded the progress that HOLD_AT names (``train:1``)."""


@pytest.mark.slow
def test_kill_9_and_resume(nas: Callable[..., Result], words: list[object], tmp_path: Path) -> None:
    """Killed when `nas show` says so: before and between epochs, and between evaluations."""
    import os
    import subprocess
    import time

    words[words.index("--epochs") + 1] = "3"

    def begin(moment: str, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SMALL_RUN, *map(str, arguments)]
        environment = {**os.environ, "HOLD_AT": moment}
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=environment)

    whole = json.loads(nas(*words, "--format", "json").out)
    run = tmp_path / "killed"
    words[-1] = run
    arguments = words
    for phase, done in (("train", 0), ("train", 2), ("search", 2)):
        process = begin(f"{phase}:{done}", *arguments)
        try:
            status: dict[str, Any] = {}
            while (status.get("status"), status.get("phase"), status.get("done")) != ("running", phase, done):
                assert process.poll() is None, f"ended before {phase} was at {done}"
                time.sleep(0.1)
                shown = nas("show", run, "--format", "json")
                status = json.loads(shown.out) if shown.code == 0 else {}
        finally:
            process.kill()  # SIGKILL
            process.wait()
        assert json.loads(nas("show", run, "--format", "json").out)["status"] == "interrupted"
        arguments = ["resume", run]
    assert begin("", *arguments).wait(timeout=600) == 0
    found = json.loads(nas("show", run, "--format", "json").out)
    same = ("architecture", "supernet_accuracy_pct", "accuracy_pct", "trial")
    assert [[p[key] for key in same] for p in found["front"]] == [[p[key] for key in same] for p in whole["front"]]
    assert (found["evaluations"], found["proposals"]) == (whole["evaluations"], whole["proposals"])
    for name in ("supernet.safetensors", "finetuned.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (("--budget", "0.05ms"), 1, "nearest miss is"),
        (("--data", "nowhere"), 2, "data: unknown name, got 'nowhere'"),
        (("--searcher", "guidd"), 2, "Did you mean 'guided'"),
        (("--supernet", "nowhere.safetensors"), 1, "No such file"),
        (("--verify", "2"), 2, "cannot be measured from here"),
        (("--space", "hybrid-xl"), 2, "hybrid-xl"),
        (("--resolution", "33"), 2, "resolution"),
    ],
)
def test_bad_input(refused: Callable[..., str], tmp_path: Path, change: tuple[str, str], code: int, message: str) -> None:
    words: list[object] = ["search", "--device", "sa8295p", "--budget", "5ms", "--out", tmp_path / "run"]
    if change[0] in words:
        words[words.index(change[0]) + 1] = change[1]
    else:
        words += change
    assert message in refused(*words, code=code)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(b"PK\x03\x04" + bytes(64), "a pickle"), (b"\x80\x02}", "a pickle"), (bytes(100), "damaged or foreign")]
)
def test_a_checkpoint_that_is_none(refused: Callable[..., str], tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    assert message in refused("search", "--device", "sa8295p", "--budget", "5ms", "--supernet", path, "--out", tmp_path / "run", code=1)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_one_class(refused: Callable[..., str], tmp_path: Path) -> None:
    import shutil

    data = write_pictures(tmp_path / "data", 4)
    shutil.rmtree(data / "light")
    assert "class" in refused("search", "--device", "sa8295p", "--budget", "5ms", "--data", data, "--out", tmp_path / "run", code=1)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["any", "w8a8"])
def test_precision_is_chosen_scored_and_exported(
    nas: Callable[..., Result], refused: Callable[..., str], words: list[object], tmp_path: Path, precision: str
) -> None:
    import onnx

    from nas.graphs.frontends.onnx_file import read_onnx

    result = nas(*words, "--precision", precision, "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    run, chosen = tmp_path / "run", found["chosen"]
    facts = {p.key: p.value for p in onnx.load(run / "model.onnx").metadata_props}
    graph = read_onnx(run / "model.onnx")
    assert facts["test_accuracy_pct"] == f"{chosen['accuracy_pct']:.4f}"
    if precision == "w8a8":
        assert {p["precision"] for p in found["front"]} == {"w8a8"}
        assert graph.precisions >= {"w8a8"}
        assert found["sensitivity_db"]
    else:
        assert chosen["architecture"]["space"] == "hybrid-s@fp16+w8a16+w8a8"
        assert chosen["precision"] in ("fp16", "w8a16", "w8a8", "mixed")
        assert len({p["precision"] for p in found["front"]} | {"?"}) > 1
    assert json.loads(nas("resume", run, "--format", "json").out) == found
    assert "choice:" in nas("show", run).out
    if precision == "w8a8":
        assert nas("export", run, "--to", tmp_path / "again.onnx", "--quantisation", "minmax").code == 0
        assert {p.key: p.value for p in onnx.load(tmp_path / "again.onnx").metadata_props}["quantisation"] == "minmax"
    predicted = json.loads(nas("predict", run / "architecture.json", "--device", "sa8295p", "--resolution", "32", "--format", "json").out)
    if precision == "any":
        check_all_precisions(nas, refused, run, tmp_path, predicted)
        assert predicted["latency_ms"] == pytest.approx(chosen["latency_ms"], rel=0.02)  # without the classes of the data
        assert predicted["precision"] == chosen["precision"]


def check_all_precisions(
    nas: Callable[..., Result], refused: Callable[..., str], run: Path, tmp_path: Path, predicted: dict[str, Any]
) -> None:
    """Every precision has a file of its own size and flag; a file that is there is never written over."""
    from nas.graphs.frontends.onnx_file import read_onnx

    table = json.loads(nas("export", run, "--to", tmp_path / "all.onnx", "--precision", "all", "--format", "json").out)
    assert [row["precision"] for row in table["precisions"]] == ["fp16", "w8a16", "w8a8", "mixed"]
    sizes = {row["precision"]: row["size_bytes"] for row in table["precisions"]}
    assert sizes["w8a8"] < sizes["mixed"] < 2 * sizes["fp16"]
    assert all(row["accuracy_pct"] is not None for row in table["precisions"])
    flags = {row["precision"]: row["extrapolated"] for row in table["precisions"]}
    assert flags[predicted["precision"]] == predicted["extrapolated"]
    files = {path: path.read_bytes() for path in tmp_path.glob("all-*.onnx")}
    files.pop(tmp_path / "all-fp16.onnx")
    (tmp_path / "all-fp16.onnx").rename(tmp_path / "kept.onnx")
    assert "all-w8a16.onnx exists" in refused("export", run, "--to", tmp_path / "all.onnx", "--precision", "all")
    assert {path: path.read_bytes() for path in tmp_path.glob("all-*.onnx")} == files
    (tmp_path / "kept.onnx").rename(tmp_path / "all-fp16.onnx")
    assert read_onnx(tmp_path / "all-fp16.onnx").cost.macs == read_onnx(run / "model.onnx").cost.macs
