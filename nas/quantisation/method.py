"""The contract of a quantisation method: it prepares weights, or says where an activation's range ends, or both.

A recipe is a sequence of methods by name (``("smoothing", "mse", "bias-correction")``). Preparations run in order on the
fused network; the last method of the recipe that has an opinion on ranges decides them (default: min-max). The same recipe drives
the simulation that scores members and the export, so that both quantise alike.

Life of a method, in a simulation as in an export::

    quantisers.get(name)()                  one instance of each method of the recipe; `recipe` is set on it
            │
    prepare(module, batches, input_shape)   in the recipe's order, each on what the one before it returned
            │
    wide                                    before ranges are set: which results have 16 bits
            │
    bounds(activations, bits)               for every tensor, once all calibration pictures have been seen
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from nas.registry import Registry
from nas.units import QUANTISED, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = npt.NDArray[np.float32]
Bounds = tuple[float, float]

CALIBRATION_PICTURES = 256
"""Training pictures from which ranges are taken. Set by hand."""

NATURAL: Mapping[str, Bounds] = {"Softmax": (0.0, 1.0)}
"""Ranges of results that are given by the kind of an operator.

Source:
    ONNX Runtime's quantiser sets it for every softmax (quantization/base_quantizer.py, `adjust_tensor_ranges`), and Hexagon gives wrong results
    at any other (onnxruntime/onnxruntime-qnn#558).
"""

_KEPT_PER_BATCH = 4096  # numbers of an activation that are looked at in a batch; by hand
_GOLDEN = (5**0.5 - 1) / 2  # the golden ratio: its multiples spread evenly over any length


@lru_cache(maxsize=256)
def _places(size: int) -> npt.NDArray[np.int64]:
    """Return where a batch of `size` values is sampled; a fixed stride would meet the same channel again and again."""
    return (np.arange(_KEPT_PER_BATCH) * _GOLDEN % 1 * size).astype(np.int64)


@dataclass(slots=True)
class Activations:
    """The statistics of one tensor over the calibration pictures: its extremes, and an evenly spaced sample.

    Memory is bounded by the number of batches, not by their size.
    """

    low: float = 0.0
    high: float = 0.0
    sample: Floats | None = None
    natural: Bounds | None = None
    """The range that the operator which makes the tensor has by its kind."""

    def observe(self, values: Floats) -> None:
        """Take in the values of one batch, in any shape."""
        flat = values.reshape(-1)
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        part = (flat[_places(flat.size)] if flat.size > _KEPT_PER_BATCH else flat).astype(np.float32)
        self.sample = part if self.sample is None else np.concatenate([self.sample, part])


class Quantiser:
    """One method of quantisation. It overrides the steps that it changes."""

    wide: ClassVar[frozenset[str]] = frozenset()
    """Kinds of operators whose result has 16 bits before it is rounded to the bits of what reads it."""
    recipe: Sequence[Quantiser] = ()
    """All methods of the recipe that it is part of, itself among them; set by `methods`."""

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """Return a module whose weights quantise better; `module`, which is fused and in evaluation mode, is left as it is.

        Args:
            module: In fp32.
            batches: Calibration pictures, each (n, c, h, w).
            input_shape: Of one picture, batch first.
        """
        return module

    def bounds(self, activations: Activations, bits: int) -> Bounds | None:
        """Return the range that `bits` bits cover; None where the method does not set it."""
        return None


quantisers: Registry[type[Quantiser]] = Registry("quantisers", "nas.quantisation.methods")
"""Quantisation methods by name."""

DEFAULT_RECIPE = ("equalisation", "mse", "bias-correction")
"""What is used where nothing is asked for."""


def precision_at(path: str, precisions: Mapping[str, str], default: str) -> str:
    """Return the precision of a part: that of the longest path in `precisions` which holds it, else `default`."""
    while path not in precisions and "." in path:
        path = path.rpartition(".")[0]
    return precisions.get(path, default)


def activation_bits(precision: str) -> int:
    """Return the bits of a quantised precision's activations; 0 where they stay float. Weights have 8, per output channel, symmetric."""
    return Precision(precision).activation_bits if precision in QUANTISED else 0


def methods(recipe: Sequence[str]) -> list[Quantiser]:
    """Return the methods of a recipe.

    Raises:
        UnknownNameError: No such method.
    """
    chosen = [quantisers.get(name)() for name in recipe]
    for method in chosen:
        method.recipe = chosen
    return chosen


def wide_operators(recipe: Sequence[Quantiser]) -> frozenset[str]:
    """Return the kinds of operators whose results are to have 16 bits."""
    return frozenset().union(*(method.wide for method in recipe))


def range_of(recipe: Sequence[Quantiser], activations: Activations, bits: int) -> Bounds:
    """Return the range of one tensor; it holds zero, as padding and ReLU need."""
    if activations.natural is not None:
        return activations.natural
    ranges = [bounds for method in recipe if (bounds := method.bounds(activations, bits)) is not None]
    low, high = ranges[-1] if ranges else (activations.low, activations.high)
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (0.0, 1e-6)


def grid(bounds: Bounds, bits: int) -> tuple[float, int]:
    """Return scale and zero point of an asymmetric unsigned grid: q = round(x / scale) + zero point."""
    levels = 2**bits - 1
    scale = (bounds[1] - bounds[0]) / levels
    return scale, round(-bounds[0] / scale)
