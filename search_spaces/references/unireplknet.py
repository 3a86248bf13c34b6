"""UniRepLKNet: few large kernels, trained with dilated branches, and many small ones."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source, fuse
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.grn import GlobalResponseNorm
from search_spaces.layers.convolution import affine
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.unireplknet import LargeKernel

# name: (width of the first stage, depths); the width doubles at each stage
CONFIGURATIONS = {
    "unireplknet_a": (40, (2, 2, 6, 2)),
    "unireplknet_f": (48, (2, 2, 6, 2)),
    "unireplknet_p": (64, (2, 2, 6, 2)),
    "unireplknet_n": (80, (2, 2, 8, 2)),
    "unireplknet_t": (80, (3, 3, 18, 3)),
    "unireplknet_s": (96, (3, 3, 27, 3)),
}
PERIODS = {18: 2, 27: 3}
"""Depth of the third stage -> every how manieth of its blocks is large; all are where it is shorter."""


def kernel_of(stage: int, block: int, depth: int) -> int:
    """Return the kernel of a block: 3 in the first stage, 13 elsewhere but for the small blocks of a deep third stage."""
    small = stage == 0 or (stage == 2 and block % PERIODS.get(depth, 1))
    return 3 if small else 13


class Block(nn.Module):
    """x + γ·BN(PW(GRN(gelu(PW(mixer(x)))))), the perceptron channels last. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.gamma: nn.Parameter | None = nn.Parameter(torch.full((channels,), 1e-6))
        self.mixer: nn.Module = LargeKernel(channels, kernel, channels // 4)
        self.expand = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.response = GlobalResponseNorm(4 * channels)
        self.project = nn.Linear(4 * channels, channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.expand(self.mixer(x).permute(0, 2, 3, 1)))
        y = self.response(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.norm(self.project(y).permute(0, 3, 1, 2))
        return x + (y if self.gamma is None else y * self.gamma.view(-1, 1, 1))

    def fuse(self) -> nn.Module:
        """Return the deploy form: branches, batch norms, GRN's shift and layer scale inside the convolution and the layers."""
        fused = copy.deepcopy(self)
        fused.mixer = fuse(self.mixer)
        assert isinstance(self.norm, nn.BatchNorm2d)
        assert self.gamma is not None
        assert self.response.bias is not None
        scale, shift = (part * self.gamma.double() for part in affine(self.norm))
        weight = self.project.weight.double()
        dtype = self.project.weight.dtype
        fused.project = nn.Linear(self.project.in_features, self.project.out_features, device=weight.device, dtype=dtype)
        with torch.no_grad():
            fused.project.weight.copy_(weight * scale.view(-1, 1))
            fused.project.bias.copy_(weight @ self.response.bias.double() * scale + shift)
        fused.response.bias, fused.norm, fused.gamma = None, nn.Identity(), None
        return fused


class UniRepLKNetNet(nn.Module):
    """Stem of two strided convolutions, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        half = width // 2
        widths = [width << i for i in range(4)]
        stages: list[nn.Module] = [
            nn.Conv2d(3, half, 3, 2, 1),
            LayerNorm2d(half, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(half, width, 3, 2, 1),
            LayerNorm2d(width, eps=1e-6),
        ]
        for i, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
            if i:
                stages += [nn.Conv2d(widths[i - 1], channels, 3, 2, 1), LayerNorm2d(channels, eps=1e-6)]
            stages += [Block(channels, kernel_of(i, j, depth)) for j in range(depth)]
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x).mean((2, 3))))


@references.register("unireplknet")
class UniRepLKNet(ReferenceSystem):
    """UniRepLKNet A to S."""

    source: ClassVar[Source] = Source("UniRepLKNet: A Universal Perception Large-Kernel ConvNet", "arXiv 2311.15599")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("UniRepLKNet", "unireplknet_a", 4_437_300, 639_843_520, (224, 224), "", 4_649_060, 77.0, "repo README"),
        Variant("UniRepLKNet", "unireplknet_f", 6_235_216, 905_138_688, (224, 224), "", 6_489_328, 78.6, "repo README"),
        Variant("UniRepLKNet", "unireplknet_p", 10_741_704, 1_573_055_488, (224, 224), "", 11_080_520, 80.2, "repo README"),
        Variant("UniRepLKNet", "unireplknet_n", 18_318_560, 2_766_502_400, (224, 224), "", 18_818_880, 81.6, "repo README"),
        Variant("UniRepLKNet", "unireplknet_t", 31_037_980, 4_898_993_920, (224, 224), "", 31_693_420, 83.2, "repo README"),
        Variant("UniRepLKNet", "unireplknet_s", 55_645_984, 9_093_985_536, (224, 224), "", 56_456_704, 83.9, "repo README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return UniRepLKNetNet(*CONFIGURATIONS[name], num_classes)
