"""Once-for-All's MobileNetV3 space: five stages of two to four blocks, kernel and expansion a block, 25 resolutions."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

from nas.errors import UsageError
from nas.graphs.graph import Graph, GraphBuilder
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.space import Choice, Resolution, SearchSpace, spaces

if TYPE_CHECKING:
    from torch import nn

# Source: Once-for-All (arXiv 1908.09791), MobileNetV3's space; (width, stride, activation, squeeze-excite) by stage.
_STAGES = (
    (24, 2, "Relu", False),
    (40, 2, "Relu", True),
    (80, 2, "HardSwish", False),
    (112, 1, "HardSwish", True),
    (160, 2, "HardSwish", True),
)
_KERNELS, _EXPANSIONS, _DEPTHS, _MOST = (3, 5, 7), (3, 4, 6), (2, 3, 4), 4
_RESOLUTIONS = tuple(range(128, 225, 4))

Block = tuple[int, int, int, int, int, str, int]  # c_in, middle, c_out, kernel, stride, activation, squeezed channels or 0


@spaces.register("ofa")
class OnceForAll(SearchSpace):
    """MobileNetV3 with elastic depth, kernel, expansion and resolution.

    Blocks beyond a stage's depth have no effect and take the first kernel and expansion.

    Args:
        num_classes: Size of the classifier.
        width_multiplier: 1.2 as in HELP's tables (they name accuracies that only the wide supernet reaches), or 1.0.

    Source:
        Cai et al., "Once-for-All", ICLR 2020, arXiv:1908.09791; stages of ``ofa_mbv3_d234_e346_k357``.
    """

    name = "ofa"
    choices = (
        Choice("resolution", _RESOLUTIONS, ordered=True),
        *(Choice(f"stage{s}.depth", _DEPTHS, ordered=True) for s in range(5)),
        *(
            Choice(f"stage{s}.block{b}.{knob}", values, ordered=True)
            for s in range(5)
            for b in range(_MOST)
            for knob, values in (("kernel", _KERNELS), ("expansion", _EXPANSIONS))
        ),
    )

    def __init__(self, num_classes: int = 1000, width_multiplier: float = 1.2) -> None:
        self.num_classes, self.width_multiplier = num_classes, width_multiplier

    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "width_multiplier"})

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> OnceForAll:
        """Return the space; options are `num_classes` and `width_multiplier`."""
        cls.check_options(preset, options)
        return cls(**options)

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Reset the knobs of blocks that the depths leave out."""
        spelt = list(genes)
        for stage, depth in enumerate(genes[1:6]):
            for block in range(int(depth), _MOST):
                at = 6 + 2 * (_MOST * stage + block)
                spelt[at : at + 2] = _KERNELS[0], _EXPANSIONS[0]
        return tuple(spelt)

    @classmethod
    def spells(cls, rows: npt.NDArray[Any]) -> bool:
        """See `SearchSpace.spells`."""
        return rows.dtype.kind == "U" and '"ks"' in str(rows[0])

    def parse(self, row: Any) -> Architecture:
        """Return the architecture of a table's JSON ``{"ks": 20, "e": 20, "d": 5, "r": 1}``.

        Raises:
            UsageError: Not such a row.
        """
        try:
            plain = json.loads(str(row))
            knobs = [value for pair in zip(plain["ks"], plain["e"], strict=True) for value in pair]
            genes = [plain["r"], *plain["d"], *knobs]
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"space ofa: not a row with ks, e, d and r ({error}).") from None
        return self.architecture(genes)

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return stem, blocks and head at the architecture's own resolution unless another is asked for."""
        own = int(architecture.genes[0])
        height, width = resolution or (own, own)
        height, width = -(-height // 2), -(-width // 2)
        stem, blocks, expand, features = self._plan(architecture)
        parts = [("stem", _stem(*(resolution or (own, own)), stem))]
        for i, block in enumerate(blocks):
            parts.append((f"block{i}", _block(block, height, width)))
            height, width = -(-height // block[4]), -(-width // block[4])
        return (*parts, ("head", _head(blocks[-1][2], height, width, expand, features, self.num_classes)))

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:  # noqa: ARG002
        """Return the network with fresh weights, (n, 3, h, w) -> (n, num_classes)."""
        from search_spaces._tabular_modules import ofa_network

        self.validate(architecture)
        stem, blocks, expand, features = self._plan(architecture)
        return ofa_network(stem, blocks, expand, features, num_classes or self.num_classes)

    def _plan(self, architecture: Architecture) -> tuple[int, list[Block], int, int]:
        """Return the stem's channels, the blocks, and the widths of the last two convolutions."""
        wide = self.width_multiplier
        stem = _divisible(16 * wide)
        blocks: list[Block] = [(stem, stem, stem, 3, 1, "Relu", 0)]
        c_in = stem
        for stage, (base, stride, activation, squeeze) in enumerate(_STAGES):
            c_out = _divisible(base * wide)
            for block in range(int(architecture.genes[1 + stage])):
                kernel, expansion = (int(gene) for gene in architecture.genes[6 + 2 * (_MOST * stage + block) :][:2])
                middle = _divisible(c_in * expansion)
                reduced = _divisible(middle // 4) if squeeze else 0
                blocks.append((c_in, middle, c_out, kernel, stride if block == 0 else 1, activation, reduced))
                c_in = c_out
        return stem, blocks, _divisible(960 * wide), _divisible(1280 * wide)


def _divisible(channels: float) -> int:
    """Round to a multiple of eight, at most a tenth down (MobileNet's rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


@cache
def _stem(height: int, width: int, channels: int) -> Graph:
    b = GraphBuilder()
    return b.build(b.conv(b.input((1, 3, height, width)), channels, 3, stride=2, activation="HardSwish", name="conv"))


@lru_cache(maxsize=16384)
def _block(block: Block, height: int, width: int) -> Graph:
    c_in, middle, c_out, kernel, stride, activation, reduced = block
    b = GraphBuilder()
    x = b.input((1, c_in, height, width))
    y = b.conv(x, middle, activation=activation, name="expand") if middle != c_in else x
    y = b.depthwise(y, kernel, stride=stride, activation=activation, name="depthwise")
    if reduced:
        with b.scope("squeeze"):
            gate = b.conv(b.global_pool(y), reduced, activation="Relu", name="reduce")
            gate = b.unary("HardSigmoid", b.conv(gate, middle, name="expand"))
            y = b.binary("Mul", y, gate)
    y = b.conv(y, c_out, name="project")
    return b.build(b.binary("Add", x, y) if c_in == c_out and stride == 1 else y)


@cache
def _head(c_in: int, height: int, width: int, expand: int, features: int, num_classes: int) -> Graph:
    b = GraphBuilder()
    x = b.conv(b.input((1, c_in, height, width)), expand, activation="HardSwish", name="expand")
    x = b.conv(b.global_pool(x), features, bias=False, activation="HardSwish", name="features")
    return b.build(b.gemm(b.flatten(x), num_classes, name="classifier"))
