"""Build the networks of ncnn's benchmark that timm and torchvision lack, from the layers that its ``benchmark/*.param`` files state.

    python experiments/001_workloads/ncnn.py [--only PREFIX …]

Each is built up to the convolutions of its heads, with what its file has behind them but for prior boxes and the selection of boxes, which take no
time beside the rest. Graphs go to ``hardware_profiles/workloads`` as in `boards.py`; no weight is made.
``results/ncnn.csv`` says what each network has beside what its authors state.

Source: Tencent/ncnn, folder ``benchmark`` (BSD-3-Clause); yolov4-tiny from the configuration of its authors (AlexeyAB/darknet).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from boards import Board, check, trace
from torch import Tensor, nn

from nas.graphs.workloads import folder
from nas.spaces.pretrained.libraries import declare_torchvision_operators


def conv(
    cin: int, cout: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: str = "relu", pad: int | None = None
) -> nn.Sequential:
    """Return a convolution with its activation: ``relu``, ``leaky`` or none for an empty text."""
    layers: list[nn.Module] = [nn.Conv2d(cin, cout, kernel, stride, kernel // 2 if pad is None else pad, groups=groups)]
    layers += [nn.ReLU()] if act == "relu" else [nn.LeakyReLU(0.1)] if act == "leaky" else []
    return nn.Sequential(*layers)


def separable(cin: int, cout: int, kernel: int = 3, stride: int = 1, *, depthwise: str = "relu", pointwise: str = "relu") -> nn.Sequential:
    """Return a depthwise and a pointwise convolution."""
    return nn.Sequential(conv(cin, cin, kernel, stride, groups=cin, act=depthwise), conv(cin, cout, act=pointwise))


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Return the channels of x (n, c, h, w) shuffled between groups."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class AlexNet(nn.Module):
    """The AlexNet of Caffe, with two groups and local response normalisation; torchvision's is the later one of one column."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(conv(3, 96, 11, 4, pad=0), nn.LocalResponseNorm(5, 1e-4), nn.MaxPool2d(3, 2)),
            *(conv(96, 256, 5, groups=2), nn.LocalResponseNorm(5, 1e-4), nn.MaxPool2d(3, 2)),
            *(conv(256, 384, 3), conv(384, 384, 3, groups=2), conv(384, 256, 3, groups=2), nn.MaxPool2d(3, 2)),
        )
        self.head = nn.Sequential(nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1)).softmax(-1)


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit with three groups; the first of a stage halves the picture and concatenates."""

    def __init__(self, cin: int, mid: int, cout: int, stride: int, *, first: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.reduce = conv(cin, mid, groups=1 if first else 3)
        self.rest = nn.Sequential(
            conv(mid, mid, 3, stride, groups=mid, act=""), conv(mid, cout - cin if stride == 2 else cout, groups=3, act="")
        )
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        y = self.rest(y if self.first else shuffled(y, 3))
        if self.stride == 2:
            return torch.cat([F.avg_pool2d(x, 3, 2, ceil_mode=True), y], 1).relu()
        return (x + y).relu()


def shufflenet() -> nn.Module:
    """ShuffleNet with three groups, times one."""
    layers: list[nn.Module] = [conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True)]
    cin = 24
    for cout, count in ((240, 4), (480, 8), (960, 4)):
        mid = cout // 4
        for i in range(count):
            first = cin == 24
            layers.append(ShuffleUnit(cin, 54 if first else cin // 4 if i == 0 else mid, cout, 2 if i == 0 else 1, first=first))
            cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(960, 1000))


def mobilenet() -> list[nn.Module]:
    """Return the parts of MobileNet up to strides 16 and 32."""
    steps = ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), *((512, 512, 1),) * 5)
    near = nn.Sequential(conv(3, 32, 3, 2), *(separable(a, b, 3, s) for a, b, s in steps))
    return [near, nn.Sequential(separable(512, 1024, 3, 2), separable(1024, 1024))]


class SSD(nn.Module):
    """A trunk in parts, whose outputs have heads for boxes and for 21 classes; the scores are normalised."""

    def __init__(self, parts: Sequence[nn.Module], channels: Sequence[int], anchors: Sequence[int], kernel: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.boxes = nn.ModuleList([conv(c, 4 * a, kernel, act="") for c, a in zip(channels, anchors, strict=True)])
        self.scores = nn.ModuleList([conv(c, 21 * a, kernel, act="") for c, a in zip(channels, anchors, strict=True)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for part, box, score in zip(self.parts, self.boxes, self.scores, strict=True):
            x = part(x)
            boxes.append(box(x).permute(0, 2, 3, 1).flatten(1))
            scores.append(score(x).permute(0, 2, 3, 1).flatten(1))
        return torch.cat(boxes, 1), torch.cat(scores, 1).view(x.shape[0], -1, 21).softmax(-1)


def extra(cin: int, mid: int, cout: int) -> nn.Sequential:
    """Return SSD's extra layers that halve the picture."""
    return nn.Sequential(conv(cin, mid), conv(mid, cout, 3, 2))


def mobilenet_ssd() -> nn.Module:
    parts = [*mobilenet(), extra(1024, 256, 512), extra(512, 128, 256), extra(256, 128, 256), extra(256, 64, 128)]
    return SSD(parts, (512, 1024, 512, 256, 256, 128), (3, 6, 6, 6, 6, 6), 1)


class Fire(nn.Module):
    """SqueezeNet's module."""

    def __init__(self, cin: int, mid: int, cout: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = conv(cin, mid), conv(mid, cout), conv(mid, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


def pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, ceil_mode=True)


def squeezenet_ssd() -> nn.Module:
    near = nn.Sequential(
        *(conv(3, 64, 3, 2, pad=0), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128), Fire(256, 32, 128)),
    )
    middle = nn.Sequential(pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256))
    far = [nn.Sequential(pool(), Fire(512, 96, 384)), nn.Sequential(pool(), Fire(768, 96, 384))]
    parts = [near, middle, *far, extra(768, 128, 256), extra(256, 64, 128)]
    return SSD(parts, (256, 512, 768, 768, 256, 128), (4, 6, 6, 6, 6, 4), 3)


class MobileNetYolo(nn.Module):
    """MobileNet, three dense convolutions and a transposed one on top, two heads of five anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*mobilenet(), conv(1024, 256), conv(256, 1024, 3))
        self.up = nn.ConvTranspose2d(1024, 256, 4, 2, 1, groups=256, bias=False)
        self.fine = nn.Sequential(conv(256, 1024, 3), conv(1024, 256), conv(256, 1024, 3))
        self.heads = nn.ModuleList([conv(1024, 125, act=""), conv(1024, 125, act="")])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        far = self.trunk(x)
        return self.heads[0](far), self.heads[1](self.fine(self.up(far)))


class Inverted(nn.Module):
    """An inverted residual block."""

    def __init__(self, cin: int, mid: int, cout: int, stride: int, act: str = "relu", kernel: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(cin, mid, act=act), conv(mid, mid, kernel, stride, groups=mid, act=act), conv(mid, cout, act=""))
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2Yolo(nn.Module):
    """MobileNetV2 with two heads of depthwise and pointwise convolutions; the strided expansion feeds the finer head."""

    def __init__(self) -> None:
        super().__init__()
        rows = (
            (16, 24, 2),
            (24, 24, 1),
            (24, 32, 2),
            (32, 32, 1),
            (32, 32, 1),
            (32, 64, 2),
            *((64, 64, 1),) * 3,
            (64, 96, 1),
            *((96, 96, 1),) * 2,
        )
        blocks = [Inverted(a, 6 * a, b, s) for a, b, s in rows]
        self.near = nn.Sequential(conv(3, 32, 3, 2), separable(32, 16, pointwise=""), *blocks, conv(96, 576))
        far = [Inverted(160, 960, 160, 1), Inverted(160, 960, 160, 1), Inverted(160, 960, 320, 1)]
        self.far = nn.Sequential(separable(576, 160, 3, 2, pointwise=""), *far, conv(320, 1280), separable(1280, 576))
        self.side, self.fine = separable(576, 576), separable(576, 576)
        self.up = nn.ConvTranspose2d(576, 576, 1, 2, groups=576, output_padding=1, bias=False)
        self.heads = nn.ModuleList([conv(576, 75, act=""), conv(576, 75, act="")])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near = self.near(x)
        far = self.far(near)
        fine = self.fine(F.max_pool2d(self.up(far), 1) + self.side(near))
        return self.heads[0](far), self.heads[1](fine)


class Blaze(nn.Module):
    """BlazeFace's single block; channels grow by padding with zeros."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.stride, self.grow = stride, cout - cin
        self.depthwise, self.pointwise = nn.Conv2d(cin, cin, 3, stride, 1 if stride == 1 else 0, groups=cin), nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(F.pad(x, (0, 2, 0, 2)) if self.stride == 2 else x))
        x = F.max_pool2d(x, 2) if self.stride == 2 else x
        return (y + (F.pad(x, (0, 0, 0, 0, 0, self.grow)) if self.grow else x)).relu()


def blazeface() -> nn.Module:
    widths = (24, 24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88, 96, 96, 96, 96, 96)
    strided = {2, 5, 11}
    blocks = [Blaze(a, b, 2 if i in strided else 1) for i, (a, b) in enumerate(itertools.pairwise(widths))]
    return nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), conv(3, 24, 5, 2, pad=0), *blocks)


class Shuffle2(nn.Module):
    """ShuffleNetV2's unit; the first of a stage has two branches that halve the picture."""

    def __init__(self, cin: int, half: int, stride: int, act: str = "relu") -> None:
        super().__init__()
        self.stride = stride
        wide = cin if stride == 2 else half
        self.main = nn.Sequential(conv(wide, half, act=act), conv(half, half, 3, stride, groups=half, act=""), conv(half, half, act=act))
        self.side = separable(cin, half, 3, 2, depthwise="", pointwise=act) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x, x) if self.stride == 2 else x.chunk(2, 1)
        return shuffled(torch.cat([self.side(a), self.main(b)], 1), 2)


class Stages(nn.Module):
    """ShuffleNetV2's stages at strides 8, 16 and 32, (n, 2·half, h, w) each."""

    def __init__(self, halves: Sequence[int], act: str = "relu") -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 24, 3, 2, act=act), nn.MaxPool2d(3, 2, 1))
        inputs = (24, 2 * halves[0], 2 * halves[1])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Shuffle2(cin, half, 2 if i == 0 else 1, act) for i in range(count)))
            for cin, half, count in zip(inputs, halves, (4, 8, 4), strict=True)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return tuple(found)


class YoloFastestV2(nn.Module):
    """A narrow ShuffleNetV2, two scales, branches of 5 × 5 depthwise convolutions for boxes and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Stages((24, 48, 96))
        self.lateral = nn.ModuleList([conv(288, 72), conv(192, 72)])

        def branch() -> nn.Module:
            return nn.Sequential(separable(72, 72, 5, pointwise=""), separable(72, 72, 5, pointwise=""))

        self.boxes, self.classes = nn.ModuleList([branch(), branch()]), nn.ModuleList([branch(), branch()])
        self.heads = nn.ModuleList([nn.ModuleList([conv(72, c, act="") for c in (12, 3, 80)]) for _ in range(2)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        _, middle, far = self.trunk(x)
        scales = (torch.cat([F.interpolate(far, scale_factor=2.0), middle], 1), far)
        found = []
        for x, lateral, boxes, classes, heads in zip(scales, self.lateral, self.boxes, self.classes, self.heads, strict=True):
            x = lateral(x)
            box, kind = boxes(x), classes(x)
            parts = [heads[0](box).sigmoid(), heads[1](kind).sigmoid(), heads[2](kind).permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2)]
            found.append(torch.cat(parts, 1).permute(0, 2, 3, 1))
        return tuple(found)


class FastestDet(nn.Module):
    """A narrow ShuffleNetV2 whose stages meet at stride 16, a pyramid of 5 × 5 depthwise convolutions, one head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.join = Stages((24, 48, 96)), conv(336, 96)
        self.pyramid = nn.ModuleList([nn.Sequential(*(conv(96, 96, 5, groups=96) for _ in range(n))) for n in (1, 2, 3)])
        self.merge, self.mix = conv(288, 96, act=""), conv(96, 96)
        self.heads = nn.ModuleList([separable(96, c, 5, pointwise="") for c in (80, 4, 1)])

    def forward(self, x: Tensor) -> Tensor:
        near, middle, far = self.trunk(x)
        x = self.join(torch.cat([F.avg_pool2d(near, 3, 2, 1), middle, F.interpolate(far, scale_factor=2.0)], 1))
        x = self.mix((x + self.merge(torch.cat([part(x) for part in self.pyramid], 1))).relu())
        return torch.cat([self.heads[2](x).sigmoid(), self.heads[1](x), self.heads[0](x).softmax(1)], 1)


class NanoDet(nn.Module):
    """ShuffleNetV2 with leaky activations, a path that goes down and up by additions, one head a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Stages((58, 116, 232), "leaky")
        self.lateral = nn.ModuleList([conv(c, 96, act="") for c in (116, 232, 464)])
        leaky = {"depthwise": "leaky", "pointwise": "leaky"}
        self.heads = nn.ModuleList(
            [nn.Sequential(separable(96, 96, **leaky), separable(96, 96, **leaky), conv(96, 112, act="")) for _ in range(3)]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        near, middle, far = (conv(x) for conv, x in zip(self.lateral, self.trunk(x), strict=True))

        def scaled(x: Tensor, factor: float) -> Tensor:
            return F.interpolate(x, scale_factor=factor, mode="bilinear")

        middle = middle + scaled(far, 2.0)
        near = near + scaled(middle, 2.0)
        middle = middle + scaled(near, 0.5)
        far = far + scaled(middle, 0.5)
        found: list[Tensor] = []
        for x, head in zip((near, middle, far), self.heads, strict=True):
            scores, distances = head(x).split((80, 32), 1)
            found += [scores.sigmoid().flatten(2).transpose(1, 2), distances.flatten(2).transpose(1, 2)]
        return tuple(found)


class YoloFastest(nn.Module):
    """YOLO-Fastest 1.1: very narrow inverted residual blocks, pooling at three sizes, two scales."""

    def __init__(self) -> None:
        super().__init__()
        leaky = "leaky"

        def blocks(rows: Sequence[tuple[int, int, int, int]]) -> nn.Sequential:
            return nn.Sequential(*(Inverted(a, m, b, s, leaky) for a, m, b, s in rows))

        stem = [conv(3, 8, 3, 2, act=leaky), conv(8, 8, act=leaky), separable(8, 4, depthwise=leaky, pointwise="")]
        rows = [(4, 8, 4, 1), (4, 24, 8, 2), (8, 32, 8, 1), (8, 32, 8, 1), (8, 32, 8, 2), (8, 48, 8, 1), (8, 48, 8, 1), (8, 48, 16, 1)]
        rows += [*((16, 96, 16, 1),) * 4, (16, 96, 24, 2), *((24, 136, 24, 1),) * 4]
        self.near = nn.Sequential(*stem, blocks(rows))
        self.far = nn.Sequential(conv(24, 136, act=leaky), conv(136, 136, 3, 2, groups=136, act=leaky), conv(136, 48, act=""))
        self.deep = blocks([(48, 224, 48, 1)] * 5)
        self.mix = conv(192, 96, act=leaky)
        self.heads = nn.ModuleList(
            nn.Sequential(*(separable(c, c, 5, depthwise=leaky, pointwise="") for _ in range(2)), conv(c, 255, act="")) for c in (96, 120)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        near = self.near(x)
        far = self.deep(self.far(near))
        far = self.mix(torch.cat([*(F.max_pool2d(far, k, 1, k // 2) for k in (9, 5, 3)), far], 1))
        return self.heads[0](far), self.heads[1](torch.cat([F.interpolate(far, scale_factor=2.0), near], 1))


class Partial(nn.Module):
    """The tiny cross-stage partial block of YOLOv4-tiny; its inner output is kept for the finer head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.first, self.a, self.b = (conv(i, o, 3, act="leaky") for i, o in ((width, width), (half, half), (half, half)))
        self.mix = conv(width, width, act="leaky")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        a = self.a(x.chunk(2, 1)[1])
        inner = self.mix(torch.cat([self.b(a), a], 1))
        return F.max_pool2d(torch.cat([x, inner], 1), 2), inner


class YoloV4Tiny(nn.Module):
    """YOLOv4-tiny."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 32, 3, 2, act="leaky"), conv(32, 64, 3, 2, act="leaky"))
        self.blocks = nn.ModuleList([Partial(64), Partial(128), Partial(256)])
        self.far = nn.Sequential(conv(512, 512, 3, act="leaky"), conv(512, 256, act="leaky"))
        self.near = conv(256, 128, act="leaky")
        self.heads = nn.ModuleList([nn.Sequential(conv(c, w, 3, act="leaky"), conv(w, 255, act="")) for c, w in ((256, 512), (384, 256))])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, inner = self.stem(x), x
        for block in self.blocks:
            x, inner = block(x)
        far = self.far(x)
        return self.heads[0](far), self.heads[1](torch.cat([F.interpolate(self.near(far), scale_factor=2.0), inner], 1))


def ncnn() -> dict[str, Board]:
    """Return every network by the name of its graph; families are those whose blocks they repeat."""

    def made(build: Callable[[], nn.Module], size: int, model: str, family: str, params_m: float | None = None) -> Board:
        return Board(build, (1, 3, size, size), "authors", model, family, params_m)

    return {
        "alexnet_bvlc": made(AlexNet, 227, "bvlc_alexnet", "alexnet_bvlc", 60.97),
        "shufflenet_g3": made(shufflenet, 224, "shufflenet", "shufflenet"),
        "mobilenet_ssd": made(mobilenet_ssd, 300, "mobilenet_ssd", "mobilenet_ssd", 5.77),
        "squeezenet_ssd": made(squeezenet_ssd, 300, "squeezenet_ssd", "squeezenet_ssd"),
        "mobilenet_yolo": made(MobileNetYolo, 416, "mobilenet_yolo", "mobilenet_yolo"),
        "mobilenetv2_yolov3": made(MobileNetV2Yolo, 352, "mobilenetv2_yolov3", "mobilenetv2_yolov3"),
        "yolov4_tiny": made(YoloV4Tiny, 416, "yolov4-tiny", "yolov4_tiny", 6.06),
        "nanodet_m": made(NanoDet, 320, "nanodet_m", "nanodet", 0.95),
        "yolo_fastest_1_1": made(YoloFastest, 320, "yolo-fastest-1.1", "yolo_fastest", 0.35),
        "yolo_fastestv2": made(YoloFastestV2, 352, "yolo-fastestv2", "yolo_fastestv2", 0.25),
        "fastestdet": made(FastestDet, 352, "FastestDet", "fastestdet", 0.24),
        "blazeface": made(blazeface, 128, "blazeface", "blazeface"),
    }


def main() -> None:
    """Trace what is wanted and missing, then write the check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names to trace; default all")
    args = parser.parse_args()
    declare_torchvision_operators()
    trace(args.only, folder(), ncnn())
    check(Path(__file__).parent / "results" / "ncnn.csv", ncnn())


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
