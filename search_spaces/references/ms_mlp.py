"""MS-MLP: stages of shifted and mixed groups of channels, each before a perceptron, with one residual around both."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.mixers.ms_mlp import MSMLP, REGIONS, MixShift

EXPANSION = 4
# name: width of the first stage, depths
CONFIGURATIONS = {"ms_mlp_t": (96, (3, 3, 9, 3)), "ms_mlp_s": (96, (3, 3, 27, 3)), "ms_mlp_b": (128, (3, 3, 27, 3))}


class Block(nn.Module):
    """x + γ ⊙ perceptron(norm(mix-shift(x))). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))
        self.mix = MixShift(channels, kernels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, EXPANSION * channels)
        self.project = nn.Linear(EXPANSION * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class MSMLPNet(nn.Module):
    """Patches, four stages, norm of the mean, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, width: int, depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for stage, (depth, kernels) in enumerate(zip(depths, REGIONS.values(), strict=True)):
            out, patch = width * 2**stage, 2 if stage else 4
            stages += [nn.Conv2d(channels, out, patch, patch), LayerNorm2d(out, eps=1e-6)]
            stages += [Block(out, kernels) for _ in range(depth)]
            channels = out
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(x).mean((2, 3))))


@references.register("ms-mlp")
class MSMLPs(ReferenceSystem):
    """MS-MLP T, S and B."""

    source: ClassVar[Source] = MSMLP.source
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("MS-MLP", "ms_mlp_t", 28_656_232, 4_437_768_960, (224, 224), "", None, 82.1, "official repository's README"),
        Variant("MS-MLP", "ms_mlp_s", 50_303_752, 8_667_135_360, (224, 224), "", None, 83.4, "official repository's README"),
        Variant("MS-MLP", "ms_mlp_b", 88_696_792, 15_334_215_328, (224, 224), "", None, 83.8, "official repository's README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return MSMLPNet(*CONFIGURATIONS[name], num_classes)
