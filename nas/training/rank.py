"""How well scores order networks whose accuracy is known.

Source:
    The protocol of "Evaluating the Search Phase of Neural Architecture Search" (Yu et al., arXiv 1902.08142): Kendall's τ between the score
    and the accuracy of networks trained alone. Baselines that cost nothing stand beside it, as "NAS evaluation is frustratingly hard" (Yang et
    al., arXiv 1912.12522) asks; intervals are percentile bootstraps over networks, the same resamples for every score, so that differences are paired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError
from nas.results import Agreement
from nas.spaces.architecture import Architecture
from nas.spaces.space import Resolution, SearchSpace
from nas.training.note import noted

if TYPE_CHECKING:
    from nas.training.dataset import Dataset
    from nas.training.supernet.train import Recipe

RESAMPLES = 2000  # by hand: as for latencies' scores
FEWEST_AT_THE_TOP = 3  # by hand
Values = npt.NDArray[np.float64]


def train_alone(
    space: SearchSpace,
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    folder: Path,
    *,
    size: Resolution,
    seed: int,
    device: str,
) -> float:
    """Return the validation accuracy of a member trained from fresh weights, in percent.

    What it was trained on and how is in the name of its files in `folder`: the same training is done once, an interrupted one goes on, and another one
    (of other data, another seed, another recipe) stands beside it.

    Raises:
        ArtifactError: A file of `folder` is damaged.
        TrainingError: It diverged.
    """
    from nas.training.supernet.finetune import finetune, fresh

    settings = [architecture.to_json(), dataset.num_classes, list(size), dataset.key, seed, recipe.entries]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]
    note = folder / f"{architecture.key}-{digest}.json"

    def train() -> dict[str, object]:
        folder.mkdir(parents=True, exist_ok=True)
        module = fresh(space, architecture, num_classes=dataset.num_classes, resolution=size, seed=seed)
        trained = finetune(
            module, architecture, dataset, note.with_suffix(".safetensors"), recipe, resolution=size, seed=seed, device=device
        )
        return {"accuracy_pct": trained.validation_accuracy_pct, "settings": settings}

    known = noted(note, train)
    try:
        return float(known["accuracy_pct"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"note {note}: has no accuracy ({error!r}). Do this: remove it; its network is trained again.") from None


def agreements(
    accuracy_pct: Values, scores: Mapping[str, Values], baselines: Mapping[str, Values], seed: int = 0
) -> tuple[dict[str, Agreement], dict[str, Agreement]]:
    """Return how each score and each baseline orders the networks; a figure is None where one side is constant or too few networks remain.

    Args:
        accuracy_pct: Of the networks, shape (n,).
        scores: By name, shape (n,); higher is better.
        baselines: Likewise.
        seed: Of the resamples.
    """
    n = len(accuracy_pct)
    rows = np.random.default_rng([seed, 32]).integers(n, size=(RESAMPLES, n))
    comparison = _Comparison(accuracy_pct, rows)
    resampled = {name: comparison.resampled_kendall(values) for name, values in {**scores, **baselines}.items()}
    known = [resampled[name] for name in baselines if np.isfinite(resampled[name]).any()]
    best = np.max([np.where(np.isfinite(tau), tau, -1.0) for tau in known], axis=0) if known else None

    def above(name: str) -> float | None:
        defined = np.isfinite(resampled[name])
        return float(np.mean(resampled[name][defined] > best[defined])) if best is not None and defined.any() else None

    judged = {name: comparison.agreement(values, resampled[name], above(name)) for name, values in scores.items()}
    return judged, {name: comparison.agreement(values, resampled[name], None) for name, values in baselines.items()}


class _Comparison:
    """A known order, and the resamples in which others are held against it.

    Args:
        truth: Shape (n,).
        rows: Resamples × n.
    """

    def __init__(self, truth: Values, rows: npt.NDArray[np.int64]) -> None:
        self.truth, self.rows = truth, rows
        self.top = truth >= np.quantile(truth, 0.9)
        self.counts = np.stack([np.bincount(row, minlength=len(truth)) for row in rows]).astype(np.float32)

    def agreement(self, values: Values, resampled: Values, above: float | None) -> Agreement:
        """Return how well `values` order what is known."""
        rows, truth, top = self.rows, self.truth, self.top
        enough = int(top.sum()) >= FEWEST_AT_THE_TOP
        ranks, known = _ranks(values[rows]), _ranks(truth[rows])
        first = rows[np.arange(len(rows)), np.argmax(values[rows], axis=1)]
        return Agreement(
            n=len(truth),
            kendall=kendall(truth, values),
            kendall_interval=_interval(resampled),
            spearman=_number(_correlations(_ranks(values[None]), _ranks(truth[None]))[0]),
            spearman_interval=_interval(_correlations(ranks, known)),
            top_tenth_kendall=kendall(truth[top], values[top]) if enough else None,
            top_tenth_interval=_interval(_kendalls(truth[top], values[top], self.counts[:, top])) if enough else None,
            regret_points=float(truth.max() - truth[int(np.argmax(values))]),
            regret_interval=_interval(truth[rows].max(axis=1) - truth[first]),
            above_baselines=above,
        )

    def resampled_kendall(self, values: Values) -> Values:
        """Return Kendall's τ in each resample; NaN where it is undefined."""
        return _kendalls(self.truth, values, self.counts)


def kendall(a: Values, b: Values) -> float | None:
    """Return Kendall's τ-b of two orders; None where one of them is constant."""
    return _number(float(_kendalls(a, b, np.ones((1, len(a)), dtype=np.float32))[0]))


def _kendalls(a: Values, b: Values, counts: npt.NDArray[np.float32]) -> Values:
    """Return τ-b of samples that hold each network so many times, shape (samples,) of counts (samples, n).

    Copies of a network are tied with one another in both orders, so that a resample's sums over pairs are sums over pairs of networks times the counts.
    """
    ours, theirs = (np.sign(x[:, None] - x[None, :]).astype(np.float32) for x in (_ranks(a[None])[0], _ranks(b[None])[0]))

    def pairs(signs: npt.NDArray[np.float32]) -> Values:
        return np.asarray(np.einsum("sn,sn->s", counts @ signs, counts, dtype=np.float64), dtype=float)

    together, of_a, of_b = pairs(ours * theirs), pairs(ours * ours), pairs(theirs * theirs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((of_a > 0) & (of_b > 0), together / np.sqrt(of_a * of_b), np.nan)


def _ranks(values: Values) -> Values:
    """Return ranks along the last axis, ties at their mean."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=float)


def _correlations(a: Values, b: Values) -> Values:
    """Return Pearson's correlation of each pair of rows; NaN where a row is constant."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(scale > 0, (a * b).sum(axis=1) / scale, np.nan)


def _interval(values: Values) -> tuple[float, float] | None:
    """Return the 5th and the 95th percentile; None where the figure is never defined."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [0.05, 0.95])
    return float(low), float(high)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
