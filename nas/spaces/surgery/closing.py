"""The last linear layer of a segment, where all that follows it is a batch norm and sums: setting it sets what the segment ends in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from nas.spaces.surgery.merging import ConvolutionRun, can_merge, holds_activation
from nas.spaces.surgery.skips import is_identity, is_sum
from nas.spaces.surgery.stitching import StitchLayer


@dataclass(frozen=True)
class Closing:
    """Where a segment's last linear layer stands.

    Attributes:
        layer: Name of a linear layer or of a convolution of one pixel.
        norm: Name of the batch norm after it, or None; then the layer has a bias.
    """

    layer: str
    norm: str | None


def closing_layer(module: nn.Module) -> Closing | None:
    """Return the closing layer of a segment or of a stitch; None where something else than sums follows it, or where it sees its neighbours."""
    if isinstance(module, StitchLayer):
        plain = module.how != "double" and module.target.layout in ("map", "tokens") and not module.target.prefix
        return Closing("linear", None) if plain else None
    if not isinstance(module, fx.GraphModule):
        return None
    node, norm = next(n for n in module.graph.nodes if n.op == "output").all_input_nodes[-1], None
    order = {n: i for i, n in enumerate(module.graph.nodes)}
    while node.op != "placeholder":
        if is_sum(node) and node.all_input_nodes and norm is None:
            node = max(node.all_input_nodes, key=order.__getitem__)
            continue
        if node.op != "call_module":
            return None
        name, layer = str(node.target), module.get_submodule(str(node.target))
        if isinstance(layer, ConvolutionRun):
            return None if norm else _of_run(name, layer)
        if isinstance(layer, nn.BatchNorm2d) and norm is None and layer.affine and not holds_activation(layer):
            norm = name
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            return Closing(name, norm) if _pointwise(layer) and (norm or layer.bias is not None) else None
        elif not is_identity(layer) or norm:
            return None
        node = node.all_input_nodes[0]
    return None


def _of_run(name: str, run: ConvolutionRun) -> Closing | None:
    last = len(run.convs) - 1
    norm = f"{name}.norms.{last}" if isinstance(run.norms[last], nn.BatchNorm2d) else None
    layer = run.convs[last]
    return Closing(f"{name}.convs.{last}", norm) if _pointwise(layer) and (norm or layer.bias is not None) else None


def _pointwise(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return type(layer) is nn.Linear
    return isinstance(layer, nn.Conv2d) and can_merge(layer) and layer.kernel_size == layer.stride == (1, 1) and layer.groups == 1
