"""A quantiser: takes ranges as they were seen."""

from nas.quantisation.method import Quantiser


class Wide(Quantiser):
    """Ranges as they were seen."""

    def bounds(self, activations, bits):
        return activations.low, activations.high
