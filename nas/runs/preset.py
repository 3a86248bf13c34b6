"""Which size of a space fits the data and the machine, and what a device's operators leave of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from nas.searching.judge import Judge, Target
from nas.spaces.architecture import Architecture
from nas.spaces.naming import NAMED_OPTIONS, SpaceName, get_space
from nas.spaces.space import SearchSpace, spaces

SIZES = ("s", "m", "l")
_LOOKS = 32  # members of the next larger preset that are priced; by hand


@runtime_checkable
class Sized(Protocol):
    """A space with a largest and a smallest member, made of operator families."""

    @property
    def families(self) -> Any:
        """Operator families, each with the operator kinds that it needs."""

    def extreme(self, largest: bool) -> Architecture:
        """Return the largest or the smallest member."""


def choose_preset(space: str, images: int, gpu: bool, *, tiny: bool = False) -> tuple[str, str]:
    """Return (name of the space, why): a family whose presets have sizes is completed with one of them.

    Small data and slow machines train a small supernet better: a GPU and ≥ 50,000 images take ``l``, ≥ 10,000 images
    ``m``, else ``s``. A name that has its preset stays as it is. For a `tiny` device, which runs a network from its RAM and flash, it is ``xs``.
    """
    name = SpaceName.parse(space)
    family, _, suffix = name.plain.partition("-")
    if family not in spaces.names():
        return space, ""
    offered = spaces.get(family).presets
    if tiny and not suffix and "xs" in offered:
        return f"{family}-xs", f"space: {family}-xs, since the device runs a network from its RAM and flash."
    prefix = f"{suffix}-" if suffix and f"{suffix}-s" in offered else ""
    if name.plain in spaces.names() or prefix:
        if not all(f"{prefix}{size}" in offered for size in SIZES):
            return space, ""
        machine = "a GPU" if gpu else "no GPU"
        size = "l" if gpu and images >= 50_000 else "m" if images >= 10_000 else "s"
        rule = {"l": "a GPU and at least 50,000", "m": "at least 10,000", "s": "fewer than 10,000"}[size]
        chosen = f"{family}-{prefix}{size}"
        return str(replace(name, plain=chosen)), f"space: {chosen}, since there are {images:,} images and {machine} ({rule})."
    return space, ""


def lacking_families(space: SearchSpace, targets: Sequence[Target]) -> dict[str, str]:
    """Return the operator families that a device cannot run, each with the reason."""
    if not isinstance(space, Sized):
        return {}
    lacking = {}
    for target in targets:
        forbidden = set(target.profile.at(target.precision).unsupported_ops)
        for family, ops in space.families.items():
            if missing := sorted(forbidden & set(ops)):
                lacking[family] = f"{target.profile.name} at {target.precision} lacks {', '.join(missing)}"
    return lacking


def larger_preset(judge: Judge, options: Mapping[str, object]) -> str:
    """Return a line where the budget would have allowed a larger preset than the space at hand; else the empty string."""
    space = judge.space
    parsed = SpaceName.parse(space.name)
    own, sizes = parsed.plain.rpartition("-")[2], ("xs", *SIZES)
    if not isinstance(space, Sized) or own not in sizes[:-1]:
        return ""
    most_macs = sum(graph.cost.macs for _, graph in space.segments(space.extreme(True), judge.resolution))
    further = {name: value for name, value in options.items() if name not in NAMED_OPTIONS}
    for size in reversed(sizes[sizes.index(own) + 1 :]):
        name = f"{parsed.plain.removesuffix(own)}{size}"
        bigger = get_space(str(replace(parsed, plain=name)), **further)
        rng = np.random.default_rng(0)
        beside = Judge(bigger, judge.goal, judge.targets, judge.confidence, judge.resolution, judge.batch)
        fits = [v for v in beside.verdicts([bigger.sample(rng) for _ in range(_LOOKS)]) if v.feasible and v.values["macs"] > most_macs]
        if fits:
            verdict = max(fits, key=lambda v: v.values["macs"])
            device, estimate = next(iter(verdict.estimates.items()))
            return (
                f"the budget would have allowed {name}: a member of {verdict.values['macs'] / 1e9:.2f} GMACs has an upper end of "
                f"{estimate.upper_ms:.3g} ms on {device}; the largest member of {parsed.plain} has {most_macs / 1e9:.2f} GMACs. "
                f"Do this: --space {name}, with more data or a GPU."
            )
    return ""
