"""``fair``: at every step each setting of a gene is trained equally often, and the weights move once for all."""

from __future__ import annotations

from collections.abc import Sequence

from nas.spaces.architecture import Architecture
from nas.spaces.operator_family import Source
from nas.training.recipe import Members, Moment, recipes


@recipes.register("fair")
class Fair(Members):
    """As many members as the gene with most settings has, whose settings are drawn without replacement; their gradients are summed."""

    source = Source(
        "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search",
        "arXiv 1907.01845, algorithm 1",
        "a gene with fewer settings than that is fair over consecutive steps, not within one",
    )

    def members(self, moment: Moment) -> Sequence[Architecture]:
        """See `Members.members`."""
        return list(moment.draw(moment.step, max(len(choice.values) for choice in moment.space.choices)))
