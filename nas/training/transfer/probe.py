"""What a trained network's features are worth on other pictures: a linear classifier on them, everything else frozen.

Source:
    Linear probes: Alain and Bengio, arXiv 1610.01644; to start fine-tuning from one: Kumar et al., "Fine-tuning can distort pretrained features
    and underperform out-of-distribution", arXiv 2202.10054.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nas.errors import ArtifactError
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset
from nas.training.supernet.batches import Batches

_BATCH = 64  # by hand
PENALTIES = (1e-4, 1e-3, 1e-2)
"""Inverse strengths of the L2 penalty on standardised features; the one that is best by cross-validation on *train* is taken. Set by hand."""

_FOLDS, _FEW_CLASSES = 5, 20
"""Folds; classes up to which the penalty is chosen by all of them, and by one for more, whose fits take seconds each. Set by hand."""

Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Pictures that are fitted, and those that are judged."""

_ITERATIONS = 100  # scikit-learn's default


@dataclass(frozen=True, slots=True)
class Probe:
    """A linear classifier on frozen features.

    Attributes:
        weight: Shape (classes, features).
        bias: Shape (classes,).
        right: For each scored validation picture, whether its class is named.
        crossed: For each fitted training picture, whether its class is named by a probe that was fitted to the other folds; empty where no two classes have two pictures.
        seconds: Of the forward runs.
    """

    weight: Tensor
    bias: Tensor
    right: npt.NDArray[np.bool_]
    crossed: npt.NDArray[np.bool_]
    seconds: float

    @property
    def accuracy_pct(self) -> float:
        """On validation."""
        return 100 * float(self.right.mean())

    def install(self, layer: nn.Linear) -> None:
        """Give a classifier these weights."""
        with torch.no_grad():
            layer.weight.copy_(self.weight)
            layer.bias.copy_(self.bias)


def probe(
    network: nn.Module,
    classifier: str,
    train: Batches,
    validation: Batches,
    *,
    pictures: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Probe:
    """Fit a linear classifier to a network's features, and score it.

    Args:
        network: With trained weights and norm statistics, which are left as they are; ``experiments/021_own_pictures/norms.py`` compares that with
            statistics taken anew.
        classifier: Name of its last linear layer.
        train: The pictures that are fitted.
        validation: The pictures that are scored, all of them.
        pictures: Fit no more than so many training pictures, the same for every network; None fits all.
        advance: Told of the number of pictures seen after each batch.
    """
    began_s = time.monotonic()
    chosen = _some(train, pictures)
    done = 0

    def count(batch: int) -> None:
        nonlocal done
        done += batch
        if advance:
            advance(done)

    fitted = features(network, classifier, train, chosen, count)
    scored = features(network, classifier, validation, torch.arange(len(validation)), count)
    seconds = time.monotonic() - began_s
    weight, bias, crossed = fit_linear(fitted, train.labels[chosen].numpy(), train.dataset.num_classes)
    right = (scored @ weight.T + bias).argmax(1).numpy() == validation.labels.numpy()
    return Probe(weight, bias, right, crossed, seconds)


def _some(batches: Batches, pictures: int | None) -> Tensor:
    if pictures is None or pictures >= len(batches):
        return torch.arange(len(batches))
    return torch.from_numpy(np.sort(np.random.default_rng(29).permutation(len(batches))[:pictures]))


def features(
    network: nn.Module, classifier: str, batches: Batches, indices: Tensor, advance: Callable[[int], None] | None = None
) -> Tensor:
    """Return what a network gives its classifier for some pictures: shape (len(indices), features)."""
    parts: list[Tensor] = []
    network.eval()
    hook = network.get_submodule(classifier).register_forward_pre_hook(lambda _module, args: parts.append(args[0].detach().float().cpu()))
    try:
        with torch.no_grad():
            for x, _ in batches.plain(_BATCH, indices):
                network(x)
                if advance:
                    advance(len(x))
    finally:
        hook.remove()
    return torch.cat(parts)


def fit_linear(x: Tensor, labels: npt.NDArray[np.int64], classes: int) -> tuple[Tensor, Tensor, npt.NDArray[np.bool_]]:
    """Fit a multinomial logistic regression with an L2 penalty on standardised features.

    Args:
        x: Shape (n, features).
        labels: Shape (n,); every class is among them.
        classes: Their number.

    Returns:
        Weight (classes, features) and bias (classes,) on the features as they are; and for each picture whether its class is named by a fit to the other folds,
        empty where no two classes have two pictures.
    """
    from sklearn.model_selection import StratifiedKFold

    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-4)
    z = ((x - mean) / deviation).numpy()
    folds = min(_FOLDS, int(np.sort(np.bincount(labels, minlength=classes))[-2]))  # so that every fit has two classes
    best, crossed = PENALTIES[1], np.zeros(0, bool)
    if folds > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer pictures than folds: it is missing in some
            splits = list(StratifiedKFold(folds, shuffle=True, random_state=5).split(z, labels))
        telling = splits if classes <= _FEW_CLASSES else splits[:1]
        right = {c: [_crossed(z, labels, c, split) for split in telling] for c in PENALTIES}
        best = max(right, key=lambda c: (np.concatenate(right[c]).mean(), -c))
        crossed = np.zeros(len(z), bool)
        for split, named in zip(
            splits, [*right[best], *(_crossed(z, labels, best, split) for split in splits[len(telling) :])], strict=True
        ):
            crossed[split[1]] = named
    model = _logistic(z, labels, best)
    coefficients, intercept = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if classes == 2:  # one row stands for the difference of two
        coefficients, intercept = torch.cat([-coefficients, coefficients]) / 2, torch.cat([-intercept, intercept]) / 2
    weight = coefficients / deviation
    return weight, intercept - weight @ mean, crossed


def _crossed(z: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], c: float, split: Fold) -> npt.NDArray[np.bool_]:
    """Return whether the classes of a fold are named by a fit to the others."""
    fitted, held = split
    named: npt.NDArray[np.bool_] = _logistic(z[fitted], labels[fitted], c).predict(z[held]) == labels[held]
    return named


def _logistic(z: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], c: float):  # type: ignore[no-untyped-def]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the penalty is chosen by accuracy; the last digits of a fit change nothing
        return LogisticRegression(C=c, max_iter=_ITERATIONS).fit(z, labels)


def probed(network: nn.Module, classifier: str, fitted: Probe) -> nn.Module:
    """Return a copy of a network with a probe as its classifier, in evaluation mode: what fine-tuning starts from."""
    ready = copy.deepcopy(network)
    layer = ready.get_submodule(classifier)
    assert isinstance(layer, nn.Linear)
    fitted.install(layer)
    return ready.eval()


def scores_of(network: nn.Module, dataset: Dataset, size: Resolution, device: str = "cpu") -> Tensor:
    """Return a network's scores of the training pictures as they are, (n, classes)."""
    train = Batches(dataset, "train", size, torch.device(device))
    with torch.no_grad():
        return torch.cat([network.eval()(x).float().cpu() for x, _ in train.plain(_BATCH)])


def write_probe(path: Path, fitted: Probe) -> None:
    """Write a probe to a safetensors file, in one step."""
    from safetensors.torch import save

    tensors = {
        "weight": fitted.weight.contiguous(),
        "bias": fitted.bias.contiguous(),
        "right": torch.from_numpy(fitted.right.astype(np.uint8)),
        "crossed": torch.from_numpy(fitted.crossed.astype(np.uint8)),
    }
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(save(tensors, {"seconds": repr(fitted.seconds)}))
    part.replace(path)


def read_probe(path: Path) -> Probe:
    """Read what `write_probe` wrote.

    Raises:
        ArtifactError: Damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            weight, bias, right = (file.get_tensor(name) for name in ("weight", "bias", "right"))
            crossed = file.get_tensor("crossed") if "crossed" in file.keys() else torch.zeros(0)  # noqa: SIM118 - of a version before: no mapping
            seconds = float((file.metadata() or {})["seconds"])
            return Probe(weight, bias, right.numpy().astype(bool), crossed.numpy().astype(bool), seconds)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ArtifactError(f"probe {path}: damaged ({' '.join(str(error).split())[:200]}). Do this: remove it, and resume.") from None
