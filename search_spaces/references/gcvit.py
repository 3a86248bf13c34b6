"""GC ViT: attention in windows with queries of their own, then with queries of the whole map, in turn."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from nas.spaces.space import Resolution
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.windows import Tiling, WindowAttention
from search_spaces.mixers.global_window import GlobalWindow, attend_with, spread
from search_spaces.references.swin import FlatPositionTable

WINDOWS = (7, 7, 14, 7)
# name: (depths, width and heads of the first stage, perceptron's expansion, start of the layer scales or None)
CONFIGURATIONS: dict[str, tuple[tuple[int, ...], int, int, int, float | None]] = {
    "gcvit_xxtiny": ((2, 2, 6, 2), 64, 2, 3, None),
    "gcvit_xtiny": ((3, 4, 6, 5), 64, 2, 3, None),
    "gcvit_tiny": ((3, 4, 19, 5), 64, 2, 3, None),
    "gcvit_small": ((3, 4, 19, 5), 96, 3, 2, 1e-5),
    "gcvit_base": ((3, 4, 19, 5), 128, 4, 2, 1e-5),
}


class FusedResidual(nn.Module):
    """x + PW(SE(GELU(DW3(x)))), without biases. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, int(channels / 4 + 4) // 8 * 8)
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.depthwise(x))
        gate = self.expand(F.gelu(self.reduce(y.mean((2, 3), keepdim=True)))).sigmoid()
        return x + self.project(y * gate)


class Downsample(nn.Module):
    """Norm, fused residual, 3 × 3 of stride 2, norm. (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.residual = FusedResidual(channels)
        self.reduction = nn.Conv2d(channels, out, 3, 2, 1, bias=False)
        self.norm2 = LayerNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.reduction(self.residual(self.norm1(x))))


class GlobalQueries(nn.Module):
    """Fused residuals, each with a halving maximum where windows are smaller than the map. (n, c, h, w) -> (n, c, window, window)."""

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        self.halvings = halvings
        self.residuals = nn.ModuleList(FusedResidual(channels) for _ in range(max(1, halvings)))

    def forward(self, x: Tensor) -> Tensor:
        for residual in self.residuals:
            x = F.max_pool2d(residual(x), 3, 2, 1) if self.halvings else residual(x)
        return x


class GivenQueryAttention(nn.Module):
    """Attention in windows from given queries. (n, h, w, c), (n, c, window, window) -> (n, h, w, c)."""

    def __init__(self, channels: int, heads: int, tiling: Tiling) -> None:
        super().__init__()
        self.heads, self.tiling = heads, tiling
        self.positions = FlatPositionTable(tiling.window, heads)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor, queries: Tensor) -> Tensor:
        q = spread(queries, self.tiling.groups, self.heads)
        y = attend_with(q, self.key_value(self.tiling.cut(x)), self.heads, self.positions())
        return self.tiling.mend(self.project(y))


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, scaled where asked for, with residuals. (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int, attention: nn.Module, expansion: int, scale: float | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = attention
        self.scale1 = None if scale is None else ChannelScale(channels, scale)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, expansion * channels, "gelu")
        self.scale2 = None if scale is None else ChannelScale(channels, scale)

    def forward(self, x: Tensor, queries: Tensor) -> Tensor:
        y = self.norm1(x)
        y = self.attention(y, queries) if isinstance(self.attention, GivenQueryAttention) else self.attention(y)
        x = x + (y if self.scale1 is None else self.scale1(y))
        y = self.mlp(self.norm2(x))
        return x + (y if self.scale2 is None else self.scale2(y))


class ChannelScale(nn.Module):
    """A factor for each channel. (…, c) -> (…, c)."""

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Stage(nn.Module):
    """Queries of the map, then blocks that use their own and the map's in turn. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int, depth: int, tiling: Tiling, expansion: int, scale: float | None) -> None:
        super().__init__()
        self.queries = GlobalQueries(channels, (tiling.counts[0] - 1).bit_length())
        self.blocks = nn.ModuleList(
            Block(
                channels,
                GivenQueryAttention(channels, heads, tiling)
                if i % 2
                else WindowAttention(channels, heads, tiling, FlatPositionTable(tiling.window, heads)),
                expansion,
                scale,
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries(x)
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, queries)
        return x.permute(0, 3, 1, 2)


class GCViTNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(
        self, depths: tuple[int, ...], width: int, heads: int, expansion: int, scale: float | None, resolution: Resolution, num_classes: int
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1), Downsample(width, width)]
        for i, depth in enumerate(depths):
            if i:
                stages.append(Downsample(width, 2 * width))
                width, heads = 2 * width, 2 * heads
            tiling = Tiling.of((resolution[0] >> i + 2, resolution[1] >> i + 2), (WINDOWS[i], WINDOWS[i]))
            stages.append(Stage(width, heads, depth, tiling, expansion, scale))
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x)).mean((2, 3)))


def _variant(name: str, params: int, macs: int, top1_pct: float) -> Variant:
    return Variant("GC ViT", name, params, macs, (224, 224), name, None, top1_pct, f"timm results-imagenet.csv ({name}.in1k)")


@references.register("gcvit")
class GCViT(ReferenceSystem):
    """GC ViT XXT to B."""

    source: ClassVar[Source] = GlobalWindow.source
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("gcvit_xxtiny", 11_995_428, 2_120_792_320, 79.756),
        _variant("gcvit_xtiny", 19_981_294, 2_912_519_424, 81.964),
        _variant("gcvit_tiny", 28_221_974, 4_761_003_264, 83.4),
        _variant("gcvit_small", 51_092_173, 8_529_546_624, 83.904),
        _variant("gcvit_base", 90_320_836, 14_816_238_080, 84.456),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return GCViTNet(*CONFIGURATIONS[name], (224, 224), num_classes)
