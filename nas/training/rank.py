"""How well scores with shared weights order networks that were trained alone.

Source:
    The protocol of "Evaluating the Search Phase of Neural Architecture Search" (Yu et al., arXiv 1902.08142): Kendall's τ
    between shared-weight and stand-alone accuracy, beside counts of parameters and MACs as baselines. The interval is a
    percentile bootstrap over networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.errors import UsageError
from nas.events import EventBus, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Baseline, Contestant, Ranking
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.training.dataset import Dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.supernet.finetune import finetune, fresh
from nas.training.supernet.train import Recipe
from nas.training.supernet.weights import Supernet

_RESAMPLES = 2000
_FEWEST_AT_THE_TOP = 3


def rank(
    space: ElasticSpace,
    supernet: Supernet,
    dataset: Dataset,
    folder: Path,
    recipe: Recipe,
    *,
    n: int,
    seed: int = 0,
    bus: EventBus | None = None,
) -> Ranking:
    """Train `n` random members alone at their proxy size, and compare the order; finished ones are kept in `folder`.

    Raises:
        UsageError: Fewer than three networks.
    """
    import time

    if n < 3:
        raise UsageError(f"rank: too few networks, got {n}. Expected at least 3.")
    bus, began_s = bus or EventBus(), time.monotonic()
    rng = np.random.default_rng([seed, 31])
    members: dict[str, Architecture] = {}
    while len(members) < n:
        architecture = space.sample(rng)
        members[architecture.key] = architecture
    evaluator = SupernetEvaluator(supernet, dataset)
    found: list[Contestant] = []
    bus.emit(PhaseStarted("rank", n, 0, f"{n} members of {space.name} trained alone on {dataset.name}"))
    for key, architecture in members.items():
        size = space.proxy(architecture, supernet.resolution)
        module = fresh(space, architecture, num_classes=dataset.num_classes, resolution=size, seed=seed)
        file = folder / f"{key}.safetensors"
        alone = finetune(module, architecture, dataset, file, recipe, resolution=size, seed=seed, device=str(supernet.device))
        cost = space.lower(architecture, size).cost
        shared = evaluator.evaluate(architecture).accuracy_pct
        found.append(
            Contestant(
                architecture=architecture.to_json(),
                alone_accuracy_pct=alone.validation_accuracy_pct,
                shared_accuracy_pct=shared,
                params=cost.params,
                macs=cost.macs,
            )
        )
        bus.emit(PhaseAdvanced("rank", len(found), {"alone_accuracy_pct": alone.validation_accuracy_pct, "shared_accuracy_pct": shared}))
    bus.emit(PhaseFinished("rank", time.monotonic() - began_s))
    return agreement(found, seed)


def agreement(found: Sequence[Contestant], seed: int = 0) -> Ranking:
    """Return how the orders agree; a coefficient is None where one side is constant or too few networks remain."""
    from scipy.stats import spearmanr

    alone = np.array([c.alone_accuracy_pct for c in found])
    shared = np.array([c.shared_accuracy_pct for c in found])
    top = alone >= np.quantile(alone, 0.9)
    counts = {name: np.array([float(getattr(c, name)) for c in found]) for name in ("params", "macs")}
    return Ranking(
        n=len(found),
        kendall=kendall(alone, shared),
        kendall_interval=bootstrap(lambda rows: kendall(alone[rows], shared[rows]), len(found), seed),
        spearman=_number(spearmanr(alone, shared).statistic) if np.ptp(alone) and np.ptp(shared) else None,
        top_tenth_kendall=kendall(alone[top], shared[top]) if top.sum() >= _FEWEST_AT_THE_TOP else None,
        baselines={name: Baseline(kendall=kendall(alone, count)) for name, count in counts.items()},
        networks=tuple(found),
    )


def kendall(a: np.ndarray[Any, np.dtype[np.float64]], b: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    """Return Kendall's τ-b of two orders; None where one of them is constant."""
    from scipy.stats import kendalltau

    return _number(kendalltau(a, b).statistic) if len(a) > 1 and np.ptp(a) > 0 and np.ptp(b) > 0 else None


def bootstrap(statistic: Callable[[np.ndarray[Any, np.dtype[np.int64]]], float | None], n: int, seed: int) -> tuple[float, float] | None:
    """Return the 5th and the 95th percentile of a statistic over resampled rows; None where it is never defined."""
    rng = np.random.default_rng([seed, 32])
    values = [value for _ in range(_RESAMPLES) if (value := statistic(rng.integers(n, size=n))) is not None]
    if not values:
        return None
    low, high = np.quantile(values, [0.05, 0.95])
    return float(low), float(high)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
