"""``residual``: plain residual networks, which choose resolution, width and depths: dense 3 × 3 convolutions and max pooling alone.

    stem ─▶ (max pool ─▶ relu(conv) ─▶ layer × depth) × 4 ─▶ mean ─▶ linear        layer: y = x + relu(conv(x)), a batch norm after each convolution

Few choices, and the fastest to train that are: where pictures and minutes are few, a member trained alone from nothing ends above what a larger space
makes of the same minutes (``experiments/021_own_pictures``). The width doubles from stage to stage; the last stage may be missing. Presets: ``s``, of three
stages of one layer, which chooses resolution and width alone, and ``m``, of up to four stages of up to six, for longer trainings.

Source:
    The stages of networks that are trained in seconds, Page, "How to train your ResNet" (2018), and Jordan, arXiv 2404.00498, section 3, with the shortcuts of He et al., arXiv
    1512.03385. Wide before deep, where seconds count: Zagoruyko and Komodakis, arXiv 1605.07146. Differs: pictures are pooled before a stage's first convolution, not
    after it, which spares three quarters of its multiply-adds; a shortcut spans one convolution; ReLU for GELU.
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
    "s": ((1,), (1,), (1,), (0,)),
    "m": ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4, 6), (0, 1, 2, 3)),
}
"""Layers beside the first of each stage, by preset; a stage of none is left out."""


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
class Reduction(Part):
    """(1, c, h, w) -> (1, width, h / 2, w / 2): the largest of each two by two positions, and a 3 × 3 convolution.

    Attributes:
        width: Of the convolution.
    """

    width: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return builder.unary("Relu", builder.conv(builder.pool("MaxPool", x, 2, name="pool"), self.width, 3, name="conv"))

    def build(self) -> nn.Module:
        """Return the training form."""
        from torch import nn

        from search_spaces.layers.convolution import ConvNorm

        return nn.Sequential(nn.MaxPool2d(2), ConvNorm(self.shape[1], self.width, 3), nn.ReLU())


@dataclass(frozen=True)
class Layer(Part):
    """(1, c, h, w) -> (1, c, h, w): y = x + relu(conv(x)), 3 × 3."""

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        y = builder.unary("Relu", builder.conv(x, self.shape[1], 3, name="conv"))
        return builder.binary("Add", x, y, name="residual")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.residual import ResidualLayer

        return ResidualLayer(self.shape[1])


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

    version = 3
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
        self._stem, self._reduction, self._layer, self._head = cache(Stem), cache(Reduction), cache(Layer), cache(Head)

    def reduction(self, size: Resolution) -> int:
        """Return by how much the stem reduces pictures of a size."""
        return next(factor for _, most, factor in BANDS if min(size) <= most)

    def map_size(self, size: Resolution, stages: int) -> Resolution:
        """Return the size of the maps after so many stages."""
        height, width = size
        for _ in range(self.reduction(size).bit_length() - 1):  # convolutions round up, pooling rounds down
            height, width = -(-height // 2), -(-width // 2)
        return height >> stages, width >> stages

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
        stages = 0
        for depth in depths:
            if depth:
                yield self._reduction(f"stage{stages}.reduction", (1, width << stages, *self.map_size(size, stages)), width << stages + 1)
                stages += 1
                for i in range(depth):
                    yield self._layer(f"stage{stages - 1}.layer{i}", (1, width << stages, *self.map_size(size, stages)))
        yield self._head("head", (1, width << stages, *self.map_size(size, stages)), classes)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every position at the largest widths and the largest proxy."""
        largest = self.extreme(largest=True)
        size = self.proxy(self.architecture((self.choices[0].values[-1], *largest.genes[1:])), resolution)
        return {part.slot: (part,) for part in self.parts(largest, size, num_classes)}
