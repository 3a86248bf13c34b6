"""``mse``: the range whose grid is closest to the values in the mean square."""

from __future__ import annotations

import numpy as np

from nas.quantisation.method import Activations, Bounds, Quantiser, grid, quantisers

_SHARES = np.linspace(0.3, 1.0, 29)  # by hand: steps of 2.5 % of the range


@quantisers.register("mse")
class MeanSquare(Quantiser):
    """Searches either end, one after the other, among shares of the observed extreme.

    Source:
        Nagel et al., "A white paper on neural network quantization", arXiv 2106.08295, section 3.1 (MSE range setting).
    """

    def bounds(self, activations: Activations, bits: int) -> Bounds:
        """See `Quantiser.bounds`."""
        low, high = activations.low, activations.high
        if bits > 8 or activations.sample is None or high <= low:
            return low, high
        sample = np.append(activations.sample, np.array([low, high], dtype=np.float32))
        there = np.empty_like(sample)

        def error(bounds: Bounds) -> float:
            scale, zero = grid(bounds, bits)
            np.rint(np.divide(sample, np.float32(scale), out=there), out=there)
            np.clip(there, -zero, 2**bits - 1 - zero, out=there)
            np.subtract(np.multiply(there, np.float32(scale), out=there), sample, out=there)
            return float(there @ there)

        high = min((high * share for share in _SHARES), key=lambda end: error((low, max(end, 1e-8)))) if high > 0 else high
        if low < 0:
            low = min((low * share for share in _SHARES), key=lambda end: error((end, max(high, 1e-8))))
        return low, high
