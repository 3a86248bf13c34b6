"""Reference networks: published architectures as graphs in deploy form, traced once, free of timm and torchvision.

They are stored by family in ``hardware_profiles/workloads/``, one LZMA file each with one line a network, so that reading one
network touches one small file. ``index.json`` says what each is and where it comes from.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nas.errors import ArtifactError, UnknownNameError
from nas.graph import Graph, Operator, Value, Weight, freeze
from nas.ops import Shape


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of a reference network.

    Attributes:
        name: timm's name where timm has it, else torchvision's; ``name@256`` for another resolution than the published one.
        model: Name under which `library` builds it.
        library: ``timm`` or ``torchvision``.
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


def describe(name: str) -> Workload:
    """Return what is known of a network.

    Raises:
        UnknownNameError: No such network.
    """
    if name not in _index():
        raise UnknownNameError("reference network", name, _index())
    return _index()[name]


@cache
def _lines(family: str) -> dict[str, str]:
    path = folder() / f"{family}.xz"
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
    return unpack(name, _lines(describe(name).family)[name])


def pack(graph: Graph) -> str:
    """Return a graph as one line of JSON; values are numbered, so that equal blocks read alike.

    A row is ``[name, op, inputs as distances back, outputs, weights, attributes]``.
    """
    order = {name: i for i, name in enumerate(graph.values)}
    rows: list[list[Any]] = []
    at = len(graph.inputs)
    for op in graph.operators:
        rows.append(
            [
                op.name,
                op.op,
                [at - order[name] for name in op.inputs],
                [v.shape if v.dtype == "fp32" else [*v.shape, v.dtype] for v in op.outputs],
                [_packed(w) for w in op.weights],
                {key: value for key, value in op.attributes if value is not None},
            ]
        )
        at += len(op.outputs)
    data = [[[v.shape, v.dtype] for v in graph.inputs], rows, [order[name] for name in graph.outputs]]
    return json.dumps(data, separators=(",", ":"))


def unpack(name: str, line: str) -> Graph:
    """Read what `pack` wrote.

    Raises:
        ArtifactError: The line is damaged.
    """
    try:
        entries, rows, outputs = json.loads(line)
        values = [Value("input" if i == 0 else f"input:{i}", tuple(shape), dtype) for i, (shape, dtype) in enumerate(entries)]
        inputs = tuple(values)
        operators = []
        for label, op, back, shapes, weights, attributes in rows:
            at = len(values)
            made = tuple(_value(label if i == 0 else f"{label}:{i}", shape) for i, shape in enumerate(shapes))
            sources = tuple(values[at - distance].name for distance in back)
            operators.append(Operator(label, op, sources, made, tuple(map(_unpacked, weights)), freeze(attributes)))
            values += made
        return Graph(inputs, tuple(operators), tuple(values[i].name for i in outputs), name)
    except (ValueError, TypeError, IndexError) as error:
        raise ArtifactError(f"workloads: damaged data of {name} ({error}).") from None


def _value(name: str, shape: list[Any]) -> Value:
    return Value(name, tuple(shape[:-1]), shape[-1]) if shape and isinstance(shape[-1], str) else Value(name, tuple(shape))


def _packed(weight: Weight) -> list[Any]:
    if weight.dtype == "fp32" and weight.parameter and weight.trainable is None:
        return list(weight.shape)
    return [weight.shape, weight.dtype, int(weight.parameter), *([] if weight.trainable is None else [weight.trainable])]


def _unpacked(data: list[Any]) -> Weight:
    if data and isinstance(data[0], list):
        shape, dtype, parameter, *trainable = data
        return Weight(tuple(shape), dtype, bool(parameter), *trainable)
    return Weight(tuple(data))
