"""Measuring: a device's own word. Threads pinned, warmed up, median and spread stated, and refused where the spread is absurd."""

from __future__ import annotations

import math
import os
import re
import shlex
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypedDict

import numpy as np

from nas.devices.model_inputs import fed, precision_of_file
from nas.devices.runner import called, named_runner, run, runners
from nas.errors import MeasurementError, NasError, UsageError, one_line
from nas.graphs.graph import Graph
from nas.graphs.onnx_session import onnx_session

LocalDevice = Literal["local-cpu", "local-cuda"]
ABSURD = 0.75
"""An interquartile range of more than this share of the median is no measurement. Set by hand."""

_SHORTEST_MS = 1.0  # shorter runs are timed several at once; by hand
_WARM_S, _WARM_RUNS, _LEAST, _MOST = 0.5, 5, 20, 200  # by hand


class Timing(TypedDict):
    """A measurement as plain data."""

    device: str
    precision: str | None
    median_ms: float
    iqr_ms: float
    samples_ms: tuple[float, ...]
    runtime: str
    threads: int | None
    pinned: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """Timings of one network.

    Attributes:
        device: ``local-cpu``, ``local-cuda``, or what the runner was called.
        precision: Of the file; None where its format does not tell.
        samples_ms: One a sample, in order.
        runtime: What executed the network, with its version.
        threads: Threads that it had, None where unknown.
        pinned: Whether these threads were bound to processors of their own.
    """

    device: str
    precision: str | None
    samples_ms: tuple[float, ...]
    runtime: str
    threads: int | None = None
    pinned: bool = False

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return statistics.median(self.samples_ms)

    @property
    def iqr_ms(self) -> float:
        """Interquartile range of the samples."""
        low, high = np.percentile(self.samples_ms, [25, 75])
        return float(high - low)

    def to_json(self) -> Timing:
        """Return plain data (see DESIGN.md)."""
        return {
            "device": self.device,
            "precision": self.precision,
            "median_ms": self.median_ms,
            "iqr_ms": self.iqr_ms,
            "samples_ms": self.samples_ms,
            "runtime": self.runtime,
            "threads": self.threads,
            "pinned": self.pinned,
        }


def trusted(measurement: Measurement) -> Measurement:
    """Return `measurement`.

    Raises:
        MeasurementError: Its spread is absurd, or it holds no sample.
    """
    if not measurement.samples_ms or not all(math.isfinite(ms) and ms > 0 for ms in measurement.samples_ms):
        raise MeasurementError(f"measure: {measurement.device} gave no usable timing, got {measurement.samples_ms[:5]}.")
    if measurement.iqr_ms > ABSURD * measurement.median_ms:
        raise MeasurementError(
            f"measure: the timings on {measurement.device} spread too far, got a median of {measurement.median_ms:.3g} ms and an interquartile"
            f" range of {measurement.iqr_ms:.3g} ms. Do this: stop what else runs on the device and measure again."
        )
    return measurement


def measure_onnx(
    path: Path,
    device: LocalDevice = "local-cpu",
    *,
    threads: int = 1,
    most_s: float = 20.0,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Measurement:
    """Time an ``.onnx`` file under ONNX Runtime on this machine.

    Args:
        path: The file; inputs are filled with seeded numbers (`nas.devices.model_inputs.fed`).
        device: Processor or NVIDIA GPU.
        threads: Intra-operator threads, each bound to a processor of its own.
        most_s: Stop sampling after so many seconds (at least five samples are taken).
        input_shapes: Of inputs by name, where the file leaves sizes open.
        dims: Symbolic sizes by name; a leading size that is open still is 1.

    Raises:
        UsageError: More threads than processors.
        MeasurementError: ONNX Runtime cannot run the file on this device, or the spread is absurd.
    """
    with _bound_to(_processors(threads)) as pinned:
        run, precision, runtime = _opened(path, device, threads, input_shapes, dims)
        samples = _run_guarded(lambda: _sampled(run, most_s), path, device)
    return trusted(Measurement(device, precision, tuple(samples), runtime, threads, pinned))


def measure_in_turn(
    paths: Sequence[Path], *, threads: int = 1, rounds: int = 5, visit_s: float = 0.15
) -> list[tuple[Measurement, tuple[float, ...]]]:
    """Time several ``.onnx`` files on this machine's processor in turn, so that a drift of the machine shows within each of them.

    Args:
        paths: The files; all are held open.
        threads: Intra-operator threads, each bound to a processor of its own.
        rounds: Visits to each file.
        visit_s: Time that is sampled in a visit, after two runs that warm the caches (three runs are sampled at least).

    Returns:
        For each file all its samples, and the median of each visit in ms.

    Raises:
        UsageError: More threads than processors.
        MeasurementError: ONNX Runtime cannot run a file.
    """
    with _bound_to(_processors(threads)) as pinned:
        opened = [_opened(path, "local-cpu", threads) for path in paths]
        visits: list[list[list[float]]] = [[] for _ in paths]
        for _ in range(rounds):
            for path, (run, *_), own_visits in zip(paths, opened, visits, strict=True):
                own_visits.append(_run_guarded(lambda run=run: _visited(run, visit_s), path, "local-cpu"))  # type: ignore[misc]
    measurements = []
    for (_, precision, runtime), own_visits in zip(opened, visits, strict=True):
        samples = tuple(ms for visit in own_visits for ms in visit)
        measurements.append(
            (Measurement("local-cpu", precision, samples, runtime, threads, pinned), tuple(map(statistics.median, own_visits)))
        )
    return measurements


def _processors(threads: int) -> list[int]:
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if not 1 <= threads <= len(processors):
        raise UsageError(f"measure: threads must be between 1 and {len(processors)} on this machine, got {threads}.")
    return processors[:threads]


def _opened(
    path: Path,
    device: LocalDevice,
    threads: int,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> tuple[Callable[[], object], str, str]:
    """Return a run of a file with seeded inputs, its precision, and the runtime with its version."""
    import onnxruntime

    provider = {"local-cpu": "CPUExecutionProvider", "local-cuda": "CUDAExecutionProvider"}[device]
    if provider not in onnxruntime.get_available_providers():
        raise MeasurementError(
            f"measure: this ONNX Runtime has no {provider}. Do this: pip install onnxruntime-gpu, on a machine with a GPU."
        )
    session = _run_guarded(lambda: onnx_session(path, threads=threads, provider=provider), path, device)
    feed = _run_guarded(lambda: fed(session.get_inputs(), shapes or {}, dims or {}), path, device)
    runtime = f"onnxruntime-{'cpu' if device == 'local-cpu' else 'cuda'} {onnxruntime.__version__}"
    return lambda: session.run(None, feed), precision_of_file(path), runtime


def _run_guarded(call: Callable[[], Any], path: Path, device: str) -> Any:
    try:
        return call()
    except NasError:
        raise
    except Exception as error:  # noqa: BLE001 - the runtime's own exceptions have no common base but this one
        reason = one_line(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
        raise MeasurementError(f"measure: ONNX Runtime cannot run {path.name} on {device} ({reason}).") from None


def _visited(run: Callable[[], object], visit_s: float) -> list[float]:
    for _ in range(2):
        run()
    samples: list[float] = []
    begin = perf_counter()
    while len(samples) < 3 or perf_counter() - begin < visit_s:
        start = perf_counter()
        run()
        samples.append(1e3 * (perf_counter() - start))
    return samples


class _bound_to:  # noqa: N801 - a context manager, read as a phrase
    """Binds this process to some processors and gives them back."""

    def __init__(self, processors: Sequence[int]) -> None:
        self.processors = set(processors)

    def __enter__(self) -> bool:
        if not hasattr(os, "sched_setaffinity"):
            return False
        self.before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.processors)
        return True

    def __exit__(self, *_: object) -> None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.before)


def _sampled(run: Callable[[], object], most_s: float) -> list[float]:
    """Warm up, then time runs until there are enough samples or the time is over; milliseconds a run."""
    begin = perf_counter()
    runs = 0
    while runs < _WARM_RUNS or (perf_counter() - begin < _WARM_S and runs < 1000):
        run()
        runs += 1
        if runs >= 2 and perf_counter() - begin > most_s:
            break
    once_ms = 1e3 * (perf_counter() - begin) / runs
    together = max(1, math.ceil(_SHORTEST_MS / max(once_ms, 1e-3)))
    samples: list[float] = []
    begin = perf_counter()
    while len(samples) < _MOST:
        start = perf_counter()
        for _ in range(together):
            run()
        samples.append(1e3 * (perf_counter() - start) / together)
        spent = perf_counter() - begin
        if (len(samples) >= _LEAST and spent > 1.0) or (len(samples) >= 5 and spent > most_s):
            break
    return samples


def runner_words(command: str) -> list[str]:
    """Return a runner's command as words, ``{onnx}`` among them; the name alone of a runner that has one.

    Raises:
        UsageError: It is neither the name of a runner nor a command with ``{onnx}``, or its quotes do not match.
    """
    if named_runner(command) is not None:
        return [command.partition(":")[0]]
    if "{onnx}" not in command:
        raise UsageError(f"runner: must contain {{onnx}} or be one of {', '.join(runners.names())}, got {command!r}.")
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UsageError(f"runner: cannot be split into words ({str(error).lower()}), got {command!r}.") from None


def measure_with_runner(path: Path, command: str, *, repeats: int = 5, timeout_s: float = 600.0) -> Measurement:
    """Time a model file by a runner of `nas.devices.runner`, or an ``.onnx`` file by a command that prints milliseconds.

    The command's standard output is read by `runner_samples`; what it says beside the times belongs on standard error.

    Args:
        path: The file; stands for ``{onnx}`` in the command.
        command: Split like a shell would, but no shell runs it.
        repeats: Runs of the command; all times that they print are samples.
        timeout_s: For one run.

    Raises:
        UsageError: The command lacks ``{onnx}``, or its quotes do not match.
        MeasurementError: It fails, prints anything but times, takes too long, or its times spread absurdly.
    """
    if (named := named_runner(command)) is not None:
        name = command.partition(":")[0]
        times = run(name, *named, path, timeout_s)
        return trusted(Measurement("runner", _precision(path), tuple(times), name))
    words = [word.replace("{onnx}", str(path)) for word in runner_words(command)]
    samples: list[float] = []
    for _ in range(repeats):
        samples += runner_samples(called("runner", words, timeout_s).stdout)
    return trusted(Measurement("runner", _precision(path), tuple(samples), words[0]))


def _precision(path: Path) -> str | None:
    return precision_of_file(path) if path.suffix == ".onnx" else None


_TIME = r"(?P<ms>[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?)( ?ms)?"
_PLAIN, _LABELLED = re.compile(_TIME), re.compile(rf"(latency_ms|median_ms) ?[:=] ?{_TIME}")
_LABEL = re.compile(r"(latency_ms|median_ms)\b")


def runner_samples(text: str) -> list[float]:
    """Return the times in milliseconds that a runner printed, in one of two forms.

    Plain: every line that is not empty is one time, ``3.4`` or ``3.4 ms``. Labelled: ``latency_ms: 3.4`` or ``median_ms: 3.4`` (``=`` for
    ``:``) on lines of their own; then the other lines may say anything but a plain time. Times are positive and finite, with a decimal point.

    Raises:
        MeasurementError: It printed something else, with the line.
    """
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise MeasurementError(f"runner: printed nothing. Expected {_RUNNER_FORM}.")
    labelled = any(_LABEL.match(line) for _, line in lines)
    samples = []
    for i, line in lines:
        match = (_LABELLED if labelled else _PLAIN).fullmatch(line)
        if match is None and labelled and not _LABEL.match(line) and not _PLAIN.fullmatch(line):
            continue
        ms = float(match["ms"]) if match else 0.0
        if not 0 < ms < math.inf:
            raise MeasurementError(
                f"runner: line {i} of its output is no time in milliseconds, got {line[:80]!r}. Expected {_RUNNER_FORM}."
            )
        samples.append(ms)
    return samples


_RUNNER_FORM = "one time a line ('3.4' or '3.4 ms'), or lines 'latency_ms: 3.4' among others"


def measure_graph(graph: Graph, measure: Callable[[Path], Measurement], seed: int = 0) -> Measurement:
    """Write a graph with random weights to a temporary file and measure that.

    Raises:
        GraphError: An operator that cannot be written.
        MeasurementError: It cannot be measured.
    """
    from nas.graphs.onnx_writer import write_onnx

    with tempfile.TemporaryDirectory(prefix="nas-measure-") as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(graph, path, np.random.default_rng(seed))
        return measure(path)
