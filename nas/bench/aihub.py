"""Latency tables of Qualcomm AI Hub: one timing a network, board, precision and runtime, and what is wrong with the table, said aloud.

The rows are those of `nas.bench.aihub_jobs`; what they were measured on is rebuilt from committed graphs.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median

from nas.bench import super_resolution
from nas.bench.aihub_jobs import BOARDS_FILE, WORDS, Board, Job, read_boards, read_jobs
from nas.bench.lineages import read_lineages
from nas.devices.aihub_graphs import part_of, rebuilt
from nas.devices.names import slug
from nas.devices.predictor import Sample
from nas.errors import DataError, GraphError, UnknownNameError, UsageError, did_you_mean
from nas.graphs.graph import Graph
from nas.graphs.images import with_normalisation
from nas.graphs.operators import Shape, spec_of

RUNTIMES = {"qnn": ("qnn_dlc", "qnn"), "tflite": ("tflite",)}
"""Runtime of a profile -> names in the table; QNN's compiled model changed its name in July 2025 and kept its latencies."""

# Source of these: set by hand while reading the table's histories; experiments/004_qualcomm_latency describes what they leave out.
_STATE_RATIO = 1.6  # of the usual latency, above which a timing is of a slower state of the board
_STATE_ROWS = 12  # newest timings that say what is usual
_GRAPH_ROWS = 3  # timings of the same compiled graph that are enough to judge by these alone
_SLOW_RATIO, _SLOW_SHARE, _MONTH_ROWS = 2.5, 0.05, 20  # a month of so many rows with such a share of timings above the ratio is named
_OTHER_GRAPH = 0.1  # relative difference in layers from which a timing is of another compiled graph
_STALE_DAYS = 270  # age of a network's newest timing from which it is called old
_NOT_CLASSIFIERS = ("segmentation.", "video.")

PREPARED = frozenset({"beit", "googlenet", "inception_v3", "mobile_vit", "nasnet", *super_resolution.NETWORKS})
"""Networks that AI Hub compiles without normalising the image by channel (its ``model.py``: ``normalize_input=False``, or one scale for all
channels, which folds into the first convolution). All its other classifiers carry a subtraction and a division, two layers more since the
release of 16 April 2024, when googlenet's count stayed as it was."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A board's word on one network at one input size.

    Attributes:
        network: AI Hub's model name; ``model/part`` where a model is several networks.
        input: Compiled size, batch first; None where the table does not state it.
        device: Name of the board as a profile has it.
        precision: One of `nas.units.Precision`.
        latency_ms: The newest, in the board's usual speed state; the median where a release timed it several times.
        measured_on: ISO date of the release.
        sdk: QAIRT version; empty where the table has none.
        layers: Of the compiled graph.
        repeats_within_pct: Difference from the release before, of the same compiled graph; None where there is none.
        trust: 0.5 where much older than the table, or where the network is compiled to another graph by now; else 1.
        other_graph: Whether the network is compiled to another graph by now, as its number of layers shows.
    """

    network: str
    input: Shape | None
    device: str
    precision: str
    latency_ms: float
    measured_on: str
    sdk: str
    layers: int
    repeats_within_pct: float | None
    trust: float
    other_graph: bool = False


_Key = tuple[str, Shape | None, str, str]
"""Network, input size, device, precision."""


@dataclass(frozen=True)
class Table:
    """Timings of one runtime.

    Attributes:
        timings: One a network, input size, board and precision.
        boards: Every board of the table by its profile name.
        notes: What is wrong with the table, in words.
        slow_months: Device -> month (``2025-10``) -> share of that month's jobs, of all networks, that ran in a slower state than the usual;
            only months in which it stands out.
    """

    timings: tuple[Timing, ...]
    boards: Mapping[str, Board]
    notes: tuple[str, ...]
    slow_months: Mapping[str, Mapping[str, float]]

    def device(self, name: str) -> str:
        """Return the profile name of a board given under any of its names.

        Raises:
            UnknownNameError: There is none.
        """
        known = {alias.lower(): board.name for board in self.boards.values() for title in board.titles for alias in (title, slug(title))}
        known |= {name: name for name in self.boards}
        if name.lower() not in known:
            raise UnknownNameError("device", name, self.boards)
        return known[name.lower()]


def read_table(path: Path, networks: Iterable[str], runtime: str = "qnn", boards: Path | None = None, before: str | None = None) -> Table:
    """Read what the table says of some networks under one runtime; see `table_of`.

    Args:
        path: The table of timings, CSV or CSV.gz.
        networks: AI Hub's model names.
        runtime: A key of `RUNTIMES`.
        boards: The table of boards; default: `BOARDS_FILE` beside the table of timings, where there is one.
        before: Day or month (``2026-02``) before which a job must have run: what was known then.

    Raises:
        DataError: A file is not such a table.
        UsageError: Unknown runtime.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime: unknown, got {runtime!r}.{did_you_mean(runtime, RUNTIMES)}")
    beside = path.with_name(BOARDS_FILE)
    file = boards or (beside if beside.is_file() else None)
    jobs = [job for job in read_jobs(path) if before is None or job.date < before]
    return table_of(jobs, networks, runtime, read_boards(file) if file else ())


def table_of(jobs: Sequence[Job], networks: Iterable[str], runtime: str = "qnn", boards: Iterable[Board] = ()) -> Table:
    """Return one timing a network, input size, board and precision.

    Of repeated measurements the newest counts, unless it is in a speed state that the board is not usually in. Jobs that did not run wholly
    on the NPU are dropped, and so is a job that stands there twice.

    Args:
        jobs: Rows of the table; what was known on a day is had by leaving out later ones.
        networks: AI Hub's model names.
        runtime: A key of `RUNTIMES`.
        boards: What is known of the boards; a board that is not among them has the names of its jobs.
    """
    wanted = set(networks)
    distinct = list({job.job: job for job in jobs}.values())
    notes = [f"{len(jobs) - len(distinct)} rows repeat a job and were dropped"] if len(distinct) < len(jobs) else []
    known = _boards_of(distinct, boards)
    ours = [job for job in distinct if job.precision in WORDS.values() and job.runtime in RUNTIMES[runtime]]
    if fallen := sum(job.network in wanted and not job.wholly_on_npu for job in ours):
        notes.append(f"{fallen} rows fell back to the CPU or GPU and were dropped")
    histories = _histories([job for job in ours if job.wholly_on_npu])
    today = max((job.date for job in jobs), default="")
    timings = _compiled_anew([_timing(key, jobs, today) for key, jobs in histories.items() if jobs[0].network in wanted])
    slow_months = _slow_months(histories)
    used = {t.device for t in timings}
    notes += [*_size_notes(timings), *_board_notes([known[device] for device in sorted(used)])]
    notes += [
        f"{device} ran in a slower state, at more than {_SLOW_RATIO} × the usual, in {min(months)} to {max(months)}: "
        f"{min(months.values()):.0%} to {max(months.values()):.0%} of the jobs of {len(months)} months; the usual counts"
        for device, months in slow_months.items()
        if device in used
    ]
    return Table(tuple(timings), known, tuple(notes), slow_months)


def _boards_of(jobs: Sequence[Job], boards: Iterable[Board]) -> dict[str, Board]:
    known = {board.title: board for board in boards}
    for title, shown in sorted({(job.board, job.title) for job in jobs}):
        board = known.get(title) or Board(slug(title), title, (title,))
        known[title] = replace(board, titles=tuple(dict.fromkeys([*board.titles, shown])))
    return {board.name: board for board in known.values()}


def _histories(jobs: Sequence[Job]) -> dict[_Key, list[Job]]:
    """Return the jobs of each network, input size, device and precision, the oldest first.

    A model of which a release holds several parts at one precision on one device is several networks, each called ``model/part``.
    """
    parts: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for job in jobs:
        parts[job.network, job.release, job.precision, job.runtime, job.title].add(part_of(job.network, job.component))
    several = {network for (network, *_), versions in parts.items() if len(versions) > 1}
    histories: dict[_Key, list[Job]] = defaultdict(list)
    for job in sorted(jobs, key=lambda job: (job.date, job.job)):
        network = f"{job.network}/{part_of(job.network, job.component)}" if job.network in several else job.network
        histories[network, job.input, slug(job.board), job.precision].append(job)
    return dict(sorted(histories.items(), key=lambda item: (item[0][0], item[0][1] or (), *item[0][2:])))


def _timing(key: _Key, history: Sequence[Job], today: str) -> Timing:
    """Return the newest timing in the usual state."""
    same = [job for job in history if job.layers == history[-1].layers]
    # too few repeats of the newest graph cannot tell its state: then those of the graphs before it have a say
    pool = same if len(same) >= _GRAPH_ROWS else history
    usual = _usual_state(pool[-_STATE_ROWS:])
    in_state = [job for job in pool if job.latency_ms <= _STATE_RATIO * usual]
    newest = in_state[-1]
    graph = [job for job in in_state if job.layers == newest.layers]
    days = sorted({job.date for job in graph})
    by_day = [median(job.latency_ms for job in graph if job.date == day) for day in days[-2:]]
    repeats = abs(by_day[1] / by_day[0] - 1) * 100 if len(by_day) == 2 else None
    stale = (date.fromisoformat(today) - date.fromisoformat(newest.date)).days > _STALE_DAYS
    return Timing(*key, by_day[-1], newest.date, newest.sdk, newest.layers, repeats, 0.5 if stale else 1.0)


def _usual_state(jobs: Sequence[Job]) -> float:
    """Return the typical latency of the faster state: the 30th percentile of repeats."""
    ordered = sorted(job.latency_ms for job in jobs)
    return ordered[int(0.3 * (len(ordered) - 1))]


def _compiled_anew(timings: Sequence[Timing]) -> list[Timing]:
    """Halve the trust in timings of a graph that differs by its layers from what the network is compiled to by now."""
    layers: dict[tuple[str, Shape | None, str], tuple[str, int]] = {}
    for t in timings:
        key = (t.network, t.input, t.precision)
        layers[key] = max(layers.get(key, ("", 0)), (t.measured_on, t.layers))
    return [
        replace(t, trust=0.5, other_graph=True) if abs(t.layers / layers[t.network, t.input, t.precision][1] - 1) > _OTHER_GRAPH else t
        for t in timings
    ]


def _size_notes(timings: Iterable[Timing]) -> list[str]:
    sizes: dict[str, dict[Shape, str]] = defaultdict(dict)
    for t in timings:
        if t.input:
            sizes[t.network][t.input] = max(t.measured_on, sizes[t.network].get(t.input, ""))
    return [
        f"{network} was compiled at several sizes, each a network of its own: "
        + ", ".join(f"{'x'.join(map(str, size[1:]))} until {day}" for size, day in sorted(days.items(), key=lambda item: item[1]))
        for network, days in sorted(sizes.items())
        if len(days) > 1
    ]


def _board_notes(boards: Iterable[Board]) -> list[str]:
    notes = []
    for board in boards:
        proxies = ", ".join(title for title in board.titles if title.endswith("(Proxy)"))
        others = ", ".join(title for title in board.titles if title != board.title)
        if board.proxy:
            notes.append(f"{board.title} stands in for other chips (jobs shown as {proxies}): none of its timings is one of them")
        elif others:
            notes.append(f"{board.title} ran the jobs that are shown as {others}")
    return notes


def _slow_months(histories: Mapping[_Key, Sequence[Job]]) -> dict[str, dict[str, float]]:
    """Return the months in which more than a few of a device's jobs were slower than the usual state of the same compiled graph."""
    count: Counter[tuple[str, str]] = Counter()
    slow: Counter[tuple[str, str]] = Counter()
    for (_, _, device, _), history in histories.items():
        graphs: dict[int, list[Job]] = defaultdict(list)
        for job in history:
            graphs[job.layers].append(job)
        for repeats in graphs.values():
            if len(repeats) < _GRAPH_ROWS:
                continue
            usual = _usual_state(repeats)
            for job in repeats:
                count[device, job.date[:7]] += 1
                slow[device, job.date[:7]] += job.latency_ms > _SLOW_RATIO * usual
    months: dict[str, dict[str, float]] = defaultdict(dict)
    for (device, month), jobs in sorted(count.items()):
        if jobs >= _MONTH_ROWS and slow[device, month] > _SLOW_SHARE * jobs:
            months[device][month] = slow[device, month] / jobs
    return dict(months)


def classifiers(models: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the networks that classify single images."""
    return tuple(row["aihub_model"] for row in models if not row["torchvision_name"].startswith(_NOT_CLASSIFIERS))


def single_images(graphs: Mapping[str, Graph]) -> tuple[str, ...]:
    """Return the networks that read one image: what protocols test on. The others (video, several images) only calibrate."""
    return tuple(name for name, graph in graphs.items() if len(graph.inputs) == 1 and len(graph.inputs[0].shape) == 4)


def read_models(path: Path) -> list[dict[str, str]]:
    """Read which of AI Hub's models can be rebuilt, and how (``aihub_models.csv``).

    Raises:
        DataError: Not such a file.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"model table {path}: cannot be read ({error}).") from None
    if not rows or not {"aihub_model", "timm_name", "torchvision_name", "rebuild", "input_size"} <= rows[0].keys():
        raise DataError(f"model table {path}: no column 'aihub_model', 'timm_name', 'torchvision_name', 'rebuild' or 'input_size'.")
    return rows


def input_of(row: Mapping[str, str]) -> Shape:
    """Return the input, batch first, at which AI Hub compiles the network of a row of `read_models`."""
    return (1, *map(int, row["input_size"].split("x")))


def workload_name(row: Mapping[str, str]) -> str | None:
    """Return the name of the committed graph of a row of `read_models` at the row's input; None where there is none."""
    from nas.graphs import workloads

    base, shape = _library_name(row), input_of(row)
    known = set(workloads.names())
    return next((name for name in (base, f"{base}@{shape[-1]}") if name in known and workloads.describe(name).input == shape), None)


def _library_name(row: Mapping[str, str]) -> str:
    return row["torchvision_name"].rpartition(".")[2] if row["rebuild"].startswith("torchvision") else row["timm_name"]


def graphs_of(models: Sequence[Mapping[str, str]], folder: Path | None = None) -> tuple[dict[str, Graph], dict[str, str], list[str]]:
    """Return graphs and families by AI Hub's model name, and the names for which there is no graph; a known lineage is the family.

    A file ``NAME.onnx`` in `folder` comes first, then the committed workload at the row's input, then a fully convolutional one of another
    input, then the super-resolution networks, then the others that are rebuilt. Files whose networks no table knows are taken up as well.
    """
    from nas.graphs import workloads

    if folder is not None:
        from nas.graphs.frontends.onnx_file import read_onnx

    graphs: dict[str, Graph] = {}
    families: dict[str, str] = {}
    missing: list[str] = []
    known = set(workloads.names())
    for row in models:
        name, base = row["aihub_model"], _library_name(row)
        committed = workload_name(row)
        file = folder / f"{name}.onnx" if folder else None
        if file is not None and file.is_file():
            graphs[name] = read_onnx(file)
        elif committed is not None:
            graphs[name] = workloads.load(committed)
        elif base in known and (graph := resized(workloads.load(base), input_of(row))) is not None:
            graphs[name] = graph
        else:
            missing.append(name)
            continue
        families[name] = workloads.describe(base).family if base in known else _family_of(name)
    for file in sorted(folder.glob("*.onnx")) if folder else ():
        if file.stem not in graphs:
            graphs[file.stem] = read_onnx(file)
            families[file.stem] = _family_of(file.stem)
    for name in super_resolution.NETWORKS:
        graphs.setdefault(name, super_resolution.load(name))
        families.setdefault(name, "super_resolution")
    for name, network in rebuilt().items():
        if name not in graphs:
            graphs[name], families[name] = workloads.load(network.workload), workloads.describe(network.workload).family
    plain = PREPARED | {name for name, network in rebuilt().items() if not network.normalises}
    timed = {name: graph if name in plain else with_normalisation(graph) for name, graph in graphs.items()}
    listed = read_lineages()
    families |= {name: listed[model] for name in graphs if (model := name.partition("/")[0]) in listed}
    return timed, families, [name for name in missing if name not in graphs]


def resized(graph: Graph, shape: Shape) -> Graph | None:
    """Return a graph for another input, batch first; None where an operator fixes a size.

    What is resized at the end of a segmentation network is resized to the input.
    """
    shapes = {graph.inputs[0].name: shape}
    size = graph.inputs[0].shape[2:]
    operators = []
    for op in graph.operators:
        (output,) = op.outputs
        infer = spec_of(op.op).infer
        if infer is not None:
            try:
                shapes[output.name] = infer([shapes[i] for i in op.inputs], [w.shape for w in op.weights], dict(op.attributes))
            except GraphError:
                return None
        elif op.op == "Resize" and output.shape[2:] == size:
            shapes[output.name] = (*output.shape[:2], *shape[2:])
        else:
            return None
        operators.append(replace(op, outputs=(replace(output, shape=shapes[output.name]),)))
    return Graph((replace(graph.inputs[0], shape=shape),), tuple(operators), graph.outputs, graph.name, graph.notices)


def _family_of(name: str) -> str:
    return re.split(r"[^a-z]", name.lower())[0] or name


def samples_of(table: Table, graphs: Mapping[str, Graph], families: Mapping[str, str], precision: str | None = None) -> list[Sample]:
    """Return the timings whose network has a graph at the size that was compiled as samples, optionally of one precision.

    Timings of another graph than the network is compiled to by now are left out: ``vit`` at w8a16 had 1,190 layers and took twice as long.
    """
    return [
        Sample(graphs[t.network], t.precision, t.latency_ms, t.network, t.device, families[t.network], t.trust)
        for t in table.timings
        if t.network in graphs and not t.other_graph and fits(t, graphs[t.network]) and precision in (None, t.precision)
    ]


def fits(timing: Timing, graph: Graph) -> bool:
    """Return whether a graph is the one that was timed, by the compiled size or the release."""
    known = rebuilt().get(timing.network)
    since = known.since if known else ""
    return timing.input in (None, graph.inputs[0].shape) and timing.measured_on >= since


def repeats_within_pct(table: Table, device: str, precision: str) -> float | None:
    """Return the median difference between a network's last two measurements in the usual state."""
    differences = [
        t.repeats_within_pct for t in table.timings if t.device == device and t.precision == precision and t.repeats_within_pct is not None
    ]
    return median(differences) if differences else None
