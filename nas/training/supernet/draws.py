"""Members drawn so that every setting of every gene is trained equally often."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace


def fair_members(space: ElasticSpace, seed: int, step: int, count: int) -> list[Architecture]:
    """Return members whose genes are drawn without replacement over consecutive steps; no state is kept.

    Source:
        FairNAS (arXiv 1907.01845); each gene by itself.
    """
    found = []
    for draw in range(step * count, (step + 1) * count):
        genes = []
        for i, choice in enumerate(space.choices):
            round_, place = divmod(draw, len(choice.values))
            genes.append(choice.values[_shuffled(seed, i, round_, len(choice.values))[place]])
        found.append(space.architecture(genes))
    return found


@lru_cache(maxsize=4096)
def _shuffled(seed: int, gene: int, round_: int, count: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.random.default_rng([seed, 13, gene, round_]).permutation(count))
