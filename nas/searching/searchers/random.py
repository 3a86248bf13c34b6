"""Random search: every gene uniform and independent, nothing twice, budgets kept."""

from nas.searching.searcher import searchers
from nas.searching.searchers._memory import RememberingSearcher
from nas.spaces.architecture import Architecture


@searchers.register("random")
class RandomSearch(RememberingSearcher):
    """Draws members until one is new and within budget.

    Source:
        Li and Talwalkar, "Random search and reproducibility for neural architecture search", UAI 2019.
    """

    def ask(self, number: int) -> Architecture | None:
        """Propose a draw."""
        rng = self.rng(number)
        return self.fresh(lambda: self.space.sample(rng), rng)
