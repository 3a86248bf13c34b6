"""GFNet: global filters in place of attention, one residual a block."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.mixers.spectral import GlobalFilter

# name: (widths, depths) of stages at strides 4, 8, 16, 32, or of one stage at stride 16
CONFIGURATIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "gfnet_ti": ((256,), (12,)),
    "gfnet_xs": ((384,), (12,)),
    "gfnet_s": ((384,), (19,)),
    "gfnet_b": ((512,), (19,)),
    "gfnet_h_ti": ((64, 128, 256, 512), (3, 3, 10, 3)),
    "gfnet_h_s": ((96, 192, 384, 768), (3, 3, 10, 3)),
    "gfnet_h_b": ((96, 192, 384, 768), (3, 3, 27, 3)),
}
RESOLUTION = 224


class SpectralBlock(nn.Module):
    """x + [γ·]MLP(LN(filter(LN x))), channels last. (n, h, w, c) -> (n, h, w, c)."""

    def __init__(self, channels: int, side: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-3)) if scaled else None
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.filter = GlobalFilter(channels, (side, side), "fft")
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        y = self.filter(self.norm1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.mlp(self.norm2(y))
        return x + (y if self.gamma is None else y * self.gamma)


class GFNetNet(nn.Module):
    """Patches with learned positions, stages, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        pyramid = len(widths) > 1
        stride = 4 if pyramid else 16
        side = RESOLUTION // stride
        self.positions = nn.Parameter(torch.randn(1, side, side, widths[0]) * 0.02)
        self.embeds = nn.ModuleList()
        self.stages = nn.ModuleList()
        before, step = 3, stride
        for width, depth in zip(widths, depths, strict=True):
            self.embeds.append(nn.Conv2d(before, width, step, step))
            self.stages.append(nn.Sequential(*(SpectralBlock(width, side, scaled=pyramid) for _ in range(depth))))
            before, step, side = width, 2, side // 2
        self.norm = nn.LayerNorm(before, eps=1e-6)
        self.head = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for i, (embed, stage) in enumerate(zip(self.embeds, self.stages, strict=True)):
            y = embed(x).permute(0, 2, 3, 1)
            y = stage(y if i else y + self.positions)
            x = y.permute(0, 3, 1, 2)
        return self.head(self.norm(x.permute(0, 2, 3, 1)).mean((1, 2)))


@references.register("gfnet")
class GFNet(ReferenceSystem):
    """GFNet Ti to B, and the pyramids H-Ti to H-B."""

    source: ClassVar[Source] = Source("Global Filter Networks for Image Classification", "arXiv 2107.00645")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("GFNet", "gfnet_ti", 7_511_784, 1_271_916_544, (224, 224), "", None, 74.6, "repo README"),
        Variant("GFNet", "gfnet_xs", 15_985_768, 2_832_718_848, (224, 224), "", None, 78.6, "repo README"),
        Variant("GFNet", "gfnet_s", 24_869_608, 4_451_195_904, (224, 224), "", None, 80.0, "repo README"),
        Variant("GFNet", "gfnet_b", 43_120_616, 7_887_376_384, (224, 224), "", None, 80.7, "repo README"),
        Variant("GFNet", "gfnet_h_ti", 15_085_096, 2_039_664_640, (224, 224), "", None, 80.1, "repo README"),
        Variant("GFNet", "gfnet_h_s", 32_162_632, 4_581_636_096, (224, 224), "", None, 81.5, "repo README"),
        Variant("GFNet", "gfnet_h_b", 53_744_200, 8_512_223_232, (224, 224), "", None, 82.9, "repo README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return GFNetNet(*CONFIGURATIONS[name], num_classes)
