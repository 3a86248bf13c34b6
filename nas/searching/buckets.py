"""Members of a space drawn evenly over the milliseconds that they take, for a training that is to serve every latency alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.searching.judge import Judge
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace

POOL = 192
"""Members that are priced and drawn from. Set by hand."""

BUCKETS = 8  # by hand


class LatencyBuckets:
    """A pool of members, sorted into buckets of equal width in milliseconds on the first device.

    Args:
        space: Whose members; they are drawn without their precisions, which training does not know.
        judge: Prices them.
        seed: Of the pool and of the draws.

    Source:
        SN-Netv2 (arXiv 2307.00154, section 3.3) draws stitches by bucket of FLOPs; differs in that buckets are of milliseconds.
    """

    def __init__(self, space: ElasticSpace, judge: Judge, seed: int) -> None:
        self._space, self._seed = space, seed
        rng = np.random.default_rng([seed, 31])
        pool = list({member.key: member for member in (space.sample(rng) for _ in range(POOL))}.values())
        device = judge.targets[0].profile.name
        latency = np.array([verdict.estimates[device].latency_ms for verdict in judge.verdicts(pool)])
        edges = np.linspace(latency.min(), latency.max(), BUCKETS + 1)[1:-1]
        places = np.searchsorted(edges, latency)
        self._buckets = [[space.without_precisions(pool[i]) for i in np.flatnonzero(places == bucket)] for bucket in range(BUCKETS)]
        self._buckets = [bucket for bucket in self._buckets if bucket]

    def draw(self, step: int, count: int) -> Sequence[Architecture]:
        """Return members of a training step, each from a bucket that is as likely as any other; they follow from seed and step alone."""
        rng = np.random.default_rng([self._seed, 32, step])
        chosen = [self._buckets[rng.integers(len(self._buckets))] for _ in range(count)]
        return [bucket[rng.integers(len(bucket))] for bucket in chosen]
