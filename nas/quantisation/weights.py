"""The grid of weights: eight bits, symmetric, one scale an output channel; and how layers follow one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.graph import Operator

LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def scales_of(weight: Tensor) -> Tensor:
    """Return the scale of each output channel, shaped to broadcast: (c_out, …) -> (c_out, 1, …); of a vector, one scale."""
    if weight.dim() == 1:
        return weight.abs().amax().clamp_min(1e-12) / 127
    flat = weight.reshape(weight.shape[0], -1).abs().amax(dim=1).clamp_min(1e-12) / 127
    return flat.reshape(-1, *[1] * (weight.dim() - 1))


def rounded_weight(weight: Tensor) -> Tensor:
    """Return a weight after a trip through its grid."""
    scale = scales_of(weight)
    return (weight / scale).round().clamp(-127, 127) * scale


def linear_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over convolutions and linear layers, with their names."""
    for name, part in module.named_modules():
        if isinstance(part, LINEAR):
            yield name, part


def chains(
    module: nn.Module, input_shape: Sequence[int], starts: Sequence[str], passing: Sequence[str]
) -> list[tuple[Operator, list[Operator]]]:
    """Return (operator, linear operators that read it) where nothing but them reads it.

    Args:
        module: Fused.
        input_shape: Of its input.
        starts: Kinds of the first operator; its name is the path of its module.
        passing: Kinds that may stand between.
    """
    graph = trace_module(module, input_shape)
    users = graph.consumers()
    found = []
    for op in graph.operators:
        if op.op not in starts:
            continue
        readers, value = users[op.outputs[0].name], op.outputs[0].name
        while len(readers) == 1 and readers[0].op in passing and value not in graph.outputs:
            value = readers[0].outputs[0].name
            readers = users[value]
        if readers and value not in graph.outputs and all(r.op in {"Conv", "Gemm"} and r.inputs == (value,) for r in readers):
            found.append((op, readers))
    return found


@torch.no_grad()
def inputs_of(
    module: nn.Module,
    batches: Sequence[Tensor],
    reduce: Callable[[nn.Module, Tensor], Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    takes: Callable[[nn.Module], bool] = lambda _: True,
) -> dict[str, Tensor]:
    """Run the batches and return, for each linear layer that `takes` admits, its inputs reduced by `reduce` and combined over calls."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, part in linear_layers(module):
        if not takes(part):
            continue

        def watch(layer: nn.Module, args: tuple[Tensor, ...], key: str = name) -> None:
            value = reduce(layer, args[0])
            found[key] = combine(found[key], value) if key in found else value

        handles.append(part.register_forward_pre_hook(watch))
    try:
        for x in batches:
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return found


def channels_first(layer: nn.Module, x: Tensor) -> Tensor:
    """Move a layer's input channels to the front: (c, everything else)."""
    axis = -1 if isinstance(layer, nn.Linear) else 1
    return x.movedim(axis, 0).reshape(x.shape[axis], -1)
