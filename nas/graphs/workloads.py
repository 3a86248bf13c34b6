"""Reference networks: published architectures as graphs in deploy form, traced once, free of timm and torchvision.

They are stored by family in ``hardware_profiles/workloads/``, one LZMA file each with one line a network, so that reading one
network touches one small file. ``index.json`` says what each is and where it comes from. ``as_written/`` has the same networks as their
libraries build them, for runtimes that execute that.
``counts.npz``, what a walk over all of them asks for, is read by `nas.graphs.known`.
"""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nas.errors import ArtifactError, UnknownNameError
from nas.graphs.graph import Graph, Operator, Value, Weight, freeze
from nas.graphs.operators import Shape
from nas.registry import match_name


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of a reference network.

    Attributes:
        name: timm's name where timm has it, else torchvision's, that of `nas.spaces.reference` or AI Hub's; ``name@256`` for another
            resolution than the published one, ``name.part`` for a part that is timed by itself.
        model: Name under which `library` builds it.
        library: ``timm``, ``torchvision``, ``references`` for `nas.spaces.reference`, or, where Qualcomm AI Hub times what these lack,
            ``transformers``, ``ultralytics``, or ``authors`` for what is written from papers (``experiments/001_workloads/networks``).
        family: Networks of one family are stored, and left out of fits, together.
        input: Shape of the input, batch first.
        params: As published, before batch norms are folded and after reparameterisation.
        macs: Multiply-adds.
    """

    name: str
    model: str
    library: str
    family: str
    input: Shape
    params: int
    macs: int


def folder() -> Path:
    """Return where the graphs are stored.

    Raises:
        ArtifactError: The package ``hardware_profiles`` is not installed.
    """
    spec = find_spec("hardware_profiles")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError("workloads: the package hardware_profiles is missing. Do this: install the whole distribution.")
    return Path(next(iter(spec.submodule_search_locations))) / "workloads"


@cache
def _index() -> dict[str, Workload]:
    path = folder() / "index.json"
    try:
        rows = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactError(f"workloads: cannot read {path} ({error}).") from None
    return {
        name: Workload(name, model, library, family, tuple(shape), params, macs)
        for name, (model, library, family, shape, params, macs) in rows.items()
    }


def names() -> tuple[str, ...]:
    """Return every network's name, sorted."""
    return tuple(sorted(_index()))


ALIASES = {
    "mnasnet0_5": "mnasnet_050",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "regnet_x_800mf": "regnetx_008",
    "regnet_x_1_6gf": "regnetx_016",
    "regnet_x_3_2gf": "regnetx_032",
    "regnet_y_1_6gf": "regnety_016",
    "regnet_y_3_2gf": "regnety_032",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
}
"""Networks of torchvision that timm has too, layer by layer, under another name."""


def is_name(text: str) -> bool:
    """Return whether a text may be the name of a network, and not of a file."""
    return not set("/\\") & set(text) and not re.search(r"\.[a-z]+[0-9]?$", text.lower())


def find(text: str) -> str:
    """Return the network that a user means: by name, torchvision's name, timm's name with its weights, or a part that only one has.

    Raises:
        UnknownNameError: None, or several.
    """
    if text in _index():
        return text
    remedy = "Expected ARCH.json, MODEL.onnx, .tflite, .pt2 or a name of nas spaces references."
    others = {other: name for other, name in ALIASES.items() if name in _index()}
    try:
        return match_name("network", text, _index(), others, remedy=remedy)
    except UnknownNameError:
        stem = text.partition(".")[0]
        if stem != text and stem in _index():
            return stem
        raise


def describe(name: str) -> Workload:
    """Return what is known of a network.

    Raises:
        UnknownNameError: No such network.
    """
    if name not in _index():
        raise UnknownNameError("reference network", name, _index())
    return _index()[name]


@cache
def _lines(path: Path) -> dict[str, str]:
    try:
        text = lzma.decompress(path.read_bytes()).decode()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ArtifactError(f"workloads: cannot read {path} ({error}).") from None
    return dict(line.split("\t", 1) for line in text.splitlines())


@cache
def load(name: str) -> Graph:
    """Return the graph of a network: deploy form, fp32, batch 1.

    Raises:
        UnknownNameError: No such network.
        ArtifactError: Its file is missing or damaged.
    """
    return unpack(name, _lines(folder() / f"{describe(name).family}.xz")[name])


@cache
def load_as_written(name: str) -> Graph:
    """Return the graph of a network as its library builds it: branches unfused, batch norms operators of their own, fp32, batch 1.

    What is worked out from weights at every run is the attribute ``weight_elements`` (see `nas.graphs.frontends.torch_module.trace_module`).

    Raises:
        UnknownNameError: No such network.
        ArtifactError: Its file is missing or damaged.
    """
    return unpack(name, _lines(folder() / "as_written" / f"{describe(name).family}.xz")[name])


def pack(graph: Graph) -> str:
    """Return a graph as one line of JSON.

    Tables of values (shape and dtype), weights and attributes, then rows ``[name, op, inputs as distances back, outputs, weights,
    attributes]`` of places in them: equal blocks read alike, and reading makes each thing once.
    """
    order = {name: i for i, name in enumerate(graph.values)}
    kinds, weights, attributes = _Table(), _Table(), _Table()
    rows: list[list[Any]] = []
    at = len(graph.inputs)
    for op in graph.operators:
        rows.append(
            [
                op.name,
                op.op,
                [at - order[name] for name in op.inputs],
                [kinds.place([v.shape, v.dtype]) for v in op.outputs],
                [weights.place(_packed(w)) for w in op.weights],
                attributes.place(dict(op.attributes)),
            ]
        )
        at += len(op.outputs)
    entries = [[v.shape, v.dtype] for v in graph.inputs]
    data = [entries, kinds.rows, weights.rows, attributes.rows, rows, [order[name] for name in graph.outputs]]
    return json.dumps(data, separators=(",", ":"))


class _Table:
    """Distinct rows in the order in which they came."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, row: Any) -> int:
        key = json.dumps(row)
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(row)
        return self._places[key]


def unpack(name: str, line: str) -> Graph:
    """Read what `pack` wrote.

    Raises:
        ArtifactError: The line is damaged.
    """
    try:
        entries, kinds, weights, attributes, rows, outputs = json.loads(line)
        shapes = [(tuple(shape), dtype) for shape, dtype in kinds]
        constants = [Weight(tuple(shape), *rest) for shape, *rest in weights]
        frozen = [freeze(pairs) for pairs in attributes]
        inputs = tuple(Value("input" if i == 0 else f"input:{i}", tuple(shape), dtype) for i, (shape, dtype) in enumerate(entries))
        known = [value.name for value in inputs]
        operators = []
        for label, op, back, made, used, pairs in rows:
            at = len(known)
            values = tuple(Value(label if i == 0 else f"{label}:{i}", *shapes[kind]) for i, kind in enumerate(made))
            sources = tuple(known[at - distance] for distance in back)
            operators.append(Operator(label, op, sources, values, tuple(constants[i] for i in used), frozen[pairs]))
            known += [value.name for value in values]
        return Graph(inputs, tuple(operators), tuple(known[i] for i in outputs), name)
    except (ValueError, TypeError, IndexError) as error:
        raise ArtifactError(f"workloads: damaged data of {name} ({error}).") from None


def _packed(weight: Weight) -> list[Any]:
    if weight.trainable is not None:
        return [weight.shape, weight.dtype, weight.parameter, weight.trainable]
    return [weight.shape, weight.dtype, weight.parameter]
