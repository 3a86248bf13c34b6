"""Progressivity: the least growth of the features' directions from block to block."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from nas.spaces.operator_family import Source
from nas.training.score import Probe, Score, scores
from nas.training.scores.expressivity import entropies


@scores.register("progressivity")
class Progressivity(Score):
    """min over the blocks of the entropy's growth (see `expressivity`)."""

    source: ClassVar[Source] = Source(
        "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", "arXiv 2403.19232, equation 4"
    )

    def measure(self, probe: Probe) -> float:
        """See the class."""
        values = entropies(probe)
        return min((after - before for before, after in pairwise(values)), default=0.0)
