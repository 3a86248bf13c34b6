import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.graphs import workloads
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from tests.e2e.conftest import Result
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
pytestmark = pytest.mark.usefixtures("tiny_plugins")
KEYS = {"device", "precision", "runtime", "quantity", "batch", "latency_ms", "lower_ms", "upper_ms", "confidence", "basis"}
KEYS |= {"extrapolated", "unsupported", "macs", "params", "operators"}


@pytest.fixture
def device(tmp_path: Path) -> Path:
    return write_device(tmp_path)


def predict(nas: Callable[..., Result], *words: object) -> dict[str, object]:
    result = nas("predict", *words, "--format", "json")
    assert result.code == 0, result.err
    found: dict[str, object] = json.loads(result.out)
    assert found.keys() >= KEYS
    return found


def test_reference_by_name(nas: Callable[..., Result], device: Path) -> None:
    found = predict(nas, "resnet18", "--device", device)
    assert found["macs"] == workloads.describe("resnet18").macs == 1814073344
    assert found["latency_ms"] == pytest.approx(1814.073344)
    assert found["basis"] == "estimated"
    assert found["operators"]
    assert (found["precision"], found["quantity"], found["batch"]) == ("fp16", "latency", 1)
    assert predict(nas, "resnet18", "--device", device, "--precision", "w8a8")["latency_ms"] == pytest.approx(907.036672)


def test_a_timing_of_the_device_goes_first(nas: Callable[..., Result], device: Path) -> None:
    device.write_text(device.read_text().replace("[precisions.w8a8]", "[precisions.fp16.timings_ms]\nresnet18 = 1.25\n[precisions.w8a8]"))
    found = predict(nas, "resnet18", "--device", device)
    assert (found["latency_ms"], found["basis"]) == (1.25, "measured")
    assert found["lower_ms"] < 1.25 < found["upper_ms"]
    assert found["repeats_within_pct"] is None
    out = nas("predict", "resnet18", "--device", device).out
    assert "1.25 ms measured" in out
    assert "how well timings repeat on this device is unknown" in out
    device.write_text(device.read_text().replace("[precisions.fp16]\n", "[precisions.fp16]\nrepeats_within_pct = 0.1\n"))
    again = predict(nas, "resnet18", "--device", device)
    assert again["repeats_within_pct"] == 0.1
    assert found["lower_ms"] < again["lower_ms"] < 1.25 < again["upper_ms"] < found["upper_ms"]
    assert "on this device is unknown" not in nas("predict", "resnet18", "--device", device).out


def test_published_networks_are_priced_in_the_form_that_was_timed(nas: Callable[..., Result]) -> None:
    profile = load_profile("rtx-3090")  # fitted to networks as timm builds them
    model = load_predictor(profile, "fp16")
    found = predict(nas, "resnet50", "--device", "rtx-3090")
    assert found["latency_ms"] == model.estimate(workloads.load_as_written("resnet50"), profile, "fp16").latency_ms
    assert found["latency_ms"] > model.estimate(workloads.load("resnet50"), profile, "fp16").latency_ms
    assert found["macs"] == workloads.describe("resnet50").macs

    space, targets = get_space("zoo"), load_targets(["i9-10940x"])
    judge = Judge(space, make_goal(targets, ["1000ms"]), targets)
    timed = targets[0].profile.at("fp32").timings_ms
    architecture = next(a for a in space.enumerate() if space.timed_as(a) not in timed)
    priced = targets[0].predictor.estimate(workloads.load_as_written(space.timed_as(architecture)), targets[0].profile, "fp32")
    assert judge.verdicts([architecture])[0].estimates["i9-10940x"].latency_ms == pytest.approx(priced.latency_ms, rel=1e-6)
    assert judge.estimates(architecture)["i9-10940x"].latency_ms == pytest.approx(priced.latency_ms, rel=1e-6)


def test_architecture_file(nas: Callable[..., Result], device: Path, tmp_path: Path) -> None:
    path = tmp_path / "arch.json"
    path.write_text(Architecture("tiny-published", 1, (8, "Relu")).to_json())
    assert predict(nas, path, "--device", device)["macs"] == 8 * 27 * 32 * 32
    assert predict(nas, path, "--device", device, "--resolution", "16x32")["macs"] == 8 * 27 * 16 * 32
    path.write_text(Architecture("tiny-published", 1, (8, "FancyOp")).to_json())
    assert predict(nas, path, "--device", device)["unsupported"] == ["FancyOp"]
    assert "FancyOp" in nas("predict", path, "--device", device).out


def test_breakdown_is_printed(nas: Callable[..., Result], device: Path) -> None:
    out = nas("predict", "resnet18", "--device", device, "--breakdown").out
    assert "by kind of operator" in out
    assert "layer4" in out


@pytest.mark.parametrize(
    ("subject", "code", "message"),
    [
        ("resnet81", 2, "Did you mean 'resnet18'"),
        ("nowhere.json", 1, "cannot be read (No such file"),
        ("nowhere.onnx", 1, "nowhere.onnx"),
        ("resnet18 --precision int4", 2, "no precision 'int4'"),
        ("resnet18 --resolution 128", 2, "has its own"),
        ("resnet18 --confidence 2", 2, "confidence: out of range"),
    ],
)
def test_bad_input(refused: Callable[..., str], device: Path, subject: str, code: int, message: str) -> None:
    assert message in refused("predict", *subject.split(), "--device", device, code=code)


@pytest.mark.parametrize("text", ["{", '{"space": "tiny-published"}', '{"space": "tiny-published", "version": 9, "genes": [8, "Relu"]}'])
def test_a_bad_architecture_is_one_line(refused: Callable[..., str], device: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "arch.json"
    path.write_text(text)
    assert "architecture" in refused("predict", path, "--device", device)


def test_a_device_without_a_model(refused: Callable[..., str], device: Path) -> None:
    device.write_text(device.read_text().replace('predictor = "tiny-macs"', ""))
    assert "no latency predictor is fitted" in refused("predict", "resnet18", "--device", device)


def test_references_are_listed_with_integers(nas: Callable[..., Result], refused: Callable[..., str]) -> None:
    rows = json.loads(nas("spaces", "references", "--format", "json").out)
    assert all(row.keys() >= {"name", "system", "space", "params", "macs", "resolution"} for row in rows)
    assert all(type(row["params"]) is int and type(row["macs"]) is int for row in rows)
    assert {"repvgg_a0"} <= {row["name"] for row in rows}
    assert "Did you mean 'RepVGG'" in refused("spaces", "references", "--system", "RepVG")


def write_model(path: Path, shape: tuple[object, ...] = (1, 3, 8, 8), inner: bool = True) -> Path:
    """Write one convolution; `inner` says the shape of what it makes."""
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, (4, 3, 3, 3), [0.0] * 108)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape) if inner else None)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(helper.make_graph([node], "g", [taken], [made], [weight]), opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path)
    return path


def test_a_model_file(nas: Callable[..., Result], device: Path, tmp_path: Path) -> None:
    found = predict(nas, write_model(tmp_path / "m.onnx"), "--device", device)
    assert found["macs"] == 8 * 8 * 4 * 27
    assert found["params"] == 108
    assert found["operators"][0]["op"] == "Conv"  # type: ignore[index]


@pytest.mark.parametrize("fault", ["truncated", "empty", "dynamic", "no shapes", "text"])
def test_a_bad_model_file_is_one_line(refused: Callable[..., str], device: Path, tmp_path: Path, fault: str) -> None:
    path = tmp_path / "m.onnx"
    if fault == "dynamic":
        write_model(path, ("n", 3, "h", "w"))
    elif fault == "no shapes":
        write_model(path, inner=False)
    else:
        data = write_model(path).read_bytes()
        path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"no model"}[fault])
    assert "m.onnx" in refused("predict", path, "--device", device, code=1)
