"""``shared-batch``: several members a step, each on a share of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nas.spaces.architecture import Architecture
from nas.spaces.operator_family import Source
from nas.training.recipe import Members, Moment, recipes


@recipes.register("shared-batch")
class SharedBatch(Members):
    """Two more members than the random ones of a step; each sees a share of the pictures, so that a step costs one pass over the batch."""

    shares: ClassVar[bool] = True
    source = Source(
        "Searching for Efficient Multi-Stage Vision Transformers (ViT-ResNAS)",
        "arXiv 2109.00642, multi-architectural sampling",
        "settings are drawn without replacement over the steps",
    )

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        return list(moment.draw(moment.step, 2 + moment.count))
