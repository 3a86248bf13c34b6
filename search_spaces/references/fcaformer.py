"""FcaFormer: attention that sees, beside the map, a few tokens of each earlier block of its stage; ConvNeXt blocks before."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import TokenPerceptron
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.convolution import ConvMerging, ConvNorm
from search_spaces.layers.tokens import to_map, to_tokens
from search_spaces.references.convnext import Block as ConvNeXtBlock

HEAD_DIM, SIDE, REMEMBERED = 32, 224, 12
README = "official repository's README"
"""Width of a head, side of a picture, of how many blocks tokens are seen."""

# name: widths, depths
CONFIGURATIONS = {
    "fcaformer_l1": ((64, 128, 192, 320), (2, 2, 6, 2)),
    "fcaformer_l2": ((96, 192, 320, 480), (2, 2, 7, 2)),
    "fcaformer_l3": ((96, 192, 320, 512), (3, 6, 12, 3)),
    "fcaformer_l4": ((128, 256, 512, 768), (3, 6, 12, 3)),
}


class CrossBlock(nn.Module):
    """Attention of a map to itself and to earlier tokens, DW3, perceptron. (n, c, s, s), tokens -> (n, c, s, s), its own tokens.

    Args:
        channels: c.
        side: s.
        index: Of the block in its stage.
        last: Whether no block follows, so that none sees its tokens.
    """

    distance: Tensor

    def __init__(self, channels: int, side: int, index: int, *, last: bool) -> None:
        super().__init__()
        heads = channels // HEAD_DIM
        self.heads, self.side = heads, side
        earlier = min(index, REMEMBERED) * (-(-side // 4)) ** 2
        self.scale1, self.scale2 = (nn.Parameter(torch.full((channels,), 1e-6)) for _ in range(2))
        self.merge = None if last else nn.Conv2d(channels, channels, 7, 4, 3, groups=channels, bias=False)
        self.earlier_bias = nn.Parameter(torch.zeros(1, heads, 1, earlier)) if index else None
        self.earlier_scale = nn.Parameter(torch.ones(1, earlier, 1)) if index else None
        self.earlier_norm = nn.LayerNorm(channels) if index else None
        self.norm1 = nn.LayerNorm(channels)
        self.biases = nn.Parameter(torch.zeros(heads, side * side))
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)
        self.local = ConvNorm(channels, channels, 3, groups=channels)
        self.norm2, self.norm3 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mlp = TokenPerceptron(channels, 4 * channels, "gelu")
        axis = torch.arange(side)
        row, column = axis.repeat_interleave(side), axis.repeat(side)
        self.register_buffer("distance", (row[:, None] - row).abs() * side + (column[:, None] - column).abs(), persistent=False)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return q, k and v of tokens, each (n, heads, tokens, c / heads)."""
        n, tokens, _ = x.shape
        return tuple(part.reshape(n, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))

    def forward(self, x: Tensor, earlier: Tensor | None) -> tuple[Tensor, Tensor | None]:
        n, c = x.shape[:2]
        tokens = to_tokens(x)
        q, k, v = self.parts(self.norm1(tokens))
        bias = self.biases[:, self.distance].unsqueeze(0)
        if earlier is not None:
            assert self.earlier_norm is not None
            assert self.earlier_bias is not None
            assert self.earlier_scale is not None
            _, keys, values = self.parts(self.earlier_norm(earlier * self.earlier_scale))
            k, v = torch.cat([k, keys], dim=2), torch.cat([v, values], dim=2)
            bias = torch.cat([bias, self.earlier_bias.expand(-1, -1, self.side**2, -1)], dim=3)
        y = F.scaled_dot_product_attention(q, k, v, bias.expand(n, -1, -1, -1))
        tokens = tokens + self.scale1 * self.project(y.transpose(1, 2).reshape(n, -1, c))
        x = to_map(tokens, self.side, self.side)
        own = None if self.merge is None else to_tokens(self.merge(x))
        tokens = to_tokens(self.local(x))
        tokens = tokens + self.scale2 * self.mlp(self.norm3(self.norm2(tokens)))
        return to_map(tokens, self.side, self.side), own


class CrossStage(nn.Module):
    """Blocks that see the tokens of those before. (n, c, s, s) -> (n, c, s, s)."""

    def __init__(self, channels: int, side: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(channels, side, i, last=i == depth - 1) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        remembered: list[Tensor] = []
        for block in self.blocks:
            x, own = block(x, torch.cat(remembered[-REMEMBERED:], dim=1) if remembered else None)
            remembered += [] if own is None else [own]
        return x


class FcaFormerNet(nn.Module):
    """Strided stem, two stages of convolutions, two of attention, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, widths[0] // 2, 3, stride=2), nn.GELU(), ConvNorm(widths[0] // 2, widths[0], 3, stride=2)]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers += [ConvMerging(widths[stage - 1], width)] if stage else []
            if stage < 2:
                layers += [ConvNeXtBlock(width, pointwise=False) for _ in range(depth)]
            else:
                layers.append(CrossStage(width, SIDE >> stage + 2, depth))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(x).mean((2, 3))))


@references.register("fcaformer")
class FcaFormer(ReferenceSystem):
    """FcaFormer L1 to L4, the hybrid ones."""

    source: ClassVar[Source] = Source(
        "FcaFormer: Forward Cross Attention in Hybrid Vision Transformer", "arXiv 2211.07198, github.com/hkzhang-git/FcaFormer"
    )
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("FcaFormer", "fcaformer_l1", 6_187_560, 1_374_297_280, (224, 224), "", None, 80.3, README, ("6.2", "1.4")),
        Variant("FcaFormer", "fcaformer_l2", 16_275_870, 3_602_233_760, (224, 224), "", None, 83.1, README, ("16.3", "3.6")),
        Variant("FcaFormer", "fcaformer_l3", 27_894_484, 6_650_569_984, (224, 224)),
        Variant("FcaFormer", "fcaformer_l4", 65_638_204, 14_491_790_848, (224, 224)),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return FcaFormerNet(*CONFIGURATIONS[name], num_classes)
