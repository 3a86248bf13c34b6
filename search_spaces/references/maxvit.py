"""MaxViT: inverted residual, block attention and grid attention in every block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.windows import Grid, Partition, Tiling, displacements
from search_spaces.references.swin import AttentionBlock, FlatPositionTable

HEAD_DIM = 32


@dataclass(frozen=True)
class Configuration:
    """What distinguishes a variant.

    Attributes:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        stem: Channels of the two convolutions of the stem.
        head: Width of the hidden layer of the head; 0 where there is none.
        original: Whether it follows the TensorFlow original; else timm's own reading of the paper, which expands from the
            input's channels, squeezes to a sixteenth, has SiLU for GELU and no bias beside norms.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: tuple[int, int]
    head: int = 0
    original: bool = True


CONFIGURATIONS = {
    "maxvit_nano_rw_256": Configuration((1, 2, 3, 1), (64, 128, 256, 512), (32, 64), original=False),
    "maxvit_tiny_rw_224": Configuration((2, 2, 5, 2), (64, 128, 256, 512), (32, 64), original=False),
    "maxvit_tiny_tf_224": Configuration((2, 2, 5, 2), (64, 128, 256, 512), (64, 64), 512),
    "maxvit_small_tf_224": Configuration((2, 2, 5, 2), (96, 192, 384, 768), (64, 64), 768),
    "maxvit_base_tf_224": Configuration((2, 6, 14, 2), (96, 192, 384, 768), (64, 64), 768),
    "maxvit_large_tf_224": Configuration((2, 6, 14, 2), (128, 256, 512, 1024), (128, 128), 1024),
}


class SameConv(nn.Conv2d):
    """3×3 convolution whose padding is TensorFlow's: with stride 2 on an even map, one row below and one column to the right."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the method that it overrides
        if self.stride[0] == 1:
            return super().forward(input)
        return F.conv2d(F.pad(input, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, 1, self.groups)


class OriginalPositionTable(nn.Module):
    """`PositionTable` whose displacements are key minus query, as the original's. -> (1, heads, positions, positions)."""

    index: Tensor

    def __init__(self, window: Resolution, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(heads, 2 * window[0] - 1, 2 * window[1] - 1))
        nn.init.normal_(self.table, std=0.02)
        row, column = displacements(window)
        self.register_buffer("index", (window[0] - 1 - row) * (2 * window[1] - 1) + window[1] - 1 - column, persistent=False)

    def forward(self) -> Tensor:
        return self.table.flatten(1)[:, self.index.flatten()].view(1, -1, *self.index.shape)


class Squeeze(nn.Module):
    """Squeeze-and-excite with SiLU. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.expand(F.silu(self.reduce(F.adaptive_avg_pool2d(x, 1)))).sigmoid()


class Downsample(nn.Module):
    """Average of 2 × 2 positions and, where channels change, a projection. (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, out: int, bias: bool) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, out, 1, bias=bias) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(F.avg_pool2d(x, 2))


class InvertedResidual(nn.Module):
    """Batch norm, expansion, depthwise 3×3, squeeze-and-excite, projection. (n, c, h, w) -> (n, c', h / stride, w / stride)."""

    def __init__(self, channels: int, out: int, stride: int, original: bool) -> None:
        super().__init__()
        hidden = 4 * (out if original else channels)
        eps = 1e-3 if original else 1e-5
        self.original = original
        self.shortcut = Downsample(channels, out, original) if stride == 2 else nn.Identity()
        self.norm = nn.BatchNorm2d(channels, eps)
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden, eps)
        self.depthwise = (SameConv if original else nn.Conv2d)(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden, eps)
        self.squeeze = Squeeze(hidden, out // 4 if original else hidden // 16)
        self.project = nn.Conv2d(hidden, out, 1, bias=original)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.expand_norm(self.expand(self.norm(x))), self.original)
        y = activate(self.depthwise_norm(self.depthwise(y)), self.original)
        return self.project(self.squeeze(y)) + self.shortcut(x)


def activate(x: Tensor, original: bool) -> Tensor:
    """Return the activation of the convolutional parts: GELU by its approximation with tanh, or SiLU."""
    return F.gelu(x, approximate="tanh") if original else F.silu(x)


class Block(nn.Module):
    """Inverted residual, then attention in blocks and in a grid. (n, c, h, w) -> (n, c', h / stride, w / stride)."""

    def __init__(self, channels: int, out: int, stride: int, size: Resolution, window: Resolution, original: bool) -> None:
        super().__init__()
        heads = out // HEAD_DIM
        self.convolution = InvertedResidual(channels, out, stride, original)

        def attention(partition: Partition) -> AttentionBlock:
            positions = OriginalPositionTable(window, heads) if original else FlatPositionTable(window, heads)
            return AttentionBlock(
                out,
                heads,
                partition,
                positions,
                eps=1e-5 if original else 1e-6,
                heads_first=not original,
                positions_first=False,
                tanh=original,
            )

        self.block = attention(Tiling.of(size, window))
        self.grid = attention(Grid.of(size, window))

    def forward(self, x: Tensor) -> Tensor:
        x = self.convolution(x).permute(0, 2, 3, 1)
        return self.grid(self.block(x)).permute(0, 3, 1, 2)


class MaxViTNet(nn.Module):
    """Stem of stride 2, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, resolution: Resolution, num_classes: int) -> None:
        super().__init__()
        original, (first, channels) = configuration.original, configuration.stem
        self.original = original
        conv = SameConv if original else nn.Conv2d
        self.stem1 = conv(3, first, 3, 2, 1, bias=original)
        self.stem_norm = nn.BatchNorm2d(first, 1e-3 if original else 1e-5)
        self.stem2 = conv(first, channels, 3, 1, 1, bias=original)
        window = (resolution[0] // 32, resolution[1] // 32)
        blocks: list[nn.Module] = []
        for stage, (depth, width) in enumerate(zip(configuration.depths, configuration.widths, strict=True)):
            size = (resolution[0] >> stage + 2, resolution[1] >> stage + 2)
            for i in range(depth):
                blocks.append(Block(channels, width, 1 if i else 2, size, window, original))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm2d(channels, eps=1e-5 if original else 1e-6)
        self.hidden = nn.Linear(channels, configuration.head) if configuration.head else None
        self.head = nn.Linear(configuration.head or channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem2(activate(self.stem_norm(self.stem1(x)), self.original)))
        if self.hidden is None:
            return self.head(self.norm(x).mean((2, 3)))
        x = self.norm(F.adaptive_avg_pool2d(x, 1)).flatten(1)
        return self.head(torch.tanh(self.hidden(x)))


@references.register("maxvit")
class MaxViT(ReferenceSystem):
    """MaxViT of the original, and timm's variants of it."""

    source: ClassVar[Source] = Source("MaxViT: Multi-Axis Vision Transformer", "arXiv 2204.01697")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "MaxViT",
            "maxvit_nano_rw_256",
            15_451_148,
            4_416_999_424,
            (256, 256),
            "maxvit_nano_rw_256",
            None,
            82.934,
            "timm results-imagenet.csv (maxvit_nano_rw_256.sw_in1k)",
        ),
        Variant(
            "MaxViT",
            "maxvit_tiny_rw_224",
            29_057_312,
            5_068_002_304,
            (224, 224),
            "maxvit_tiny_rw_224",
            None,
            83.522,
            "timm results-imagenet.csv (maxvit_tiny_rw_224.sw_in1k)",
        ),
        Variant(
            "MaxViT",
            "maxvit_tiny_tf_224",
            30_916_528,
            5_545_201_664,
            (224, 224),
            "maxvit_tiny_tf_224",
            None,
            83.426,
            "timm results-imagenet.csv (maxvit_tiny_tf_224.in1k)",
        ),
        Variant(
            "MaxViT",
            "maxvit_small_tf_224",
            68_927_956,
            11_579_172_864,
            (224, 224),
            "maxvit_small_tf_224",
            None,
            84.452,
            "timm results-imagenet.csv (maxvit_small_tf_224.in1k)",
        ),
        Variant(
            "MaxViT",
            "maxvit_base_tf_224",
            119_467_708,
            23_901_935_616,
            (224, 224),
            "maxvit_base_tf_224",
            None,
            84.884,
            "timm results-imagenet.csv (maxvit_base_tf_224.in1k)",
        ),
        Variant(
            "MaxViT",
            "maxvit_large_tf_224",
            211_785_560,
            43_492_564_992,
            (224, 224),
            "maxvit_large_tf_224",
            None,
            84.938,
            "timm results-imagenet.csv (maxvit_large_tf_224.in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        resolution = (256, 256) if name.endswith("256") else (224, 224)
        return MaxViTNet(CONFIGURATIONS[name], resolution, num_classes)
