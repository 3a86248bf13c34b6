"""``lrp-qvit``: every channel that a normalisation gives gets one range, outliers clipped, so that one grid serves all."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import Quantiser, quantisers
from nas.quantisation.weights import move_into_readers, rows_behind_norms

OUTSIDE = 1e-3
"""Share of a channel's values beyond either end of its range. Set by hand."""

_ROWS = 4096  # inputs of a layer; by hand


@quantisers.register("lrp-qvit")
class ClippedChannels(Quantiser):
    """Moves and scales each channel so that its range, clipped to all but `OUTSIDE` of its values a side, is that of the widest channel.

    Source:
        Ranjan and Savakis, "LRP-QViT: Mixed-Precision Vision Transformer Quantization via Layer-wise Relevance Propagation", arXiv 2401.11243,
        clipped channel-wise quantisation of layer norms' results, brought to one grid as in RepQ-ViT (arXiv 2212.08254); differs in that values
        beyond the ends keep their places where the one grid reaches them, and in that bits by layer are the precision genes of a space.
    """

    def prepare(self, module: nn.Module, batches: Sequence[Tensor], input_shape: Sequence[int]) -> nn.Module:
        """See `Quantiser.prepare`."""
        even = copy.deepcopy(module)
        for norm, layers, rows in rows_behind_norms(even, batches, input_shape, _ROWS):
            low, high = torch.quantile(rows.float(), torch.tensor([OUTSIDE, 1 - OUTSIDE]).to(rows.device), dim=0)
            half = ((high - low) / 2).clamp_min(1e-5)
            move_into_readers(norm, layers, (half / half.max()).clamp_min(0.01), (high + low) / 2)
        return even
