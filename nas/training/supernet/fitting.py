"""First weights of a space of trained networks: classifiers and stitches by least squares, inner channels in order of importance.

The answer without training: anchors run once over some training pictures, everything that is new is solved for, and each member's batch norms
are recalibrated when it is scored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.events import EventBus, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace, Segment, Stitch
from nas.spaces.elastic import Part
from nas.spaces.surgery.narrowing import Channels, coupled_channels, reorder
from nas.spaces.surgery.stitching import RIDGE, StitchFit, StitchLayer, similarity
from nas.training.importance import Follows, importances
from nas.training.supernet.batches import Batches
from nas.training.supernet.scores import inputs_of, ridge
from nas.training.supernet.statistics import CALIBRATION_PICTURES, calibration_indices, pictures, recalibrate
from nas.training.supernet.weights import Path, Supernet

_BATCH, _PIECE = 64, 16  # by hand
IMPORTANCE_PICTURES = 512
"""Training pictures on which an importance follows gradients. Set by hand."""

ALIKE_PICTURES = 256
"""Training pictures on which points of anchors are compared. Set by hand."""

CLASSIFIER_PICTURES = 4096
"""Training pictures that a new classifier is fitted to. Set by hand."""

_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Ridges of a classifier, by the mean square of its features; the one that is best on a held-out fifth is taken. Set by hand."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was found while fitting.

    Attributes:
        explained: Share of the target's variance that each stitch explains, by slot.
        classifier_pct: Accuracy of each anchor's new classifier on training pictures held out, by anchor.
    """

    explained: Mapping[str, float]
    classifier_pct: Mapping[str, float]


def fit(
    supernet: Supernet, train: Callable[[tuple[int, int]], Batches], bus: EventBus | None = None, *, match_variance: bool = False
) -> Fitted:
    """Set the weights of classifiers and stitches, and put inner channels in order; anchors compute what they computed.

    Args:
        supernet: Of a `ChainSpace`, with fresh weights where nothing was trained.
        train: Gives the training pictures at a resolution.
        bus: Told of the progress.
        match_variance: See `nas.spaces.surgery.stitching.StitchFit.solve`.

    Source:
        SN-Net (arXiv 2302.06586) for stitches; BN recalibration as in `nas.training.supernet.statistics`.
    """
    space = supernet.space
    assert isinstance(space, ChainSpace)
    bus = bus or EventBus()
    stages = len(space.anchors) + 2
    bus.emit(PhaseStarted("fit", stages, 0, f"classifiers and stitches of {space.name}"))
    began_s = time.monotonic()
    members = {chain.name: space.member(chain.name) for chain in space.anchors}
    batches = {name: train(space.proxy(member, supernet.resolution)) for name, member in members.items()}
    paths = {name: anchor_path(supernet, member, batches[name])[0] for name, member in members.items()}
    accuracies: dict[str, float] = {}
    for i, (name, member) in enumerate(members.items()):
        found = fit_classifier(supernet, member, batches[name], paths[name])
        if found is not None:
            accuracies[name] = found
        bus.emit(PhaseAdvanced("fit", 1 + i, {"classifier_pct": accuracies.get(name, math.nan)} if name in accuracies else {}))
    sort_channels(supernet, batches)  # what the anchors compute, and so what stitches are fitted to, stays the same
    bus.emit(PhaseAdvanced("fit", stages - 1, {}))
    explained = fit_stitches(supernet, batches, paths, match_variance=match_variance)
    bus.emit(PhaseAdvanced("fit", stages, {"stitches": float(len(explained))}))
    bus.emit(PhaseFinished("fit", time.monotonic() - began_s))
    return Fitted(explained, accuracies)


def sort_channels(supernet: Supernet, batches: Mapping[str, Batches]) -> None:
    """Put the inner channels of every block in order of the space's importance, the most important first; stems and heads are never narrowed.

    Args:
        supernet: Whose segments are sorted; what they compute stays the same.
        batches: Training pictures by anchor, for importances that follow gradients.
    """
    space = supernet.space
    assert isinstance(space, ChainSpace)
    method = importances.get(space.importance)()
    for chain in space.anchors:
        member = space.member(chain.name)
        parts = dict(enumerate(space.parts(member, space.proxy(member, supernet.resolution), supernet.num_classes)[:-1]))
        del parts[0]
        found: dict[tuple[int, int], Tensor] = {}
        steps: Iterable[dict[int, dict[str, Tensor]]] = (
            [{}] if method.follows == "nothing" else _gradients(supernet, member, batches[chain.name], method.follows)
        )
        for gradients in steps:
            for i, part in parts.items():
                tensors, sets = _inner(supernet, part)
                for j, channels in enumerate(sets):
                    scores = method.scores(tensors, gradients.get(i, {}), channels)
                    found[i, j] = found[i, j] + scores if (i, j) in found else scores
        for i, part in parts.items():
            tensors, sets = _inner(supernet, part)
            for j, channels in enumerate(sets):
                reorder(tensors, channels, found[i, j])


def _inner(supernet: Supernet, part: Part) -> tuple[dict[str, Tensor], tuple[Channels, ...]]:
    """Return a segment's shared weights with copies of its statistics (members take theirs anew), and its sets of inner channels."""
    assert isinstance(part, Segment)
    module = part.chain.cuts.segment(part.first, part.last)
    tensors = {name: buffer.clone() for name, buffer in module.named_buffers()}
    names = (name for name, _ in module.named_parameters())
    tensors |= {name: supernet.tensors[key] for name in names if (key := f"{part.slot}/{name}") in supernet.tensors}
    return tensors, coupled_channels(module)


def _gradients(supernet: Supernet, member: Architecture, train: Batches, follows: Follows) -> Iterator[dict[int, dict[str, Tensor]]]:
    """Yield, for each batch, the gradients of an anchor's weights by part and name; a batch is run in pieces, since gradients keep every activation."""
    path = supernet.path(member, gradients=True)
    recalibrate(path, pictures(train.plain(_BATCH, calibration_indices(train, CALIBRATION_PICTURES))))
    indices = calibration_indices(train, IMPORTANCE_PICTURES)
    for batch in indices.split(_BATCH):
        for x, labels in train.plain(_PIECE, batch):
            scores = path(x).float()
            (F.cross_entropy(scores, labels if follows == "loss" else scores.softmax(1), reduction="sum") / len(batch)).backward()
        yield {i: {name: leaf.grad for name, leaf in own.items() if leaf.grad is not None} for i, own in enumerate(path.weights)}
        for own in path.weights:
            for leaf in own.values():
                leaf.grad = None


def anchor_path(
    supernet: Supernet, member: Architecture, train: Batches, count: int = CALIBRATION_PICTURES
) -> tuple[Path, tuple[Part, ...]]:
    """Return a member with statistics of these pictures, in evaluation mode, and its parts."""
    path = supernet.path(member)
    recalibrate(path, pictures(train.plain(_BATCH, calibration_indices(train, count))))
    size = supernet.space.proxy(member, supernet.resolution)
    return path, supernet.space.parts(member, size, supernet.num_classes)


def after_each_part(path: Path, x: Tensor) -> Iterator[Tensor]:
    """Yield what a path makes after each of its parts."""
    from torch.func import functional_call

    for link, weights in zip(path.links, path.weights, strict=True):
        x = functional_call(link.module, weights, (x,), tie_weights=False)
        yield x


@torch.no_grad()
def fit_classifier(supernet: Supernet, member: Architecture, train: Batches, path: Path) -> float | None:
    """Fit a new classifier to the features of an anchor; None where it has its own.

    Args:
        supernet: Whose classifier is set.
        member: The anchor.
        train: Training pictures.
        path: The anchor with statistics of them.

    Returns:
        Its accuracy in percent on a fifth of the pictures, from a fit to the others.

    Source:
        Ridge regression on one-hot labels, then a scale that makes the scores likely: a linear probe (Alain and Bengio, arXiv 1610.01644).
    """
    head = supernet.space.parts(member, supernet.space.proxy(member, supernet.resolution), supernet.num_classes)[-1]
    assert isinstance(head, Segment)
    if not head.classes:
        return None
    indices = calibration_indices(train, CLASSIFIER_PICTURES)
    labels = train.labels[indices]
    with inputs_of(path.links[-1].module.get_submodule(head.classifier)) as features:
        for x in pictures(train.plain(_BATCH, indices)):
            path(x)
    x, y = torch.cat(features).cpu(), F.one_hot(labels, supernet.num_classes).double()
    held = torch.from_numpy(np.random.default_rng(5).permutation(len(x)) % 5 == 0)
    scores = {decay: ridge(x[~held], y[~held], decay) for decay in _DECAYS}
    right = {decay: float(((x[held] @ w + b).argmax(1) == labels[held]).double().mean()) for decay, (w, b) in scores.items()}
    decay = max(right, key=lambda value: (right[value], value))
    weight, bias = ridge(x, y, decay)
    w, b = scores[decay]
    scale = _scale(x[held] @ w + b, labels[held])
    own = supernet.tensors[f"{head.slot}/{head.classifier}.weight"]
    own.copy_((scale * weight.T).reshape(own.shape))
    supernet.tensors[f"{head.slot}/{head.classifier}.bias"].copy_(scale * bias)
    return 100 * right[decay]


def _scale(scores: Tensor, labels: Tensor) -> float:
    """Return the factor on the scores that makes the labels most likely."""
    return min((float(s) for s in 2.0 ** torch.arange(0, 7)), key=lambda s: float(F.cross_entropy(s * scores, labels)))


@torch.no_grad()
def fit_stitches(
    supernet: Supernet,
    batches: Mapping[str, Batches],
    paths: Mapping[str, Path],
    *,
    ridge: float = RIDGE,
    match_variance: bool = False,
    count: int = CALIBRATION_PICTURES,
) -> dict[str, float]:
    """Solve for every stitch, all anchors running over the same pictures; return the share of variance that each explains.

    Args:
        supernet: Whose stitches are set.
        batches: Training pictures by anchor.
        paths: Anchors with statistics of them.
        ridge: See `nas.spaces.surgery.stitching.RIDGE`.
        match_variance: See `nas.spaces.surgery.stitching.StitchFit.solve`.
        count: Pictures.
    """
    space = supernet.space
    assert isinstance(space, ChainSpace)
    stitches = [parts[0] for parts in space.slots(supernet.resolution, supernet.num_classes).values() if isinstance(parts[0], Stitch)]
    if not stitches:
        return {}
    fits = {stitch.slot: StitchFit(_layer(stitch)) for stitch in stitches}
    first = next(iter(batches.values()))
    streams = [pictures(found.plain(_BATCH, calibration_indices(first, count))) for found in batches.values()]
    for many in zip(*streams, strict=True):
        made = {name: list(after_each_part(path, x)) for (name, path), x in zip(paths.items(), many, strict=True)}
        for stitch in stitches:
            (a, i), (b, j) = stitch.source, stitch.target
            fits[stitch.slot].add(made[a][i], made[b][j])
    explained = {}
    for slot, found in fits.items():
        explained[slot] = found.solve(ridge, match_variance)
        for name, value in found.layer.named_parameters():
            supernet.tensors[f"{slot}/{name}"].copy_(value)
    return explained


def _layer(stitch: Stitch) -> StitchLayer:
    module = stitch.build()
    assert isinstance(module, StitchLayer)
    return module


def match_penultimate(
    supernet: Supernet, stitch: Stitch, batches: Mapping[str, Batches], *, steps: int = 60, learning_rate: float = 1e-3, count: int = 512
) -> tuple[float, float]:
    """Train one stitch so that the target ends, before its classifier, where it would have ended by itself.

    Least squares at the point itself weighs every channel alike; a shallow point needs those that matter later.

    Args:
        supernet: Whose stitch is trained; everything else stays.
        stitch: Started by least squares.
        batches: Training pictures by anchor.
        steps: Of Adam.
        learning_rate: Of Adam.
        count: Pictures.

    Returns:
        The mean squared difference by the variance, before and after.
    """
    space = supernet.space
    assert isinstance(space, ChainSpace)
    (a, i), (b, j) = stitch.source, stitch.target
    paths = {name: anchor_path(supernet, space.member(name), batches[name]) for name in (a, b)}
    layer = _layer(stitch)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.copy_(supernet.tensors[f"{stitch.slot}/{name}"])
    target, parts = paths[b]
    head = parts[-1]
    assert isinstance(head, Segment)
    rest = Path(target.links[j + 1 :], target.weights[j + 1 :])
    classifier = rest.links[-1].module.get_submodule(head.classifier)
    seen: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _module, args: seen.append(args[0].flatten(1)))
    pairs: list[tuple[Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            indices = calibration_indices(batches[a], count)
            streams = [pictures(batches[name].plain(_BATCH, indices)) for name in (a, b)]
            for x, y in zip(*streams, strict=True):
                source = next(made for at, made in enumerate(after_each_part(paths[a][0], x)) if at == i)
                seen.clear()
                target(y)
                pairs.append((source, seen[-1]))
        variance = torch.cat([features for _, features in pairs]).var(0).mean().clamp(min=1e-12)

        def loss(pair: tuple[Tensor, Tensor]) -> Tensor:
            seen.clear()
            rest(layer(pair[0]))
            return (seen[-1] - pair[1]).square().mean() / variance

        before, after = _descended(layer, loss, pairs, steps, learning_rate)
    finally:
        hook.remove()
    if after < before:
        with torch.no_grad():
            for name, tensor in layer.named_parameters():
                supernet.tensors[f"{stitch.slot}/{name}"].copy_(tensor)
    return before, min(before, after)


def _descended(
    layer: nn.Module,
    loss: Callable[[tuple[Tensor, Tensor]], Tensor],
    pairs: Sequence[tuple[Tensor, Tensor]],
    steps: int,
    learning_rate: float,
) -> tuple[float, float]:
    """Train a layer by Adam; return the mean loss of the pairs before and after."""

    def mean() -> float:
        with torch.no_grad():
            return sum(float(loss(pair)) for pair in pairs) / len(pairs)

    before, optimizer = mean(), torch.optim.Adam(layer.parameters(), learning_rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss(pairs[step % len(pairs)]).backward()
        optimizer.step()
    return before, mean()


@torch.no_grad()
def alikeness(supernet: Supernet, batches: Mapping[str, Batches], count: int = ALIKE_PICTURES) -> dict[str, float]:
    """Return how alike both ends of every stitch are: linear CKA of what the anchors make of the same pictures, by slot."""
    space = supernet.space
    assert isinstance(space, ChainSpace)
    made: dict[str, list[list[Tensor]]] = {}
    for chain in space.anchors:
        path, _ = anchor_path(supernet, space.member(chain.name), batches[chain.name], count)
        for x in pictures(batches[chain.name].plain(_BATCH, calibration_indices(batches[chain.name], count))):
            made.setdefault(chain.name, []).append([_pooled(y) for y in after_each_part(path, x)])
    features = {name: [torch.cat(parts) for parts in zip(*rows, strict=True)] for name, rows in made.items()}
    found = {}
    for slot, (stitch, *_) in space.slots(supernet.resolution, supernet.num_classes).items():
        if isinstance(stitch, Stitch):
            (a, i), (b, j) = stitch.source, stitch.target
            found[slot] = similarity(features[a][i], features[b][j])
    return found


def _pooled(x: Tensor) -> Tensor:
    """Return maps pooled to 4 × 4 at most: their kernels hardly differ from those of all positions."""
    return F.adaptive_avg_pool2d(x, min(4, *x.shape[2:])) if x.ndim == 4 else x


def held_slots(supernet: Supernet) -> Tensor:
    """Return which weights are anchors' own, shape of `Supernet.flat`: what does not move when anchors are frozen."""
    space = supernet.space
    mask = torch.zeros_like(supernet.flat, dtype=torch.bool)
    whole = {slot for slot, parts in space.slots(supernet.resolution, supernet.num_classes).items() if _is_anchors_own(parts[0])}
    base = supernet.flat.data_ptr()
    for name, tensor in supernet.tensors.items():
        if name.rpartition("/")[0] in whole:
            start = (tensor.data_ptr() - base) // tensor.element_size()
            mask[start : start + tensor.numel()] = True
    return mask


def _is_anchors_own(part: Part) -> bool:
    return isinstance(part, Segment) and not part.edited and not part.classes
