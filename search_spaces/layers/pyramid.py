"""What surrounds the operators of a pyramid: stem, residual half-blocks, head."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from nas.spaces.operator_family import fuse
from nas.spaces.space import Resolution
from search_spaces.layers.convolution import ConvNorm, affine
from search_spaces.layers.norm import ChannelAffine

BRANCH_SCALE = 0.25
"""Initial scale of a half-block's branch: the shortcut dominates at first, so one operator can stand in for another."""


class Residual(nn.Module):
    """y = x + BN(f(x)). (n, c, h, w) -> (n, c, h, w).

    Args:
        body: f.
        channels: c.
        resolution: Of the map; fusing runs `body` once at this size.
    """

    def __init__(self, body: nn.Module, channels: int, resolution: Resolution) -> None:
        super().__init__()
        self.body = body
        self.norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.norm.weight, BRANCH_SCALE)
        self.probe = (1, channels, *resolution)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.body(x))

    def fuse(self) -> nn.Module:
        """Return the deploy form: the batch norm goes into a convolution whose output is f's; else it is a scale and a shift."""
        body = fuse(self.body)
        last = _last_convolution(body, self.probe)
        scale, shift = affine(self.norm)
        if last is None:
            return Shortcut(nn.Sequential(body, ChannelAffine(scale, shift, self.norm.weight.dtype)))
        weight = last.weight.double() * scale.view(-1, 1, 1, 1)
        bias = shift if last.bias is None else shift + last.bias.double() * scale
        folded = convolution_like(last, weight, bias)
        return Shortcut(_replace(body, last, folded))


class Shortcut(nn.Module):
    """y = x + f(x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


def convolution_like(like: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return `like` with another weight and bias."""
    made = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        like.dilation,  # type: ignore[arg-type]
        like.groups,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    with torch.no_grad():
        made.weight.copy_(weight)
        assert made.bias is not None
        made.bias.copy_(bias)
    return made.eval()


def _last_convolution(body: nn.Module, shape: tuple[int, ...]) -> nn.Conv2d | None:
    """Return the convolution whose very output `body` returns; None where something follows it.

    Found by running a copy without numbers (on the meta device), so any Python in `body` is allowed.
    """
    shadow = deepcopy(body).to("meta")
    made: dict[int, tuple[str, Tensor]] = {}
    for name, part in shadow.named_modules():
        if type(part) is nn.Conv2d:
            part.register_forward_hook(lambda _, __, out, name=name: made.__setitem__(id(out), (name, out)))
    dtype = next((p.dtype for p in body.parameters()), torch.float32)
    with torch.no_grad():
        out = shadow(torch.zeros(shape, device="meta", dtype=dtype))
    last = body.get_submodule(made[id(out)][0]) if id(out) in made else None
    return last if isinstance(last, nn.Conv2d) else None


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    if root is old:
        return new
    for part in root.modules():
        for name, child in part.named_children():
            if child is old:
                part.register_module(name, new)
    return root


def stem(kind: str, width: int, stride: int) -> nn.Module:
    """Return the stem called `kind`: ``convolutions`` (two 3 × 3) or ``patch`` (one 4 × 4); it reduces by 2·stride."""
    if kind == "patch":
        return PatchStem(width, stride)
    narrow = max(8, width // 2)
    return nn.Sequential(ConvNorm(3, narrow, 3, stride=2), nn.ReLU(), ConvNorm(narrow, width, 3, stride=stride), nn.ReLU())


class PatchStem(nn.Module):
    """One 4 × 4 convolution with batch norm. (n, 3, h, w) -> (n, width, h / (2·stride), w / (2·stride))."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 4, 2 * stride, padding=1 if stride == 1 else 0, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y

    def fuse(self) -> nn.Module:
        """Return the one convolution that does both."""
        scale, shift = affine(self.norm)
        return convolution_like(self.conv, self.conv.weight.double() * scale.view(-1, 1, 1, 1), shift)


def head(channels: int, classes: int) -> nn.Module:
    """Return mean over positions and a linear layer. (n, c, h, w) -> (n, classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
