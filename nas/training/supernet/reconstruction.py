"""A member of trained networks follows them, without training: the last linear layer of each of its parts is solved for, one after another.

    anchor:  stem ─▶ block ───────▶ block ───────▶ block …   what the anchor makes here
    member:  stem ─▶ half as wide ─▶ (left out) ─▶ block …   is what the member should make here, from what it has

A part that was narrowed, merged or brought to lower rank, and every part after it, gets the linear layer at its end that brings the member nearest to the anchor at that point;
a part before blocks that are left out stands for them too; a stitch is solved for anew, with all parts after it. Inner weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace, Segment, Stitch
from nas.spaces.elastic import Part
from nas.spaces.space import Resolution
from nas.spaces.surgery.closing import Closing, closing_layer
from nas.training.dataset import Dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.statistics import calibration_indices, pictures, recalibrate
from nas.training.supernet.weights import Link, Path, Supernet

PICTURES = 512
"""Training pictures that layers are solved for with. Set by hand."""

POSITIONS = 32
"""Positions of a picture that are looked at, where it has more. Set by hand."""

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""How much a layer is held to what it was, as a share of the mean square of its inputs: that which is nearest to the anchor on batches left out is taken, the last where there is one batch
alone. Set by hand."""

HELD = 4
"""Every so many-th batch is left out while the ridge is chosen. Set by hand."""

_BATCH = 64  # by hand


class Members:
    """Members with weights of their own, as they are scored and taken out: the shared ones, and near to the anchors in a space of trained networks.

    Args:
        supernet: The shared weights, which stay as they are.
        dataset: Whose training pictures layers are solved for with.
    """

    def __init__(self, supernet: Supernet, dataset: Dataset) -> None:
        self.supernet = supernet
        self._reconstruction = (
            Reconstruction(supernet, lambda size: Batches(dataset, "train", size, supernet.device))
            if isinstance(supernet.space, ChainSpace)
            else None
        )

    @property
    def key(self) -> str:
        """Of the weights, and of what is done to them."""
        return self.supernet.key + (f" {RIDGES} {PICTURES} {POSITIONS} from the first edit or stitch" if self._reconstruction else "")

    def path(self, member: Architecture) -> Path:
        """Return a member as a path; its batch norms are to be recalibrated."""
        path = self.supernet.path(member)
        if self._reconstruction is not None:
            self._reconstruction.follow(member, path)
        return path

    def module(self, member: Architecture, resolution: Resolution | None = None) -> nn.Module:
        """Return a member as a module of its own, see `Supernet.extract`."""
        return self.supernet.extract(member, resolution, self.path(member))


class Reconstruction:
    """Brings members near to the anchors that they are made of.

    Args:
        supernet: Of a `ChainSpace`; its weights stay as they are.
        train: Gives the training pictures at a resolution.
        count: Pictures.

    Source:
        Least squares for what is left of a layer: "Channel pruning for accelerating very deep neural networks" (He et al., arXiv 1707.06168, section
        3.1), whose target is the whole network's and whose input the pruned one's, too. Differs: a layer is held to what it was by a ridge, and one
        layer stands for blocks that are left out after it.
    """

    def __init__(self, supernet: Supernet, train: Callable[[Resolution], Batches], count: int = PICTURES) -> None:
        assert isinstance(supernet.space, ChainSpace)
        self.supernet, self.space, self._train, self._count = supernet, supernet.space, train, count
        self._pictures: dict[Resolution, list[Tensor]] = {}
        self._anchors: dict[tuple[str, Resolution], list[list[Tensor]]] = {}

    @torch.no_grad()
    def follow(self, member: Architecture, path: Path) -> None:
        """Set the closing layers of a member's own weights; its batch norms are to be recalibrated afterwards."""
        size = self.space.proxy(member, self.supernet.resolution)
        parts = self.space.parts(member, size, self.supernet.num_classes)
        streams, drifts = self._batches(size), False
        for i, (part, link, weights) in enumerate(zip(parts[:-1], path.links, path.weights, strict=False)):
            drifts |= _edited(part, parts[i + 1])
            target = self._targets(member, size, parts[i + 1]) if drifts else None
            streams = _advanced(link, weights, streams, target)

    def _batches(self, size: Resolution) -> list[Tensor]:
        if size not in self._pictures:
            train = self._train(size)
            self._pictures[size] = list(pictures(train.plain(_BATCH, calibration_indices(train, self._count))))
        return list(self._pictures[size])

    def _targets(self, member: Architecture, size: Resolution, following: Part) -> list[Tensor]:
        """Return what the anchor that goes on has at the point before a part, rows of each batch."""
        if isinstance(following, Segment):
            chain = following.chain
            name, point = chain.name, following.first
        else:
            assert isinstance(following, Stitch)
            name, i = following.source
            point = next(chain for chain in self.space.anchors if chain.name == name).ends[i]
        own = self._own(name, member, size)
        ends = next(chain for chain in self.space.anchors if chain.name == name).ends
        return own[ends.index(point)]

    def _own(self, name: str, member: Architecture, size: Resolution) -> list[list[Tensor]]:
        """Return the rows of an anchor after each of its blocks, by batch."""
        if (name, size) not in self._anchors:
            path = self.supernet.path(whole := self.space.member(name, str(member.genes[0])))
            recalibrate(path, self._batches(size))
            layouts = [part.chain.points[part.last].layout for part in self.space.parts(whole, size, self.supernet.num_classes)[:-1]]  # type: ignore[attr-defined]
            found: list[list[Tensor]] = [[] for _ in layouts]
            for x in self._batches(size):
                for rows, layout, link, weights in zip(found, layouts, path.links, path.weights, strict=False):
                    x = functional_call(link.module, weights, (x,), tie_weights=False)
                    rows.append(_rows(x, layout == "map"))
            self._anchors[name, size] = found
        return self._anchors[name, size]


def _edited(part: Part, following: Part) -> bool:
    """Return whether a part, or what is left out after it, is not as its anchor has it."""
    if isinstance(part, Stitch):
        return True
    assert isinstance(part, Segment)
    if part.edited:
        return True
    if isinstance(following, Segment):
        return following.first != part.last
    assert isinstance(following, Stitch)
    return part.chain.ends[following.source[1]] != part.last


@dataclass
class _Moments:
    """Sums over rows of what enters a layer and of what it should make: of the batches that are left out while the ridge is chosen, and of the others."""

    held: list[Tensor] = field(default_factory=list)
    others: list[Tensor] = field(default_factory=list)
    batches: int = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        count = torch.tensor(float(len(x)), dtype=torch.float64, device=x.device)
        found = [count, x.sum(0), y.sum(0), x.T @ x, x.T @ y]
        if self.batches % HELD:
            self.others = _added(self.others, found)
        else:
            self.held = _added(self.held, found)
        self.batches += 1

    def solved(self, prior: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weight (c', c), bias (c',), the inputs' covariance (c, c) and the targets' mean (c',).

        Args:
            prior: Gives the weight to which the new one is held, from the inputs' covariance.
        """
        ridge = RIDGES[-1]
        if self.held and self.others:
            found = _solutions(self.others, prior, RIDGES)
            ridge = min(zip(RIDGES, found, strict=True), key=lambda pair: _error(self.held, *pair[1]))[0]
        count, sx, sy, xx, _ = sums = _added(self.held, self.others)
        mean, target = sx / count, sy / count
        (weight, bias), *_ = _solutions(sums, prior, (ridge,))
        return weight, bias, xx / count - mean[:, None] * mean, target


def _added(a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
    return [x + y for x, y in zip(a, b, strict=True)] if a and b else a or b


def _solutions(sums: Sequence[Tensor], prior: Callable[[Tensor], Tensor], ridges: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
    """Return weight (c', c) and bias (c',) for each ridge."""
    count, sx, sy, xx, xy = sums
    mean, target = sx / count, sy / count
    covariance = xx / count - mean[:, None] * mean
    cross, before, found = xy / count - mean[:, None] * target, prior(covariance), []
    for ridge in ridges:
        damping = ridge * covariance.diagonal().mean().clamp(min=1e-12)
        held = covariance + damping * torch.eye(len(mean), dtype=torch.float64, device=mean.device)
        weight = torch.linalg.solve(held, cross + damping * before.T).T
        found.append((weight, target - weight @ mean))
    return found


def _error(sums: Sequence[Tensor], weight: Tensor, bias: Tensor) -> float:
    """Return the mean squared difference from the target over rows, less what the target alone says."""
    count, sx, sy, xx, xy = sums
    square = ((weight @ xx) * weight).sum() - 2 * (weight.T * xy).sum()
    return float((square + 2 * bias @ (weight @ sx - sy)) / count + bias @ bias)


def _advanced(link: Link, weights: dict[str, Tensor], streams: Sequence[Tensor], targets: Sequence[Tensor] | None) -> list[Tensor]:
    """Return what a part makes of each batch; its closing layer is solved for first, where there are targets."""
    module = link.module.eval()
    for norm in link.norms:
        norm.train()
    closing = closing_layer(module) if targets is not None else None
    if closing is None:
        return [functional_call(module, weights, (x,), tie_weights=False) for x in streams]
    assert targets is not None
    layer, last = module.get_submodule(closing.layer), module.get_submodule(closing.norm or closing.layer)
    is_map = isinstance(layer, nn.Conv2d)
    inputs, rests, moments = list[Tensor](), list[Tensor](), _Moments()
    seen: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _module, args: seen.update(input=args[0])),
        last.register_forward_hook(lambda _module, _args, made: seen.update(made=made)),
    ]
    try:
        for x, target in zip(streams, targets, strict=True):
            made = functional_call(module, weights, (x,), tie_weights=False)
            inputs.append(seen["input"])
            rests.append(made - _shaped(seen["made"], made))
            moments.add(_rows(seen["input"], is_map), target - _rows(rests[-1], is_map and made.ndim == 4))
    finally:
        for hook in hooks:
            hook.remove()
    weight, bias = _set(closing, weights, moments)
    kernel = weight[..., None, None] if is_map else weight
    apply = F.conv2d if is_map else F.linear
    return [rest + _shaped(apply(x, kernel, bias), rest) for x, rest in zip(inputs, rests, strict=True)]


def _set(closing: Closing, weights: Mapping[str, Tensor], moments: _Moments) -> tuple[Tensor, Tensor]:
    """Set a closing layer, and the scale and shift of its batch norm so that the norm takes nothing away; return the linear map (c', c) and (c',)."""
    own = weights[f"{closing.layer}.weight"]
    scale = None if closing.norm is None else weights[f"{closing.norm}.weight"]

    def prior(covariance: Tensor) -> Tensor:
        flat = own.flatten(1).double()
        return flat if scale is None else flat * (scale.double() / _deviation(flat, covariance))[:, None]

    weight, bias, covariance, mean = moments.solved(prior)
    own.copy_(weight.reshape(own.shape))
    if scale is None:
        weights[f"{closing.layer}.bias"].copy_(bias)
    else:
        scale.copy_(_deviation(weight, covariance))
        weights[f"{closing.norm}.bias"].copy_(mean)
    return weight.to(own.dtype), bias.to(own.dtype)


def _deviation(weight: Tensor, covariance: Tensor) -> Tensor:
    """Return the standard deviation of each output, (c',), as a batch norm has it."""
    return (((weight @ covariance) * weight).sum(1) + _EPS).sqrt()


_EPS = 1e-5
"""Of PyTorch's batch norms."""


def _rows(x: Tensor, channels_first: bool) -> Tensor:
    """Return rows (n · positions, c) of a map (n, c, h, w), or of what has its channels last."""
    rows = x.flatten(2).transpose(1, 2) if channels_first else x.flatten(1, -2)
    if rows.shape[1] > POSITIONS:
        chosen = torch.randperm(rows.shape[1], generator=torch.Generator().manual_seed(rows.shape[1]))[:POSITIONS]
        rows = rows[:, chosen.to(rows.device)]
    return rows.flatten(0, 1)


def _shaped(x: Tensor, like: Tensor) -> Tensor:
    """Return a map as tokens where `like` is tokens."""
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 and like.ndim == 3 else x
