"""Networks that recognise: classes, faces, people, attributes, poses of a head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Network
from networks._blocks import Basic, SqueezeExcite, conv


class Mobile(nn.Module):
    """Inverted residual with a depthwise or, fused, a dense expansion."""

    def __init__(self, cin: int, cout: int, stride: int, act: Any, *, fused: bool = False, excite: bool = False, ratio: int = 5):
        super().__init__()
        mid = cin * ratio
        if fused:
            self.body = nn.Sequential(conv(cin, mid, 3, stride, act=act), conv(mid, cout, 1, act=None))
        else:
            gate = [SqueezeExcite(mid, round(mid * 0.25 / ratio), act=act)] if excite else []
            self.body = nn.Sequential(
                conv(cin, mid, 1, act=act), conv(mid, mid, 3, stride, groups=mid, act=act), *gate, conv(mid, cout, 1, act=None)
            )
        self.same = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def gpunet() -> nn.Module:
    """GPUNet-0 (Wang et al. 2022), the 0.65 ms configuration for a GV100."""
    rows = [(32, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    late = [(64, 256, 2, nn.SiLU, False), (256, 256, 1, nn.SiLU, False), (256, 256, 1, nn.SiLU, False), (256, 704, 2, nn.ReLU, True)]
    late.append((704, 704, 1, nn.ReLU, True))
    return nn.Sequential(
        conv(3, 32, 3, 2),
        *(conv(32, 32) for _ in range(2)),
        *(Mobile(cin, cout, stride, nn.ReLU, fused=True) for cin, cout, stride in rows),
        *(Mobile(cin, cout, stride, act, excite=excite) for cin, cout, stride, act, excite in late),
        conv(704, 1280, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1280, 1000),
    )


class Omni(nn.Module):
    """OSNet's block: four stacks of separable convolutions of growing depth, gated by one gate, summed."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        mid = cout // 4
        self.first, self.last = conv(cin, mid, 1), conv(mid, cout, 1, act=None)
        self.streams = nn.ModuleList(nn.Sequential(*(self.light(mid) for _ in range(depth))) for depth in (1, 2, 3, 4))
        self.gate = SqueezeExcite(mid, mid // 16)
        self.short = conv(cin, cout, 1, act=None) if cin != cout else nn.Identity()

    @staticmethod
    def light(c: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(c, c, 1, bias=False), conv(c, c, groups=c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        a, b, c, d = (self.gate(stream(y)) for stream in self.streams)
        return F.relu(self.last(a + b + c + d) + self.short(x))


def osnet() -> nn.Module:
    """OSNet x1.0 (Zhou et al. 2019): the feature of a person."""
    return nn.Sequential(
        conv(3, 64, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        *(Omni(64, 256), Omni(256, 256), conv(256, 256, 1), nn.AvgPool2d(2, 2)),
        *(Omni(256, 384), Omni(384, 384), conv(384, 384, 1), nn.AvgPool2d(2, 2)),
        *(Omni(384, 512), Omni(512, 512), conv(512, 512, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        *(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()),
    )


class Improved(nn.Module):
    """Block of ArcFace's IR-SE networks: norm, convolution, PReLU, convolution, squeeze and excitation."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.BatchNorm2d(cin), nn.Conv2d(cin, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout), nn.PReLU(cout)),
            *(nn.Conv2d(cout, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), SqueezeExcite(cout, cout // 16, bias=False)),
        )
        self.short = nn.MaxPool2d(1, stride) if cin == cout else conv(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.short(x)


def cavaface() -> nn.Module:
    """IR-SE-100 (Deng et al. 2019) as cavaface publishes it: the feature of a face."""
    blocks: list[nn.Module] = []
    cin = 64
    for cout, count in ((64, 3), (128, 13), (256, 30), (512, 3)):
        for i in range(count):
            blocks.append(Improved(cin, cout, 2 if i == 0 else 1))
            cin = cout
    tail = [nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(conv(3, 64, act=lambda: nn.PReLU(64)), *blocks, *tail)


class Separated(nn.Sequential):
    """Grouped 3×3 and dense 1×1 convolution, one norm behind both."""

    def __init__(self, cin: int, mid: int, cout: int, stride: int = 1, act: Any = nn.PReLU):
        super().__init__(conv(cin, mid, 3, stride, groups=cin // 32, norm=False, act=None), conv(mid, cout, 1, act=act))


class FaceBlock(nn.Module):
    """Block of AI Hub's face attribute network; halves the size where channels grow."""

    def __init__(self, c: int, *, down: bool):
        super().__init__()
        cout, stride = (2 * c, 2) if down else (c, 1)
        self.body = nn.Sequential(Separated(c, 2 * cout, cout, stride), Separated(cout, 2 * cout, cout, act=None))
        self.short = Separated(c, cout, cout, 2) if down else nn.Identity()
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.short(x))


class FaceAttributes(nn.Module):
    """AI Hub's face_attrib_net: 64 channels, two, six and three blocks, five heads of two classes."""

    def __init__(self, c: int = 64, depths: tuple[int, ...] = (2, 6, 3)):
        super().__init__()
        self.stem, self.act = conv(3, c, act=nn.PReLU), nn.PReLU()
        self.left = nn.Sequential(Separated(c, c, c, 2), Separated(c, c, c, act=None))
        self.right = Separated(c, c, c, 2, act=None)
        stages = []
        for i, depth in enumerate(depths):
            rest = [FaceBlock(2 * c << i, down=False) for _ in range(depth - 1)]
            stages.append(nn.Sequential(FaceBlock(c << i, down=True), *rest))
        self.stages = nn.ModuleList(stages)
        self.first = nn.ModuleList(Separated(4 * c, 2 * c, 2 * c, 2) for _ in range(5))
        self.second = nn.ModuleList(Separated(10 * c, 5 * c, 2 * c, 2) for _ in range(5))
        self.heads = nn.ModuleList(nn.Linear(2 * c, 2) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.stages[0](self.act(self.left(x) + self.right(x)))
        x = middle = self.stages[1](x)
        x = self.stages[2](x)
        made = []
        for first, second, classify in zip(self.first, self.second, self.heads, strict=True):
            y = F.avg_pool2d(second(torch.cat((first(middle), x), 1)), 4, 1)
            made.append(classify(y.flatten(1)))
        return torch.stack(made, 1).softmax(2)[:, :, 1]


def facemap() -> nn.Module:
    """AI Hub's facemap_3dmm: one grey channel made of three, ResNet-18 of half the width but for its end, 265 coefficients of a face model."""
    blocks: list[nn.Module] = []
    cin = 32
    for i, widths in enumerate(((32, 32), (64, 64), (128, 128), (256, 512))):
        for j, width in enumerate(widths):
            blocks.append(Basic(cin, width, 2 if i and not j else 1))
            cin = width
    return nn.Sequential(
        nn.Conv2d(3, 1, 1),
        conv(1, 32, 7, 2),
        *(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)),
        *blocks,
        nn.AvgPool2d(4, 1),
        nn.Flatten(),
        nn.Linear(cin, 265),
    )


NETWORKS = {
    "gpunet": Network(
        gpunet,
        (1, 3, 224, 224),
        "authors",
        "GPUNet-0, GV100 0.65 ms",
        "gpunet",
        note="the paper's 11.9 M; AI Hub states 10.49 M, 1.40 M less, as many as the squeeze-and-excitation holds",
    ),
    "osnet": Network(osnet, (1, 3, 256, 128), "authors", "osnet_x1_0", "osnet"),
    "cavaface": Network(cavaface, (1, 3, 112, 112), "authors", "IR_SE_100", "cavaface"),
    "face_attrib_net": Network(
        FaceAttributes,
        (1, 3, 128, 128),
        "authors",
        "face_attrib_net",
        "face_attrib_net",
        normalises=False,
        note="AI Hub states 12.1 M; its code, as published, builds 10.3 M of the same layers",
    ),
    "facemap_3dmm": Network(facemap, (1, 3, 128, 128), "authors", "resnet18_wd2", "facemap", normalises=False),
}
