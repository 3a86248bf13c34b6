"""Networks that label the returns of a lidar, seen as an image or as points."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from networks import Network
from networks._blocks import conv


def leaky(cin: int, cout: int, kernel: Any = 3, stride: Any = 1) -> nn.Sequential:
    return conv(cin, cout, kernel, stride, act=lambda: nn.LeakyReLU(0.1))


class Dark(nn.Module):
    """Darknet's residual block."""

    def __init__(self, c: int, mid: int):
        super().__init__()
        self.body = nn.Sequential(leaky(c, mid, 1), leaky(mid, c))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class RangeNet(nn.Module):
    """RangeNet++ (Milioto et al. 2019) on Darknet-53: five channels of 64×2048 returns, 20 classes."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256, 512, 1024)
        self.stem = leaky(5, 32)
        self.down = nn.ModuleList(
            nn.Sequential(leaky(cin, cout, 3, (1, 2)), *(Dark(cout, cin) for _ in range(n)))
            for cin, cout, n in zip(widths, widths[1:], (1, 2, 8, 8, 4), strict=False)
        )
        self.up = nn.ModuleList()
        for cin, cout in ((1024, 512), (512, 256), (256, 128), (128, 64), (64, 32)):
            enlarging = nn.ConvTranspose2d(cin, cout, (1, 4), (1, 2), (0, 1))
            self.up.append(nn.Sequential(enlarging, nn.BatchNorm2d(cout), nn.LeakyReLU(0.1), Dark(cout, cin)))
        self.head = nn.Conv2d(32, 20, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.stem(x), []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up in self.up:
            x = up(x) + skips.pop()
        return F.softmax(self.head(x), 1)


class Contextual(nn.Module):
    """SalsaNext's first blocks: a shortcut and two 3×3, the second dilated."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.short = conv(cin, cout, 1, norm=False, bias=True, act=nn.LeakyReLU)
        self.first, self.second = self.after(cout, 3, 1), self.after(cout, 3, 2)

    @staticmethod
    def after(c: int, kernel: int, dilation: int, cin: int | None = None, pad: int | None = None) -> nn.Sequential:
        pad = dilation * (kernel - 1) // 2 if pad is None else pad
        return nn.Sequential(nn.Conv2d(cin or c, c, kernel, padding=pad, dilation=dilation), nn.LeakyReLU(), nn.BatchNorm2d(c))

    def forward(self, x: Tensor) -> Tensor:
        short = self.short(x)
        return short + self.second(self.first(short))


class Dilated(nn.Module):
    """SalsaNext's encoder block: three convolutions joined, a shortcut, a pool."""

    def __init__(self, cin: int, cout: int, *, pool: bool = True):
        super().__init__()
        self.short, self.pool = conv(cin, cout, 1, norm=False, bias=True, act=nn.LeakyReLU), pool
        self.first, self.second = Contextual.after(cout, 3, 1, cin), Contextual.after(cout, 3, 2)
        self.third, self.merge = Contextual.after(cout, 2, 2, pad=1), Contextual.after(cout, 1, 1, 3 * cout)

    def forward(self, x: Tensor) -> Any:
        a = self.first(x)
        b = self.second(a)
        y = self.short(x) + self.merge(torch.cat((a, b, self.third(b)), 1))
        return (F.avg_pool2d(y, 3, 2, 1), y) if self.pool else y


class Raised(nn.Module):
    """SalsaNext's decoder block: pixel shuffle, the skip, three convolutions joined."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.first, self.second = Contextual.after(cout, 3, 1, cin // 4 + 2 * cout), Contextual.after(cout, 3, 2)
        self.third, self.merge = Contextual.after(cout, 2, 2, pad=1), Contextual.after(cout, 1, 1, 3 * cout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        a = self.first(torch.cat((F.pixel_shuffle(x, 2), skip), 1))
        b = self.second(a)
        return self.merge(torch.cat((a, b, self.third(b)), 1))


class SalsaNext(nn.Module):
    """SalsaNext (Cortinhal et al. 2020): five channels of 64×2048 returns, 20 classes."""

    def __init__(self, c: int = 32):
        super().__init__()
        self.context = nn.Sequential(Contextual(5, c), Contextual(c, c), Contextual(c, c))
        rows = ((c, 2 * c), (2 * c, 4 * c), (4 * c, 8 * c), (8 * c, 8 * c))
        self.down = nn.ModuleList(Dilated(cin, cout) for cin, cout in rows)
        self.bottom = Dilated(8 * c, 8 * c, pool=False)
        self.up = nn.ModuleList(Raised(cin, cout) for cin, cout in ((8 * c, 4 * c), (4 * c, 4 * c), (4 * c, 2 * c), (2 * c, c)))
        self.last = nn.Conv2d(c, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.context(x), []
        for down in self.down:
            x, skip = down(x)
            skips.append(skip)
        x = self.bottom(x)
        for up in self.up:
            x = up(x, skips.pop())
        return F.softmax(self.last(x), 1)


NETWORKS = {
    "rangenet_plus_plus": Network(RangeNet, (1, 5, 64, 2048), "authors", "darknet53", "rangenet", normalises=False),
    "salsanext": Network(SalsaNext, (1, 5, 64, 2048), "authors", "SalsaNext", "salsanext", normalises=False),
}
