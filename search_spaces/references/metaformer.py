"""MetaFormer: PoolFormer, and the baselines PoolFormerV2, ConvFormer and CAFormer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.channel_mixers.mlp import Perceptron, TokenPerceptron
from search_spaces.layers.norm import LayerNorm2d
from search_spaces.layers.tokens import TokenAttention, to_map, to_tokens
from search_spaces.mixers.pool import PoolMixer
from search_spaces.mixers.separable import SeparableConv

Mixer = Literal["pool", "separable", "attention"]
HEAD_DIM = 32


class GroupNormNoBias(nn.GroupNorm):
    """Group norm of one group with a scale and no shift. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels, eps=1e-6)
        self.register_parameter("bias", None)


class Scale(nn.Module):
    """Learned factor of each channel: of axis 1 of a map, of the last axis of tokens."""

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight.view(-1, 1, 1) if x.ndim == 4 else self.weight)


class SquaredReLU(nn.Module):
    """relu(x)², of any shape."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return x * x


@dataclass(frozen=True)
class Configuration:
    """What distinguishes a variant.

    Attributes:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        mixers: Token mixer of each stage.
        version: 1 has GELU, biases, group norm and layer scale; 2 StarReLU, no biases, norms without shift and residual scale.
        layer_scale: Initial value, version 1.
    """

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]
    mixers: tuple[Mixer, Mixer, Mixer, Mixer]
    version: int = 2
    layer_scale: float = 1e-5


_S, _M = (64, 128, 320, 512), (96, 192, 384, 768)
_POOL: tuple[Mixer, Mixer, Mixer, Mixer] = ("pool",) * 4
_CONV: tuple[Mixer, Mixer, Mixer, Mixer] = ("separable",) * 4
_CA: tuple[Mixer, Mixer, Mixer, Mixer] = ("separable", "separable", "attention", "attention")
CONFIGURATIONS = {
    "poolformer_s12": Configuration((2, 2, 6, 2), _S, _POOL, 1),
    "poolformer_s24": Configuration((4, 4, 12, 4), _S, _POOL, 1),
    "poolformer_s36": Configuration((6, 6, 18, 6), _S, _POOL, 1, 1e-6),
    "poolformer_m36": Configuration((6, 6, 18, 6), _M, _POOL, 1, 1e-6),
    "poolformer_m48": Configuration((8, 8, 24, 8), _M, _POOL, 1, 1e-6),
    "poolformerv2_s12": Configuration((2, 2, 6, 2), _S, _POOL),
    "convformer_s18": Configuration((3, 3, 9, 3), _S, _CONV),
    "caformer_s18": Configuration((3, 3, 9, 3), _S, _CA),
    "caformer_s36": Configuration((3, 12, 18, 3), _S, _CA),
}


class Block(nn.Module):
    """Mixer and perceptron, each with a norm before it and a residual around it. Keeps its input's shape, map or tokens."""

    def __init__(self, channels: int, mixer: Mixer, stage: int, configuration: Configuration) -> None:
        super().__init__()
        first = configuration.version == 1
        residual = configuration.version == 2 and stage >= 2

        def norm() -> nn.Module:
            if first:
                return nn.GroupNorm(1, channels)
            if mixer == "pool":
                return GroupNormNoBias(channels)
            kind = nn.LayerNorm if mixer == "attention" else LayerNorm2d
            return kind(channels, eps=1e-6, bias=False)

        def scale(present: bool, value: float) -> nn.Module:
            return Scale(channels, value) if present else nn.Identity()

        token_mixer: nn.Module
        if mixer == "pool":
            token_mixer = PoolMixer(3)
        elif mixer == "separable":
            token_mixer = SeparableConv(channels, 2 * channels, 7, "star-relu")
        else:
            token_mixer = TokenAttention(channels, channels // HEAD_DIM, bias=False, project_bias=False)
        self.norm1, self.mixer = norm(), token_mixer
        self.layer_scale1, self.residual_scale1 = scale(first, configuration.layer_scale), scale(residual, 1.0)
        self.norm2 = norm()
        act: Literal["gelu", "star-relu"] = "gelu" if first else "star-relu"
        kind = TokenPerceptron if mixer == "attention" else Perceptron
        self.mlp = kind(channels, 4 * channels, act, bias=first)
        self.layer_scale2, self.residual_scale2 = scale(first, configuration.layer_scale), scale(residual, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.residual_scale1(x) + self.layer_scale1(self.mixer(self.norm1(x)))
        return self.residual_scale2(x) + self.layer_scale2(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """Strided convolution, then blocks, on tokens where they attend. (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, stage: int, configuration: Configuration) -> None:
        super().__init__()
        width, mixer = configuration.widths[stage], configuration.mixers[stage]
        self.tokens = mixer == "attention"
        self.downsample: nn.Module = nn.Identity()
        if stage:
            norm = [LayerNorm2d(channels, eps=1e-6, bias=False)] if configuration.version == 2 else []
            self.downsample = nn.Sequential(*norm, nn.Conv2d(channels, width, 3, 2, 1))
        self.blocks = nn.Sequential(*(Block(width, mixer, stage, configuration) for _ in range(configuration.depths[stage])))

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if not self.tokens:
            return self.blocks(x)
        return to_map(self.blocks(to_tokens(x)), *x.shape[2:])


class MetaFormerNet(nn.Module):
    """Stem of stride 4, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, configuration: Configuration, num_classes: int) -> None:
        super().__init__()
        widths, last = configuration.widths, configuration.widths[-1]
        norm = [LayerNorm2d(widths[0], eps=1e-6, bias=False)] if configuration.version == 2 else []
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 7, 4, 2), *norm)
        self.stages = nn.Sequential(*(Stage(widths[max(0, i - 1)], i, configuration) for i in range(4)))
        self.norm = nn.LayerNorm(last, eps=1e-6)
        self.head: nn.Module = nn.Linear(last, num_classes)
        if "pool" not in configuration.mixers:
            self.head = nn.Sequential(
                nn.Linear(last, 4 * last), SquaredReLU(), nn.LayerNorm(4 * last, eps=1e-6), nn.Linear(4 * last, num_classes)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stages(self.stem(x)).mean((2, 3))))


@references.register("metaformer")
class MetaFormer(ReferenceSystem):
    """PoolFormer S12 to M48, PoolFormerV2-S12, ConvFormer-S18, CAFormer-S18 and S36."""

    source: ClassVar[Source] = Source("MetaFormer Is Actually What You Need for Vision", "arXiv 2111.11418; baselines: arXiv 2210.13452")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "PoolFormer",
            "poolformer_s12",
            11_915_176,
            1_812_267_008,
            (224, 224),
            "poolformer_s12",
            None,
            77.238,
            "timm results-imagenet.csv (poolformer_s12.sail_in1k @224)",
        ),
        Variant(
            "PoolFormer",
            "poolformer_s24",
            21_388_968,
            3_392_208_896,
            (224, 224),
            "poolformer_s24",
            None,
            80.294,
            "timm results-imagenet.csv (poolformer_s24.sail_in1k @224)",
        ),
        Variant(
            "PoolFormer",
            "poolformer_s36",
            30_862_760,
            4_972_150_784,
            (224, 224),
            "poolformer_s36",
            None,
            81.428,
            "timm results-imagenet.csv (poolformer_s36.sail_in1k @224)",
        ),
        Variant(
            "PoolFormer",
            "poolformer_m36",
            56_172_520,
            8_758_788_096,
            (224, 224),
            "poolformer_m36",
            None,
            82.104,
            "timm results-imagenet.csv (poolformer_m36.sail_in1k @224)",
        ),
        Variant(
            "PoolFormer",
            "poolformer_m48",
            73_473_448,
            11_533_320_192,
            (224, 224),
            "poolformer_m48",
            None,
            82.462,
            "timm results-imagenet.csv (poolformer_m48.sail_in1k @224)",
        ),
        Variant(
            "MetaFormer baselines",
            "poolformerv2_s12",
            11_891_712,
            1_812_267_008,
            (224, 224),
            "poolformerv2_s12",
            None,
            78.008,
            "timm results-imagenet.csv (poolformerv2_s12.sail_in1k @224)",
        ),
        Variant(
            "MetaFormer baselines",
            "convformer_s18",
            26_774_448,
            3_940_984_320,
            (224, 224),
            "convformer_s18",
            None,
            82.968,
            "timm results-imagenet.csv (convformer_s18.sail_in1k @224)",
        ),
        Variant(
            "MetaFormer baselines",
            "caformer_s18",
            26_341_656,
            4_106_941_440,
            (224, 224),
            "caformer_s18",
            None,
            83.664,
            "timm results-imagenet.csv (caformer_s18.sail_in1k @224)",
        ),
        Variant(
            "MetaFormer baselines",
            "caformer_s36",
            39_297_102,
            7_971_597_312,
            (224, 224),
            "caformer_s36",
            None,
            84.528,
            "timm results-imagenet.csv (caformer_s36.sail_in1k @224)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return MetaFormerNet(CONFIGURATIONS[name], num_classes)
