"""Convolutions with the batch norms and branches that fold into them, exactly and in float64.

Source: the identities are those of RepVGG (Ding et al., arXiv 2101.03697), Diverse Branch Block (arXiv 2103.13425) and
UniRepLKNet (arXiv 2311.15599); all hold in evaluation mode, where a batch norm is an affine map of each channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import UsageError
from nas.spaces.operator_family import refuse_training
from nas.spaces.surgery.merging import ConvolutionRun

Branches = Literal["plain", "repvgg", "dilated", "deep"]

DILATED_BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    7: ((5, 1), (3, 2), (3, 3)),
    5: ((3, 1), (3, 2)),
    3: (),
}
"""Kernel of the large convolution -> (kernel, dilation) of each parallel branch, as published for UniRepLKNet."""


def affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return scale and shift (c,) of a batch norm with its running statistics, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise UsageError("fuse: a batch norm without running statistics has no deploy form.")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        return scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    return scale, shift


def dirac(channels: int, groups: int, kernel: int) -> Tensor:
    """Return the kernel (c, c / groups, k, k) that maps every input to itself."""
    weight = torch.zeros(channels, channels // groups, kernel, kernel, dtype=torch.float64)
    index = torch.arange(channels)
    weight[index, index % (channels // groups), kernel // 2, kernel // 2] = 1.0
    return weight


def enlarge(weight: Tensor, kernel: Sequence[int]) -> Tensor:
    """Zero-pad an odd kernel (…, k, k) about its centre to (…, *kernel)."""
    down, right = ((large - small) // 2 for large, small in zip(kernel, weight.shape[-2:], strict=True))
    return F.pad(weight, (right, right, down, down))


def dilate(weight: Tensor, dilation: int) -> Tensor:
    """Write a dilated kernel (…, k, k) as a dense one with zeros between its taps."""
    if dilation == 1:
        return weight
    size = dilation * (weight.shape[-1] - 1) + 1
    dense = weight.new_zeros(*weight.shape[:-2], size, size)
    dense[..., ::dilation, ::dilation] = weight
    return dense


def densify(weight: Tensor, groups: int, target: int) -> Tensor:
    """Write a grouped kernel (c_out, c_in / groups, k, k) with fewer groups; the blocks stand on the diagonal.

    Args:
        weight: The kernel.
        groups: Its groups.
        target: Groups of the result; divides `groups`.
    """
    if groups == target:
        return weight
    c_out, part = weight.shape[:2]
    ratio = groups // target
    dense = weight.new_zeros(c_out, part * ratio, *weight.shape[2:])
    for o in range(c_out):
        block = o // (c_out // groups) % ratio
        dense[o, block * part : (block + 1) * part] = weight[o]
    return dense


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm; deploys as one convolution with bias. (n, c, h, w) -> (n, c', h', w')."""

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        eps: float = 1e-5,
        padding: int | None = None,
    ) -> None:
        super().__init__()
        k = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (k[0] // 2 * dilation, k[1] // 2 * dilation) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(channels, out, k, stride, pads, dilation, groups, bias)
        self.norm = nn.BatchNorm2d(out, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias in float64 of the convolution that does both."""
        scale, shift = affine(self.norm)
        weight = self.conv.weight.double() * scale.view(-1, 1, 1, 1)
        return weight, shift if self.conv.bias is None else shift + self.conv.bias.double() * scale

    def fuse(self) -> nn.Module:
        """Return the one convolution that does both."""
        return convolution(self.conv, *self.folded(), training=self.training)


class ConvMerging(nn.Module):
    """PW → GELU → DW3 of stride 2 → GELU → PW, a batch norm after each. (n, c, h, w) -> (n, c', h / 2, w / 2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.expand = ConvNorm(channels, out)
        self.depthwise = ConvNorm(out, out, 3, stride=2, groups=out)
        self.project = ConvNorm(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.gelu(self.depthwise(F.gelu(self.expand(x)))))


class ResidualDepthwise(nn.Module):
    """x + DW3(x). (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.depthwise(x)


class ConvBranches(nn.Module):
    """Sum of parallel convolutions with batch norms and, if asked, a batch norm of the input; deploys as one convolution.

    Args:
        branches: Convolutions of one stride whose padding keeps the anchors; kernels are odd, the largest first.
        skip: The batch norm of the identity branch; channels and size must then stay.
        groups: Groups of the deployed convolution; divides the groups of every branch.
        identity: Whether the input itself is added.
    """

    def __init__(
        self, branches: Sequence[ConvNorm], skip: nn.BatchNorm2d | None = None, groups: int | None = None, *, identity: bool = False
    ) -> None:
        super().__init__()
        self.identity = identity
        if skip is not None:
            self.skip: nn.BatchNorm2d | None = skip
        else:
            self.skip = None
        self.branches = nn.ModuleList(branches)
        self.groups = branches[0].conv.groups if groups is None else groups

    def forward(self, x: Tensor) -> Tensor:
        y = self.branches[0](x)
        for branch in self.branches[1:]:
            y = y + branch(x)
        if self.identity:
            y = y + x
        return y if self.skip is None else y + self.skip(x)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias in float64 of the sum."""
        convs = [branch for branch in self.branches if isinstance(branch, ConvNorm)]
        k = tuple(max(b.conv.dilation[i] * (b.conv.kernel_size[i] - 1) + 1 for b in convs) for i in (0, 1))
        parts = [branch.folded() for branch in convs]
        weight = sum(
            (
                enlarge(densify(dilate(w, b.conv.dilation[0]), b.conv.groups, self.groups), k)
                for b, (w, _) in zip(convs, parts, strict=True)
            ),
            start=torch.zeros((), dtype=torch.float64, device=parts[0][0].device),
        )
        bias = sum((b for _, b in parts), start=torch.zeros((), dtype=torch.float64, device=parts[0][0].device))
        eye = enlarge(dirac(weight.shape[0], self.groups, 1).to(weight.device), k)
        if self.identity:
            weight = weight + eye
        if self.skip is not None:
            scale, shift = affine(self.skip)
            weight = weight + eye * scale.view(-1, 1, 1, 1)
            bias = bias + shift
        return weight, bias

    def fuse(self) -> nn.Module:
        """Return the one convolution that does all."""
        like = self.branches[0]
        assert isinstance(like, ConvNorm)
        return convolution(like.conv, *self.folded(), groups=self.groups, training=self.training)


def convolution(like: nn.Conv2d, weight: Tensor, bias: Tensor, *, groups: int | None = None, training: bool = False) -> nn.Conv2d:
    """Return a convolution with `weight` and `bias`; stride, padding, dilation, dtype and device are those of `like`.

    Where `weight` is larger than the kernel of `like`, it has been written densely about its centre: no dilation, "same" padding.

    Raises:
        UsageError: `training` is true: batch norms then use the statistics of the batch and nothing folds.
    """
    refuse_training(training)
    kernel = (weight.shape[2], weight.shape[3])
    same = kernel == like.kernel_size
    dilation = like.dilation[0] if same else 1
    down, right = (int(pad) for pad in like.padding) if same else (kernel[0] // 2, kernel[1] // 2)
    fused = nn.Conv2d(
        like.in_channels,
        weight.shape[0],
        kernel,
        (like.stride[0], like.stride[1]),
        (down, right),
        dilation,
        like.groups if groups is None else groups,
        device=like.weight.device,
        dtype=like.weight.dtype,
    )
    with torch.no_grad():
        fused.weight.copy_(weight)
        assert fused.bias is not None
        fused.bias.copy_(bias)
    return fused


class NormConv(nn.Module):
    """Batch norm, then a pointwise convolution with bias; deploys as the convolution alone. (n, c, h, w) -> (n, c', h, w).

    Args:
        channels: Input channels.
        out: Output channels.
        skip: Whether the normalised input is added to the output (then `out` equals `channels`).
        bias: Whether the training form's convolution has a bias; the deploy form has one.
    """

    def __init__(self, channels: int, out: int, *, skip: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, out, 1, bias=bias)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x + self.conv(x) if self.skip else self.conv(x)

    def fuse(self) -> nn.Module:
        """Return the one convolution that does both: W' = (W [+ I])·diag(t), b' = b + (W [+ I])·s."""
        scale, shift = affine(self.norm)
        weight = self.conv.weight.double()
        if self.skip:
            weight = weight + dirac(weight.shape[0], 1, 1).to(weight.device)
        bias = torch.einsum("oikl,i->o", weight, shift)
        if self.conv.bias is not None:
            bias = bias + self.conv.bias.double()
        return convolution(self.conv, weight * scale.view(1, -1, 1, 1), bias, training=self.training)


class StackedConv(nn.Conv2d):
    """Pointwise convolution whose output stacks `parts` equal groups of channels; a narrower member slices each group."""

    def __init__(self, channels: int, out: int, *, parts: int, bias: bool = True) -> None:
        super().__init__(channels, out * parts, 1, bias=bias)
        self.elastic_parts = {"weight": parts, "bias": parts}


def depthwise_branches(channels: int, kernel: int, branches: Branches, stride: int = 1) -> nn.Module:
    """Return a depthwise convolution with batch norm in its training form.

    Args:
        channels: Input and output channels.
        kernel: Odd size of the deployed kernel.
        branches: ``plain`` none; ``repvgg`` a 1×1 and, at stride 1, an identity branch; ``dilated`` those of UniRepLKNet; ``deep`` no
            branches but several 3 × 3 convolutions one after another, with a batch norm each, whose one kernel they become.
        stride: Of the convolution.
    """
    if branches == "deep":
        return deep_run(channels, kernel, stride)
    main = ConvNorm(channels, channels, kernel, stride=stride, groups=channels)
    if branches == "plain":
        return main
    if branches == "repvgg":
        point = ConvNorm(channels, channels, 1, stride=stride, groups=channels)
        return ConvBranches([main, point], nn.BatchNorm2d(channels) if stride == 1 else None)
    parallel = [ConvNorm(channels, channels, k, stride=stride, dilation=r, groups=channels) for k, r in DILATED_BRANCHES[kernel]]
    return ConvBranches([main, *parallel])


def deep_run(channels: int, kernel: int, stride: int = 1) -> nn.Module:
    """Return depthwise 3 × 3 convolutions whose run has a kernel of `kernel`; the last one moves."""
    count = max(1, (kernel - 1) // 2)
    layers = []
    for i in range(count):
        size = 3 if kernel > 1 else 1
        conv = nn.Conv2d(channels, channels, size, stride if i == count - 1 else 1, size // 2, groups=channels, bias=False)
        layers.append((conv, nn.BatchNorm2d(channels)))
    return ConvolutionRun(layers)
