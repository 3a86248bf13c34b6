"""LSNet: LS convolutions and re-parameterised depthwise ones in turn, attention in the last stage."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source, refuse_training
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.layers.channel_attention import SqueezeExcite
from search_spaces.layers.convolution import ConvBranches, ConvNorm, affine
from search_spaces.mixers.lsnet import LSConv

HEADS, KEY_DIM, LAST_SIDE = 4, 16, 4
# name: (widths, depths)
CONFIGURATIONS = {
    "lsnet_t": ((64, 128, 256, 384), (0, 2, 8, 10)),
    "lsnet_s": ((96, 192, 320, 448), (1, 2, 8, 10)),
    "lsnet_b": ((128, 256, 384, 512), (4, 6, 8, 10)),
}


class BiasedAttention(nn.Module):
    """Attention with a learned bias for each |Δy|, |Δx| and a depthwise convolution of the queries. (n, c, s, s) -> (n, c, s, s).

    Args:
        channels: In and out; each head's values are channels / heads wide.
        side: s, the one size that it takes.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        keys = HEADS * KEY_DIM
        self.sizes = [keys, keys, channels]
        self.biases = nn.Parameter(torch.zeros(HEADS, side * side))
        self.qkv = ConvNorm(channels, sum(self.sizes))
        self.project = nn.Sequential(nn.ReLU(), ConvNorm(channels, channels))
        self.local = ConvNorm(keys, keys, 3, groups=keys)
        axis = torch.arange(side)
        row, column = axis.repeat_interleave(side), axis.repeat(side)
        distance = (row[:, None] - row).abs() * side + (column[:, None] - column).abs()
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = torch.split(self.qkv(x), self.sizes, dim=1)
        q, k, v = (part.reshape(n, HEADS, -1, h * w) for part in (self.local(q), k, v))
        logits = q.transpose(2, 3) @ k * KEY_DIM**-0.5 + self.biases[:, self.get_buffer("distance")]
        y = v @ logits.softmax(3).transpose(2, 3)
        return self.project(y.reshape(n, c, h, w))


class Block(nn.Module):
    """Mixer, then x + MLP(x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, index: int, stage: int) -> None:
        super().__init__()
        self.mixer: nn.Module
        self.residual = index % 2 == 1
        if not self.residual:
            branches = [ConvNorm(channels, channels, kernel, groups=channels) for kernel in (3, 1)]
            self.mixer = nn.Sequential(ConvBranches(branches, identity=True), SqueezeExcite(channels, channels // 4))
        elif stage == 3:
            self.mixer = BiasedAttention(channels, LAST_SIDE)
        else:
            self.mixer = LSConv(channels, 7, 3, channels // 8)
        self.mlp = Perceptron(channels, 2 * channels, "relu", "batch")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x) if self.residual else self.mixer(x)
        return x + self.mlp(x)


class NormLinear(nn.Module):
    """Batch norm, then a linear layer; deploys as the layer alone. (n, features) -> (n, out)."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.linear = nn.Linear(features, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))

    def fuse(self) -> nn.Module:
        """Return the layer with the norm inside."""
        refuse_training(self.training)
        scale, shift = affine(self.norm)
        weight = self.linear.weight.double()
        fused = nn.Linear(self.linear.in_features, self.linear.out_features, device=weight.device, dtype=self.linear.weight.dtype)
        with torch.no_grad():
            fused.weight.copy_(weight * scale)
            fused.bias.copy_(self.linear.bias.double() + weight @ shift)
        return fused


class LSNetNet(nn.Module):
    """Stem of stride 8, four stages, head. (n, 3, 224, 224) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        first = widths[0]
        layers: list[nn.Module] = [
            ConvNorm(3, first // 4, 3, stride=2),
            nn.ReLU(),
            ConvNorm(first // 4, first // 2, 3, stride=2),
            nn.ReLU(),
            ConvNorm(first // 2, first, 3, stride=2),
        ]
        for i, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
            if i:
                before = widths[i - 1]
                layers += [ConvNorm(before, before, 3, stride=2, groups=before), ConvNorm(before, channels)]
            layers += [Block(channels, j, i) for j in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.head = NormLinear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@references.register("lsnet")
class LSNet(ReferenceSystem):
    """LSNet T, S and B."""

    source: ClassVar[Source] = Source("LSNet: See Large, Focus Small", "arXiv 2503.23135", "the aggregation as shifts, products and sums")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant("LSNet", "lsnet_t", 11_370_488, 315_041_408, (224, 224), "", 11_409_832, 74.9, "repo README"),
        Variant("LSNet", "lsnet_s", 16_098_232, 536_858_176, (224, 224), "", 16_146_304, 77.8, "repo README"),
        Variant("LSNet", "lsnet_b", 23_249_320, 1_240_439_296, (224, 224), "", 23_313_608, 80.3, "repo README"),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return LSNetNet(*CONFIGURATIONS[name], num_classes)
