"""``low-resolution``: small pictures first."""

from __future__ import annotations

from nas.spaces.operator_family import Source
from nas.spaces.space import Resolution
from nas.training.recipe import Pictures, recipes

SCHEDULE = ((0.5, 0.5), (0.75, 0.75), (1.0, 1.0))
"""Until which share of the steps which share of a picture's side is shown."""

_MULTIPLE = 4


@recipes.register("low-resolution")
class LowResolution(Pictures):
    """Half the side for half of the steps, three quarters for a quarter: a training costs about half."""

    source = Source(
        "EfficientNetV2: Smaller Models and Faster Training",
        "arXiv 2104.00298, progressive learning",
        "sizes alone; the augmentation stays as it is",
    )

    def size(self, progress: float, resolution: Resolution) -> Resolution:
        """See `Pictures.size`; sides are multiples of four."""
        share = next((share for end, share in SCHEDULE if progress < end), 1.0)
        height, width = (side if share == 1.0 else min(side, _MULTIPLE * max(1, round(share * side / _MULTIPLE))) for side in resolution)
        return height, width
