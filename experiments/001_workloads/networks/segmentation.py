"""Networks that label every pixel, or give it a depth."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Network
from networks._blocks import Basic, Bottleneck, conv, enlarge, repeat


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015) as Pytorch-UNet publishes it: batch norms, transposed convolutions, two classes."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.downs = nn.ModuleList(self.double(cin, cout) for cin, cout in zip((3, *widths), widths, strict=False))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(c, c // 2, 2, 2) for c in widths[:0:-1])
        self.merges = nn.ModuleList(self.double(c, c // 2) for c in widths[:0:-1])
        self.last = nn.Conv2d(64, 2, 1)

    @staticmethod
    def double(cin: int, cout: int) -> nn.Sequential:
        return nn.Sequential(conv(cin, cout), conv(cout, cout))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, down in enumerate(self.downs):
            x = down(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.ups, self.merges, strict=True):
            x = merge(torch.cat((skips.pop(), up(x)), 1))
        return self.last(x)


class RSU(nn.Module):
    """Residual U-block of U²-Net; `dilated` keeps one size and dilates instead."""

    def __init__(self, height: int, cin: int, mid: int, cout: int, *, dilated: bool = False):
        super().__init__()
        self.first, self.dilated = conv(cin, cout, bias=True), dilated
        rates = [2**i if dilated else 1 for i in range(height - 1)]
        self.down = nn.ModuleList(conv(cout if i == 0 else mid, mid, dilation=rate, bias=True) for i, rate in enumerate(rates))
        self.bottom = conv(mid, mid, dilation=2 ** (height - 1) if dilated else 2, bias=True)
        self.up = nn.ModuleList(conv(2 * mid, cout if i == 0 else mid, dilation=rate, bias=True) for i, rate in enumerate(rates))

    def forward(self, x: Tensor) -> Tensor:
        x = whole = self.first(x)
        skips = []
        for i, down in enumerate(self.down):
            x = down(F.max_pool2d(x, 2, 2, ceil_mode=True) if i and not self.dilated else x)
            skips.append(x)
        x = self.bottom(x)
        for skip, up in zip(skips[::-1], list(self.up)[::-1], strict=True):
            x = up(torch.cat((enlarge(x, skip) if x.shape != skip.shape else x, skip), 1))
        return x + whole


class U2Net(nn.Module):
    """U²-Net (Qin et al. 2020), the full one."""

    def __init__(self) -> None:
        super().__init__()
        plan = [(7, 3, 32, 64), (6, 64, 32, 128), (5, 128, 64, 256), (4, 256, 128, 512), (4, 512, 256, 512), (4, 512, 256, 512)]
        self.encoder = nn.ModuleList(RSU(*row, dilated=i > 3) for i, row in enumerate(plan))
        back = [(4, 1024, 256, 512), (4, 1024, 128, 256), (5, 512, 64, 128), (6, 256, 32, 64), (7, 128, 16, 64)]
        self.decoder = nn.ModuleList(RSU(*row, dilated=i == 0) for i, row in enumerate(back))
        self.sides = nn.ModuleList(nn.Conv2d(c, 1, 3, 1, 1) for c in (512, 512, 256, 128, 64, 64))
        self.fuse = nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        skips = []
        for i, stage in enumerate(self.encoder):
            x = stage(F.max_pool2d(x, 2, 2, ceil_mode=True) if i else x)
            skips.append(x)
        maps = [skips.pop()]
        for stage in self.decoder:
            skip = skips.pop()
            maps.append(stage(torch.cat((enlarge(maps[-1], skip), skip), 1)))
        sides = [side(m) for side, m in zip(self.sides, maps, strict=True)][::-1]
        sides = [sides[0], *(enlarge(s, sides[0]) for s in sides[1:])]
        return tuple(torch.sigmoid(s) for s in (self.fuse(torch.cat(sides, 1)), *sides))


def before(cin: int, cout: int, kernel: int = 1, groups: int = 1, *, bias: bool = False) -> nn.Sequential:
    """Return batch norm, activation, convolution: the order of DDRNet's pyramid."""
    return nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU(), nn.Conv2d(cin, cout, kernel, padding=kernel // 2, groups=groups, bias=bias))


class Pyramid(nn.Module):
    """Deep aggregation pyramid of DDRNet; `parallel` is PIDNet's, with one grouped convolution."""

    def __init__(self, cin: int, mid: int, cout: int, *, parallel: bool = False):
        super().__init__()
        pools: list[nn.Module] = [nn.AvgPool2d(k, s, k // 2) for k, s in ((5, 2), (9, 4), (17, 8))]
        self.scales = nn.ModuleList(nn.Sequential(pool, before(cin, mid)) for pool in (*pools, nn.AdaptiveAvgPool2d(1)))
        self.whole, self.parallel = before(cin, mid), parallel
        self.process = before(4 * mid, 4 * mid, 3, 4) if parallel else nn.ModuleList(before(mid, mid, 3) for _ in range(4))
        self.compress, self.short = before(5 * mid, cout), before(cin, cout)

    def forward(self, x: Tensor) -> Tensor:
        made = [self.whole(x)]
        if self.parallel:
            parts = [enlarge(scale(x), x) + made[0] for scale in self.scales]
            made.append(self.process(torch.cat(parts, 1)))
        else:
            for scale, process in zip(self.scales, self.process, strict=True):  # type: ignore[arg-type]
                made.append(process(enlarge(scale(x), x) + made[-1]))
        return self.compress(torch.cat(made, 1)) + self.short(x)


def stage(block: Any, count: int, cin: int, cout: int, stride: int = 1, **options: Any) -> nn.Sequential:
    """Return blocks of which the last has no activation behind its sum, as in DDRNet and PIDNet."""
    wide = cout * options.get("expansion", 1)
    rows = [(cin, stride), *[(wide, 1)] * (count - 1)]
    return nn.Sequential(
        *(block(c, cout, s, last=i == count - 1 and (count > 1 or block is Bottleneck), **options) for i, (c, s) in enumerate(rows))
    )


def head(cin: int, mid: int, classes: int = 19) -> nn.Sequential:
    """Return the head of DDRNet and PIDNet."""
    return nn.Sequential(before(cin, mid, 3), before(mid, classes, bias=True))


class DDRNet(nn.Module):
    """DDRNet-23-slim (Hong et al. 2021) without its auxiliary head."""

    def __init__(self, c: int = 32):
        super().__init__()
        self.stem = nn.Sequential(conv(3, c, 3, 2, bias=True), conv(c, c, 3, 2, bias=True), stage(Basic, 2, c, c))
        self.low = nn.ModuleList(stage(Basic, 2, c << i, c << i + 1, 2) for i in range(3))
        self.high = nn.ModuleList(
            [stage(Basic, 2, 2 * c, 2 * c), stage(Basic, 2, 2 * c, 2 * c), stage(Bottleneck, 1, 2 * c, 2 * c, expansion=2)]
        )
        self.compress = nn.ModuleList(conv(c << i, 2 * c, 1, act=None) for i in (2, 3))
        self.down3 = conv(2 * c, 4 * c, 3, 2, act=None)
        self.down4 = nn.Sequential(conv(2 * c, 4 * c, 3, 2), conv(4 * c, 8 * c, 3, 2, act=None))
        self.low5 = stage(Bottleneck, 1, 8 * c, 8 * c, 2, expansion=2)
        self.pyramid, self.head = Pyramid(16 * c, 128, 4 * c), head(4 * c, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = x2 = self.low[0](F.relu(self.stem(x)))
        x3 = self.low[1](F.relu(x))
        y = self.high[0](F.relu(x2))
        x = x3 + self.down3(F.relu(y))
        y = y + enlarge(self.compress[0](F.relu(x3)), y)
        x4 = self.low[2](F.relu(x))
        y = self.high[1](F.relu(y))
        x = x4 + self.down4(F.relu(y))
        y = y + enlarge(self.compress[1](F.relu(x4)), y)
        y = self.high[2](F.relu(y))
        return self.head(enlarge(self.pyramid(self.low5(F.relu(x))), y) + y)


class Guide(nn.Module):
    """PIDNet's pixel-attention-guided fusion."""

    def __init__(self, cin: int, mid: int):
        super().__init__()
        self.of_x, self.of_y = conv(cin, mid, 1, act=None), conv(cin, mid, 1, act=None)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        alike = torch.sigmoid((self.of_x(x) * enlarge(self.of_y(y), x)).sum(1).unsqueeze(1))
        return (1 - alike) * x + alike * enlarge(y, x)


class PIDNet(nn.Module):
    """PIDNet-S (Xu et al. 2023) without its auxiliary heads."""

    def __init__(self, c: int = 32):
        super().__init__()
        self.stem = nn.Sequential(conv(3, c, 3, 2, bias=True), conv(c, c, 3, 2, bias=True), stage(Basic, 2, c, c))
        self.low = nn.ModuleList([stage(Basic, n, c << i, c << i + 1, 2) for i, n in enumerate((2, 3, 3))])
        self.low5 = stage(Bottleneck, 2, 8 * c, 8 * c, 2, expansion=2)
        self.compress = nn.ModuleList(conv(c << i, 2 * c, 1, act=None) for i in (2, 3))
        self.guides = nn.ModuleList(Guide(2 * c, c) for _ in range(2))
        self.detail = nn.ModuleList(
            [stage(Basic, 2, 2 * c, 2 * c), stage(Basic, 2, 2 * c, 2 * c), stage(Bottleneck, 1, 2 * c, 2 * c, expansion=2)]
        )
        edge = [Basic(2 * c, c, last=True), stage(Bottleneck, 1, c, c, expansion=2), stage(Bottleneck, 1, 2 * c, 2 * c, expansion=2)]
        self.edge = nn.ModuleList(edge)
        self.differ = nn.ModuleList([conv(4 * c, c, act=None), conv(8 * c, 2 * c, act=None)])
        self.pyramid = Pyramid(16 * c, 96, 4 * c, parallel=True)
        self.of_detail, self.of_context = conv(4 * c, 4 * c, 1, act=None), conv(4 * c, 4 * c, 1, act=None)
        self.head = head(4 * c, 128)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.low[0](F.relu(self.stem(x))))
        p, d = self.detail[0](x), self.edge[0](x)
        x = F.relu(self.low[1](x))
        p = self.guides[0](p, self.compress[0](x))
        d = d + enlarge(self.differ[0](x), d)
        x = F.relu(self.low[2](x))
        p, d = self.detail[1](F.relu(p)), self.edge[1](F.relu(d))
        p = self.guides[1](p, self.compress[1](x))
        d = d + enlarge(self.differ[1](x), d)
        p, d = self.detail[2](F.relu(p)), self.edge[2](F.relu(d))
        x = enlarge(self.pyramid(self.low5(x)), d)
        edge = torch.sigmoid(d)
        return self.head(self.of_detail((1 - edge) * x + p) + self.of_context(x + edge * p))


class Refine(nn.Module):
    """MiDaS' residual unit: two convolutions, each behind an activation."""

    def __init__(self, c: int):
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Midas(nn.Module):
    """MiDaS v2.1 small (Ranftl et al. 2020): EfficientNet-Lite3 and a light fusion of four levels."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        whole = timm.create_model("tf_efficientnet_lite3", pretrained=False)
        b = whole.blocks
        self.levels = nn.ModuleList(
            [nn.Sequential(whole.conv_stem, whole.bn1, b[0], b[1]), b[2], nn.Sequential(b[3], b[4]), nn.Sequential(b[5], b[6])]
        )
        self.narrow = nn.ModuleList(nn.Conv2d(c, 64 << i, 3, 1, 1, bias=False) for i, c in enumerate((32, 48, 136, 384)))
        self.skip, self.refine = (nn.ModuleList(Refine(64 << i) for i in range(4)) for _ in range(2))
        self.out = nn.ModuleList(nn.Conv2d(64 << i, 64 << max(i - 1, 0), 1) for i in range(4))
        self.head1, self.head2 = nn.Conv2d(64, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1)
        self.last = nn.Conv2d(32, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for level, narrow in zip(self.levels, self.narrow, strict=True):
            x = level(x)
            maps.append(narrow(x))
        y = maps[3]
        for i in (3, 2, 1, 0):
            if i < 3:
                y = y + self.skip[i](maps[i])
            y = self.out[i](enlarge(self.refine[i](y), 2, align=True))
        return F.relu(self.last(F.relu(self.head2(enlarge(self.head1(y), 2, align=False)))))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017)."""

    def __init__(self, cin: int, rates: tuple[int, ...]):
        super().__init__()
        self.branches = nn.ModuleList([conv(cin, 256, 1), *(conv(cin, 256, dilation=rate) for rate in rates)])
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(cin, 256, 1))
        self.merge = conv(256 * (len(rates) + 2), 256, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = enlarge(self.pool(x), x, align=True)
        return self.merge(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))


class Inverted(nn.Module):
    """MobileNetV2's block."""

    def __init__(self, cin: int, cout: int, stride: int, ratio: int, dilation: int = 1):
        super().__init__()
        mid = cin * ratio
        first = [conv(cin, mid, 1, act=nn.ReLU6)] if ratio > 1 else []
        self.body = nn.Sequential(
            *first, conv(mid, mid, 3, stride, groups=mid, dilation=dilation, act=nn.ReLU6), conv(mid, cout, 1, act=None)
        )
        self.same = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


class DeepLabMobile(nn.Module):
    """DeepLabV3+ on MobileNetV2 at stride 16 (pytorch-deeplab-xception), with the argmax that AI Hub appends."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv(3, 32, 3, 2, act=nn.ReLU6)]
        cin, reached, rate = 32, 2, 1
        for ratio, cout, count, stride in (
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ):
            dilation, step = rate, stride
            if reached == 16:
                step, rate = 1, rate * stride
            else:
                dilation, reached = 1, reached * stride
            for i in range(count):
                blocks.append(Inverted(cin, cout, step if i == 0 else 1, ratio, dilation))
                cin = cout
        self.low, self.high = nn.Sequential(*blocks[:4]), nn.Sequential(*blocks[4:])
        self.aspp, self.short = ASPP(320, (6, 12, 18)), conv(24, 48, 1)
        self.last = nn.Sequential(conv(304, 256), conv(256, 256), nn.Conv2d(256, 21, 1))

    def forward(self, image: Tensor) -> Tensor:
        low = self.low(image)
        x = self.aspp(self.high(low))
        low = self.short(low)
        x = self.last(torch.cat((enlarge(x, low, align=True), low), 1))
        return enlarge(x, image, align=True).argmax(1).to(torch.uint8)


class BiSeNet(nn.Module):
    """BiSeNet (Yu et al. 2018) on ResNet-18 as ooooverflow publishes it, with 12 classes."""

    def __init__(self, classes: int = 12):
        super().__init__()
        import torchvision

        net = torchvision.models.resnet18(weights=None)
        self.unused = nn.ModuleList(
            [net.fc, nn.Conv2d(256, classes, 1), nn.Conv2d(512, classes, 1), nn.BatchNorm2d(256), nn.BatchNorm2d(512)]
        )
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3)
        self.deep = net.layer4
        self.spatial = nn.Sequential(*(conv(cin, cout, 3, 2, bias=True) for cin, cout in ((3, 64), (64, 128), (128, 256))))
        self.attend = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1), nn.Sigmoid()) for c in (256, 512))
        self.fuse = conv(1024, classes, bias=True)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(classes, classes, 1), nn.ReLU(), nn.Conv2d(classes, classes, 1), nn.Sigmoid()
        )
        self.last = nn.Conv2d(classes, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        detail = self.spatial(image)
        x16 = self.stem(image)
        x32 = self.deep(x16)
        tail = x32.mean(3, keepdim=True).mean(2, keepdim=True)
        x16, x32 = x16 * self.attend[0](x16), x32 * self.attend[1](x32) * tail
        x = self.fuse(torch.cat((detail, enlarge(x16, 2), enlarge(x32, detail)), 1))
        x = x * self.gate(x) + x
        return self.last(enlarge(x, 8))


class FFNet(nn.Module):
    """FFNet (Mehta et al. 2022): a ResNet of basic blocks and a plain up-head; `kind` is its published letter for the head."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], strides: tuple[int, ...], kind: str):
        super().__init__()
        self.stem = self.make_stem(len(depths), widths)
        cin, stages = widths[0], []
        for depth, cout, stride in zip(depths, widths[-len(depths) :], strides, strict=True):
            stages.append(repeat(Basic, depth, cin, cout, stride))
            cin = cout
        self.stages = nn.ModuleList(stages)
        base = {"B": (64, 128, 128, 256), "C": (128, 128, 128, 128)}[kind]
        outs = {"B": (96, 96, 64, 32), "C": (128, 16, 16, 16)}[kind]
        self.adapt = nn.ModuleList(conv(c, b, 1) for c, b in zip(widths[-4:], base, strict=True))
        self.smooth = nn.ModuleList(conv(b, o) for b, o in zip(base, outs, strict=True))
        self.up = nn.ModuleList(conv(base[i + 1], base[i], 1) for i in range(3))
        mid, kernel = {"B": (256, 3), "C": (128, 1)}[kind]
        self.last = nn.Sequential(conv(sum(outs), mid, kernel, bias=True), nn.Conv2d(mid, 19, kernel, padding=kernel // 2))

    @staticmethod
    def make_stem(stages: int, widths: tuple[int, ...]) -> nn.Sequential:
        if stages == 4:
            return nn.Sequential(conv(3, 32, 3, 2), conv(32, 64, 3, 2))
        return nn.Sequential(conv(3, 64, 3, 2), conv(64, 64, 3, 2), conv(64, widths[0]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = [x] if len(self.stages) == 3 else []
        for part in self.stages:
            x = part(x)
            maps.append(x)
        maps = [adapt(m) for adapt, m in zip(self.adapt, maps, strict=True)]
        made, y = [], maps[3]
        for i in (3, 2, 1, 0):
            if i < 3:
                y = enlarge(self.up[i](y), maps[i], "nearest") + maps[i]
            made.append(self.smooth[i](y))
        finest = made[-1]
        return self.last(torch.cat([finest, *(enlarge(m, finest, "nearest") for m in made[-2::-1])], 1))


def _big(build: Any, model: str, family: str, size: tuple[int, int] = (1024, 2048), **rest: Any) -> Network:
    return Network(build, (1, 3, *size), "authors", model, family, **rest)


_S, _DOWN = (64, 128, 192, 320), (2, 2, 2, 2)
NETWORKS = {
    "unet_segmentation": _big(UNet, "unet_carvana_scale1.0", "unet", (640, 1280), normalises=False),
    "u2net_segmentation": _big(U2Net, "U2NET", "u2net", (320, 320)),
    "ddrnet23_slim": _big(DDRNet, "DDRNet-23-slim", "ddrnet", note="the paper's 5.7 M; AI Hub states .43 M more"),
    "pidnet": _big(PIDNet, "PIDNet-S", "pidnet", note="the paper's 7.6 M; AI Hub states .43 M more"),
    "midas": _big(Midas, "midas_v21_small_256", "midas", (256, 256)),
    "deeplabv3_plus_mobilenet": _big(DeepLabMobile, "deeplab-mobilenet", "deeplabv3_plus", (520, 520)),
    "bisenet": _big(BiSeNet, "BiSeNet, resnet18", "bisenet", (720, 960)),
    "ffnet_40s": _big(lambda: FFNet((4, 5, 6, 4), _S, _DOWN, "B"), "segmentation_ffnet40S_dBBB_mobile", "ffnet_authors"),
    "ffnet_54s": _big(lambda: FFNet((5, 8, 8, 5), _S, _DOWN, "B"), "segmentation_ffnet54S_dBBB_mobile", "ffnet_authors"),
    "ffnet_78s": _big(lambda: FFNet((6, 12, 12, 8), _S, _DOWN, "B"), "segmentation_ffnet78S_dBBB_mobile", "ffnet_authors"),
    "ffnet_78s_lowres": _big(
        lambda: FFNet((6, 12, 12, 8), _S, (1, 2, 2, 2), "C"), "segmentation_ffnet78S_BCC_mobile_pre_down", "ffnet_authors", (512, 1024)
    ),
    "ffnet_122ns_lowres": _big(
        lambda: FFNet((16, 24, 20), (64, 64, 128, 256), (2, 2, 2), "C"),
        "segmentation_ffnet122NS_CCC_mobile_pre_down",
        "ffnet_authors",
        (512, 1024),
    ),
}
