"""Vision transformers as DeiT and DeiT III have them: the anchors of stitching and of depth reparameterisation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.tokens import TokenAttention, to_tokens
from search_spaces.reparam.depth import Depth, ParallelLayer

PATCH = 16
SIDE = 224
HEAD_DIM = 64
# name: (depth, width, whether it is of the third version: no position for the class token, scaled residuals)
CONFIGURATIONS = {
    "deit_tiny_patch16_224": (12, 192, False),
    "deit_small_patch16_224": (12, 384, False),
    "deit_base_patch16_224": (12, 768, False),
    "deit3_small_patch16_224": (12, 384, True),
    "deit3_base_patch16_224": (12, 768, True),
    "deit3_large_patch16_224": (24, 1024, True),
}


class LayerScale(nn.Module):
    """Learned factor of each channel. (…, c) -> (…, c)."""

    def __init__(self, channels: int, value: float = 1e-6) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and perceptron, each after a layer norm, with residuals. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, scaled: bool, head_dim: int = HEAD_DIM) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attention = TokenAttention(channels, channels // head_dim)
        self.scale1 = LayerScale(channels) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")
        self.scale2 = LayerScale(channels) if scaled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1(self.attention(self.norm1(x)))
        return x + self.scale2(self.mlp(self.norm2(x)))


class ViTNet(nn.Module):
    """Patches and a class token, equal blocks, a linear head on the class token. (n, 3, side, side) -> (n, num_classes).

    Args:
        depth: Number of blocks.
        width: Channels of a token.
        third: Whether it is DeiT III's.
        num_classes: Of the head.
        branches: Blocks that stand side by side in one layer, to be merged (see `search_spaces.reparam.depth`); divides `depth`.
        side: Of the picture.
        patch: Side of a patch; divides that of the picture.
        head_dim: Channels of a head.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        third: bool,
        num_classes: int,
        branches: int = 1,
        *,
        side: int = SIDE,
        patch: int = PATCH,
        head_dim: int = HEAD_DIM,
    ) -> None:
        super().__init__()
        tokens = (side // patch) ** 2
        self.third = third
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, tokens + (not third), width) * 0.02)
        self.patches = nn.Conv2d(3, width, patch, patch)
        if branches == 1:
            self.blocks = nn.Sequential(*(Block(width, third, head_dim) for _ in range(depth)))
        else:
            knobs = Depth(branches=branches)
            self.blocks = nn.Sequential(*(ParallelLayer(width, width // head_dim, knobs) for _ in range(depth // branches)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = to_tokens(self.patches(x))
        token = self.class_token.expand(x.shape[0], -1, -1)
        x = torch.cat([token, x + self.positions], dim=1) if self.third else torch.cat([token, x], dim=1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


@references.register("vit")
class ViT(ReferenceSystem):
    """DeiT Ti, S and B, DeiT III S, B and L."""

    source: ClassVar[Source] = Source(
        "Training data-efficient image transformers & distillation through attention", "arXiv 2012.12877; DeiT III: arXiv 2204.07118"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "DeiT",
            "deit_tiny_patch16_224",
            5_717_416,
            1_253_683_200,
            (224, 224),
            "deit_tiny_patch16_224",
            None,
            72.19,
            "timm results-imagenet.csv (deit_tiny_patch16_224.fb_in1k)",
        ),
        Variant(
            "DeiT",
            "deit_small_patch16_224",
            22_050_664,
            4_598_882_304,
            (224, 224),
            "deit_small_patch16_224",
            None,
            79.856,
            "timm results-imagenet.csv (deit_small_patch16_224.fb_in1k)",
        ),
        Variant(
            "DeiT",
            "deit_base_patch16_224",
            86_567_656,
            17_563_828_224,
            (224, 224),
            "deit_base_patch16_224",
            None,
            81.98,
            "timm results-imagenet.csv (deit_base_patch16_224.fb_in1k)",
        ),
        Variant(
            "DeiT III",
            "deit3_small_patch16_224",
            22_059_496,
            4_598_882_304,
            (224, 224),
            "deit3_small_patch16_224",
            None,
            81.382,
            "timm results-imagenet.csv (deit3_small_patch16_224.fb_in1k)",
        ),
        Variant(
            "DeiT III",
            "deit3_base_patch16_224",
            86_585_320,
            17_563_828_224,
            (224, 224),
            "deit3_base_patch16_224",
            None,
            83.8,
            "timm results-imagenet.csv (deit3_base_patch16_224.fb_in1k)",
        ),
        Variant(
            "DeiT III",
            "deit3_large_patch16_224",
            304_374_760,
            61_554_712_576,
            (224, 224),
            "deit3_large_patch16_224",
            None,
            84.772,
            "timm results-imagenet.csv (deit3_large_patch16_224.fb_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return ViTNet(*CONFIGURATIONS[name], num_classes)
