"""Latency tables of Qualcomm AI Hub: one timing a network, device, precision and runtime, and what is wrong with the table, said aloud.

Source: quic/ai-hub-models, history of ``perf.yaml`` (BSD-3-Clause), as a CSV with the columns ``release date model precision component
device runtime ms unit layers layers_npu layers_cpu qairt``.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations
from pathlib import Path
from statistics import median

from nas.bench import super_resolution
from nas.devices.predictor import Sample
from nas.errors import DataError, UnknownNameError, UsageError, did_you_mean
from nas.graphs.graph import Graph, Operator, Weight
from nas.graphs.operators import Shape, spec_of

PRECISIONS = {"float": "fp16", "w8a8": "w8a8", "w8a16": "w8a16"}
"""AI Hub's word for a precision -> ours; its ``float`` runs as fp16 on the NPU."""

RUNTIMES = {"qnn": ("qnn_dlc", "qnn"), "tflite": ("tflite",)}
"""Runtime of a profile -> names in the table; QNN's compiled model changed its name in July 2025 and kept its latencies."""

_COLUMNS = {"date", "model", "precision", "device", "runtime", "ms", "unit", "layers", "layers_npu", "qairt"}
_SAME_SHARE, _SAME_ROWS = 0.9, 40
_STATE_RATIO = 1.6
_STALE_DAYS = 270
SLOW_SHARE = 0.05
"""Share of recent repeats in a slower state from which a device is said to have two."""
_NOT_CLASSIFIERS = ("segmentation.", "video.")

FAULTS: Mapping[str, str] = {
    "deeplabv3_resnet50": "ran on the GPU in every release that states its input",
}
"""Networks whose timing and graph cannot belong together; never fitted, never tested."""

COMPILED_AT: Mapping[str, Shape] = {"fcn_resnet50": (1, 3, 520, 520)}
"""Inputs that differ from the stated ones. ``fcn_resnet50``: its ``model.py`` asks for 520×520 since the release of 20 May 2024, when its latency
grew 5.4 times = (520 / 224)²; the stated 224×224 was left behind."""

PREPARED = frozenset({"beit", "googlenet", "inception_v3", "mobile_vit", "nasnet", *super_resolution.NETWORKS})
"""Networks that AI Hub compiles without normalising the image by channel (its ``model.py``: ``normalize_input=False``, or one scale for all
channels, which folds into the first convolution). All its other classifiers carry a subtraction and a division, two layers more since the
release of 16 April 2024, when googlenet's count stayed as it was."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A device's word on one network.

    Attributes:
        network: AI Hub's model name.
        device: Name as a profile has it.
        precision: One of `nas.units.PRECISIONS`.
        latency_ms: The newest, in the device's usual speed state.
        measured_on: ISO date of the release.
        sdk: QAIRT version; empty where the table has none.
        repeats_within_pct: Difference from the release before; None where there is none.
        trust: 0.5 where much older than the table, else 1.
    """

    network: str
    device: str
    precision: str
    latency_ms: float
    measured_on: str
    sdk: str
    repeats_within_pct: float | None
    trust: float


@dataclass(frozen=True)
class Table:
    """Timings of one runtime.

    Attributes:
        timings: One a network, device and precision.
        titles: Device -> its names in the table, the most frequent first; several names share one data set.
        notes: What is wrong with the table, in words.
        slow_states: Device -> share of repeats in another speed state than the usual.
    """

    timings: tuple[Timing, ...]
    titles: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    slow_states: Mapping[str, float]

    def device(self, name: str) -> str:
        """Return the profile name of a device given under any of its names.

        Raises:
            UnknownNameError: There is none.
        """
        known = {alias.lower(): device for device, titles in self.titles.items() for title in titles for alias in (title, slug(title))}
        known |= {device: device for device in self.titles}
        if name.lower() not in known:
            raise UnknownNameError("device", name, self.titles)
        return known[name.lower()]


def slug(title: str) -> str:
    """Return a device's title as a profile name: ``SA8295P ADP`` -> ``sa8295p``."""
    plain = re.sub(r"\s*(\(Proxy\)|\bADP\b)\s*", " ", title)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the table, gzipped or not.

    Raises:
        DataError: No such file, or a column is missing.
    """
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            reader = csv.DictReader(file)
            if missing := _COLUMNS - set(reader.fieldnames or ()):
                raise DataError(f"latency table {path}: a column is missing, got none called {min(missing)!r}.")
            return list(reader)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"latency table {path}: cannot be read ({error}).") from None


def read_table(path: Path, networks: Iterable[str], runtime: str = "qnn") -> Table:
    """Read what the table says of some networks under one runtime.

    Of repeated measurements the newest counts, unless it is in a speed state that the device is not usually in. Rows that fell back to the
    CPU are dropped; devices whose rows are copies of another's share one name.

    Raises:
        DataError: The file is not such a table.
        UsageError: Unknown runtime.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime: unknown, got {runtime!r}.{did_you_mean(runtime, RUNTIMES)}")
    rows = read_rows(path)
    notes: list[str] = []
    wanted = set(networks)
    names = _one_name_a_data_set(rows, notes)
    titles: dict[str, tuple[str, ...]] = {}
    for title, name in names.items():
        titles[name] = tuple(sorted((*titles.get(name, ()), title), key=lambda t: slug(t) != name))
    history: dict[tuple[str, str, str], list[tuple[str, float, str, bool]]] = defaultdict(list)
    fallen = 0
    for row in rows:
        if row["model"] not in wanted or row["precision"] not in PRECISIONS:
            continue
        named = row["runtime"] in RUNTIMES[runtime]
        if row["unit"] != "NPU" or row["layers"] != row["layers_npu"]:
            fallen += named
            continue
        try:
            latency_ms = float(row["ms"])
        except ValueError:
            raise DataError(f"latency table {path}: a latency is no number, got {row['ms']!r} for {row['model']}.") from None
        if latency_ms > 0:
            history[(row["model"], names[row["device"]], PRECISIONS[row["precision"]])].append(
                (row["date"], latency_ms, row["qairt"], named)
            )
    if fallen:
        notes.append(f"{fallen} rows fell back to the CPU or GPU and were dropped")
    newest = max((row["date"] for row in rows), default="")
    timings: list[Timing] = []
    slow: dict[str, int] = defaultdict(int)
    count: dict[str, int] = defaultdict(int)
    for (network, device, precision), found in sorted(history.items()):
        found.sort()
        mine = [entry for entry in found if entry[3]]
        usual = _usual_state([latency_ms for _, latency_ms, _, _ in (mine if len(mine) > 3 else found)[-12:]])
        recent = mine[-12:]
        count[device] += len(recent)
        slow[device] += sum(entry[1] > _STATE_RATIO * usual for entry in recent)
        kept = [entry for entry in mine if entry[1] <= _STATE_RATIO * usual] or mine
        if not kept:
            continue
        day, latency_ms, sdk, _ = kept[-1]
        repeat = abs(latency_ms / kept[-2][1] - 1) * 100 if len(kept) > 1 else None
        stale = (date.fromisoformat(newest) - date.fromisoformat(day)).days > _STALE_DAYS
        timings.append(Timing(network, device, precision, latency_ms, day, sdk, repeat, 0.5 if stale else 1.0))
    shares = {device: slow[device] / max(1, count[device]) for device in count}
    for device, share in sorted(shares.items()):
        if share > SLOW_SHARE:
            notes.append(
                f"{device} has two speed states: {share:.0%} of its recent repeats are slower than {_STATE_RATIO} × the usual; the usual counts"
            )
    return Table(tuple(timings), titles, tuple(notes), shares)


def _usual_state(latencies: Sequence[float]) -> float:
    """Return the typical latency of the faster state: the 30th percentile of recent repeats."""
    ordered = sorted(latencies)
    return ordered[int(0.3 * (len(ordered) - 1))]


def _one_name_a_data_set(rows: Sequence[Mapping[str, str]], notes: list[str]) -> dict[str, str]:
    """Map each device's title to one profile name for all titles whose rows are copies of each other."""
    content: dict[str, dict[tuple[str, ...], str]] = defaultdict(dict)
    for row in rows:
        content[row["device"]][row["date"], row["model"], row["precision"], row["runtime"], row.get("component", "")] = row["ms"]
    order = sorted(content, key=lambda title: (-len(content[title]), title))
    names = {title: slug(title) for title in order}
    for first, second in combinations(order, 2):
        common = content[first].keys() & content[second].keys()
        same = sum(content[first][key] == content[second][key] for key in common)
        if len(common) >= _SAME_ROWS and same > _SAME_SHARE * len(common):
            names[second] = names[first]
            notes.append(f"{second} is the same data as {first}")
    return names


def classifiers(models: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the networks that classify single images: what protocols test on. The others only calibrate."""
    return tuple(
        row["aihub_model"]
        for row in models
        if not row["torchvision_name"].startswith(_NOT_CLASSIFIERS) and row["aihub_model"] not in FAULTS
    )


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


def workload_name(row: Mapping[str, str]) -> str | None:
    """Return the name of the committed graph of a row of `read_models`; None where there is none."""
    from nas.graphs import workloads

    base = _library_name(row)
    if not base or row["aihub_model"] in COMPILED_AT:
        return None
    shape = (1, *map(int, row["input_size"].split("x")))
    known = set(workloads.names())
    return next((name for name in (base, f"{base}@{shape[-1]}") if name in known and workloads.describe(name).input == shape), None)


def _library_name(row: Mapping[str, str]) -> str:
    return row["torchvision_name"].rpartition(".")[2] if row["rebuild"].startswith("torchvision") else row["timm_name"]


def graphs_of(models: Sequence[Mapping[str, str]], folder: Path | None = None) -> tuple[dict[str, Graph], dict[str, str], list[str]]:
    """Return graphs and families by AI Hub's model name, and the names for which there is no graph.

    A file ``NAME.onnx`` in `folder` comes first, then the committed workloads, then the super-resolution networks. Files whose networks the
    model table does not know are taken up as well.
    """
    from nas.graphs import workloads

    if folder is not None:
        from nas.graphs.frontends.onnx_file import read_onnx

    graphs: dict[str, Graph] = {}
    families: dict[str, str] = {}
    missing: list[str] = []
    for row in models:
        name = row["aihub_model"]
        if name in FAULTS:
            continue
        known = workload_name(row)
        file = folder / f"{name}.onnx" if folder else None
        if file is not None and file.is_file():
            graphs[name] = read_onnx(file)
        elif known is not None:
            graphs[name] = workloads.load(known)
        elif name in COMPILED_AT:
            graphs[name] = _resized(workloads.load(_library_name(row)), COMPILED_AT[name])
        else:
            missing.append(name)
            continue
        families[name] = workloads.describe(known).family if known else _family_of(name)
    for file in sorted(folder.glob("*.onnx")) if folder else ():
        if file.stem not in graphs and file.stem not in FAULTS:
            graphs[file.stem] = read_onnx(file)
            families[file.stem] = _family_of(file.stem)
    for name in super_resolution.NETWORKS:
        graphs.setdefault(name, super_resolution.load(name))
        families.setdefault(name, "super_resolution")
    return {name: prepared(graph) if name in PREPARED else graph for name, graph in graphs.items()}, families, missing


def _resized(graph: Graph, shape: Shape) -> Graph:
    """Return a fully convolutional graph for another input; what is resized at its end is resized to the input."""
    shapes = {graph.inputs[0].name: shape}
    operators = []
    for op in graph.operators:
        infer = spec_of(op.op).infer
        found = infer([shapes[i] for i in op.inputs], [w.shape for w in op.weights], dict(op.attributes)) if infer else None
        shapes[op.outputs[0].name] = found or (*op.outputs[0].shape[:2], *shape[2:])
        operators.append(replace(op, outputs=(replace(op.outputs[0], shape=shapes[op.outputs[0].name]),)))
    return Graph((replace(graph.inputs[0], shape=shape),), tuple(operators), graph.outputs, graph.name)


def prepared(graph: Graph) -> Graph:
    """Return a graph that says of its images that they arrive normalised: each is scaled by one number, which costs nothing."""
    scaled = {value.name: replace(value, name=f"{value.name}/prepared") for value in graph.inputs if len(value.shape) > 3}
    scalings = [Operator(to.name, "Mul", (name,), (to,), (Weight((1,), parameter=False),)) for name, to in scaled.items()]
    moved = [replace(op, inputs=tuple(scaled[i].name if i in scaled else i for i in op.inputs)) for op in graph.operators]
    return Graph(graph.inputs, (*scalings, *moved), graph.outputs, graph.name)


def _family_of(name: str) -> str:
    return re.split(r"[^a-z]", name.lower())[0] or name


def samples_of(table: Table, graphs: Mapping[str, Graph], families: Mapping[str, str], precision: str | None = None) -> list[Sample]:
    """Return the timings as samples, optionally of one precision."""
    return [
        Sample(graphs[t.network], t.precision, t.latency_ms, t.network, t.device, families[t.network], t.trust)
        for t in table.timings
        if t.network in graphs and precision in (None, t.precision)
    ]


def repeats_within_pct(table: Table, device: str, precision: str) -> float | None:
    """Return the median difference between a network's last two measurements in the usual state."""
    found = [
        t.repeats_within_pct for t in table.timings if t.device == device and t.precision == precision and t.repeats_within_pct is not None
    ]
    return median(found) if found else None
