"""Measurements say what the device said, and refuse what is none."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from nas.devices.measure import Measurement, measure_graph, measure_in_turn, measure_onnx, measure_with_runner, runner_samples, trusted
from nas.errors import MeasurementError, UsageError
from nas.graphs.graph import Graph, GraphBuilder
from nas.graphs.onnx_session import onnx_session
from nas.graphs.onnx_writer import write_onnx


def tiny(channels: int = 8) -> Graph:
    b = GraphBuilder("tiny")
    x = b.conv(b.input((1, 3, 32, 32)), channels, 3, activation="Relu")
    return b.build(b.gemm(b.flatten(b.global_pool(b.conv(x, channels, 3))), 10))


def timed(graph: Graph) -> Measurement:
    """A busy machine refuses honestly: try a few times before giving up on it."""
    for _ in range(5):
        try:
            return measure_graph(graph, lambda path: measure_onnx(path, most_s=2.0))
        except MeasurementError as error:
            assert "spread too far" in str(error)  # noqa: PT017 - nothing else may be wrong
    return pytest.skip("this machine is too busy to time anything")


def test_larger_networks_take_longer() -> None:
    small, large = (timed(tiny(c)) for c in (8, 128))
    assert large.median_ms > 3 * small.median_ms
    assert small.threads == 1
    assert len(small.samples_ms) >= 5
    assert set(json.loads(json.dumps(small.to_json()))) >= {"device", "precision", "median_ms", "iqr_ms", "samples_ms", "runtime"}


def test_networks_are_timed_in_turn(tmp_path: Path) -> None:
    for channels in (8, 128):
        write_onnx(tiny(channels), tmp_path / f"{channels}.onnx", np.random.default_rng(0))
    (small, visits), (large, _) = measure_in_turn([tmp_path / "8.onnx", tmp_path / "128.onnx"], rounds=3, visit_s=0.01)
    assert len(visits) == 3
    assert len(small.samples_ms) >= 9
    assert min(visits) >= min(small.samples_ms)
    assert min(large.samples_ms) > min(small.samples_ms)  # the least of a busy machine's samples is its steadiest
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(MeasurementError, match="cannot run"):
        measure_in_turn([tmp_path / "m.onnx"])


def test_a_gpu_is_not_replaced_by_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists CUDA where its libraries are missing, and then computes on the processor without an error."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine may have the GPU")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    write_onnx(tiny(), path := tmp_path / "m.onnx", np.random.default_rng(0))
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(MeasurementError, match=r"would compute by CPU.*Do this"):
        measure_onnx(path, "local-cuda")
    assert not onnx_session(path)._enable_fallback


def test_runner_prints_milliseconds(tmp_path: Path) -> None:
    script = tmp_path / "time.py"
    script.write_text("import sys; assert sys.argv[1].endswith('.onnx'); print('4.5 ms'); print('4.7')")
    found = measure_graph(tiny(), lambda path: measure_with_runner(path, f"{sys.executable} {script} {{onnx}}", repeats=2))
    assert found.samples_ms == (4.5, 4.7, 4.5, 4.7)
    assert found.median_ms == pytest.approx(4.6)
    assert found.precision == "fp32"  # that of the file; what a format does not tell stays open
    assert measure_with_runner(tmp_path / "m.onnx.tflite", f"{sys.executable} -c print(4.5) {{onnx}}").precision is None


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("3.4\n", [3.4]),
        ("3.4 ms\n\n  3.5ms\r\n", [3.4, 3.5]),
        ("34e-1\n3.", [3.4, 3.0]),
        ("run 1 of 10 at 2.1 GHz\nlatency_ms: 3.4\nlatency_ms = 3.6 ms\nnan of 12 warnings", [3.4, 3.6]),
        ("[I] GPU Compute Time: min = 1.9 ms\nmedian_ms: 2.0", [2.0]),
    ],
)
def test_a_runner_prints_times_alone_or_labelled(text: str, samples: list[float]) -> None:
    assert runner_samples(text) == samples


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("run 1 of 10: 3.4 ms\nnan", "line 1 .*got 'run 1 of 10: 3.4 ms'"),
        ("3.4\nnan", "line 2 .*got 'nan'"),
        *(
            (value, "line 1 ")
            for value in ("inf", "-3.4", "0", "0.0 ms", "3,4", "3.4 s", "3.4 us", "3.4 3.5", "0x3", "3_4", "1e999", "٣", "3.4 ms ms")
        ),
        ("latency: 3.4", "line 1 "),
        ("latency_ms: nan", "line 1 "),
        ("latency_ms: 3.4\nlatency_ms: -1", "line 2 "),
        ("latency_ms: 3.4 (of 10)", "line 1 "),
        ("3.4\nlatency_ms: 3.4", "line 1 .*got '3.4'"),
        ("", "printed nothing"),
        (" \n", "printed nothing"),
    ],
)
def test_what_is_no_time_is_refused(text: str, line: str) -> None:
    with pytest.raises(MeasurementError, match=rf"^runner: {line}") as caught:
        runner_samples(text)
    assert "\n" not in str(caught.value)
    assert "Expected one time a line" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('done')", "line 1 of its output is no time in milliseconds, got 'done'"),
        ("pass", "printed nothing"),
        ("import sys; sys.stdout.buffer.write(bytes([255]))", "is no time"),
        ("raise SystemExit('no device')", "ended with 1: no device"),
        ("print(1, 1, 9, 9, sep=chr(10))", "spread too far"),
    ],
)
def test_runner_failures_are_stated(body: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(body)
    with pytest.raises(MeasurementError, match=message):
        measure_graph(tiny(), lambda path: measure_with_runner(path, f"{sys.executable} {tmp_path / 'r.py'} {{onnx}}"))


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must contain"):
        measure_with_runner(tmp_path / "m.onnx", "true")
    with pytest.raises(UsageError, match="cannot be split"):
        measure_with_runner(tmp_path / "m.onnx", "time 'x {onnx}")
    with pytest.raises(MeasurementError, match="no such program"):
        measure_with_runner(tmp_path / "m.onnx", "no-such-program {onnx}")
    with pytest.raises(UsageError, match="threads"):
        measure_onnx(tmp_path / "m.onnx", threads=10**6)
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(MeasurementError, match=r"cannot run m\.onnx"):
        measure_onnx(tmp_path / "m.onnx")
    with pytest.raises(MeasurementError, match="no usable timing"):
        trusted(Measurement("x", "fp32", (float("nan"),), "none"))
