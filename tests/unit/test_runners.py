"""Each runner builds its tool's command and reads what the tool prints, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.devices.measure import measure_with_runner, runner_words
from nas.devices.runner import named_runner, runners
from nas.errors import MeasurementError, UsageError

PRINTED = {
    "trtexec": (
        "[11/02/2026-10:00:00] [I] Latency: min = 1.30 ms, max = 1.90 ms, mean = 1.41 ms, median = 1.40 ms, percentile(90%) = 1.5 ms\n"
        "[11/02/2026-10:00:00] [I] GPU Compute Time: min = 1.20 ms, max = 1.80 ms, mean = 1.26 ms, median = 1.25 ms, percentile(90%) = 1.3 ms\n",
        1.25,
        "trtexec:fp16=1",
        ["trtexec", "--onnx=m.onnx", "--device=0", "--iterations=100", "--useSpinWait", "--fp16"],
    ),
    "openvino": (
        "[ INFO ] Count:            1034 iterations\n[ INFO ] Latency:\n[ INFO ]    Median:        4.73 ms\n[ INFO ]    Average:       4.81 ms\n",
        4.73,
        "openvino:threads=2",
        ["benchmark_app", "-m", "m.onnx", "-d", "CPU", "-api", "sync", "-hint", "none", "-nstreams", "1", "-t", "5", "-nthreads", "2"],
    ),
    "litert": (
        "INFO: Inference timings in us: Init: 1893, First inference: 9123, Warmup (avg): 8770.4, Inference (avg): 8702.1\n",
        8.7021,
        "litert:threads=4",
        ["benchmark_model", "--graph=m.tflite", "--num_threads=4", "--num_runs=50"],
    ),
    "adb": (
        "INFO: Inference timings in us: Init: 1893, First inference: 9123, Warmup (avg): 8770, Inference (avg): 3.2e+03\n",
        3.2,
        "adb:serial=R5CT,gpu=1",
        [
            "adb",
            "-s",
            "R5CT",
            "shell",
            "/data/local/tmp/benchmark_model",
            "--graph=/data/local/tmp/nas-model.tflite",
            "--num_threads=4",
            "--num_runs=50",
            "--use_gpu=true",
        ],
    ),
    "ssh": (
        "Session creation time cost: 0.03 s\nTotal inference time cost: 0.6 s\nAverage inference time cost: 12.104 ms\n",
        12.104,
        "ssh:host=pi@rpi5",
        ["ssh", "pi@rpi5", "onnxruntime_perf_test", "-e", "cpu", "-I", "-m", "times", "-r", "50", "-x", "4", "/tmp/nas-model.onnx"],
    ),
    "stedgeai": (
        " duration            : 28.345 ms by sample (28.339/28.361/0.007)\n macc                : 59000000\n",
        28.345,
        "stedgeai",
        [
            "stedgeai",
            "validate",
            "--model",
            "m.onnx",
            "--target",
            "stm32n6",
            "--mode",
            "target",
            "--desc",
            "serial:921600",
            "--batches",
            "10",
        ],
    ),
    "rknn": (
        "Total Operator Elapsed Per Frame Time(us): 5872\nTotal Memory Read/Write Per Frame Size(KB): 11000\n",
        5.872,
        "rknn:target=rk3588",
        None,
    ),
    "qai-hub": ('{"estimated_inference_time": 2104, "estimated_inference_peak_memory": 1}\n', 2.104, "qai-hub:device=SA8295P ADP", None),
    "onnxruntime": ("3.5\n", 3.5, "onnxruntime", None),
}


@pytest.mark.parametrize("name", runners.names())
def test_a_runner_builds_its_command_and_reads_its_output(name: str) -> None:
    printed, ms, text, words = PRINTED[name]
    found = named_runner(text)
    assert found is not None
    runner, options = found
    model = Path(f"m{runner.suffixes[0]}")
    last = list(runner.commands(model, options)[-1])
    assert last == words if words else str(model) in last
    assert runner.parse(printed) == [pytest.approx(ms)]
    for wrong in ("", "nothing of the kind\n", printed.replace(":", ";").replace(".", "x"), printed.replace(printed.split()[-1], "") * 2):
        with pytest.raises(MeasurementError):
            runner.parse(wrong)
    assert runner_words(text) == [name]


def test_what_is_wrong_with_a_runner_is_said() -> None:
    with pytest.raises(UsageError, match="unknown option, got 'thread'"):
        named_runner("ssh:thread=4")
    with pytest.raises(UsageError, match="host is needed"):
        measure_with_runner(Path("m.onnx"), "ssh")
    with pytest.raises(UsageError, match=r"Expected \.tflite"):
        measure_with_runner(Path("m.onnx"), "litert")
    with pytest.raises(UsageError, match="or be one of adb"):
        runner_words("no-such-runner")
    with pytest.raises(MeasurementError, match="no such program"):
        measure_with_runner(Path("m.tflite"), "litert:program=no-such-program")
