"""RAM and flash that a network asks of a microcontroller: an arena for its activations, its weights at their precision as they are packed.

``lifetimes`` is the least that any planner needs: what is alive at once. ``stedgeai`` is what ST Edge AI reports for STM32N6 (its model zoo, 35
networks): small networks are packed nearly as tightly as lifetimes allow, larger ones hold their three largest tensors; channels are multiples of
eight; an activation that is no clamp is written out, its input, its sigmoid and their product; a dense convolution wider than five pixels keeps partial
sums. These rules were found on the rows that they are checked against (`experiments/023_device_facts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nas.graphs.graph import Graph, Operator, Value
from nas.units import Precision

_SMALL_BYTES = 560 * 1024
"""Up to so much alive at once, the packing is nearly tight. Set by hand on the figures of ST's model zoo (experiments/023_device_facts)."""
_WRITTEN_OUT = {"Swish", "HardSwish", "Gelu", "Sigmoid", "Mish", "Tanh"}
_PARTIAL_SUMS = 1.75 * 4
"""Bytes an output element of a wide dense convolution, while it is summed.
Set by hand on the figures of ST's model zoo (experiments/023_device_facts)."""


def lifetimes(graph: Graph, precision: str) -> float:
    """Return the largest sum of activations that are alive at once, in bytes."""
    return graph.peak_memory_bytes(precision)


def stedgeai(graph: Graph, precision: str) -> float:
    """Return the activations' RAM as ST Edge AI plans it, internal and external together, in bytes."""
    size = {value.name: _padded(value) * Precision(precision).activation_bytes for value in graph.values.values()}
    alive = _most_alive(graph, size, 0)
    largest = sum(sorted(size.values(), reverse=True)[:3])
    packed = math.sqrt(alive * _most_alive(graph, size, 1)) if alive <= _SMALL_BYTES else max(alive, largest)
    written = max((_bytes(op, size) for op in graph.operators if _is_written_out(op)), default=0.0)
    sums = max((op.outputs[0].elements * _PARTIAL_SUMS for op in graph.operators if _is_wide(op)), default=0.0)
    return max(packed + (2 * written if written > _SMALL_BYTES / 10 else 0.0), alive + sums if sums else 0.0)


PLANNERS: Mapping[str, Callable[[Graph, str], float]] = {"lifetimes": lifetimes, "stedgeai": stedgeai}
"""By the name that a profile gives."""


def flash_bytes(graph: Graph, precision: str, packing_pct: float = 0.0) -> float:
    """Return the bytes of the weights at their precision; all but the head's take `packing_pct` more for the layout that the NPU reads."""
    whole = graph.size_bytes(precision)
    heads = [op for op in graph.operators if op.category == "matmul" and op.weights]
    share = (
        sum(weight.elements for weight in heads[-1].weights) / max(1, sum(w.elements for op in graph.operators for w in op.weights))
        if heads
        else 0.0
    )
    return whole * (share + (1.0 - share) * (1.0 + packing_pct / 100.0))


def _padded(value: Value) -> int:
    shape = value.shape
    channels = shape[1] if len(shape) == 4 else shape[-1]
    return value.elements // channels * (-(-channels // 8) * 8 if channels > 3 else channels)


def _bytes(op: Operator, size: Mapping[str, float]) -> float:
    return sum(size[value.name] for value in op.outputs)


def _is_written_out(op: Operator) -> bool:
    return op.attribute("activation") in _WRITTEN_OUT or op.op in _WRITTEN_OUT


def _is_wide(op: Operator) -> bool:
    return op.category == "conv" and max(op.attribute("kernel")) > 5 and (op.attribute("groups") or 1) == 1


def _most_alive(graph: Graph, size: Mapping[str, float], later: int) -> float:
    """Return the largest sum alive at once where a value is freed `later` operators after its last reader."""
    last = {name: i for i, op in enumerate(graph.operators) for name in op.inputs}
    last |= {name: len(graph.operators) for name in graph.outputs}
    alive = {value.name: size[value.name] for value in graph.inputs}
    most = sum(alive.values())
    for i, op in enumerate(graph.operators):
        alive |= {value.name: size[value.name] for value in op.outputs}
        most = max(most, sum(alive.values()))
        for name in [n for n in alive if last.get(n, -1) <= i - later]:
            del alive[name]
    return most
