"""SReT: every transformer block runs twice with the same weights, a small perceptron of its own between, attention in groups."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.attention import StackedLinear
from search_spaces.layers.tokens import to_map, to_tokens

DEPTHS = (4, 10, 6)
"""Blocks by stage, each weight counted as often as it runs."""
LOOPS = 2
SLICED, WHOLE = ((8, 2), (4, 1), (1, 1)), ((1, 1), (1, 1), (1, 1))
"""By stage, the groups inside which the first and the second run of a block attend."""
SIDE = 224
# name: width of a head, heads by stage, expansion of the perceptrons, of those between runs, groups
CONFIGURATIONS = {
    "sret_t": (32, (2, 4, 8), 3.6, 1, SLICED),
    "sret_lt": (32, (2, 4, 8), 4.0, 1, SLICED),
    "sret_s": (42, (3, 6, 12), 3.0, 2, SLICED),
    "sret_t_whole": (32, (2, 4, 8), 3.6, 1, WHOLE),
    "sret_lt_whole": (32, (2, 4, 8), 4.0, 1, WHOLE),
    "sret_s_whole": (42, (3, 6, 12), 3.0, 2, WHOLE),
}


class Perceptron(nn.Module):
    """Linear → GELU → linear. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand, self.project = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.gelu(self.expand(x)))


class Scaled(nn.Module):
    """a·x + b·f(norm(x)) with learned a and b. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, body: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.body = body
        self.skip, self.factor = (nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip * x + self.factor * self.body(self.norm(x))


class GroupAttention(nn.Module):
    """Self-attention inside groups of tokens, after one another or, in the second run, drawn once. (n, tokens, c) -> (n, tokens, c)."""

    order: Tensor
    back: Tensor

    def __init__(self, channels: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = StackedLinear(channels, channels, parts=3)
        self.project = nn.Linear(channels, channels)
        order = torch.randperm(tokens, generator=torch.Generator(device="cpu").manual_seed(0), device="cpu")
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, x: Tensor, groups: int, mixed: bool) -> Tensor:
        n, tokens, c = x.shape
        if mixed:
            x = x.index_select(1, self.order)
        parts = self.qkv(x).reshape(n * groups, tokens // groups, 3 * self.heads, c // self.heads).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, c)
        return self.project(y.index_select(1, self.back) if mixed else y)


class Block(nn.Module):
    """Attention and perceptron with learned scales. (n, tokens, c) -> (n, tokens, c)."""

    def __init__(self, channels: int, heads: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.attention = GroupAttention(channels, heads, tokens)
        self.perceptron = Scaled(channels, Perceptron(channels, hidden))
        self.skip, self.factor = (nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, x: Tensor, groups: int, mixed: bool) -> Tensor:
        return self.perceptron(self.skip * x + self.factor * self.attention(self.norm(x), groups, mixed))


class Recursion(nn.Module):
    """Blocks of a stage, each run twice, a perceptron after each run. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, heads: int, side: int, depth: int, groups: tuple[int, int], hidden: int, between: int) -> None:
        super().__init__()
        self.groups = groups
        self.blocks = nn.ModuleList(Block(channels, heads, side * side, hidden) for _ in range(depth // LOOPS))
        self.between = nn.ModuleList(Scaled(channels, Perceptron(channels, between * channels)) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        y = to_tokens(x)
        for i, after in enumerate(self.between):
            groups = self.groups[i % LOOPS]
            y = after(self.blocks[i // LOOPS](y, groups, i % LOOPS == 1 and groups > 1))
        return to_map(y, h, w)


class SReTNet(nn.Module):
    """Three strided convolutions, learned positions, three stages, norm of the mean, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(
        self, head_dim: int, heads: tuple[int, ...], expansion: float, between: int, groups: tuple[tuple[int, int], ...], num_classes: int
    ) -> None:
        super().__init__()
        width, side = head_dim * heads[0], SIDE // 8
        self.positions = nn.Parameter(torch.randn(1, width, side, side) * 0.02)
        stem: list[nn.Module] = []
        for a, b in ((3, width // 2), (width // 2, width), (width, width)):
            stem += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU()]
        self.stem = nn.Sequential(*stem)
        stages: list[nn.Module] = []
        for stage, count in enumerate(heads):
            channels = head_dim * count
            if stage:
                stages.append(nn.Conv2d(width, channels, 3, 2, 1, groups=width))
                side //= 2
            stages.append(Recursion(channels, count, side, DEPTHS[stage], groups[stage], int(expansion * channels), between))
            width = channels
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(self.stem(x) + self.positions).mean((2, 3))))


def _variant(name: str, params: int, macs: int, top1_pct: float | None, printed: tuple[str, str] | None = None) -> Variant:
    return Variant("SReT", name, params, macs, (SIDE, SIDE), "", None, top1_pct, "official repository's README", printed)


@references.register("sret")
class SReT(ReferenceSystem):
    """SReT T, LT and S, and the same without slices (``whole``)."""

    source: ClassVar[Source] = Source(
        "Sliced Recursive Transformer",
        "arXiv 2111.05297, github.com/szq0214/SReT",
        "the order of tokens in the second run's groups is drawn once, not at every call",
    )
    table: ClassVar[tuple[Variant, ...]] = (
        _variant("sret_t", 4_755_979, 1_112_444_672, 76.0),
        _variant("sret_lt", 4_988_024, 1_164_477_184, None),
        _variant("sret_s", 20_899_692, 4_172_819_112, 81.9),
        _variant("sret_t_whole", 4_755_979, 1_365_682_944, 76.1, ("4.8", "1.4")),
        _variant("sret_lt_whole", 4_988_024, 1_417_715_456, 76.8, ("5.0", "1.4")),
        _variant("sret_s_whole", 20_899_692, 4_671_381_960, 82.0, ("20.9", "4.7")),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return SReTNet(*CONFIGURATIONS[name], num_classes)
