"""``low-resolution``: small pictures first."""

from __future__ import annotations

from nas.spaces.operator_family import Source
from nas.training.recipe import Pictures, recipes


@recipes.register("low-resolution")
class LowResolution(Pictures):
    """Half the side for half of the steps, three quarters for a quarter: a training costs about half."""

    schedule = ((0.5, 0.5), (0.75, 0.75), (1.0, 1.0))
    source = Source(
        "EfficientNetV2: Smaller Models and Faster Training",
        "arXiv 2104.00298, progressive learning",
        "sizes alone; the augmentation stays as it is",
    )
