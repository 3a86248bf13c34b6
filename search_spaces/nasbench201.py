"""NAS-Bench-201: a cell of four nodes and six edges, five operations an edge, 15,625 cells in one fixed network.

Members share one set of weights, an edge's operation in each cell (one-shot models as in section 5 of the paper), and a supernet may be smaller than
the benchmark's network: ``nasbench201-c8n2`` is the same cell space in a network that begins with 8 channels and has 2 cells a stage.

The graph is written as PyTorch runs it eagerly: a ``none`` edge multiplies by zero, and operators that feed nothing are
there. What a compiler leaves of it says `nas.graphs.passes.zeros`; which cells become one network says
`cell_key`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, permutations, product
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from nas.errors import UsageError
from nas.graphs.graph import Graph, GraphBuilder, Weight
from nas.graphs.operators import Shape
from nas.graphs.patterns import count_patterns
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.space import Choice, Resolution, spaces

if TYPE_CHECKING:
    from torch import nn

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(to, from), in the order of the benchmark's strings."""

# Source: NAS-Bench-201 (arXiv 2001.00326), figure 1.
_STAGES = 3
_CHANNELS, _CELLS = 16, 5
_LARGEST_PROXY = 32
_SIZE = re.compile(r"c([1-9]\d{0,2})n([1-9]\d?)")


@dataclass(frozen=True)
class Stem(Part):
    """(1, 3, h, w) -> (1, channels, h, w): convolution and normalisation."""

    channels: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return builder.conv(x, self.channels, 3, name="conv")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces._tabular_modules import nasbench201_stem

        return nasbench201_stem(self.channels)


@dataclass(frozen=True)
class CellPart(Part):
    """(1, c, h, w) -> (1, c, h, w): one cell. Each operation of each edge has weights of its own in the slot."""

    genes: tuple[Gene, ...]

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return _write_cell(builder, x, self.genes, self.shape[1])

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces._tabular_modules import Cell

        return Cell([str(gene) for gene in self.genes], self.shape[1])


@dataclass(frozen=True)
class ReductionPart(Part):
    """(1, c, h, w) -> (1, 2c, h/2, w/2): a residual block of stride 2."""

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return _write_reduction(builder, x, self.shape[1])

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces._tabular_modules import Reduction

        return Reduction(self.shape[1])


@dataclass(frozen=True)
class Head(Part):
    """(1, c, h, w) -> (1, classes): normalisation, activation, mean, and a linear layer."""

    classes: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return _write_head(builder, x, self.shape[1], self.classes)

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces._tabular_modules import nasbench201_head

        return nasbench201_head(self.shape[1], self.classes)


@spaces.register("nasbench201")
class NasBench201(ElasticSpace):
    """The cells of NAS-Bench-201 in its CIFAR network of 32 × 32 images (16 channels, 5 cells a stage), or in a smaller one of C channels and N cells.

    Args:
        preset: Empty for the benchmark's network, or ``cCnN``: C channels at the stem, N cells a stage.
        num_classes: Size of the classifier; CIFAR-10's by default.
        isomorphic: Whether a search takes cells that come to one network as ``one``, or ``apart`` as published tables do.

    Source:
        Dong & Yang, "NAS-Bench-201", ICLR 2020, arXiv:2001.00326: macro skeleton, ReLU-Conv-BN order, residual reduction.
    """

    choices = tuple(Choice(f"edge{source}{target}", OPERATIONS) for target, source in EDGES)
    presets = ("", "c8n2")

    def __init__(self, preset: str = "", *, num_classes: int = 10, isomorphic: Literal["one", "apart"] = "one") -> None:
        self.name = f"nasbench201-{preset}" if preset else "nasbench201"
        self.num_classes, self.isomorphic = num_classes, isomorphic
        size = _SIZE.fullmatch(preset)
        self.channels, self.cells = (int(size[1]), int(size[2])) if size else (_CHANNELS, _CELLS)

    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "isomorphic"})

    @classmethod
    def has_preset(cls, preset: str) -> bool:
        """See `SearchSpace.has_preset`; any number of channels and cells makes one."""
        return not preset or _SIZE.fullmatch(preset) is not None

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> NasBench201:
        """Return the space; the options are `num_classes` and `isomorphic`."""
        cls.check_options(preset, options)
        return cls(preset, **options)

    @classmethod
    def spells(cls, rows: npt.NDArray[Any]) -> bool:
        """See `SearchSpace.spells`."""
        return rows.dtype.kind == "U" and str(rows[0]).startswith("|")

    def parse(self, row: Any) -> Architecture:
        """Return the architecture of a benchmark string: ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

        Raises:
            UsageError: Not such a string.
        """
        nodes = [[edge.partition("~") for edge in part.strip("|").split("|")] for part in str(row).split("+")]
        if [[source for _, _, source in node] for node in nodes] != [["0"], ["0", "1"], ["0", "1", "2"]]:
            raise UsageError(f"space nasbench201: not a cell, got {row!r}. Expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|.")
        return self.architecture([op for node in nodes for op, _, _ in node])

    def write(self, architecture: Architecture) -> str:
        """Return the benchmark's string of an architecture."""
        e = [f"{op}~{source}" for op, (_, source) in zip(architecture.genes, EDGES, strict=True)]
        return f"|{e[0]}|+|{e[1]}|{e[2]}|+|{e[3]}|{e[4]}|{e[5]}|"

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return stem, cells, reductions and head; the cells of a stage are one object."""
        height, width = self._checked(resolution)
        channels = self.channels
        parts = [("stem", _stem(height, width, channels))]
        for stage in range(1, _STAGES + 1):
            if stage > 1:
                parts.append((f"reduction{stage - 1}", _reduction(channels, height, width)))
                channels, height, width = 2 * channels, height // 2, width // 2
            cell = _cell(architecture.genes, channels, height, width)
            parts += [(f"stage{stage}.cell{i}", cell) for i in range(1, self.cells + 1)]
        return (*parts, ("head", _head(height, width, channels, self.num_classes)))

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """See `ElasticSpace.parts`."""
        return self._chain(architecture.genes, self._checked(resolution), num_classes or self.num_classes)

    def _chain(self, genes: tuple[Gene, ...], resolution: Resolution, classes: int) -> tuple[Part, ...]:
        (height, width), channels = resolution, self.channels
        parts: list[Part] = [Stem("stem", (1, 3, height, width), channels)]
        for stage in range(1, _STAGES + 1):
            if stage > 1:
                parts.append(ReductionPart(f"reduction{stage - 1}", (1, channels, height, width)))
                channels, height, width = 2 * channels, height // 2, width // 2
            parts += [CellPart(f"stage{stage}.cell{i}", (1, channels, height, width), genes) for i in range(1, self.cells + 1)]
        return (*parts, Head("head", (1, channels, height, width), classes))

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """See `ElasticSpace.slots`: a cell of each kind of convolution has all weights of a slot."""
        slots: dict[str, dict[Part, None]] = {}
        for kind in ("nor_conv_3x3", "nor_conv_1x1"):
            for part in self._chain((kind,) * len(EDGES), resolution, num_classes):
                slots.setdefault(part.slot, {})[part] = None
        return {slot: tuple(parts) for slot, parts in slots.items()}

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:  # noqa: ARG002
        """Return the resolution, or the benchmark's 32 pixels where it is larger."""
        height, width = (min(side, _LARGEST_PROXY) for side in resolution)
        return height, width

    def _checked(self, resolution: Resolution | None) -> Resolution:
        height, width = resolution or (32, 32)
        if height % 4 or width % 4:
            raise UsageError(f"space nasbench201: the resolution must be a multiple of 4, got {height}x{width}.")
        return height, width

    def identity(self, architecture: Architecture) -> str:
        """Return the network that the cell comes to; with ``isomorphic="apart"`` the cell as it is written."""
        return architecture.key if self.isomorphic == "apart" else cell_key(architecture.genes)

    def features(self, architecture: Architecture) -> Mapping[str, float]:
        """Return the patterns of one cell: all fifteen are alike."""
        return _patterns(cell_key(architecture.genes), architecture.genes)


# Graphs of the pieces, one object each ------------------------------------------------------------------------------


def _graph_of(shape: Shape, write: Callable[[GraphBuilder, str], str]) -> Graph:
    builder = GraphBuilder()
    return builder.build(write(builder, builder.input(shape)))


@cache
def _stem(height: int, width: int, channels: int) -> Graph:
    return _graph_of((1, 3, height, width), lambda b, x: b.conv(x, channels, 3, name="conv"))


@lru_cache(maxsize=4096)
def _cell(genes: tuple[Gene, ...], channels: int, height: int, width: int) -> Graph:
    return _graph_of((1, channels, height, width), lambda b, x: _write_cell(b, x, genes, channels))


@cache
def _reduction(channels: int, height: int, width: int) -> Graph:
    return _graph_of((1, channels, height, width), lambda b, x: _write_reduction(b, x, channels))


@cache
def _head(height: int, width: int, channels: int, num_classes: int) -> Graph:
    return _graph_of((1, channels, height, width), lambda b, x: _write_head(b, x, channels, num_classes))


def _write_cell(b: GraphBuilder, x: str, genes: tuple[Gene, ...], channels: int) -> str:
    nodes = [x]
    for target in range(1, 4):
        total = ""
        for gene, (to, source) in zip(genes, EDGES, strict=True):
            if to != target:
                continue
            with b.scope(f"edge{source}{target}"):
                value = _edge(b, nodes[source], gene, channels)
            total = b.binary("Add", total, value, name=f"node{target}") if total else value
        nodes.append(total)
    return nodes[3]


def _edge(b: GraphBuilder, x: str, gene: Gene, channels: int) -> str:
    match gene:
        case "none":
            return b.add_operator("Mul", [x], {"constant": 0}, weights=[Weight((1,), parameter=False)], name="zero")
        case "skip_connect":
            return x
        case "avg_pool_3x3":
            return b.pool("AveragePool", x, 3, stride=1, pads=(1, 1, 1, 1), name="pool")
        case _:
            return b.conv(b.unary("Relu", x), channels, 3 if gene == "nor_conv_3x3" else 1, name="conv")


def _write_reduction(b: GraphBuilder, x: str, channels: int) -> str:
    """Write a residual block of stride 2, (1, channels, h, w) -> (1, 2·channels, h/2, w/2)."""
    y = b.conv(b.unary("Relu", x), 2 * channels, 3, stride=2, name="conv_a")
    y = b.conv(b.unary("Relu", y), 2 * channels, 3, name="conv_b")
    short = b.conv(b.pool("AveragePool", x, 2, name="pool"), 2 * channels, bias=False, name="shortcut")
    return b.binary("Add", short, y)


def _write_head(b: GraphBuilder, x: str, channels: int, num_classes: int) -> str:
    y = b.norm("BatchNormalization", x, channels, name="norm")
    return b.gemm(b.flatten(b.global_pool(b.unary("Relu", y))), num_classes, name="classifier")


# Which cells are one network ----------------------------------------------------------------------------------------


@cache
def cell_key(genes: tuple[Gene, ...], *, compiled: bool = True) -> str:
    """Return a string that two cells share exactly where a runtime executes one and the same graph for both.

    A compiled runtime drops ``none`` edges, whatever hangs on zeros alone or feeds nothing, and identities; it computes
    the pooling of one tensor once; and it does not see the order of nodes or of terms. Convolutions have weights of
    their own, so two of them are never merged. An eager runtime executes the cell as written: its key is the cell.

    Args:
        genes: One operation an edge.
        compiled: Whether the runtime normalises (see `nas.devices.profile.Profile.compiled`).

    Returns:
        An expression of the cell's output; ``"0"`` where the input does not reach it (341 cells).

    Source:
        Isomorphism as in NAS-Bench-201, section 2.3; unlike its released ``to_unique_str`` a convolution that is read twice is kept
        apart from two convolutions. A convolution of zeros leaves its bias, which is taken to fold away.
    """
    if not compiled:
        return "|".join(map(str, genes))
    # a term is (operation, input value); a value is the sorted tuple of its terms' numbers; term 0 is the cell's input
    terms: list[tuple[str, tuple[int, ...]]] = [("x", ())]
    nodes: list[tuple[int, ...]] = [(0,)]
    for target in range(1, 4):
        total: list[int] = []
        for gene, (to, source) in zip(genes, EDGES, strict=True):
            value = nodes[source] if to == target else ()
            if gene == "none" or not value:
                continue
            if gene == "skip_connect":
                total += value
            elif gene == "avg_pool_3x3" and ("p", value) in terms:
                total.append(terms.index(("p", value)))
            else:
                terms.append(({"avg_pool_3x3": "p", "nor_conv_1x1": "c", "nor_conv_3x3": "C"}[str(gene)], value))
                total.append(len(terms) - 1)
        nodes.append(tuple(sorted(total)))
    if not nodes[3]:
        return "0"

    def expression(value: tuple[int, ...], label: dict[int, int]) -> str:
        return "+".join(sorted(_term(terms[i][0], expression(terms[i][1], label), label.get(i)) for i in value))

    alike: dict[str, list[int]] = {}
    for i in _reachable(terms, nodes[3]):
        if terms[i][0] in "cC":
            alike.setdefault(expression((i,), {}), []).append(i)
    orders = product(*(permutations(group) for _, group in sorted(alike.items())))
    return min(expression(nodes[3], {i: k for k, i in enumerate(chain(*order))}) for order in orders)


def _term(op: str, argument: str, label: int | None) -> str:
    if op == "x":
        return "x"
    return f"{op}{'' if label is None else label}({argument})"


def _reachable(terms: Sequence[tuple[str, tuple[int, ...]]], value: tuple[int, ...]) -> list[int]:
    reachable: set[int] = set()
    stack = list(value)
    while stack:
        i = stack.pop()
        if i not in reachable:
            reachable.add(i)
            stack += terms[i][1]
    return sorted(reachable)


_PATTERNS: dict[str, Mapping[str, float]] = {}


def _patterns(key: str, genes: tuple[Gene, ...]) -> Mapping[str, float]:
    if key not in _PATTERNS:
        _PATTERNS[key] = count_patterns.__wrapped__(_cell.__wrapped__(genes, 16, 32, 32))
    return _PATTERNS[key]


@cache
def equivalence_classes(*, compiled: bool = True) -> npt.NDArray[np.int64]:
    """Return the class of every cell, shape (15625,), in the order of `NasBench201.enumerate`; classes are numbered as they appear."""
    numbers: dict[str, int] = {}
    keys = (cell_key(genes, compiled=compiled) for genes in product(OPERATIONS, repeat=len(EDGES)))
    classes = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    classes.setflags(write=False)
    return classes


def cell_indices(cells: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return where the cells of a table (benchmark strings) stand in the order of `NasBench201.enumerate`, shape (n,).

    Raises:
        UsageError: A string is no cell.
    """
    number = {op: i for i, op in enumerate(OPERATIONS)}
    indices = np.empty(len(cells), dtype=np.int64)
    for row, cell in enumerate(cells):
        edges = [edge.partition("~")[0] for part in str(cell).split("+") for edge in part.strip("|").split("|")]
        if len(edges) != len(EDGES) or not number.keys() >= set(edges):
            raise UsageError(f"space nasbench201: not a cell, got {cell!r}.")
        indices[row] = sum(number[op] * len(OPERATIONS) ** (5 - i) for i, op in enumerate(edges))
    return indices
