"""``residual``: plain residual networks, which choose resolution, width and depths: dense 3 × 3 convolutions alone.

    stem ─▶ (block × depth) × 4 ─▶ mean ─▶ linear        block: y = relu(x + conv(relu(conv(x)))), a batch norm after each convolution

Few choices, and the fastest to train that are: where pictures and minutes are few, a member trained alone from nothing ends above what a larger space
makes of the same minutes (``experiments/021_own_pictures``). Presets: ``s`` (0.08 to 6.5 M parameters), whose stem halves pictures of 32 pixels: a quarter of the
multiply-adds, and so more epochs; and ``m``, for longer trainings, which leaves them whole.

Source:
    He et al., arXiv 1512.03385; without the stem's reduction a width of 16 with depths of 3, 3, 3 and 0 is their ResNet-20 for CIFAR-10 (section 4.2), whose
    widths double from stage to stage, too. Differs: two convolutions in the stem, a convolution in the shortcut wherever a stage begins, and a last stage of depth 0 to 2.
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


@dataclass(frozen=True)
class _Size:
    """Widths of the first stage, depths of the stages of a preset, and the bands of its stem."""

    widths: tuple[int, ...]
    depths: tuple[tuple[int, ...], ...]
    bands: tuple[Band, ...]


# Source: ours, set by hand, around ResNet-20 and ResNet-18 (arXiv 1512.03385); widths are multiples of 16, since convolutions of others run slowly on CPUs and NPUs. The bands of `m` leave the first stage maps of some 24 to 72 positions a side;
# those of `s` at most 28 below 128 pixels, which short trainings of 32 pixels ask for (experiments/021_own_pictures).
SIZES: Mapping[str, _Size] = {
    "s": _Size(
        (16, 32, 48, 64),
        ((1, 2), (1, 2), (1, 2), (0, 1)),
        ((16, 28, 1), (32, 60, 2), (64, 4096, 4)),
    ),
    "m": _Size(
        (16, 32, 48, 64, 80, 96, 112, 128),
        ((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4, 6), (0, 1, 2, 3)),
        ((16, 44, 1), (48, 92, 2), (96, 4096, 4)),
    ),
}


def _halved(side: int) -> int:
    return -(-side // 2)


@dataclass(frozen=True)
class Stem(Part):
    """(1, 3, h, w) -> (1, width, h / r, w / r): two 3 × 3 convolutions.

    Attributes:
        width: Of the second.
        reduction: r, of 1, 2 or 4.
    """

    width: int
    reduction: int

    @property
    def strides(self) -> tuple[int, int]:
        """Of the two convolutions."""
        return (2 if self.reduction > 2 else 1), (2 if self.reduction > 1 else 1)

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        first, second = self.strides
        x = builder.unary("Relu", builder.conv(x, max(8, self.width // 2), 3, stride=first, name="conv1"))
        return builder.unary("Relu", builder.conv(x, self.width, 3, stride=second, name="conv2"))

    def build(self) -> nn.Module:
        """Return the training form."""
        from torch import nn

        from search_spaces.layers.convolution import ConvNorm

        (first, second), narrow = self.strides, max(8, self.width // 2)
        return nn.Sequential(ConvNorm(3, narrow, 3, stride=first), nn.ReLU(), ConvNorm(narrow, self.width, 3, stride=second), nn.ReLU())


@dataclass(frozen=True)
class Block(Part):
    """(1, c, h, w) -> (1, width, h / stride, w / stride): y = relu(s(x) + conv(relu(conv(x)))); s is x itself, or a 1 × 1 convolution of the stride.

    Attributes:
        width: Of both convolutions.
        stride: Of the first, and of the shortcut.
        projects: Whether the shortcut has a convolution: where a stage after the first begins.
    """

    width: int
    stride: int
    projects: bool

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        y = builder.unary("Relu", builder.conv(x, self.width, 3, stride=self.stride, name="conv1"))
        y = builder.conv(y, self.width, 3, name="conv2")
        past = builder.conv(x, self.width, 1, stride=self.stride, name="shortcut") if self.projects else x
        return builder.unary("Relu", builder.binary("Add", past, y, name="residual"))

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.residual import ResidualBlock

        return ResidualBlock(self.shape[1], self.width, self.stride, projects=self.projects)


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

    version = 2
    presets = ("s", "m")
    any_size = True
    evaluator_with_data: ClassVar[str] = "alone"
    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "resolution"})

    def __init__(self, preset: str, *, num_classes: int = 1000, resolution: Resolution | None = None) -> None:
        self.name, self.num_classes, self._size = f"residual-{preset}", num_classes, SIZES[preset]
        if resolution is not None and (min(resolution) < 32 or any(side % 4 for side in resolution)):
            raise UsageError(
                f"space {self.name}: cannot take the resolution, got {resolution}. Expected multiples of 4 from 32 pixels a side."
            )
        resolutions = RESOLUTIONS if resolution is None else (f"{resolution[0]}x{resolution[1]}",)
        depths = [Choice(f"stage{s}.depth", values, ordered=True) for s, values in enumerate(self._size.depths)]
        self.choices = (Choice("resolution", resolutions), Choice("width", self._size.widths, ordered=True), *depths)
        self._stem, self._block, self._head = cache(Stem), cache(Block), cache(Head)

    def reduction(self, size: Resolution) -> int:
        """Return by how much the stem reduces pictures of a size."""
        return next(factor for _, most, factor in self._size.bands if min(size) <= most)

    def map_size(self, size: Resolution, stage: int) -> Resolution:
        """Return the size of a stage's maps."""
        height, width = size
        for _ in range(self.reduction(size).bit_length() - 1 + stage):
            height, width = _halved(height), _halved(width)
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
        least, most, _ = next(band for band in self._size.bands if min(resolution) <= band[1])
        return proportional(resolution, self.resolution(architecture), least, most)

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """Return the chain of an architecture."""
        genes: tuple[Any, ...] = architecture.genes
        width, *depths = genes[1:]
        return tuple(self._chain(resolution or self.resolution(architecture), width, depths, num_classes or self.num_classes))

    def _chain(self, size: Resolution, first: int, depths: Sequence[int], classes: int) -> Iterator[Part]:
        before, last = first, 0
        yield self._stem("stem", (1, 3, *size), before, self.reduction(size))
        for s, depth in enumerate(depths):
            width = first * 2**s
            for b in range(depth):
                begins = s > 0 and b == 0
                shape = (1, before, *self.map_size(size, last))
                yield self._block(f"stage{s}.block{b}", shape, width, 2 if begins else 1, begins)
                before, last = width, s
        yield self._head("head", (1, before, *self.map_size(size, last)), classes)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every position at the largest widths and the largest proxy."""
        largest = self.extreme(largest=True)
        size = self.proxy(self.architecture((self.choices[0].values[-1], *largest.genes[1:])), resolution)
        return {part.slot: (part,) for part in self.parts(largest, size, num_classes)}
