"""A request for a search, and the same made whole: every name looked up, every budget read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas.devices.predictor import load_predictor
from nas.devices.profile import find_profile, load_profile
from nas.errors import InfeasibleError, UnknownNameError, UsageError
from nas.runs.preset import choose_preset, lacking_families, larger_preset
from nas.runs.request import Request
from nas.searching.judge import Judge, Target, Verdict
from nas.searching.objective import COSTS, Budget, Goal, Objective
from nas.searching.searcher import searchers
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space, is_elastic
from nas.spaces.precision import PrecisionSpace
from nas.spaces.space import Resolution, SearchSpace, spaces
from nas.units import PRECISIONS, Limit, parse_limit, parse_resolution

if TYPE_CHECKING:
    from nas.spaces.elastic import ElasticSpace
    from nas.training.data.dataset import Dataset


@dataclass(frozen=True)
class Problem:
    """A request made whole: every name looked up, every budget read."""

    request: Request
    targets: Sequence[Target]
    goal: Goal
    space: SearchSpace
    judge: Judge
    dataset: Dataset | None = None
    notices: tuple[str, ...] = field(default=())

    @property
    def device(self) -> str:
        """Name of the first device."""
        return self.targets[0].profile.name

    @property
    def precision(self) -> str:
        """The least precise of the devices' precisions: what members are scored at where they do not say it themselves."""
        return max((target.precision for target in self.targets), key=PRECISIONS.index)


def pose(request: Request) -> Problem:
    """Look up everything that a request names, and check that something can meet the budgets.

    Raises:
        UsageError: Something in it is wrong; nothing has been written yet.
        InfeasibleError: No member of the space, as far as samples say, is within the budgets.
    """
    targets = load_targets(request.devices, request.precision)
    goal = make_goal(targets, request.budgets, batch=request.batch, minimize=request.minimize)
    resolution = parse_resolution(request.resolution) if request.resolution else None
    if is_elastic(request.space):
        return _pose_trained(request, targets, goal, resolution)
    space = get_space(request.space, **({"resolution": resolution} if request.space == "zoo" else {}))
    if space.evaluator != "published":
        searched = ", ".join(["zoo", *filter(is_elastic, spaces.names())])
        raise UsageError(f"space {space.name}: cannot be searched from here, since nothing scores its members. Expected one of {searched}.")
    return Problem(request, targets, goal, space, Judge(space, goal, targets, request.confidence, resolution, request.batch))


def _check_trained(request: Request) -> None:
    """Refuse what can be refused before the data are read.

    Raises:
        UsageError: A device that cannot be measured, an unknown searcher.
        ArtifactError: The given supernet cannot be read.
    """
    from pathlib import Path

    if request.verify and not request.runner and any(device not in ("local-cpu", "local-cuda") for device in request.devices):
        raise UsageError("--verify: the device cannot be measured from here. Do this: --runner 'CMD {onnx}', which prints milliseconds.")
    if request.supernet:
        from nas.training.supernet.checkpoint import read_checkpoint

        read_checkpoint(Path(request.supernet), "supernet")
    if request.searcher:
        searchers.get(request.searcher)


def _pose_trained(request: Request, targets: Sequence[Target], goal: Goal, resolution: Resolution | None) -> Problem:
    import torch

    from nas.training.data.dataset import load_dataset

    _check_trained(request)
    dataset = load_dataset(request.data, seed=request.seed)
    notices = list(dataset.notices)
    name, why = choose_preset(request.space, dataset.count("train") + dataset.count("validation"), torch.cuda.is_available())
    notices += [why] if why else []
    options: dict[str, Any] = {"num_classes": dataset.num_classes, "resolution": resolution}
    space = get_space(name, **options)
    if lacking := lacking_families(space, targets):
        notices += [f"left out: {family}, since {reason}." for family, reason in sorted(lacking.items())]
        options["without"] = sorted(lacking)
        space = get_space(name, **options)
    larger = larger_preset(Judge(space, goal, targets, request.confidence, None, request.batch), options)
    if request.precision == "any":
        space, targets = choose_by_part(space, targets)  # type: ignore[arg-type]  # known to be elastic
    judge = Judge(space, goal, targets, request.confidence, None, request.batch)
    problem = Problem(request, targets, goal, space, judge, dataset)
    check_feasible(problem)
    if len({target.precision for target in targets}) > 1 and problem.precision.startswith("w"):
        notices.append(f"accuracy: scored at {problem.precision}, the least precise of the devices' precisions.")
    notices += [larger] if larger else []
    return Problem(request, targets, goal, space, judge, dataset, tuple(notices))


def choose_by_part(space: ElasticSpace, targets: Sequence[Target]) -> tuple[SearchSpace, list[Target]]:
    """Return a space whose members choose a precision for each part, and one target a device.

    Raises:
        UsageError: The devices have no precision in common, or a latency model that prices one precision at a time.
    """
    devices = list(dict.fromkeys(target.profile.name for target in targets))
    common = [p for p in PRECISIONS if all((d, p) in {(t.profile.name, t.precision) for t in targets} for d in devices)]
    if not common:
        raise UsageError(f"--precision any: {' and '.join(devices)} have no precision in common. Do this: leave --precision out.")
    chosen = [next(t for t in targets if t.profile.name == device and t.precision == common[0]) for device in devices]
    if len(common) == 1:
        return space, chosen
    for target in chosen:
        models = {id(t.predictor) for t in targets if t.profile.name == target.profile.name}
        if not target.predictor.prices_mixed or len(models) > 1:
            known = ", ".join(common)
            raise UsageError(
                f"--precision any: the latency model of {target.profile.name} prices one precision at a time. Do this: --precision with one of {known}."
            )
    return PrecisionSpace(space, common), chosen


def check_feasible(problem: Problem, looks: int = 256) -> None:
    """Look at the smallest member and at samples, before anything is trained.

    Raises:
        InfeasibleError: None of them is within the budgets; the message names the nearest miss.
    """
    import numpy as np

    space, judge = problem.space, problem.judge
    rng = np.random.default_rng([problem.request.seed, 1])
    first = [space.extreme(False)] if hasattr(space, "extreme") else []
    seen: list[tuple[Architecture, Verdict]] = []
    for members in (first, [space.sample(rng) for _ in range(looks)]):
        seen += zip(members, judge.verdicts(members), strict=True)
        if any(verdict.feasible for _, verdict in seen):
            return
    raise nearest_miss(problem, seen)


def nearest_miss(problem: Problem, seen: Sequence[tuple[Architecture, Verdict]]) -> InfeasibleError:
    """Return the error that names the candidate which breaks the budgets least."""

    def worst(verdict: Verdict) -> float:
        return max(verdict.violations.values(), default=0.0)

    architecture, verdict = min(seen, key=lambda pair: worst(pair[1]))
    name = problem.space.facts(architecture).get("network") or architecture.key
    broken = max(verdict.violations, key=lambda key: verdict.violations[key])
    budget = next((b for b in problem.goal.budgets if b.name == broken), None)
    limit = budget.limit.text if budget else "the device's operators"
    where = f" on {budget.device}" if budget and budget.device else ""
    estimate = verdict.estimates[budget.device if budget and budget.device else problem.device]
    found = (
        "with an operator that the device lacks"
        if estimate.unsupported
        else f"upper end {estimate.upper_ms:.3g} ms ({estimate.latency_ms:.3g} ms {estimate.basis})"
    )
    if budget and budget.limit.quantity not in ("latency", "throughput"):
        found = f"{100 * verdict.violations[broken]:.0f} % above it"
    return InfeasibleError(
        f"search: nothing of {len(seen)} in space {problem.space.name} meets {limit}{where}. The nearest miss is {name}, {found}. "
        "Do this: raise the budget, or search another space."
    )


def point(
    problem: Problem,
    architecture: Architecture,
    verdict: Verdict,
    *,
    accuracy_pct: float | None = None,
    supernet_accuracy_pct: float | None = None,
) -> dict[str, Any]:
    """Return an architecture as the JSON contract shows it."""
    devices: dict[str, dict[str, Any]] = {}
    for device, estimate in verdict.estimates.items():
        entry: dict[str, Any] = {
            "latency_ms": estimate.latency_ms,
            "lower_ms": estimate.lower_ms,
            "upper_ms": estimate.upper_ms,
            "basis": estimate.basis,
            "precision": verdict.precisions[device],
            "extrapolated": bool(estimate.extrapolated),
        }
        if (budget := problem.judge.budget_of(device)) is not None:
            entry |= {"budget_ms": budget.limit.value, "margin_ms": budget.limit.value - estimate.upper_ms}
        devices[device] = entry
    first = devices[problem.device]
    return {
        "key": architecture.key,
        "architecture": {"space": architecture.space, "version": architecture.version, "genes": list(architecture.genes)},
        "devices": devices,
        "latency_ms": first["latency_ms"],
        "lower_ms": first["lower_ms"],
        "upper_ms": first["upper_ms"],
        "precision": first["precision"],
        "resolution": written_resolution(verdict.resolution),
        "accuracy_pct": accuracy_pct,
        "supernet_accuracy_pct": supernet_accuracy_pct,
        "macs": int(verdict.values["macs"]),
        "params": int(verdict.values["params"]),
        **{name: int(value) for name, value in verdict.values.items() if name.endswith("_bytes")},
        **problem.space.facts(architecture),
    }


def written_resolution(size: Sequence[int]) -> int | str:
    """Return a resolution as the command line reads it: 224, or ``192x256``."""
    height, width = size
    return height if height == width else f"{height}x{width}"


def load_targets(devices: Sequence[str], precision: str | None = None) -> list[Target]:
    """Return the targets that a user means by device names and a precision (``any``: all that each device has a model for).

    Raises:
        UsageError: An unknown device, a device given twice, a precision that a device lacks or has no latency model for.
    """
    targets: list[Target] = []
    for device in devices:
        profile, folder = load_profile(device), find_profile(device).parent
        if profile.name in {target.profile.name for target in targets}:
            raise UsageError(f"device {profile.name}: given twice.")
        if precision == "any":
            names = [name for name in PRECISIONS if name in profile.precisions and profile.at(name).predictor]
        else:
            names = [precision or profile.default_precision]
        targets += [Target(profile, name, load_predictor(profile, name, folder)) for name in names or [profile.default_precision]]
    return targets


def make_goal(targets: Sequence[Target], budgets: Sequence[str], *, batch: int | None = None, minimize: Sequence[str] = ()) -> Goal:
    """Return the goal of a search: accuracy against each device's latency or other costs, within budgets as a user writes them.

    Args:
        targets: The devices.
        budgets: ``5ms``, ``20MB`` or ``device:8ms``. One without a device bounds every device that has none of its own.
        batch: Images a run, where the user gave it.
        minimize: Words of `COSTS`; none for ``latency``.

    Raises:
        UsageError: A cost that is none, or given twice; a budget that cannot be read, of a device that is not searched for, given twice, or in milliseconds
            for a device whose profile states throughput.
    """
    profiles = {target.profile.name: target.profile for target in targets}
    objectives = [Objective("accuracy_pct", "maximize")]
    for word in minimize or ("latency",):
        if word not in COSTS:
            raise UnknownNameError("cost to minimize", word, COSTS)
        names = [f"{COSTS[word]}/{name}" for name in profiles] if word == "latency" else [COSTS[word]]
        objectives += [Objective(name, "minimize") for name in names]
    if len({objective.name for objective in objectives}) < len(objectives):
        raise UsageError(f"minimize: a cost given twice, got {list(minimize)!r}.")
    found: dict[str, Budget] = {}
    general: dict[str, Limit] = {}
    for text in budgets:
        device, colon, rest = text.rpartition(":")
        limit = parse_limit(rest if colon else text)
        if colon and device not in profiles:
            raise UsageError(
                f"budget: {text!r} is for a device that is not asked for, got {device!r}. Expected one of: {', '.join(profiles)}."
            )
        if colon and limit.quantity not in ("latency", "throughput"):
            raise UsageError(f"budget: a budget of {limit.quantity} belongs to no device, got {text!r}. Do this: --budget {limit.text}.")
        name = f"{limit.quantity}/{device}" if colon else limit.quantity
        if name in found or name in general:
            raise UsageError(f"budget: two budgets of one kind, got {text!r}. Do this: keep one of them.")
        if colon:
            found[name] = Budget(name, limit, device)
        else:
            general[name] = limit
    for name, limit in general.items():
        if limit.quantity in ("latency", "throughput"):
            own = {b.device for b in found.values() if b.limit.quantity == limit.quantity}
            found |= {f"{name}/{device}": Budget(f"{name}/{device}", limit, device) for device in profiles if device not in own}
        else:
            found[name] = Budget(name, limit)
    for budget in found.values():
        profile = profiles.get(budget.device)
        if profile is None or profile.quantity == "latency" or budget.limit.quantity != "latency" or batch:
            continue
        if f"throughput/{budget.device}" not in found:
            remedy = "Do this: give a budget such as 200fps, or --batch N for the time of N images at full load."
            raise UsageError(f"budget: {budget.device} states throughput, not latency, got {budget.limit.text!r}. {remedy}")
    return Goal(tuple(objectives), tuple(sorted(found.values(), key=lambda budget: budget.name)))


def elastic(problem: Problem) -> ElasticSpace:
    """Return the problem's space, which `nas.runs.problem.pose` has made one with shared weights wherever there are data."""
    from nas.spaces.elastic import ElasticSpace

    assert isinstance(problem.space, ElasticSpace)
    return problem.space
