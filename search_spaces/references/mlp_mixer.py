"""MLP-Mixer and gMLP: perceptrons over patches in place of attention."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.tokens import to_tokens

PATCH, SIDE = 16, 224
TOKENS = (SIDE // PATCH) ** 2
EPSILON = 1e-6
# name: width, depth, kind of block
CONFIGURATIONS: dict[str, tuple[int, int, Literal["mixer", "gated"]]] = {
    "mixer_s16_224": (512, 8, "mixer"),
    "gmlp_s16_224": (256, 30, "gated"),
}


class MixerBlock(nn.Module):
    """A perceptron over patches, then one over channels, with residuals. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.over_patches = TokenPerceptron(TOKENS, channels // 2, "gelu")
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.over_channels = TokenPerceptron(channels, 4 * channels, "gelu")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.over_patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.over_channels(self.norm2(x))


class GatedBlock(nn.Module):
    """x + W₂(u ⊙ linear over patches(norm v)) with [u, v] = GELU(W₁(norm x)). (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 6 * channels
        self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.expand = nn.Linear(channels, hidden)
        self.gate_norm = nn.LayerNorm(hidden // 2)
        self.gate = nn.Linear(TOKENS, TOKENS)
        self.project = nn.Linear(hidden // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.expand(self.norm(x))).chunk(2, dim=2)
        return x + self.project(u * self.gate(self.gate_norm(v).transpose(1, 2)).transpose(1, 2))


class MLPNet(nn.Module):
    """Patches, blocks, norm, head on the mean. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, width: int, depth: int, kind: Literal["mixer", "gated"], num_classes: int) -> None:
        super().__init__()
        block = MixerBlock if kind == "mixer" else GatedBlock
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.blocks = nn.Sequential(*(block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(to_tokens(self.patches(x)))).mean(1))


@references.register("mlp-mixer")
class MLPMixer(ReferenceSystem):
    """MLP-Mixer S/16 and gMLP S/16."""

    source: ClassVar[Source] = Source("MLP-Mixer: An all-MLP Architecture for Vision", "arXiv 2105.01601; gMLP: arXiv 2105.08050")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("MLP-Mixer", "mixer_s16_224", 18_528_264, 3_776_958_464, (224, 224), "mixer_s16_224", None, None, ""),
        Variant("MLP-Mixer", "gmlp_s16_224", 19_422_656, 4_392_060_928, (224, 224), "gmlp_s16_224", None, None, ""),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return MLPNet(*CONFIGURATIONS[name], num_classes)
