"""HaloNet: residual networks whose bottlenecks attend, in blocks with a halo, in place of a convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.mixers.halonet import Blocks, HaloAttention
from search_spaces.mixers.halonet import HaloNet as Family

BLOCK = 8
STEM = 64


@dataclass(frozen=True, slots=True)
class Configuration:
    """One network.

    Attributes:
        widths: Output channels by stage.
        attends: For each block of each stage, the heads of its attention; 0 is a convolution.
        halo: Positions around a block.
        ratio: Inner by output channels.
        stem: Kernels and widths of the stem's convolutions.
        activation: After each norm.
    """

    widths: tuple[int, ...]
    attends: tuple[tuple[int, ...], ...]
    halo: int
    ratio: float
    stem: tuple[tuple[int, int], ...]
    activation: type[nn.Module]


_TIERED = ((3, 24), (3, 32), (3, 64))
CONFIGURATIONS = {
    "halonet26t": Configuration((256, 512, 1024, 2048), ((0, 0), (0, 0), (0, 8), (8, 8)), 2, 0.25, _TIERED, nn.ReLU),
    "halonet50ts": Configuration(
        (256, 512, 1024, 2048), ((0, 0, 0), (0, 0, 0, 4), (0, 8, 0, 8, 0, 8), (0, 8, 0)), 3, 0.25, _TIERED, nn.SiLU
    ),
    "halonet_h1": Configuration((64, 128, 256, 512), ((8,) * 3, (8,) * 3, (8,) * 10, (8,) * 3), 3, 1.0, ((7, 64),), nn.ReLU),
}
SIDE = 256
"""Of the pictures; the tables of displacements fit blocks of eight."""


def normed(channels: int, out: int, kernel: int, stride: int, activation: type[nn.Module] | None) -> nn.Sequential:
    """Return a convolution without bias, a batch norm and, if any, an activation."""
    layers = [nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class Bottleneck(nn.Module):
    """1 × 1, then a 3 × 3 convolution or an attention, then 1 × 1, with a shortcut. (n, c, h, w) -> (n, out, h / stride, w / stride).

    Args:
        channels: c.
        out: Output channels.
        side: h and w.
        heads: Of the attention; 0 is a convolution.
        stride: Of the whole.
        configuration: Of the network.
    """

    def __init__(self, channels: int, out: int, side: int, heads: int, stride: int, configuration: Configuration) -> None:
        super().__init__()
        act = configuration.activation
        inner = int(out * configuration.ratio)
        self.shortcut: nn.Module | None = None
        if channels != out or stride > 1:
            self.shortcut = normed(channels, out, 1, stride, None)
        self.reduce = normed(channels, inner, 1, 1, act)
        if heads:
            attention = HaloAttention(inner, inner, heads, inner // heads, Blocks.of((side, side), BLOCK, configuration.halo), stride)
            self.mix = nn.Sequential(attention, nn.BatchNorm2d(inner), act())
        else:
            self.mix = normed(inner, inner, 3, stride, act)
        self.expand = normed(inner, out, 1, 1, None)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.mix(self.reduce(x)))
        return self.act(y + (x if self.shortcut is None else self.shortcut(x)))


class HaloResNet(nn.Module):
    """Stem, four stages, head. (n, 3, 256, 256) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, num_classes: int) -> None:
        super().__init__()
        stem: list[nn.Module] = []
        channels, side = 3, SIDE // 4
        for i, (kernel, width) in enumerate(configuration.stem):
            stem.append(normed(channels, width, kernel, 2 if i == 0 else 1, configuration.activation))
            channels = width
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        for stage, (width, attends) in enumerate(zip(configuration.widths, configuration.attends, strict=True)):
            for i, heads in enumerate(attends):
                stride = 2 if stage and i == 0 else 1
                blocks.append(Bottleneck(channels, width, side, heads, stride, configuration))
                channels, side = width, side // stride
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@references.register("halonet")
class HaloNets(ReferenceSystem):
    """HaloNet-26-T, 50-TS and H1."""

    source: ClassVar[Source] = Family.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "HaloNet",
            "halonet26t",
            12_480_288,
            3_172_810_752,
            (SIDE, SIDE),
            "halonet26t",
        ),
        Variant(
            "HaloNet",
            "halonet50ts",
            22_733_280,
            5_269_504_000,
            (SIDE, SIDE),
            "halonet50ts",
        ),
        Variant("HaloNet", "halonet_h1", 8_100_056, 2_988_232_704, (SIDE, SIDE), "halonet_h1"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return HaloResNet(CONFIGURATIONS[name], num_classes)
