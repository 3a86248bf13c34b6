"""A request for a search, and the same made whole: every name looked up, every budget read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from nas.errors import InfeasibleError, UsageError
from nas.runs.preset import choose_preset, lacking_families, larger_preset
from nas.searching.judge import Judge, Target, Verdict, load_targets, make_goal
from nas.searching.objective import Goal
from nas.searching.searcher import searchers
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import is_elastic
from nas.spaces.precision import PrecisionSpace
from nas.spaces.space import Resolution, SearchSpace, get_space, spaces
from nas.units import PRECISIONS, parse_resolution

if TYPE_CHECKING:
    from nas.spaces.elastic import ElasticSpace
    from nas.training.data.dataset import Dataset


class Request(BaseModel):
    """What a user asked a search for; kept in the run directory, enough to do it again.

    Attributes:
        devices: Names or paths of profiles; the first decides where one has to.
        budgets: As written: ``5ms``, ``device:8ms``, ``20MB``.
        minimize: Costs to weigh against accuracy, words of `nas.searching.objective.COSTS`; none for latency.
        precision: None for each device's default, ``any`` to choose it for each part among what all devices have.
        space: Name of the space.
        data: Name or path of the data set.
        resolution: Deployment resolution as written; None leaves it to the search, or to the published network.
        proxy_resolution: Side at which the supernet trains, in pixels.
        searcher: None for the space's own.
        evals: Accuracies to compute; None for the default.
        confidence: Nominal coverage of the intervals.
        supernet: Trained weights to start from.
        seed: All randomness.
        storage: URL of a shared study; None for a journal in the run directory.
        verify: How many of the front's best are measured at the end.
        takes: What the exported file takes, a key of `nas.exporting.exporter.PEAKS`.
        runner: Command that times ``{onnx}`` on the device for `verify`; empty for this machine's own devices.
        batch: Images a run, for profiles that state throughput.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[str, ...]
    budgets: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    precision: str | None = None
    space: str
    data: str = "digits"
    resolution: str | None = None
    proxy_resolution: int | None = None
    searcher: str | None = None
    evals: int | None = None
    confidence: float = 0.9
    supernet: str | None = None
    seed: int = 0
    storage: str | None = None
    verify: int = 0
    takes: str = "normalised"
    runner: str = ""
    batch: int | None = None


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
