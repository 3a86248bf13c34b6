"""Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.searching.searcher import searchers
from nas.searching.searchers._optuna import OptunaSearcher

if TYPE_CHECKING:
    import optuna


@searchers.register("tpe")
class TPE(OptunaSearcher):
    """Multivariate: genes are not taken as independent.

    Source:
        Bergstra et al., "Algorithms for hyper-parameter optimization", NIPS 2011; Watanabe, arXiv:2304.11127.
    """

    most = 1000

    def sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Return a fresh sampler."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, multivariate=True, constant_liar=False)
