"""Blocks that several networks share."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def conv(
    cin: int,
    cout: int,
    kernel: Any = 3,
    stride: Any = 1,
    *,
    act: Any = nn.ReLU,
    groups: int = 1,
    dilation: Any = 1,
    bias: bool = False,
    norm: bool = True,
    pad: Any = None,
) -> nn.Sequential:
    """Return a convolution, its batch norm and its activation; `act` is a class, or None."""
    if pad is None:
        pad = (kernel - 1) // 2 * dilation if isinstance(kernel, int) else tuple((k - 1) // 2 for k in kernel)
    layers: list[nn.Module] = [nn.Conv2d(cin, cout, kernel, stride, pad, groups=groups, dilation=dilation, bias=bias)]
    if norm:
        layers.append(nn.BatchNorm2d(cout))
    if act is not None:
        layers.append(act())
    return nn.Sequential(*layers)


def repeat(block: Any, count: int, cin: int, cout: int, stride: int = 1, **options: Any) -> nn.Sequential:
    """Return `count` blocks, the first of which changes channels and size."""
    expansion = getattr(block, "expansion", 1)
    return nn.Sequential(block(cin, cout, stride, **options), *(block(cout * expansion, cout, **options) for _ in range(count - 1)))


class Basic(nn.Module):
    """ResNet's basic block; `last` leaves out the activation behind the sum."""

    expansion = 1

    def __init__(self, cin: int, cout: int, stride: int = 1, *, last: bool = False, act: Any = nn.ReLU):
        super().__init__()
        self.body = nn.Sequential(conv(cin, cout, 3, stride, act=act), conv(cout, cout, act=None))
        self.short = conv(cin, cout, 1, stride, act=None) if stride != 1 or cin != cout else nn.Identity()
        self.act = nn.Identity() if last else act()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.short(x))


class Bottleneck(nn.Module):
    """ResNet's bottleneck, expanding by two or four."""

    expansion = 4

    def __init__(self, cin: int, mid: int, stride: int = 1, *, last: bool = False, expansion: int = 4, dilation: int = 1):
        super().__init__()
        cout = mid * expansion
        self.body = nn.Sequential(conv(cin, mid, 1), conv(mid, mid, 3, stride, dilation=dilation), conv(mid, cout, 1, act=None))
        self.short = conv(cin, cout, 1, stride, act=None) if stride != 1 or cin != cout else nn.Identity()
        self.act = nn.Identity() if last else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.short(x))


class SqueezeExcite(nn.Module):
    """Squeeze and excitation of 1×1 convolutions."""

    def __init__(self, channels: int, mid: int, *, act: Any = nn.ReLU, gate: Any = nn.Sigmoid, norm: bool = False, bias: bool = True):
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            conv(channels, mid, 1, act=act, norm=norm, bias=bias),
            conv(mid, channels, 1, act=gate, norm=norm, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x)


def enlarge(x: Tensor, like: Tensor | tuple[int, ...] | float, mode: str = "bilinear", align: bool | None = None) -> Tensor:
    """Resize to another tensor's size, to a size, or by a factor."""
    align = align if mode != "nearest" else None
    if isinstance(like, Tensor):
        return F.interpolate(x, size=like.shape[-2:], mode=mode, align_corners=align)
    if isinstance(like, tuple):
        return F.interpolate(x, size=like, mode=mode, align_corners=align)
    return F.interpolate(x, scale_factor=like, mode=mode, align_corners=align)
