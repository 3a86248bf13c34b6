"""``percentile``: a range covers all but the outermost values."""

from __future__ import annotations

import numpy as np

from nas.quantisation.method import Activations, Bounds, Quantiser, quantisers

CUT_PCT = 0.01
"""Share of values beyond each end, in percent. Set by hand."""


@quantisers.register("percentile")
class Percentile(Quantiser):
    """Clips `CUT_PCT` percent at either end, at 8 bits; a 16-bit grid is fine enough to cover everything.

    Source:
        Wu et al., arXiv 2004.09602, section 5.2 (99.99 %); differs in that the percentiles are of an evenly spaced sample.
    """

    def bounds(self, activations: Activations, bits: int) -> Bounds:
        """See `Quantiser.bounds`."""
        if bits > 8 or activations.sample is None:
            return activations.low, activations.high
        low, high = np.percentile(activations.sample, [CUT_PCT, 100 - CUT_PCT])
        return float(low), float(high)
