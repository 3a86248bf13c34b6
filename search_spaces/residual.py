"""``residual``: plain residual networks, which choose resolution, width and depths: dense 3 × 3 convolutions alone.

    stem ─▶ block × depth ─▶ (block that halves ─▶ block × (depth - 1)) × 2 or 3 ─▶ mean ─▶ linear        block: y = relu(shortcut(x) + conv(relu(conv(x))))

A batch norm follows each convolution; the shortcut is the identity, or a 1 × 1 convolution where a block halves. Few choices, and quick to train: where pictures
and minutes are few, a member trained alone from nothing ends above what a larger space makes of the same minutes (``experiments/021_own_pictures``). The width doubles
from stage to stage; the last stage may be missing. Presets: ``s``, of three stages of two blocks, which chooses resolution and width alone, and ``m``, of up to four
stages of up to six, for longer trainings.

Source:
    He et al., arXiv 1512.03385, sections 3.3 and 4.2. Wider and shallower than theirs, where seconds count: Zagoruyko and Komodakis, arXiv 1605.07146. Differs: shortcuts
    that halve are convolutions; the stem halves only what pictures are too large for (`BANDS`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace, Part, proportional
from nas.spaces.space import Choice, Resolution, spaces
from nas.units import parse_resolution
from search_spaces.hybrid import Head

if TYPE_CHECKING:
    from torch import nn

RESOLUTIONS = ("32x32", "64x64", "96x96", "128x128", "160x160", "192x192", "224x224", "256x256", "288x288")
Band = tuple[int, int, int]
"""Shortest side from and to which the stem reduces pictures, and by how much."""


# Source: ours, set by hand; widths are multiples of 8, since convolutions of others run slowly on CPUs and NPUs. The bands leave the stem maps of some 24 to 72 positions a side.
WIDTHS = (16, 24, 32, 40, 48, 64, 80, 96, 128)
BANDS: tuple[Band, ...] = ((16, 44, 1), (48, 92, 2), (96, 4096, 4))
DEPTHS: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "s": ((2,), (2,), (2,), (0,)),
    "m": ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4, 6), (0, 1, 2, 3)),
}
"""Blocks of each stage, by preset; a stage of none is left out."""


@dataclass(frozen=True)
class Stem(Part):
    """(1, 3, h, w) -> (1, width, h / r, w / r): a 3 × 3 convolution; two that halve where r is 4, the first of half the width.

    Attributes:
        width: Of the last.
        reduction: r, of 1, 2 or 4.
    """

    width: int
    reduction: int

    @property
    def _convolutions(self) -> tuple[tuple[int, int], ...]:
        """Width and stride of each."""
        return ((self.width // 2, 2), (self.width, 2)) if self.reduction > 2 else ((self.width, self.reduction),)

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        for i, (width, stride) in enumerate(self._convolutions):
            x = builder.unary("Relu", builder.conv(x, width, 3, stride=stride, name=f"conv{i + 1}"))
        return x

    def build(self) -> nn.Module:
        """Return the training form."""
        from torch import nn

        from search_spaces.layers.convolution import ConvNorm

        layers, before = list[nn.Module](), 3
        for width, stride in self._convolutions:
            layers += [ConvNorm(before, width, 3, stride=stride), nn.ReLU()]
            before = width
        return nn.Sequential(*layers)


@dataclass(frozen=True)
class Block(Part):
    """(1, c, h, w) -> (1, width, h / stride, w / stride): y = relu(shortcut(x) + conv(relu(conv(x)))), 3 × 3.

    Attributes:
        width: Of both convolutions.
        stride: Of the first, 1 or 2, and of the shortcut, which is the identity where nothing changes.
    """

    width: int
    stride: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        y = builder.unary("Relu", builder.conv(x, self.width, 3, stride=self.stride, name="conv1"))
        y = builder.conv(y, self.width, 3, name="conv2")
        if (self.shape[1], self.stride) != (self.width, 1):
            x = builder.conv(x, self.width, stride=self.stride, name="shortcut")
        return builder.unary("Relu", builder.binary("Add", y, x, name="residual"))

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.residual import ResidualBlock

        return ResidualBlock(self.shape[1], self.width, self.stride)


@spaces.register("residual")
class ResidualSpace(ElasticSpace):
    """Plain residual networks; see the module.

    Args:
        preset: ``s`` or ``m``.
        num_classes: Of the head.
        resolution: Fixes the deployment resolution; None leaves it to the search.

    Raises:
        UsageError: A resolution below 32 pixels or with a side that is no multiple of 4.
    """

    version = 4
    presets = ("s", "m")
    any_size = True
    evaluator_with_data: ClassVar[str] = "alone"
    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "resolution"})

    def __init__(self, preset: str, *, num_classes: int = 1000, resolution: Resolution | None = None) -> None:
        self.name, self.num_classes = f"residual-{preset}", num_classes
        if resolution is not None and (min(resolution) < 32 or any(side % 4 for side in resolution)):
            raise UsageError(
                f"space {self.name}: cannot take the resolution, got {resolution}. Expected multiples of 4 from 32 pixels a side."
            )
        resolutions = RESOLUTIONS if resolution is None else (f"{resolution[0]}x{resolution[1]}",)
        depths = [Choice(f"stage{s}.depth", values, ordered=True) for s, values in enumerate(DEPTHS[preset])]
        self.choices = (Choice("resolution", resolutions), Choice("width", WIDTHS, ordered=True), *depths)
        self._stem, self._block, self._head = cache(Stem), cache(Block), cache(Head)

    def reduction(self, size: Resolution) -> int:
        """Return by how much the stem reduces pictures of a size."""
        return next(factor for _, most, factor in BANDS if min(size) <= most)

    def map_size(self, size: Resolution, stage: int) -> Resolution:
        """Return the size of the maps of a stage, from 0."""
        factor = self.reduction(size) << stage
        height, width = (-(-side // factor) for side in size)
        return height, width

    def resolution(self, architecture: Architecture) -> Resolution:
        """Return the deployment resolution of an architecture."""
        return parse_resolution(str(architecture.genes[0]))

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:
        """Return the proxy resolution times (deployment resolution / 224), in steps of 4 pixels, if the search may choose.

        The stem's reduction is the same for all sizes of a supernet.
        """
        if len(self.choices[0].values) == 1:
            return resolution
        least, most, _ = next(band for band in BANDS if min(resolution) <= band[1])
        return proportional(resolution, self.resolution(architecture), least, most)

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """Return the chain of an architecture."""
        genes: tuple[Any, ...] = architecture.genes
        width, *depths = genes[1:]
        return tuple(self._chain(resolution or self.resolution(architecture), width, depths, num_classes or self.num_classes))

    def _chain(self, size: Resolution, width: int, depths: Sequence[int], classes: int) -> Iterator[Part]:
        yield self._stem("stem", (1, 3, *size), width, self.reduction(size))
        shape = (1, width, *self.map_size(size, 0))
        for s, depth in enumerate(depths):
            for i in range(depth):
                yield self._block(f"stage{s}.block{i}", shape, width << s, 2 if s and not i else 1)
                shape = (1, width << s, *self.map_size(size, s))
        yield self._head("head", shape, classes)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every position at the largest widths and the largest proxy."""
        largest = self.extreme(largest=True)
        size = self.proxy(self.architecture((self.choices[0].values[-1], *largest.genes[1:])), resolution)
        return {part.slot: (part,) for part in self.parts(largest, size, num_classes)}
