"""Sixty mistakes that a person makes: each is one clear line that names the remedy, and its exit code."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas import search
from nas.errors import UsageError
from nas.spaces.naming import get_space
from tests.e2e.conftest import Result
from tests.e2e.test_predict_command import write_model

P = ("predict", "resnet50", "--device", "sa8295p")
S = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "zoo", "--out", "run")
H = ("search", "--device", "sa8295p", "--budget", "5ms", "--space", "hybrid-s", "--out", "run")

MISTAKES: list[tuple[tuple[str, ...], int, str]] = [
    # commands and options
    (("serch",), 2, "Did you mean 'search'"),
    (("device", "list"), 2, "nas --help"),
    (("devices", "lst"), 2, "Did you mean 'list'"),
    (("predict",), 2, "Missing argument"),
    (("predict", "resnet50"), 2, "Missing option '--device'"),
    ((*P, "--presicion", "fp16"), 2, "--precision"),
    ((*P, "--format", "yaml"), 2, "'json'"),
    ((*P, "--format", "JSON"), 2, "'json'"),
    ((*P, "--on", "lower"), 2, "'upper'"),
    (("devices", "list", "--grade", "E"), 2, "'A'"),
    (("devices", "suggest", "mine", "--count", "0"), 2, "greater than or equal to 1"),
    # names
    (("predict", "resnet81", "--device", "sa8295p"), 2, "Did you mean 'resnet18'"),
    (("predict", "resnet5", "--device", "sa8295p"), 2, "Several are called so"),
    (("predict", "vit", "--device", "sa8295p"), 2, "Several are called so"),
    (("predict", "resnet50", "--device", "sa8295q"), 2, "Did you mean 'sa8295p'"),
    (("predict", "resnet50", "--device", "snapdragon"), 2, "Several are called so"),
    (("predict", "resnet50", "--device", "mychip.toml"), 2, "no such file"),
    (("devices", "show", "rtx-4091"), 2, "Did you mean 'rtx-4090'"),
    (("devices", "list", "--vendor", "qualcom"), 2, "Did you mean 'Qualcomm'"),
    (("devices", "list", "mychip"), 2, "nas devices add"),
    (("spaces", "show", "hybird-s"), 2, "Did you mean 'hybrid'"),
    (("spaces", "references", "--system", "RepVG"), 2, "Did you mean 'RepVGG'"),
    (("schema", "predct"), 2, "Did you mean 'predict'"),
    # files
    (("predict", "model.pth", "--device", "sa8295p"), 2, "torch.onnx.export"),
    (("predict", "model.h5", "--device", "sa8295p"), 2, "TFLiteConverter"),
    (("predict", "model.engine", "--device", "sa8295p"), 2, "compiled from"),
    (("predict", "MODEL.ONNX", "--device", "sa8295p"), 2, "endings are written small"),
    (("predict", "nowhere.onnx", "--device", "sa8295p"), 1, "nowhere.onnx"),
    (("predict", "empty.onnx", "--device", "sa8295p"), 1, "empty.onnx"),
    (("predict", "text.onnx", "--device", "sa8295p"), 1, "text.onnx"),
    (("predict", "cut.onnx", "--device", "sa8295p"), 1, "cut.onnx"),
    (("predict", "open.onnx", "--device", "sa8295p"), 1, "--dim"),
    (("predict", "arch.json", "--device", "sa8295p", "--input-shape", "x:1x3x8x8"), 2, "sizes of its own"),
    (("predict", "good.onnx", "--device", "sa8295p", "--input-shape", "1,3,224"), 2, "Expected as many sizes"),
    (("predict", "good.onnx", "--device", "sa8295p", "--input-shape", "x=1x3x8x8"), 2, "Expected NAME:1x3x320x320"),
    (("predict", "good.onnx", "--device", "sa8295p", "--dim", "batch"), 2, "Expected NAME=SIZE"),
    (("predict", "good.onnx", "--device", "sa8295p", "--resolution", "224"), 2, "leave --resolution out"),
    (("show", "good.onnx"), 1, "carries no facts"),
    (("show", "nowhere.onnx"), 1, "no such file"),
    (("show", "nowhere"), 1, "nowhere"),
    (("resume", "nowhere"), 1, "nowhere"),
    (("measure", "nowhere.onnx"), 1, "nowhere.onnx"),
    (("measure", "good.onnx", "--resolution", "224"), 2, "a file has its own"),
    (("measure", "good.onnx", "--threads", "2", "--runner", "time {onnx}"), 2, "got 2 threads beside it"),
    (("measure", "good.onnx", "--device", "local-cuda", "--runner", "time {onnx}"), 2, "got the device 'local-cuda' beside it"),
    (("measure", "good.onnx", "--device", "sa8295p"), 2, "Expected local-cpu or local-cuda"),
    # numbers, budgets, precisions
    ((*P, "--precision", "int4"), 2, "no precision 'int4'"),
    ((*P, "--precision", "fp32"), 2, "no precision 'fp32'"),
    ((*P, "--confidence", "95"), 2, "0.5 to 0.99"),
    ((*P, "--budget", "5"), 2, "with a unit"),
    ((*P, "--budget", "5sec"), 2, "with a unit"),
    ((*P, "--budget", "-5ms"), 2, "must be positive"),
    ((*P, "--budget", "hailo-8:5ms"), 2, "not asked for"),
    ((*P, "--budget", "5ms", "--budget", "6ms"), 2, "keep one of them"),
    (("predict", "resnet50", "--device", "hailo-8", "--budget", "5ms"), 2, "200fps"),
    ((*P, "--resolution", "224"), 2, "leave --resolution out"),
    ((*P, "--profile-hash", "abc"), 2, "HASH of 16 hex digits"),
    ((*P, "--profile-hash", "0" * 16), 1, "look at its estimates again"),
    ((*P, "--compare", "resnet81"), 2, "Did you mean 'resnet18'"),
    # searches and exports
    (("search", "--device", "sa8295p", "--budget", "5ms", "--space", "zo"), 2, "zoo"),
    ((*S, "--evals", "0"), 2, "at least 1"),
    ((*S, "--minimize", "latncy"), 2, "Did you mean 'latency'"),
    ((*H, "--searcher", "nsga4"), 2, "Did you mean"),
    ((*H, "--exporter", "onx"), 2, "Did you mean 'onnx'"),
    ((*S, "--verify", "3"), 2, "--runner"),
    ((*S, "--precision", "w8a8", "--verify", "3", "--runner", "time-it {onnx}"), 2, "nas measure FILE"),
    ((*S, "--precision", "any", "--verify", "3", "--runner", "time-it {onnx}"), 2, "nothing of w8a16 or w8a8 on sa8295p"),
    ((*H[:-3], "hybrid-s@fp16+w8a8", "--verify", "3", "--runner", "time-it {onnx}"), 2, "nothing of w8a8 on sa8295p"),
    ((*S, "--data", "nowhere"), 2, "Or give a folder"),
    (("search", "--device", "sa8295p", "--budget", "5ms", "--space", "zoo", "--evaluator", "alone"), 2, "are not scored afresh"),
    ((*S, "--weights-dir", "mistyped"), 2, "no such folder"),
    (("search", "--device", "sa8295p", "--budget", "1e400ms", "--space", "zoo"), 2, "positive and finite"),
    (
        ("search", "--device", "sa8295p", "--budget", "5ms", "--data", "digits", "--from-scratch", "--anchor", "resnet18"),
        2,
        "--from-scratch forbids published weights, got --anchor",
    ),
    (("search", "--device", "sa8295p", "--device", "SA8295P", "--budget", "5ms", "--space", "zoo"), 2, "given twice"),
    (("export", "arch.json", "--to", "m.onnx"), 2, "--weights"),
    (("export", "arch.json", "--to", "m"), 2, "says no format"),
    (("export", "arch.json", "--to", "m.pb", "--weights", "random"), 2, "nas/exporting/exporters/"),
    (("export", "arch.json", "--to", "good.onnx", "--weights", "random"), 2, "name another or remove it"),
    (("export", "arch.json", "--to", "m.pt2", "--weights", "random", "--input", "bytes"), 2, "leave --input out"),
    (("export", "arch.json", "--to", "m.onnx", "--weights", "random", "--precision", "w8a8"), 2, "--data"),
    (
        (
            "export",
            "arch.json",
            "--to",
            "m.tflite",
            "--weights",
            "random",
            "--precision",
            "w8a8",
            "--data",
            "digits",
            "--quantisation",
            "mse",
        ),
        2,
        "no effect on a file of tflite",
    ),
    ((*H, "--exporter", "tflite", "--precision", "w8a8", "--quantisation", "mse"), 2, "no effect on a file of tflite"),
    (("bench", "latency-transfer", "--table", "x.npz", "--test-devices", "a", "--confidence", "90"), 2, "0.5 to 0.99"),
    (("devices", "calibrate", "Mine!", "--from", "timings.csv"), 2, "lower-case"),
    (("devices", "calibrate", "mine", "--from", "timings.csv"), 2, "timings.csv"),
    (("train", "--space", "zoo"), 2, "no supernet"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that a person might have."""
    room = tmp_path_factory.mktemp("mistakes")
    data = write_model(room / "good.onnx").read_bytes()
    write_model(room / "open.onnx", ("n", 3, "h", "w"))
    (room / "empty.onnx").write_bytes(b"")
    (room / "text.onnx").write_text("<html>not found</html>")
    (room / "cut.onnx").write_bytes(data[: len(data) // 2])
    space = get_space("hybrid-s", num_classes=10, resolution=(64, 64))
    (room / "arch.json").write_text(space.extreme(False).to_json())  # type: ignore[attr-defined]
    return room


def test_there_are_sixty() -> None:
    assert len({words for words, _, _ in MISTAKES}) == len(MISTAKES) >= 60


@pytest.mark.parametrize(("words", "code", "remedy"), MISTAKES, ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "")
def test_a_mistake_is_one_line_with_its_remedy(
    nas: Callable[..., Result], folder: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, remedy: str
) -> None:
    monkeypatch.chdir(folder)
    result = nas(*words)
    assert (result.code, result.out) == (code, ""), result
    assert result.err.startswith("nas: ")
    assert result.err.count("\n") == 1, result.err
    assert "internal error" not in result.err
    assert "Traceback" not in result.err
    assert remedy in result.err


@pytest.mark.parametrize(
    ("device", "budget", "named"), [("sa8295p", 5, "budget: got 5. Expected text, such as '5ms'"), (None, "5ms", "device: got None")]
)
def test_arguments_of_the_wrong_type_are_named(device: Any, budget: Any, named: str) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        search(device, budget)
