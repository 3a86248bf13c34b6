"""``single-path``: one random member a step."""

from __future__ import annotations

from collections.abc import Sequence

from nas.spaces.architecture import Architecture
from nas.spaces.operator_family import Source
from nas.training.recipe import Members, Moment, recipes


@recipes.register("single-path")
class SinglePath(Members):
    """A member drawn uniformly."""

    source = Source(
        "Single Path One-Shot Neural Architecture Search with Uniform Sampling",
        "arXiv 1904.00420",
        "settings are drawn without replacement over the steps",
    )

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        return list(moment.draw(moment.step, 1))
