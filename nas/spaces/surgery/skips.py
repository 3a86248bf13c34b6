"""Whether a segment can be left out: whether what enters it also reaches its end by skips alone."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

_SUMS = (operator.add, torch.add, "add", torch.ops.aten.add.Tensor)
_RESHAPES = ("reshape", "view", "flatten", "contiguous", torch.reshape, torch.flatten)
_IDENTITIES = (nn.Identity, nn.Dropout)
_IDENTITY_NAMES = ("DropPath", "PatchDropout")


def can_be_left_out(segment: fx.GraphModule) -> bool:
    """Return whether a path of sums, identities and rectifiers leads from the input to the output."""
    reached: set[fx.Node] = set()
    for node in segment.graph.nodes:
        if node.op == "placeholder" or (_passes(segment, node) and any(source in reached for source in node.all_input_nodes)):
            reached.add(node)
        if node.op == "output":
            return any(source in reached for source in node.all_input_nodes)
    return False


def _passes(segment: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        part = segment.get_submodule(str(node.target))
        return is_identity(part) or isinstance(part, nn.ReLU)
    return is_sum(node) or (node.op in ("call_function", "call_method") and node.target in _RESHAPES)


def is_identity(layer: nn.Module) -> bool:
    """Return whether a layer gives what enters it, in evaluation mode."""
    return isinstance(layer, _IDENTITIES) or type(layer).__name__ in _IDENTITY_NAMES


def is_sum(node: fx.Node) -> bool:
    """Return whether a node adds."""
    return node.op in ("call_function", "call_method") and node.target in _SUMS
