"""``minmax``: a range covers everything that calibration saw."""

from __future__ import annotations

from nas.quantisation.method import Activations, Bounds, Quantiser, quantisers


@quantisers.register("minmax")
class MinMax(Quantiser):
    """Naive: one outlier stretches the grid for everything else.

    Source:
        Jacob et al., arXiv 1712.05877, section 3.1.
    """

    def bounds(self, activations: Activations, bits: int) -> Bounds:
        """See `Quantiser.bounds`."""
        return activations.low, activations.high
