"""RepViT: re-parameterised depthwise convolutions, every second one with squeeze-and-excite, and pointwise perceptrons."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source, refuse_training
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron
from search_spaces.layers.channel_attention import SqueezeExcite
from search_spaces.layers.convolution import ConvNorm, affine, convolution, dirac, enlarge
from search_spaces.references.lsnet import NormLinear

# name: widths, depths
CONFIGURATIONS = {
    "repvit_m0_9": ((48, 96, 192, 384), (2, 2, 14, 2)),
    "repvit_m1_0": ((56, 112, 224, 448), (2, 2, 14, 2)),
    "repvit_m1_1": ((64, 128, 256, 512), (2, 2, 12, 2)),
    "repvit_m1_5": ((64, 128, 256, 512), (4, 4, 24, 4)),
    "repvit_m2_3": ((80, 160, 320, 640), (6, 6, 34, 2)),
}


class RepDepthwise(nn.Module):
    """BN(BN(DW3 x) + DW1 x + x), one depthwise 3×3 when deployed. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.large = ConvNorm(channels, channels, 3, groups=channels)
        self.point = nn.Conv2d(channels, channels, 1, groups=channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.large(x) + self.point(x) + x)

    def fuse(self) -> nn.Module:
        """Return the one convolution that does all."""
        weight, bias = self.large.folded()
        point = self.point.weight.double()
        assert self.point.bias is not None
        weight = weight + enlarge(point + dirac(point.shape[0], point.shape[0], 1).to(point.device), (3, 3))
        scale, shift = affine(self.norm)
        bias = (bias + self.point.bias.double()) * scale + shift
        return convolution(self.large.conv, weight * scale.view(-1, 1, 1, 1), bias, training=self.training)


class Block(nn.Module):
    """y = SE(mixer x), then y + MLP(y). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, *, excite: bool) -> None:
        super().__init__()
        self.mixer = RepDepthwise(channels)
        self.excite = SqueezeExcite(channels, eighths(channels // 4)) if excite else nn.Identity()
        self.mlp = Perceptron(channels, 2 * channels, "gelu", "batch")

    def forward(self, x: Tensor) -> Tensor:
        x = self.excite(self.mixer(x))
        return x + self.mlp(x)


class Downsampling(nn.Module):
    """A block, a strided depthwise and a pointwise convolution, y + MLP(y). (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.before = Block(channels, excite=False)
        self.depthwise = ConvNorm(channels, channels, 3, stride=2, groups=channels)
        self.pointwise = ConvNorm(channels, out)
        self.mlp = Perceptron(out, 2 * out, "gelu", "batch")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pointwise(self.depthwise(self.before(x)))
        return x + self.mlp(x)


class TwoHeads(nn.Module):
    """Mean of a classifier of labels and one of a teacher's, one layer when deployed. (n, features) -> (n, classes)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.labels, self.teacher = (NormLinear(features, classes) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return (self.labels(x) + self.teacher(x)) / 2

    def fuse(self) -> nn.Module:
        """Return the one layer that does both."""
        refuse_training(self.training)
        like = self.labels.linear
        weight, bias = torch.zeros_like(like.weight, dtype=torch.float64), torch.zeros_like(like.bias, dtype=torch.float64)
        for part in (self.labels, self.teacher):
            scale, shift = affine(part.norm)
            own = part.linear.weight.double()
            weight, bias = weight + own * scale / 2, bias + (part.linear.bias.double() + own @ shift) / 2
        fused = nn.Linear(like.in_features, like.out_features, device=like.weight.device, dtype=like.weight.dtype)
        with torch.no_grad():
            fused.weight.copy_(weight)
            fused.bias.copy_(bias)
        return fused


def eighths(channels: int) -> int:
    """Return the nearest multiple of eight, at least eight."""
    return max(8, (channels + 4) // 8 * 8)


class RepViTNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(3, widths[0] // 2, 3, stride=2), nn.GELU(), ConvNorm(widths[0] // 2, widths[0], 3, stride=2)]
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers += [Downsampling(widths[stage - 1], width)] if stage else []
            layers += [Block(width, excite=i % 2 == 0) for i in range(depth)]
        self.layers = nn.Sequential(*layers)
        self.head = TwoHeads(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


@references.register("repvit")
class RepViT(ReferenceSystem):
    """RepViT M0.9 to M2.3."""

    source: ClassVar[Source] = Source("RepViT: Revisiting Mobile CNN From ViT Perspective", "arXiv 2307.09283")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "RepViT",
            "repvit_m0_9",
            5_067_056,
            815_617_344,
            (224, 224),
            "repvit_m0_9",
            5_489_328,
            78.652,
            "timm results-imagenet.csv (repvit_m0_9.dist_300e_in1k)",
        ),
        Variant(
            "RepViT",
            "repvit_m1_0",
            6_810_312,
            1_106_136_864,
            (224, 224),
            "repvit_m1_0",
            7_302_796,
            80.152,
            "timm results-imagenet.csv (repvit_m1_0.dist_300e_in1k)",
        ),
        Variant(
            "RepViT",
            "repvit_m1_1",
            8_244_312,
            1_337_124_608,
            (224, 224),
            "repvit_m1_1",
            8_802_912,
            80.826,
            "timm results-imagenet.csv (repvit_m1_1.dist_300e_in1k)",
        ),
        Variant(
            "RepViT",
            "repvit_m1_5",
            14_049_992,
            2_273_596_160,
            (224, 224),
            "repvit_m1_5",
            14_644_432,
            82.382,
            "timm results-imagenet.csv (repvit_m1_5.dist_300e_in1k)",
        ),
        Variant(
            "RepViT",
            "repvit_m2_3",
            22_926_792,
            4_515_958_720,
            (224, 224),
            "repvit_m2_3",
            23_688_792,
            83.524,
            "timm results-imagenet.csv (repvit_m2_3.dist_300e_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return RepViTNet(*CONFIGURATIONS[name], num_classes)
