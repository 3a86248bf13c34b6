"""``sandwich``: the largest, the smallest and random members at every step; the default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from nas.spaces.architecture import Architecture
from nas.spaces.operator_family import Source
from nas.training.recipe import Members, Moment, recipes


@recipes.register("sandwich")
class Sandwich(Members):
    """One member with every ordered gene at its upper end, one at its lower, and random ones.

    Genes without an order (which operator) have no ends and are drawn for all of them.
    """

    teaches: ClassVar[bool] = True
    source = Source(
        "BigNAS: Scaling Up Neural Architecture Search with Big Single-Stage Models",
        "arXiv 2003.11142",
        "random members draw every setting equally often",
    )

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        space = moment.space
        drawn = list(moment.draw(moment.step, 2 + moment.count))
        return [space.at_end(drawn[0], -1), space.at_end(drawn[1], 0), *drawn[2:]]
