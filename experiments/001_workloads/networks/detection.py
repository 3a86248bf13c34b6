"""Detectors and their kin that `ultralytics` lacks, with the decoding that AI Hub compiles behind them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Network
from networks._blocks import SqueezeExcite, conv, enlarge
from networks.yolo import corners, likeliest


class Narrow(nn.Module):
    """MobileNetV3's block with dense 3×3 kernels, once or, for "5×5", twice (AI Hub's face and foot detectors)."""

    def __init__(self, kernel: int, cin: int, mid: int, cout: int, excite: bool, stride: int):
        super().__init__()
        spatial = [conv(mid, cout, 3, stride)] if kernel == 3 else [conv(mid, cout), conv(cout, cout, 3, stride)]
        gate = [SqueezeExcite(cout, cout // 4, norm=True, bias=False)] if excite else []
        self.body = nn.Sequential(conv(cin, mid, 1), *spatial, *gate)
        self.residual = stride == 1
        self.short = conv(cin, cout, 1, act=None) if stride == 1 and cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.short(x) if self.residual else self.body(x)


class Context(nn.Module):
    """Half of the channels by one convolution, a quarter by two, a quarter by three."""

    def __init__(self, c: int):
        super().__init__()
        self.direct, self.into = conv(c, c // 2), conv(c, c // 4)
        self.short, self.long = conv(c // 4, c // 4), nn.Sequential(conv(c // 4, c // 4), conv(c // 4, c // 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.into(x)
        return torch.cat((self.direct(x), torch.cat((self.short(y), self.long(y)), 1)), 1)


class FaceDetector(nn.Module):
    """AI Hub's face_det_lite: grey image, one scale, centre, box and landmarks."""

    blocks = (
        *((3, 16, 16, 16, False, 2), (3, 16, 64, 32, False, 2), (3, 32, 96, 32, False, 1), (5, 32, 96, 32, True, 2)),
        *(
            (5, 32, 224, 32, True, 1),
            (5, 32, 224, 32, True, 1),
            (5, 32, 128, 64, True, 1),
            (5, 64, 160, 64, True, 1),
            (5, 64, 256, 96, True, 2),
        ),
    )
    taken, wide, channels = (2, 7), 32, 1

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(self.channels, 16, 3, 2)
        self.trunk = nn.ModuleList(Narrow(*row) for row in self.blocks)
        w = self.wide
        self.top = conv(96, w, 1)
        self.connect = nn.ModuleList(conv(self.blocks[i][3], w, 1) for i in self.taken)
        self.up = nn.ModuleList(conv(w, w) for _ in self.taken)
        self.detect = Context(w)
        self.make_heads()

    def make_heads(self) -> None:
        self.heads = nn.ModuleList(nn.Conv2d(self.wide, n, 1) for n in (1, 4, 10))
        self.unused = nn.Conv2d(64, 32, 1, bias=False)

    def features(self, x: Tensor) -> Tensor:
        x, maps = self.stem(x), []
        for i, block in enumerate(self.trunk):
            x = block(x)
            if i in self.taken:
                maps.append(x)
        y = self.top(x)
        for m, connect, up in zip(maps[::-1], list(self.connect)[::-1], self.up, strict=True):
            y = up(enlarge(y, 2, "nearest")) + connect(m)
        return self.detect(y)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.features((x - 0.442) / 0.280)
        return tuple(head(y) for head in self.heads)


class FootDetector(FaceDetector):
    """AI Hub's foot_track_net: heat maps, boxes and landmarks of three classes."""

    blocks = (
        *((3, 16, 16, 16, False, 1), (3, 16, 64, 16, False, 2), (3, 16, 64, 16, False, 1), (5, 16, 96, 32, True, 2)),
        *((5, 32, 96, 32, True, 1), (5, 32, 128, 32, True, 1), (3, 32, 128, 64, False, 2), (3, 64, 128, 64, False, 1)),
        *((3, 64, 160, 64, False, 1), (3, 64, 160, 64, False, 1), (3, 64, 256, 64, True, 1), (3, 64, 320, 64, True, 1)),
        *((5, 64, 320, 64, True, 1), (5, 64, 320, 96, True, 2), (5, 96, 480, 96, True, 1)),
    )
    taken, wide, channels = (2, 5, 12), 64, 3

    def make_heads(self) -> None:
        self.colours = conv(3, 3, 1, act=None)
        outs = (1, 1, 1, 4, 4, 4, 34, 17)
        self.heads = nn.ModuleList(nn.Sequential(conv(64, 64), nn.Conv2d(64, n, 1)) for n in outs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.features(self.colours(x * 255.0))
        made = [head(y) for head in self.heads]
        return torch.cat([m.sigmoid() for m in made[:3]], 1), torch.cat(made[3:6], 1), made[6], made[7].sigmoid()


class DoubleBlaze(nn.Module):
    """Two 5×5 depthwise separable convolutions with a residual."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        mid = max(cin, cout) // 2
        self.body = nn.Sequential(
            *(conv(cin, cin, 5, groups=cin, act=None), conv(cin, mid, 1)),
            *(conv(mid, mid, 5, groups=mid, act=None), conv(mid, cout, 1, act=None)),
        )
        self.short = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def grids(h: int, w: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns and rows of a map's cells."""
    rows, columns = (torch.arange(size, device=like.device, dtype=like.dtype) for size in (h, w))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return x, y


class GearGuard(nn.Module):
    """AI Hub's gear_guard_net: YOLOv5's layout of double Blaze blocks, two classes."""

    anchors = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))

    def __init__(self) -> None:
        super().__init__()
        for i, sizes in enumerate(self.anchors):
            self.register_buffer(f"sizes{i}", torch.tensor(sizes, dtype=torch.float32))
        widths = (32, 64, 128, 256, 512)
        self.stem = conv(3, 32, 6, 2, pad=2)
        self.downs = nn.ModuleList(conv(cin, cout, 3, 2) for cin, cout in pairwise(widths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(DoubleBlaze(c, c) for _ in range(n))) for c, n in zip(widths[1:], (1, 1, 3, 1), strict=True)
        )
        self.last = conv(512, 512)
        self.reduce = nn.ModuleList([conv(512, 256, 1), conv(256, 128, 1)])
        self.merge_up = nn.ModuleList([DoubleBlaze(512, 256), DoubleBlaze(256, 128)])
        self.down = nn.ModuleList([conv(128, 128, 3, 2), conv(256, 256, 3, 2)])
        self.merge_down = nn.ModuleList([DoubleBlaze(256, 256), DoubleBlaze(512, 512)])
        self.heads = nn.ModuleList(nn.Conv2d(c, 21, 1) for c in (128, 256, 512))

    def forward(self, x: Tensor) -> Any:
        x, maps = self.stem(x), []
        for down, part in zip(self.downs, self.stages, strict=True):
            x = part(down(x))
            maps.append(x)
        top = self.reduce[0](self.last(x))
        mid = self.merge_up[0](torch.cat((enlarge(top, 2, "nearest"), maps[2]), 1))
        low = self.reduce[1](mid)
        a = self.merge_up[1](torch.cat((enlarge(low, 2, "nearest"), maps[1]), 1))
        b = self.merge_down[0](torch.cat((self.down[0](a), low), 1))
        c = self.merge_down[1](torch.cat((self.down[1](b), top), 1))
        made = [self.decode(head(y), i) for i, (head, y) in enumerate(zip(self.heads, (a, b, c), strict=True))]
        return postprocessed(torch.cat(made, 1))

    def decode(self, y: Tensor, i: int) -> Tensor:
        y = y.permute(0, 2, 3, 1)
        n, h, w, _ = y.shape
        y = y.reshape(n, h, w, 3, 7)
        columns, rows = grids(h, w, y)
        at_x, at_y = (g[None, :, :, None].expand(n, h, w, 3).reshape(n, -1) for g in (columns, rows))
        sure, classes = y[..., 4].sigmoid().reshape(n, -1), y[..., 5:].sigmoid().reshape(n, -1, 2)
        y = y.reshape(n, -1, 7)
        sizes = getattr(self, f"sizes{i}").repeat(h * w, 1)[None]
        stride = float(8 << i)
        x0, y0 = ((y[..., k].sigmoid() * 2 - 0.5 + at) * stride for k, at in ((0, at_x), (1, at_y)))
        wide, high = (4 * y[..., 2 + k].sigmoid() ** 2 * sizes[..., k] for k in (0, 1))
        return torch.cat([torch.stack([x0, y0, wide, high, sure], 2), classes], 2)


def postprocessed(made: Tensor) -> tuple[Tensor, ...]:
    """Split (n, anchors, 5 + classes) into corners, the best class's score and the class, as AI Hub does for anchor-based YOLOs."""
    boxes, sure, scores = made[:, :, :4], made[:, :, 4:5], made[:, :, 5:]
    best, classes = likeliest(scores * sure)
    return corners(boxes), best, classes.to(torch.uint8)


class Elan(nn.Module):
    """ELAN of YOLOv7-tiny: two 1×1, two 3×3, all four joined."""

    def __init__(self, cin: int, mid: int, cout: int):
        super().__init__()
        self.parts = nn.ModuleList(leaky(cin, mid, 1) for _ in range(2))
        self.chain = nn.ModuleList(leaky(mid, mid, 3) for _ in range(2))
        self.merge = leaky(4 * mid, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = (part(x) for part in self.parts)
        c = self.chain[0](b)
        return self.merge(torch.cat((self.chain[1](c), c, b, a), 1))


def leaky(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return conv(cin, cout, kernel, stride, act=lambda: nn.LeakyReLU(0.1))


class YoloV7Tiny(nn.Module):
    """YOLOv7-tiny (Wang et al. 2022)."""

    anchors = (((12, 16), (19, 36), (40, 28)), ((36, 75), (76, 55), (72, 146)), ((142, 110), (192, 243), (459, 401)))

    def __init__(self) -> None:
        super().__init__()
        for i, sizes in enumerate(self.anchors):
            self.register_buffer(f"sizes{i}", torch.tensor(sizes, dtype=torch.float32))
        self.stem = nn.Sequential(leaky(3, 32, 3, 2), leaky(32, 64, 3, 2), Elan(64, 32, 64))
        self.stages = nn.ModuleList([Elan(64, 64, 128), Elan(128, 128, 256), Elan(256, 256, 512)])
        self.spp_in = nn.ModuleList(leaky(512, 256, 1) for _ in range(2))
        self.spp_out, self.spp_last = leaky(1024, 256, 1), leaky(512, 256, 1)
        self.lift, self.side = (nn.ModuleList([leaky(256, 128, 1), leaky(128, 64, 1)]) for _ in range(2))
        self.up = nn.ModuleList([Elan(256, 64, 128), Elan(128, 32, 64)])
        self.down = nn.ModuleList([leaky(64, 128, 3, 2), leaky(128, 256, 3, 2)])
        self.back = nn.ModuleList([Elan(256, 64, 128), Elan(512, 128, 256)])
        self.last = nn.ModuleList(leaky(c, 2 * c, 3) for c in (64, 128, 256))
        self.heads = nn.ModuleList(nn.Conv2d(2 * c, 255, 1) for c in (64, 128, 256))

    def forward(self, x: Tensor) -> Any:
        x, maps = self.stem(x), []
        for part in self.stages:
            x = part(F.max_pool2d(x, 2, 2))
            maps.append(x)
        a, b = self.spp_in[0](x), self.spp_in[1](x)
        pooled = [F.max_pool2d(b, k, 1, k // 2) for k in (13, 9, 5)]
        top = self.spp_last(torch.cat((self.spp_out(torch.cat((*pooled, b), 1)), a), 1))
        mid = self.up[0](torch.cat((self.side[0](maps[1]), enlarge(self.lift[0](top), 2, "nearest")), 1))
        low = self.up[1](torch.cat((self.side[1](maps[0]), enlarge(self.lift[1](mid), 2, "nearest")), 1))
        mid = self.back[0](torch.cat((self.down[0](low), mid), 1))
        top = self.back[1](torch.cat((self.down[1](mid), top), 1))
        made = [self.decode(head(last(y)), i) for i, (head, last, y) in enumerate(zip(self.heads, self.last, (low, mid, top), strict=True))]
        return split_postprocessed(*(torch.cat(parts, 1) for parts in zip(*made, strict=True)))

    def decode(self, y: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
        n, _, h, w = y.shape
        y = y.sigmoid().reshape(n, 3, 85, h, w).permute(0, 1, 3, 4, 2).contiguous()
        grid = torch.stack(grids(h, w, y), 2)
        xy = ((y[..., :2] * 2.0 - 0.5 + grid) * float(8 << i)).reshape(n, -1, 2)
        sizes = getattr(self, f"sizes{i}").reshape(1, 3, 1, 2)
        wh = ((y[..., 2:4].reshape(n, 3, h * w, 2) * 2) ** 2 * sizes).reshape(n, -1, 2)
        return xy, wh, y[..., 4:].reshape(n, -1, 81)


def split_postprocessed(xy: Tensor, wh: Tensor, scores: Tensor) -> tuple[Tensor, ...]:
    """Return corners, the best class's score and the class of heads that keep centres, sizes and scores apart."""
    cx, cy = xy.unbind(-1)
    w, h = (wh * 0.5).unbind(-1)
    sure, classes = scores.split_with_sizes([1, 80], -1)
    best, index = classes.max(-1)
    return torch.stack((cx - w, cy - h, cx + w, cy + h), -1), best * sure.squeeze(-1), index.to(torch.uint8)


def silu(cin: int, cout: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return conv(cin, cout, kernel, stride, act=nn.SiLU)


class CSP(nn.Module):
    """CSP layer of YOLOX; `same` adds the residuals."""

    def __init__(self, cin: int, cout: int, count: int, *, same: bool = True):
        super().__init__()
        mid, self.same = cout // 2, same
        self.main, self.side, self.merge = silu(cin, mid, 1), silu(cin, mid, 1), silu(2 * mid, cout, 1)
        self.blocks = nn.ModuleList(nn.Sequential(silu(mid, mid, 1), silu(mid, mid, 3)) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        y = self.main(x)
        for block in self.blocks:
            y = block(y) + y if self.same else block(y)
        return self.merge(torch.cat((y, self.side(x)), 1))


class YoloX(nn.Module):
    """YOLOX-s (Ge et al. 2021)."""

    def __init__(self, c: int = 32):
        super().__init__()
        self.stem = silu(12, c, 3)
        self.downs = nn.ModuleList(silu(c << i, c << i + 1, 3, 2) for i in range(4))
        self.stages = nn.ModuleList(CSP(c << i + 1, c << i + 1, n, same=i < 3) for i, n in enumerate((1, 3, 3, 1)))
        self.spp_in, self.spp_out = silu(16 * c, 8 * c, 1), silu(32 * c, 16 * c, 1)
        self.reduce = nn.ModuleList([silu(16 * c, 8 * c, 1), silu(8 * c, 4 * c, 1)])
        self.up = nn.ModuleList([CSP(16 * c, 8 * c, 1, same=False), CSP(8 * c, 4 * c, 1, same=False)])
        self.down = nn.ModuleList([silu(4 * c, 4 * c, 3, 2), silu(8 * c, 8 * c, 3, 2)])
        self.back = nn.ModuleList([CSP(8 * c, 8 * c, 1, same=False), CSP(16 * c, 16 * c, 1, same=False)])
        self.entry = nn.ModuleList(silu(m * c, 128, 1) for m in (4, 8, 16))
        self.of_class, self.of_box = (
            nn.ModuleList(nn.Sequential(silu(128, 128, 3), silu(128, 128, 3)) for _ in range(3)) for _ in range(2)
        )
        self.classes, self.boxes, self.sure = (nn.ModuleList(nn.Conv2d(128, n, 1) for _ in range(3)) for n in (80, 4, 1))

    def forward(self, image: Tensor) -> Any:
        x = image * 255
        corners_of = [x[..., i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        x, maps = self.stem(torch.cat(corners_of, 1)), []
        for i, (down, part) in enumerate(zip(self.downs, self.stages, strict=True)):
            x = down(x)
            if i == 3:
                y = self.spp_in(x)
                x = self.spp_out(torch.cat([y, *(F.max_pool2d(y, k, 1, k // 2) for k in (5, 9, 13))], 1))
            x = part(x)
            maps.append(x)
        top = self.reduce[0](maps[3])
        mid = self.up[0](torch.cat((enlarge(top, 2, "nearest"), maps[2]), 1))
        low = self.reduce[1](mid)
        a = self.up[1](torch.cat((enlarge(low, 2, "nearest"), maps[1]), 1))
        b = self.back[0](torch.cat((self.down[0](a), low), 1))
        return self.decode((a, b, self.back[1](torch.cat((self.down[1](b), top), 1))))

    def decode(self, maps: tuple[Tensor, ...]) -> Any:
        boxes, scores, cells, strides = [], [], [], []
        for i, y in enumerate(maps):
            y = self.entry[i](y)
            of_class, of_box = self.of_class[i](y), self.of_box[i](y)
            boxes.append(self.boxes[i](of_box).flatten(2))
            scores.append(torch.cat((self.sure[i](of_box).sigmoid(), self.classes[i](of_class).sigmoid()), 1).flatten(2))
            h, w = y.shape[-2:]
            cells.append(torch.stack(grids(h, w, y), 2).view(1, -1, 2))
            strides.append(torch.full((1, h * w, 1), float(8 << i), dtype=y.dtype, device=y.device))
        box, grid, stride = torch.cat(boxes, 2).permute(0, 2, 1), torch.cat(cells, 1), torch.cat(strides, 1)
        score = torch.cat(scores, 2).permute(0, 2, 1)
        return split_postprocessed((box[..., :2] + grid) * stride, box[..., 2:].exp() * stride, score)


class PoseNet(nn.Module):
    """PoseNet on MobileNetV1 (posenet-pytorch, 101) at stride 16, with the maximum that AI Hub appends."""

    def __init__(self) -> None:
        super().__init__()
        rows = [
            (32, 64, 1),
            (64, 128, 2),
            (128, 128, 1),
            (128, 256, 2),
            (256, 256, 1),
            (256, 512, 2),
            *[(512, 512, 1)] * 5,
            (512, 1024, 1),
            (1024, 1024, 1),
        ]
        layers = [conv(3, 32, 3, 2, act=nn.ReLU6, norm=False, bias=True)]
        for i, (cin, cout, stride) in enumerate(rows):
            rate = 2 if i == 12 else 1
            layers.append(conv(cin, cin, 3, stride, act=nn.ReLU6, groups=cin, dilation=rate, norm=False, bias=True))
            layers.append(conv(cin, cout, 1, act=nn.ReLU6, norm=False, bias=True))
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(1024, n, 1) for n in (17, 34, 32, 32))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = self.trunk(image * 2.0 - 1.0)
        heat, *rest = (head(x) for head in self.heads)
        heat = heat.sigmoid()
        return heat, *rest, F.max_pool2d(heat, 3, 1, 1)


NETWORKS = {
    "face_det_lite": Network(FaceDetector, (1, 1, 480, 640), "authors", "face_det_lite", "face_det_lite", normalises=False),
    "foot_track_net": Network(FootDetector, (1, 3, 480, 640), "authors", "foot_track_net", "face_det_lite", normalises=False),
    "yolov7": Network(YoloV7Tiny, (1, 3, 640, 640), "authors", "yolov7-tiny", "yolov7", normalises=False),
    "yolox": Network(YoloX, (1, 3, 640, 640), "authors", "yolox-s", "yolox", normalises=False),
    "posenet_mobilenet": Network(PoseNet, (1, 3, 513, 257), "authors", "mobilenet_v1_101", "posenet", normalises=False),
    "gear_guard_net": Network(GearGuard, (1, 3, 320, 192), "authors", "gear_guard_net", "gear_guard_net", normalises=False),
}
