"""FBNet with its CIFAR-100 shapes, as the latency tables of HW-NAS-Bench and HELP measured it: 22 blocks, nine choices each."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from nas.errors import UsageError
from nas.graphs.graph import Graph, GraphBuilder
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.space import Choice, Resolution, SearchSpace, spaces

if TYPE_CHECKING:
    from torch import nn

BLOCKS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
"""In the order of the tables' indices; kernel, expansion, groups."""

# Source: FBNet (arXiv 1812.03443), table 1, with the strides for CIFAR-100 of HW-NAS-Bench.
_WIDTHS, _DEPTHS, _STRIDES, _HEADER = (16, 24, 32, 64, 112, 184, 352), (1, 4, 4, 4, 4, 4, 1), (1, 1, 2, 2, 1, 2, 1), 1504


def _places() -> tuple[tuple[int, int, int], ...]:
    """Return (c_in, c_out, stride) of the 22 blocks."""
    places, c_in = [], 16
    for width, depth, stride in zip(_WIDTHS, _DEPTHS, _STRIDES, strict=True):
        for i in range(depth):
            places.append((c_in, width, stride if i == 0 else 1))
            c_in = width
    return tuple(places)


PLACES = _places()


@spaces.register("fbnet")
class FBNet(SearchSpace):
    """A chain of inverted residuals for 32 × 32 images.

    A skipped block between equal shapes is nothing at all, so the blocks of a stage are spelt with the skips last.

    Args:
        num_classes: Size of the classifier; CIFAR-100's by default.

    Source:
        Wu et al., "FBNet", CVPR 2019, arXiv:1812.03443; CIFAR shapes of Li et al., "HW-NAS-Bench", ICLR 2021, arXiv:2103.10584.
    """

    name = "fbnet"
    choices = tuple(Choice(f"block{i}", BLOCKS) for i in range(len(PLACES)))

    def __init__(self, num_classes: int = 100) -> None:
        self.num_classes = num_classes

    options: ClassVar[frozenset[str]] = frozenset({"num_classes"})

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> FBNet:
        """Return the space; the one option is `num_classes`."""
        cls.check_options(preset, options)
        return cls(**options)

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Move the skips of equal shape to the end of their stage."""
        spelt: list[Gene] = []
        at = 0
        for depth in _DEPTHS:
            first, rest = genes[at : at + 1], genes[at + 1 : at + depth]
            spelt += [*first, *(gene for gene in rest if gene != "skip"), *(gene for gene in rest if gene == "skip")]
            at += depth
        return tuple(spelt)

    @classmethod
    def spells(cls, rows: npt.NDArray[Any]) -> bool:
        """See `SearchSpace.spells`."""
        return rows.dtype.kind in "iu" and rows.shape[1:] == (len(PLACES),)

    def parse(self, row: Any) -> Architecture:
        """Return the architecture of a table's row of 22 block row.

        Raises:
            UsageError: Not such a row.
        """
        if len(row) != len(PLACES):
            raise UsageError(f"space fbnet: not a row of {len(PLACES)} blocks, got {len(row)}.")
        return self.decode([int(i) for i in row])

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return stem, blocks and head; a skip between equal shapes is left out."""
        height, width = resolution or (32, 32)
        parts = [("stem", _stem(height, width))]
        for i, (gene, place) in enumerate(zip(architecture.genes, PLACES, strict=True)):
            c_in, c_out, stride = place
            if gene != "skip" or c_in != c_out or stride > 1:
                parts.append((f"block{i}", _block(gene, *place, height, width)))
            height, width = -(-height // stride), -(-width // stride)
        return (*parts, ("head", _head(height, width, self.num_classes)))

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:  # noqa: ARG002
        """Return the network with fresh weights, (n, 3, h, w) -> (n, num_classes)."""
        from search_spaces._tabular_modules import fbnet_network

        self.validate(architecture)
        blocks = [(gene, *place, *_knobs(gene)) for gene, place in zip(architecture.genes, PLACES, strict=True)]
        return fbnet_network(blocks, _HEADER, num_classes or self.num_classes)


def _knobs(gene: Gene) -> tuple[int, int, int]:
    """Return (kernel, expansion, groups); ones for a skip."""
    if gene == "skip":
        return 1, 1, 1
    kernel, expansion, *group = str(gene).split("_")
    return int(kernel[1:]), int(expansion[1:]), int(group[0][1:]) if group else 1


@cache
def _stem(height: int, width: int) -> Graph:
    b = GraphBuilder()
    return b.build(b.conv(b.input((1, 3, height, width)), 16, 3, activation="Relu", name="conv"))


@lru_cache(maxsize=4096)
def _block(gene: Gene, c_in: int, c_out: int, stride: int, height: int, width: int) -> Graph:
    b = GraphBuilder()
    x = b.input((1, c_in, height, width))
    if gene == "skip":
        return b.build(b.conv(x, c_out, stride=stride, activation="Relu", name="skip"))
    kernel, expansion, groups = _knobs(gene)
    y = b.conv(x, c_in * expansion, groups=groups, activation="Relu", name="expand")
    if groups > 1:
        shape = b.shape(y)
        y = b.reshape(y, (1, groups, shape[1] // groups, *shape[2:]), name="shuffle.split")
        y = b.reshape(b.transpose(y, (0, 2, 1, 3, 4), name="shuffle"), shape, name="shuffle.join")
    y = b.depthwise(y, kernel, stride=stride, activation="Relu", name="depthwise")
    y = b.conv(y, c_out, groups=groups, name="project")
    return b.build(b.binary("Add", x, y) if c_in == c_out and stride == 1 else y)


@cache
def _head(height: int, width: int, num_classes: int) -> Graph:
    b = GraphBuilder()
    x = b.conv(b.input((1, _WIDTHS[-1], height, width)), _HEADER, activation="Relu", name="conv")
    return b.build(b.gemm(b.flatten(b.global_pool(x)), num_classes, name="classifier"))
