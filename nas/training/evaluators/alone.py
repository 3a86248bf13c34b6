"""``alone``: candidates in the order of training-free scores; the choice is trained by itself, from nothing."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from nas.errors import UsageError
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.spaces.space import Resolution
from nas.training.evaluator import Assignment, Need, evaluators, needed
from nas.training.evaluators.zero_cost import ZeroCost

if TYPE_CHECKING:
    from torch import nn


@evaluators.register("alone")
class Alone(ZeroCost):
    """Orders members as `ZeroCost` does; no weights are shared, so that all the time is for the one network that is chosen.

    Where pictures and minutes are few, that ends above a supernet and a fine-tuned member (``experiments/021_own_pictures``).
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"data"})
    fresh: ClassVar[bool] = True

    @classmethod
    def make(cls, assignment: Assignment) -> Alone:
        """Return the evaluator of a space whose members start with fresh weights.

        Raises:
            UsageError: The space's members have trained weights, or cannot be built.
        """
        needed(assignment, "alone", "data")
        if not isinstance(assignment.space, ElasticSpace) or isinstance(assignment.space, ChainSpace):
            raise UsageError(
                f"evaluator alone: trains no member of space {assignment.space.name} from nothing. Do this: --space residual-s, hybrid or vit-t."
            )
        return cls(assignment.space, assignment.seed, assignment.dataset)

    @cached_property
    def key(self) -> str:
        """That of the scores."""
        return f"alone-{super().key}"

    def module(self, architecture: Architecture, resolution: Resolution) -> nn.Module:
        """Return a member with weights that follow from the seed."""
        from nas.training.supernet.finetune import fresh

        assert self.dataset is not None
        return fresh(self.space, architecture, num_classes=self.dataset.num_classes, resolution=resolution, seed=self.seed)
