"""ECA-ResNet: a ResNet-50-D whose blocks weigh their channels by a convolution over the channels' means."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import Source
from nas.spaces.reference import ReferenceSystem, Variant, references
from search_spaces.layers.channel_attention import eca_kernel

DEPTHS = (3, 4, 6, 3)
WIDTHS = (64, 128, 256, 512)
# name: widths of the first two convolutions of the stem, which ends in 64
CONFIGURATIONS = {"ecaresnet50d": (32, 32), "ecaresnet50t": (24, 32)}


class ChannelConvolution(nn.Module):
    """x ⊙ σ(conv1d over the channels' means). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_kernel(channels)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        return x * self.conv(x.mean((2, 3)).view(n, 1, c)).view(n, c, 1, 1).sigmoid()


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 with batch norms, channel weights and a shortcut that pools before it projects."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.weigh = ChannelConvolution(out)
        self.shortcut: nn.Module | None = None
        if channels != out:
            pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        y = self.weigh(self.norm3(self.conv3(y)))
        return torch.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ECAResNet(nn.Module):
    """Deep stem, four stages, head. (n, 3, h, w) -> (n, num_classes)."""

    def __init__(self, stem: tuple[int, int], num_classes: int) -> None:
        super().__init__()
        a, b = stem
        self.stem = nn.Sequential(
            nn.Conv2d(3, a, 3, 2, 1, bias=False),
            nn.BatchNorm2d(a),
            nn.ReLU(),
            nn.Conv2d(a, b, 3, 1, 1, bias=False),
            nn.BatchNorm2d(b),
            nn.ReLU(),
            nn.Conv2d(b, 64, 3, 1, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        channels = 64
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            for i in range(depth):
                blocks.append(Bottleneck(channels, width, 2 if stage and i == 0 else 1))
                channels = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@references.register("eca-resnet")
class ECAResNets(ReferenceSystem):
    """ECA-ResNet-50-D and -T."""

    source: ClassVar[Source] = Source("ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", "arXiv 1910.03151")
    table: ClassVar[tuple[Variant, ...]] = (
        Variant(
            "ECA-Net",
            "ecaresnet50d",
            25_576_350,
            4_328_912_640,
            (224, 224),
            "ecaresnet50d",
            None,
            80.634,
            "timm results-imagenet.csv (ecaresnet50d.miil_in1k)",
        ),
        Variant(
            "ECA-Net",
            "ecaresnet50t",
            25_573_814,
            5_612_148_480,
            (256, 256),
            "ecaresnet50t",
            None,
            81.45,
            "timm results-imagenet.csv (ecaresnet50t.ra2_in1k)",
        ),
    )

    @classmethod
    def build(cls, name: str, num_classes: int = 1000) -> nn.Module:
        return ECAResNet(CONFIGURATIONS[name], num_classes)
