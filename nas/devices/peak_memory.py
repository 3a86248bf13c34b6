"""The memory that a process takes at its peak while it runs a network on a device: runtime, weights and activations together.

Additive and never falling with work: a start, bytes of weights and activations at their precision, operators, and steps where what is alive at once
leaves the memory on the chip. No coefficient is negative. Fitted to what Qualcomm AI Hub states (``experiments/018_placement_and_memory``); how far it is off
on lineages left out stands in the file, device by device.

Source: Lawson & Hanson's non-negative least squares on relative errors, reweighted towards their median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from nas.devices.learnt import read_learnt
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise
from nas.units import Precision

FILE = "peak_memory.json"
# Steps at which the model's columns begin. Source: set by hand on AI Hub's table; experiments/018_placement_and_memory has the errors.
_ALIVE_MB = (2.0, 4.0, 5.6, 8.0, 12.0, 20.0, 40.0)
_WRITTEN_MB = (25.0, 50.0, 100.0, 200.0)  # knots of the fit, as are the others; by hand
_WEIGHTS_MB = (10.0, 40.0)
COLUMNS = (
    *("start", "convolution weights", "other weights", "alive", "largest", "written", "inputs", "outputs", "operators"),
    *(f"alive > {mb:g}" for mb in _ALIVE_MB),
    *(f"written up to {mb:g}" for mb in _WRITTEN_MB),
    *(f"weights up to {mb:g}" for mb in _WEIGHTS_MB),
)
"""In 10⁶ bytes; operators by the hundred; one where a step is passed."""


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Memory at the peak, in 10⁶ bytes.

    Attributes:
        mb: The middle.
        lower_mb: Lower end of the interval.
        upper_mb: Upper end, by which a budget is judged.
    """

    mb: float
    lower_mb: float
    upper_mb: float


@lru_cache(maxsize=4096)
def _counts(graph: Graph) -> tuple[float, ...]:
    """Return elements of convolutions' and other weights, alive, largest, written, read first and given back, and operators."""
    compiled = normalise(graph)
    sizes = [value.elements for value in compiled.values.values()]
    convolved = sum(w.elements for op in compiled.operators if op.category not in ("matmul", "attention") for w in op.weights)
    other = sum(w.elements for op in compiled.operators if op.category in ("matmul", "attention") for w in op.weights)
    written = sum(value.elements for op in compiled.operators for value in op.outputs)
    inputs = sum(value.elements for value in compiled.inputs)
    outputs = sum(compiled.values[name].elements for name in compiled.outputs)
    alive = compiled.peak_memory_bytes("w8a8")  # a byte an element
    return convolved, other, alive, max(sizes, default=0), written, inputs, outputs, len(compiled.operators)


def columns_of(graph: Graph, precision: str) -> tuple[float, ...]:
    """Return what is priced, in the order of `COLUMNS`."""
    at = Precision(precision)
    convolved, other, alive, largest, written, inputs, outputs, operators = _counts(graph)
    convolved, other = convolved * at.weight_bytes / 1e6, other * at.weight_bytes / 1e6
    alive, largest, written, inputs, outputs = (n * at.activation_bytes / 1e6 for n in (alive, largest, written, inputs, outputs))
    return (
        *(1.0, convolved, other, alive, largest, written, inputs, outputs, operators / 100),
        *(float(alive > mb) for mb in _ALIVE_MB),
        *(min(written, mb) for mb in _WRITTEN_MB),
        *(min(convolved + other, mb) for mb in _WEIGHTS_MB),
    )


def peak_memory(device: str, graph: Graph, precision: str) -> PeakMemory | None:
    """Return the memory that a network's process takes at its peak on a device; None where nothing is fitted for it.

    The interval is one of 90 %: so many networks of lineages that the fit had not seen were within it.
    """
    fit = _fits().get(device, {}).get(precision)
    if fit is None:
        return None
    quantities = dict(zip(COLUMNS, columns_of(graph, precision), strict=True))
    mb = sum(price * quantities[name] for name, price in fit["mb"].items())
    return PeakMemory(mb, mb / fit["spread"], mb * fit["spread"])


def peak_bytes(device: str, graph: Graph, precision: str, *, upper: bool = True) -> float:
    """Return the memory that a network takes at its peak on a device, in bytes: of its process where that is fitted, else of what is alive at once.

    Args:
        device: Name of its profile.
        graph: Of the network.
        precision: At which it runs.
        upper: Whether the upper end of a prediction is meant, or its middle.
    """
    estimate = peak_memory(device, graph, precision)
    return graph.peak_memory_bytes(precision) if estimate is None else 1e6 * (estimate.upper_mb if upper else estimate.mb)


@cache
def _fits() -> Mapping[str, Mapping[str, Any]]:
    """Return coefficients by device and precision.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    return read_learnt(FILE, "peak memory", "devices", _check_coefficients)


def _check_coefficients(devices: Mapping[str, Mapping[str, Any]]) -> None:
    for precisions in devices.values():
        for fit in precisions.values():
            if fit["spread"] < 1 or not set(fit["mb"]) <= set(COLUMNS) or min(fit["mb"].values(), default=-1.0) < 0:
                raise ValueError("a coefficient is negative or unknown")
