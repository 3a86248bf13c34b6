"""What shared weights say of a member: how often it is right, and what its features are worth to a classifier of its own.

The shared classifier is trained for all members at once and fits none. One that is solved for in closed form shows what a member's features hold, and its
squared error tells members apart where so many right answers do not (``experiments/029_supernet_ranking``: τ .46 for .10 on NAS-Bench-201).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.training.supernet.batches import Batches
from nas.training.supernet.statistics import calibration_indices
from nas.training.supernet.weights import Path

FITTED_PICTURES = 2048
"""Training pictures that a member's own classifier is fitted to. Set by hand."""

_DECAY = 1e-2
"""Ridge of that classifier, by the mean square of its features. Set by hand."""

_BATCH = 256  # by hand


@dataclass(frozen=True, slots=True)
class SharedScores:
    """Scores of a member with shared weights, on the same pictures; higher is better.

    Attributes:
        accuracy_pct: Share of the pictures whose class it names, in percent.
        explained: Share of the variance of the classes (one-hot) that a linear classifier on its features explains; below 0 where the mean explains more. Of
            pictures of one class, which have no variance, the mean squared error times -1.
    """

    accuracy_pct: float
    explained: float


@torch.no_grad()
def shared_scores(path: Path, train: Batches, scored: Batches) -> SharedScores:
    """Score a member whose batch norms are recalibrated.

    Args:
        path: The member, in evaluation mode.
        train: The pictures that its own classifier is fitted to, `FITTED_PICTURES` of them.
        scored: The pictures that are scored.

    Source:
        The classifier is a linear probe (Alain and Bengio, arXiv 1610.01644) by ridge regression on one-hot labels; its error is Brier's score.
    """
    indices = calibration_indices(train, FITTED_PICTURES)
    fitted, _ = _answers(path, train, indices)
    features, answers = _answers(path, scored, torch.arange(len(scored)))
    classes = answers.shape[1]
    mean, spread = fitted.mean(0), fitted.std(0).clamp(min=1e-6)
    weight, bias = ridge((fitted - mean) / spread, F.one_hot(train.labels[indices], classes).double(), _DECAY)
    known = F.one_hot(scored.labels, classes).double()
    error = float((((features - mean) / spread @ weight + bias - known) ** 2).sum(1).mean())
    variance = float(((known - known.mean(0)) ** 2).sum(1).mean())
    return SharedScores(
        100 * float((answers.argmax(1).cpu() == scored.labels).double().mean()),
        1 - error / variance if variance else -error,
    )


def ridge(x: Tensor, y: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Solve for a linear layer.

    Args:
        x: Its inputs, shape (n, features), float64.
        y: What it should answer, shape (n, classes).
        decay: Penalty, as a share of the inputs' mean square about their mean.

    Returns:
        Weight (features, classes) and bias (classes,).
    """
    mean, target = x.mean(0), y.mean(0)
    centred = x - mean
    gram = centred.T @ centred / len(x)
    damping = decay * float(gram.diagonal().mean().clamp(min=1e-12))
    weight = torch.linalg.solve(gram + damping * torch.eye(len(gram), dtype=gram.dtype), centred.T @ (y - target) / len(x))
    return weight, target - mean @ weight


def _answers(path: Path, batches: Batches, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a member gives its classifier, shape (n, features) in float64 on the processor, and what that answers, shape (n, classes)."""
    with inputs_of(classifier_of(path)) as features:
        answers = torch.cat([path(x).float() for x, _ in batches.plain(_BATCH, indices)])
    return torch.cat(features).cpu(), answers


def classifier_of(path: Path) -> nn.Module:
    """Return the last linear layer of a member; a convolution of one pixel counts as one."""
    return [layer for layer in path.links[-1].module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Give a list of what a layer is given while the context lasts, each of shape (n, features) in float64."""
    given: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _module, args: given.append(args[0].flatten(1).double()))
    try:
        yield given
    finally:
        hook.remove()
