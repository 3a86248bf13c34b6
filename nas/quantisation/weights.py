"""The grid of weights: eight bits, symmetric, one scale an output channel; and how layers follow one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.graph import Operator

LARGEST = 2_000_000
"""Weights of a layer that a method works on whole. Set by hand."""

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
    pairs = []
    for op in graph.operators:
        if op.op not in starts:
            continue
        readers, value = users[op.outputs[0].name], op.outputs[0].name
        while len(readers) == 1 and readers[0].op in passing and value not in graph.outputs:
            value = readers[0].outputs[0].name
            readers = users[value]
        if readers and value not in graph.outputs and all(r.op in {"Conv", "Gemm"} and r.inputs == (value,) for r in readers):
            pairs.append((op, readers))
    return pairs


@torch.no_grad()
def inputs_of(
    module: nn.Module,
    batches: Sequence[Tensor],
    reduce: Callable[[nn.Module, Tensor], Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    accepts: Callable[[nn.Module], bool] = lambda _: True,
) -> dict[str, Tensor]:
    """Run the batches and return, for each linear layer that `takes` admits, its inputs reduced by `reduce` and combined over calls."""
    inputs: dict[str, Tensor] = {}
    handles = []
    for name, part in linear_layers(module):
        if not accepts(part):
            continue

        def watch(layer: nn.Module, args: tuple[Tensor, ...], key: str = name) -> None:
            value = reduce(layer, args[0])
            inputs[key] = combine(inputs[key], value) if key in inputs else value

        handles.append(part.register_forward_pre_hook(watch))
    try:
        for x in batches:
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def channels_first(layer: nn.Module, x: Tensor) -> Tensor:
    """Move a layer's input channels to the front: (c, everything else)."""
    axis = -1 if isinstance(layer, nn.Linear) else 1
    return x.movedim(axis, 0).reshape(x.shape[axis], -1)


def multiplies_rows(layer: nn.Module) -> bool:
    """Return whether a layer multiplies rows of its input by one matrix that is small enough to be worked on whole."""
    if int(getattr(layer, "groups", 1)) != 1 or not isinstance(layer.weight, Tensor) or layer.weight.numel() > LARGEST:
        return False
    return isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(getattr(layer, "padding", 0), str)


def rows_of(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a layer's weight multiplies, (rows, c_in · kernel), of an input."""
    if isinstance(layer, nn.Conv2d):
        x = nn.functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)  # type: ignore[arg-type]
    return x.reshape(-1, x.shape[-1])


def norms_before_linear(module: nn.Module, input_shape: Sequence[int]) -> list[tuple[nn.LayerNorm, list[nn.Linear], str]]:
    """Return (layer norm with a scale, the linear layers that alone read it, the name of the first of them)."""
    parts, pairs = dict(module.named_modules()), []
    for norm, readers in chains(module, input_shape, ("LayerNormalization",), ("Identity",)):
        source, layers = parts.get(norm.name), [parts.get(reader.name) for reader in readers]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if isinstance(source, nn.LayerNorm) and source.weight is not None and len(linear) == len(layers):
            pairs.append((source, linear, readers[0].name))
    return pairs


def rows_behind_norms(
    module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int], most: int
) -> list[tuple[nn.LayerNorm, list[nn.Linear], Tensor]]:
    """Return (norm, readers, what the norm gives on the batches: (rows, c), about `most` rows evenly spaced) of `norms_before_linear`."""
    pairs = norms_before_linear(module, input_shape)
    wanted = {id(layers[0]) for _, layers, _ in pairs}

    def rows(layer: nn.Module, x: Tensor) -> Tensor:
        flat = rows_of(layer, x)
        return flat[:: max(1, len(flat) * len(batches) // most)]

    inputs = inputs_of(module, batches, rows, lambda a, b: torch.cat([a, b]), lambda layer: id(layer) in wanted)
    return [(norm, layers, inputs[reader]) for norm, layers, reader in pairs if reader in inputs]


@torch.no_grad()
def move_into_readers(norm: nn.LayerNorm, layers: Sequence[nn.Linear], scale: Tensor, shift: Tensor | None = None) -> None:
    """Let a norm give (x − shift) / scale in place of x, channel by channel, and its readers expect it: no output changes.

    Args:
        norm: What gives x.
        layers: All that read it.
        scale: Over 0, (c,).
        shift: (c,); None is none.
    """
    norm.weight.div_(scale)
    if shift is not None:
        if getattr(norm, "bias", None) is None:
            norm.bias = nn.Parameter(torch.zeros_like(shift), requires_grad=False)
        norm.bias.sub_(shift)
        for layer in layers:
            moved = layer.weight @ shift
            layer.bias = nn.Parameter(moved if layer.bias is None else layer.bias + moved, requires_grad=False)
    if norm.bias is not None:
        norm.bias.div_(scale)
    for layer in layers:
        layer.weight.mul_(scale)
