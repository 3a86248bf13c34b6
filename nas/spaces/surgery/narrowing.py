"""Inner widths of a segment: which channels are coupled, in which order they matter, and the segment with fewer of them.

Only widths that begin and end inside the segment can change, so segments stay in line. Channels are put in order of importance once, which
leaves the function as it is; a narrower segment then takes leading slices, as members of every elastic space do.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

DIVISOR = 8
"""Widths are multiples of it, where the full width is. Set by hand."""

_LEAST = 16
"""Groups of fewer channels are left as they are: a gate's inner width costs nothing. Set by hand."""

_KEEP = (
    *(nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.Mish),
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.ZeroPad2d),
)
"""Modules that work on each channel alone."""

_KEEP_NAMES = {
    *("DropPath", "GELUTanh", "GELU", "Swish", "HardSwish", "HardSigmoid", "Sigmoid", "Mish", "PatchDropout", "BlurPool2d"),
}
_KEEP_FUNCTIONS = {
    *(F.relu, F.relu6, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.dropout, F.interpolate, F.adaptive_avg_pool2d, F.avg_pool2d),
    *(torch.relu, torch.sigmoid, torch.tanh, torch.mul, torch.add),
}
_KEEP_METHODS = {"mean", "sigmoid", "relu", "contiguous", "clone", "mul", "add", "sigmoid_", "mul_", "add_"}
_JOINS = {operator.add, operator.mul, torch.add, torch.mul, "add", "mul", "mul_", "add_"}


@dataclass
class Channels:
    """One set of channels that stand and fall together.

    Attributes:
        size: How many there are.
        axes: (parameter or buffer, axis) of every tensor that has them.
        producers: Names of the layers that make them.
        fixed: Whether something outside the segment, or something that mixes channels, sees them.
    """

    size: int
    axes: list[tuple[str, int]] = field(default_factory=list)
    producers: list[str] = field(default_factory=list)
    fixed: bool = False


def coupled_channels(segment: fx.GraphModule) -> tuple[Channels, ...]:
    """Return the sets of channels of a segment that can be narrowed.

    Args:
        segment: See `nas.graphs.frontends.cuts.Cuts.segment`.

    Source:
        Dependency of channels as in DepGraph (Fang et al., arXiv 2301.12900), over the traced graph. Differs: layers outside a list of those
        that work on each channel alone fix the widths around them, so nothing is narrowed whose meaning is not known.
    """
    return tuple(group for group in _Walk(segment).channels() if not group.fixed and group.size >= _LEAST and len(group.axes) > 1)


class _Walk:
    """Follows channels through a graph."""

    def __init__(self, segment: fx.GraphModule) -> None:
        self.segment = segment
        self.parent: dict[int, int] = {}
        self.sets: list[Channels] = []
        self.at: dict[fx.Node, tuple[int, int] | None] = {}  # node -> (set, axis from the front)
        self.ranks: dict[fx.Node, int] = {}

    def channels(self) -> list[Channels]:
        calls: dict[str, int] = {}
        for node in self.segment.graph.nodes:
            if node.op == "call_module":
                calls[str(node.target)] = calls.get(str(node.target), 0) + 1
        for node in self.segment.graph.nodes:
            self.at[node] = self._visit(node, calls)
        roots = {self._root(i) for i in range(len(self.sets))}
        return [self.sets[i] for i in sorted(roots)]

    def _visit(self, node: fx.Node, calls: Mapping[str, int]) -> tuple[int, int] | None:
        if node.op == "call_module":
            module = self.segment.get_submodule(str(node.target))
            passes = isinstance(module, _KEEP) or type(module).__name__ in _KEEP_NAMES
            if len(node.all_input_nodes) == 1 and (passes or calls[str(node.target)] == 1):
                return self.at.get(node.all_input_nodes[0]) if passes else self._module(node, module)
        elif node.op in ("call_function", "call_method"):
            if node.target in _JOINS and len([a for a in node.all_input_nodes if self.at.get(a)]) == 2:
                return self._join(node)
            keeps = node.target in (_KEEP_METHODS if node.op == "call_method" else _KEEP_FUNCTIONS)
            if keeps or (node.target in _JOINS and len(node.all_input_nodes) == 1):
                return self.at.get(node.all_input_nodes[0]) if self._keeps_axis(node) else self._fix(node)
            if node.target in ("permute", torch.permute):
                return self._permute(node)
            if node.target in ("size", getattr):
                return None
        return self._fix(node)

    def _keeps_axis(self, node: fx.Node) -> bool:
        """Return whether a mean leaves the axis of the channels, and every axis before it, in place."""
        if node.target != "mean":
            return True
        channels = self.at.get(node.all_input_nodes[0])
        dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        if channels is None or dims is None:
            return channels is None
        listed: list[Any] = [dims] if isinstance(dims, int) else list(dims)
        axis = channels[1]
        if axis == 1:
            return all(d in (2, 3, -1, -2) for d in listed)
        return bool(keep) and axis > 0 and all(0 < d < axis for d in listed)

    def _permute(self, node: fx.Node) -> tuple[int, int] | None:
        channels = self.at.get(node.all_input_nodes[0])
        arguments: Any = node.args
        dims = arguments[1] if len(arguments) == 2 and not isinstance(arguments[1], int) else arguments[1:]
        if channels is None:
            return None
        order = [int(d) % len(dims) for d in dims]
        return channels[0], order.index(channels[1] % len(order))

    def _fix(self, node: fx.Node) -> tuple[int, int] | None:
        """Note that a node's inputs are seen by something that is not understood; nothing is known of what it makes."""
        for source in node.all_input_nodes:
            if (channels := self.at.get(source)) is not None:
                self.sets[self._root(channels[0])].fixed = True
        return None

    def _join(self, node: fx.Node) -> tuple[int, int] | None:
        (a, axis), (b, other) = (self.at[source] for source in node.all_input_nodes if self.at.get(source))  # type: ignore[misc]
        if axis != other or self.sets[self._root(a)].size != self.sets[self._root(b)].size:
            return self._fix(node)
        return self._union(a, b), axis

    def _module(self, node: fx.Node, module: nn.Module) -> tuple[int, int] | None:
        name, entry = str(node.target), self.at.get(node.all_input_nodes[0])
        if isinstance(module, nn.Conv2d | nn.Linear):
            depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels == module.out_channels > 1
            if type(module) not in (nn.Conv2d, nn.Linear) and type(module).__name__ not in ("Conv2dSame", "Linear"):
                return self._fix(node)
            bias = [(f"{name}.bias", 0)] if module.bias is not None else []
            if depthwise and entry is not None:
                self.sets[self._root(entry[0])].axes += [(f"{name}.weight", 0), *bias]
                return entry
            if isinstance(module, nn.Conv2d) and module.groups != 1:
                return self._fix(node)
            if entry is not None:
                self.sets[self._root(entry[0])].axes.append((f"{name}.weight", 1))
            made = Channels(module.weight.shape[0], [(f"{name}.weight", 0), *bias], [name])
            self.sets.append(made)
            return len(self.sets) - 1, 1 if isinstance(module, nn.Conv2d) else entry[1] if entry is not None else -1
        if isinstance(module, nn.BatchNorm2d) and entry is not None:
            tensors = [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var") if getattr(module, key) is not None]
            self.sets[self._root(entry[0])].axes += [(key, 0) for key in tensors]
            return entry
        return self._fix(node)

    def _root(self, i: int) -> int:
        while (up := self.parent.get(i, i)) != i:
            i = up
        return i

    def _union(self, a: int, b: int) -> int:
        a, b = self._root(a), self._root(b)
        if a != b:
            self.parent[b] = a
            first, second = self.sets[a], self.sets[b]
            first.axes += second.axes
            first.producers += second.producers
            first.fixed |= second.fixed
        return a


def reorder(tensors: MutableMapping[str, Tensor], channels: Channels, scores: Tensor) -> None:
    """Put channels in order of falling scores, in place; what the segment computes stays the same."""
    order = torch.argsort(scores, descending=True, stable=True)
    with torch.no_grad():
        for name, axis in channels.axes:
            tensors[name].copy_(tensors[name].index_select(axis, order.to(tensors[name].device)))


def width_of(full: int, ratio: float) -> int:
    """Return a narrowed width: a multiple of `DIVISOR` where the full width is one, at least one step."""
    step = DIVISOR if full % DIVISOR == 0 else 1
    return min(full, max(step, step * round(full * ratio / step)))


def narrowed(segment: fx.GraphModule, ratio: float) -> fx.GraphModule:
    """Return a copy of a segment whose inner widths are a share of what they were: the leading channels."""
    copied = copy.deepcopy(segment)
    tensors: dict[str, Tensor] = dict([*copied.named_parameters(), *copied.named_buffers()])
    for channels in coupled_channels(segment):
        width = width_of(channels.size, ratio)
        for name, axis in channels.axes:
            tensors[name] = tensors[name].detach().narrow(axis, 0, width).clone()
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = copied.get_submodule(path)
        if getattr(owner, leaf).shape != tensor.shape:
            is_parameter = isinstance(getattr(owner, leaf), nn.Parameter)
            setattr(owner, leaf, nn.Parameter(tensor) if is_parameter else tensor)
            _resize(owner)
    return copied


def _resize(module: nn.Module) -> None:
    """Make a layer's settings agree with its weight."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1
        module.out_channels = module.weight.shape[0]
        module.groups = module.out_channels if depthwise else 1
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d):
        module.num_features = len(module.weight)


def widths(segment: fx.GraphModule) -> Sequence[int]:
    """Return the inner widths that can change, in order."""
    return [channels.size for channels in coupled_channels(segment)]
