"""``zero-cost``: a vote of training-free scores. It orders networks; it is no accuracy."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.space import Resolution, SearchSpace
from nas.training.evaluator import Assignment, Evaluator, Metrics, evaluators
from nas.training.score import Probe, scores, vote

if TYPE_CHECKING:
    import torch

    from nas.training.dataset import Dataset

VOTERS = ("naswot", "synflow", "expressivity", "progressivity", "trainability")
"""Whose sum of log ranks orders NAS-Bench-201 (experiments/020_training_free)."""
POOL = 24
"""Members among which a candidate is ranked. Set by hand."""
PICTURES = 32  # one batch; by hand
CLASSES = 10  # where there is no data; by hand
LARGEST: Resolution = (64, 64)
"""At which the largest members are scored; the scores need no detail. Set by hand."""


@evaluators.register("zero-cost")
class ZeroCost(Evaluator):
    """Ranks a fresh network by several scores among a pool of members of its space, drawn once, and adds the logarithms of its ranks.

    Args:
        space: Of the candidates; its members can be built.
        seed: Of the weights, the pictures and the pool.
        dataset: Pictures of its ``train`` split are shown; noise where there is none.
        voters: Names of scores.
    """

    scored: ClassVar[str] = "training-free rank"
    caution: ClassVar[str] = (
        f"the scores are ranks by training-free measures among {POOL} members of the space, in percent: they order networks and are no accuracy"
    )

    def __init__(self, space: SearchSpace, seed: int = 0, dataset: Dataset | None = None, voters: tuple[str, ...] = VOTERS) -> None:
        self.space, self.seed, self.dataset, self.voters = space, seed, dataset, voters
        self._known: dict[str, tuple[float, ...]] = {}

    @classmethod
    def make(cls, assignment: Assignment) -> ZeroCost:
        """Return the evaluator of a space whose members can be built."""
        return cls(assignment.space, assignment.seed, assignment.dataset)

    @cached_property
    def key(self) -> str:
        """Hash of space, seed, data and voters."""
        data = self.dataset.key if self.dataset is not None else ""
        facts = [self.space.name, self.space.version, self.seed, data, self.voters, POOL, PICTURES, LARGEST]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Return the share of the pool's ranks that the candidate reaches, the geometric mean over the scores, in percent."""
        own = self.measure(architecture)
        total = float(vote(np.array([own]), self._pool)[0]) / len(self.voters)
        named = {f"score_{name.replace('-', '_')}": value for name, value in zip(self.voters, own, strict=True) if np.isfinite(value)}
        return Metrics(100 * float(np.exp(min(total, 0.0))), "training-free", named)

    def measure(self, architecture: Architecture) -> tuple[float, ...]:
        """Return the scores of one architecture, in the order of `voters`; those of one network are measured once."""
        identity = self.space.identity(architecture)
        if identity not in self._known:
            probe = self.probe(architecture)
            self._known[identity] = tuple(scores.get(name)().measure(probe) for name in self.voters)
        return self._known[identity]

    def probe(self, architecture: Architecture) -> Probe:
        """Return what the scores look at: a fresh network, pictures, labels."""
        import torch

        size, num_classes = self._size(architecture), self.dataset.num_classes if self.dataset is not None else CLASSES

        def make() -> torch.nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                module: torch.nn.Module = self.space.build(architecture, num_classes=num_classes, resolution=size)
            return module.train()

        pictures, labels = self._pictures(size)
        return Probe(make, pictures, labels, self.space.lower(architecture, size).cost.macs)

    def _size(self, architecture: Architecture) -> Resolution:
        if isinstance(self.space, ElasticSpace):
            return self.space.proxy(architecture, LARGEST)
        graph = self.space.lower(architecture)
        height, width = graph.inputs[0].shape[2:]
        return min(height, LARGEST[0]), min(width, LARGEST[1])

    def _pictures(self, size: Resolution) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if self.dataset is not None:
            from nas.training.supernet.batches import Batches

            batches = Batches(self.dataset, "train", size, torch.device("cpu"))
            indices = torch.from_numpy(np.random.default_rng([self.seed, 41]).permutation(self.dataset.count("train"))[:PICTURES])
            return next(iter(batches.plain(PICTURES, indices)))
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(PICTURES, 3, *size, generator=generator), torch.arange(PICTURES) % CLASSES

    @cached_property
    def _pool(self) -> npt.NDArray[np.float64]:
        rng = np.random.default_rng([self.seed, 42])
        return np.array([self.measure(self.space.sample(rng)) for _ in range(POOL)])
