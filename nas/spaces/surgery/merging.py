"""Runs of convolutions without activations between them: trained one after another, deployed as one.

    kernel  k₁ + (k₂ − 1) · s₁,   stride  s₁ · s₂,   padding  p₁ + s₁ · p₂

The one is exact where all padding stands before the first: zeros that are put in between are not what a convolution makes of zeros. So a run
pads its input once, and what a network computes near the border changes a little when its convolutions become a run. Depthwise with dense becomes
dense; groups of both stay as far as they nest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from nas.errors import UsageError
from nas.spaces.operator_family import refuse_training

Kernel = tuple[Tensor, Tensor]
"""Weight (c_out, c_in / groups, kh, kw) and bias (c_out,) in float64."""


@dataclass(frozen=True)
class Window:
    """How a convolution moves, height and width.

    Attributes:
        stride: Step.
        padding: Zeros on each side.
        groups: Of the channels.
    """

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1


def merge(first: tuple[Kernel, Window], second: tuple[Kernel, Window]) -> tuple[Kernel, Window]:
    """Return the one convolution that equals two, the second without padding of its own.

    Its padding is returned as if it stood before the first.

    Source:
        Composition of convolutions as in DepthShrinker (arXiv 2206.00843) and LayerMerge (arXiv 2406.12837); strides, groups and the place
        of the padding are ours.
    """
    ((w1, b1), at1), ((w2, b2), at2) = first, second
    groups = math.gcd(at1.groups, at2.groups)
    a, b = _dense_in(w1, at1.groups, groups), _dense_in(w2, at2.groups, groups)
    (sh, sw) = at1.stride
    inner = a.shape[0] // groups
    pieces = []
    for g in range(groups):
        rows = b[g * (b.shape[0] // groups) : (g + 1) * (b.shape[0] // groups)]
        pieces.append(F.conv_transpose2d(rows, a[g * inner : (g + 1) * inner], stride=(sh, sw)))
    bias = b2 + torch.cat([rows.sum((2, 3)) @ part for rows, part in zip(b.chunk(groups), b1.chunk(groups), strict=True)])
    padding = (at1.padding[0] + sh * at2.padding[0], at1.padding[1] + sw * at2.padding[1])
    stride = (sh * at2.stride[0], sw * at2.stride[1])
    return (torch.cat(pieces), bias), Window(stride, padding, groups)


def _dense_in(weight: Tensor, groups: int, wanted: int) -> Tensor:
    """Return the weight of a convolution of `groups` groups as one of fewer groups, zeros filled in."""
    if groups == wanted:
        return weight
    per = groups // wanted  # groups that become one
    c_out, c_in = weight.shape[0] // groups, weight.shape[1]
    full = weight.new_zeros(weight.shape[0], c_in * per, *weight.shape[2:])
    for g in range(groups):
        column = (g % per) * c_in
        full[g * c_out : (g + 1) * c_out, column : column + c_in] = weight[g * c_out : (g + 1) * c_out]
    return full


def kernel_of(conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> Kernel:
    """Return a convolution with its batch norm folded in, in float64, its window without dilation."""
    weight = conv.weight.detach().double()
    if tuple(conv.dilation) != (1, 1):
        kh, kw = ((k - 1) * d + 1 for k, d in zip(conv.kernel_size, conv.dilation, strict=True))
        spread = weight.new_zeros(*weight.shape[:2], kh, kw)
        spread[:, :, :: conv.dilation[0], :: conv.dilation[1]] = weight
        weight = spread
    bias = conv.bias.detach().double() if conv.bias is not None else weight.new_zeros(conv.out_channels)
    if norm is None:
        return weight, bias
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale * norm.weight.detach().double() if norm.weight is not None else scale
    shift = norm.bias.detach().double() if norm.bias is not None else 0.0
    return weight * scale.view(-1, 1, 1, 1), (bias - norm.running_mean.double()) * scale + shift


def can_merge(conv: nn.Module) -> bool:
    """Return whether a layer is a plain convolution with zeros around its input."""
    if type(conv) is not nn.Conv2d:  # subclasses pad in their own way
        return False
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


class ConvolutionRun(nn.Module):
    """Convolutions with batch norms and nothing between them. (n, c, h, w) -> (n, c', h', w').

    Args:
        layers: Convolutions, each with its batch norm or None. They are copied, their padding moves before the first.

    Raises:
        UsageError: One of them cannot be merged, see `can_merge`.
    """

    def __init__(self, layers: Sequence[tuple[nn.Conv2d, nn.BatchNorm2d | None]]) -> None:
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        ph, pw, sh, sw = 0, 0, 1, 1
        for conv, norm in layers:
            if not can_merge(conv):
                raise UsageError(f"run of convolutions: cannot take a {type(conv).__name__}, got {conv}.")
            padding = conv.padding
            assert not isinstance(padding, str)
            ph, pw = ph + sh * padding[0], pw + sw * padding[1]
            sh, sw = sh * conv.stride[0], sw * conv.stride[1]
            plain = copy.deepcopy(conv)
            plain.padding = (0, 0)
            plain._reversed_padding_repeated_twice = [0, 0, 0, 0]
            self.convs.append(plain)
            self.norms.append(nn.Identity() if norm is None else _plain_norm(norm))
        self.padding, self.stride = (ph, pw), (sh, sw)

    def forward(self, x: Tensor) -> Tensor:
        """Pad once, then run."""
        ph, pw = self.padding
        x = F.pad(x, (pw, pw, ph, ph))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x))
        return x

    def fuse(self) -> nn.Module:
        """Return the one convolution, whose weights are worked out in float64.

        Raises:
            UsageError: The module is in training mode.
        """
        refuse_training(self.training)
        product: tuple[Kernel, Window] | None = None
        for conv, norm in zip(self.convs, self.norms, strict=True):
            assert isinstance(conv, nn.Conv2d)
            sh, sw = conv.stride
            kernel = kernel_of(conv, norm if isinstance(norm, nn.BatchNorm2d) else None)
            next_one = kernel, Window((sh, sw), (0, 0), conv.groups)
            product = next_one if product is None else merge(product, next_one)
        assert product is not None
        (weight, bias), window = product
        like = next(self.parameters())
        c_in = weight.shape[1] * window.groups
        height, width = weight.shape[2:]
        merged = nn.Conv2d(c_in, weight.shape[0], (height, width), self.stride, self.padding, groups=window.groups)
        merged.to(like.device, like.dtype)
        with torch.no_grad():
            merged.weight.copy_(weight)
            assert merged.bias is not None
            merged.bias.copy_(bias)
        return merged


def _plain_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Return a batch norm without the activation that some libraries put into theirs."""
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    own = norm.state_dict()
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    return plain


@dataclass(frozen=True)
class Run:
    """Nodes of a traced segment that can become one convolution.

    Attributes:
        layers: Names of the convolutions, each with the name of its batch norm or None.
        nodes: Every node of it, activations between the convolutions included, in order.
        activation: Name of the batch norm at the end where that one holds an activation, which stays.
    """

    layers: tuple[tuple[str, str | None], ...]
    nodes: tuple[fx.Node, ...]
    activation: str | None


def runs_of(segment: fx.GraphModule) -> tuple[Run, ...]:
    """Return the longest runs of two convolutions or more, between which stand norms and activations alone.

    Something that is read twice (a skip, a gate) ends a run.
    """
    runs: list[Run] = []
    used: set[fx.Node] = set()
    for node in segment.graph.nodes:
        if node in used or not _is_conv(segment, node):
            continue
        layers: list[tuple[str, str | None]] = [(str(node.target), None)]
        nodes, pending = [node], list[fx.Node]()
        while len(node.users) == 1:
            (node,) = node.users
            if len(node.all_input_nodes) != 1 or node.op == "output":
                break
            pending.append(node)
            if _is_conv(segment, node):
                nodes += pending
                layers.append((str(node.target), None))
                pending = []
            elif _is_norm(segment, node):
                if layers[-1][1] is None and not any(_is_activation(segment, n) for n in pending[:-1]):
                    layers[-1] = (layers[-1][0], str(node.target))
                    nodes += pending
                    pending = []
                else:
                    break
            elif not _is_activation(segment, node):
                break
        if len(layers) > 1:
            used |= set(nodes)
            last = layers[-1][1]
            runs.append(Run(tuple(layers), tuple(nodes), last if last and holds_activation(segment.get_submodule(last)) else None))
    return tuple(runs)


def _is_conv(segment: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and can_merge(segment.get_submodule(str(node.target)))


def _is_norm(segment: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(segment.get_submodule(str(node.target)), nn.BatchNorm2d)


_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish, nn.Identity, nn.Dropout)
_FUNCTIONS = (F.relu, F.relu6, F.gelu, F.silu, F.hardswish, torch.relu)


def _is_activation(segment: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(segment.get_submodule(str(node.target)), _ACTIVATIONS)
    return node.op == "call_function" and node.target in _FUNCTIONS


def holds_activation(norm: nn.Module) -> bool:
    """Return whether a batch norm holds an activation, as some libraries' do."""
    return isinstance(getattr(norm, "act", None), nn.Module) and not isinstance(norm.act, nn.Identity)


def with_runs(segment: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a segment in which every run stands as one module that merges when it is fused.

    Raises:
        UsageError: It has no run.
    """
    copied = copy.deepcopy(segment)
    runs = runs_of(copied)
    if not runs:
        raise UsageError("segment: has no run of convolutions that could be merged.")
    for i, run in enumerate(runs):
        layers = []
        for conv, norm in run.layers:
            layers.append((copied.get_submodule(conv), None if norm is None else copied.get_submodule(norm)))
        name = f"run{i}"
        copied.add_module(name, ConvolutionRun(layers))  # type: ignore[arg-type]
        source = run.nodes[0].all_input_nodes[0]
        with copied.graph.inserting_after(run.nodes[-1]):
            made = copied.graph.call_module(name, (source,))
        if run.activation is not None:
            copied.add_module(f"{name}_activation", copy.deepcopy(copied.get_submodule(run.activation).act))  # type: ignore[arg-type]
            with copied.graph.inserting_after(made):
                end = copied.graph.call_module(f"{name}_activation", (made,))
        else:
            end = made
        run.nodes[-1].replace_all_uses_with(end)
        end.args = (made,) if end is not made else (source,)
        made.args = (source,)
        for node in reversed(run.nodes):
            copied.graph.erase_node(node)
    copied.delete_all_unused_submodules()
    copied.recompile()
    return copied


def plan(prices_ms: Mapping[tuple[int, int], float], losses: Mapping[tuple[int, int], float], budget_ms: float) -> list[tuple[int, int]]:
    """Return the pieces that a chain is best made of within a budget: merged or not, from position 0 to the last.

    Args:
        prices_ms: Milliseconds of each piece (i, j), which stands for everything after position i up to j.
        losses: What is lost by taking a piece; 0 for one layer left as it is.
        budget_ms: Sum of prices that must not be passed.

    Raises:
        UsageError: No way through is within the budget.

    Source:
        Dynamic programming over layers and latency as in LayerMerge (arXiv 2406.12837, section 4); latency in steps of a thousandth of the budget,
        rounded up, so that the budget holds.
    """
    steps, last = 1000, max(j for _, j in prices_ms)
    best: list[dict[int, tuple[float, tuple[int, int] | None, int]]] = [{} for _ in range(last + 1)]
    best[0][0] = (0.0, None, 0)
    for (i, j), price in sorted(prices_ms.items(), key=lambda item: item[0][1]):
        cost = math.ceil(steps * price / budget_ms - 1e-9)
        for spent, (loss, _, _) in list(best[i].items()):
            total, at = loss + losses[i, j], spent + cost
            if at <= steps and total < best[j].get(at, (math.inf, None, 0))[0]:
                best[j][at] = (total, (i, j), spent)
    if not best[last]:
        cheapest = min(sum(prices_ms[piece] for piece in [(i, i + 1) for i in range(last)] if piece in prices_ms), math.inf)
        raise UsageError(f"merging: nothing is within the budget, got {budget_ms:g} ms. Unmerged it takes {cheapest:g} ms.")
    at = min(best[last], key=lambda spent: (best[last][spent][0], spent))
    pieces, position = [], last
    while position:
        _, piece, at = best[position][at]
        assert piece is not None
        pieces.append(piece)
        position = piece[0]
    return pieces[::-1]
