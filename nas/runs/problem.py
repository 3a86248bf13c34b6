"""A request for a search, and the same made whole: every name looked up, every budget read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.devices.measure import runner_words
from nas.devices.placement import knows, placement
from nas.devices.predictor import Estimate
from nas.devices.twins import remarks
from nas.errors import InfeasibleError, UsageError
from nas.exporting.exporter import exporters
from nas.quantisation.method import DEFAULT_RECIPE, methods
from nas.quantisation.risk import predicted_drop
from nas.results import DeviceLatency, Genotype, ModelError, Point, Verification
from nas.runs.options import check_for_devices, check_options, table_of_accuracies, useless
from nas.runs.preset import choose_preset, lacking_families, larger_preset
from nas.runs.request import Request
from nas.runs.similar_pairs import SIMILAR, similar_pairs
from nas.runs.targets import choose_by_part, load_targets, make_goal
from nas.searching.correction import Timed, correction_of
from nas.searching.judge import Judge, Target, Verdict
from nas.searching.objective import Goal
from nas.searching.searcher import searchers
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import SpaceName, family_of, get_space, is_elastic
from nas.spaces.space import Resolution, SearchSpace, spaces
from nas.training.evaluator import Assignment, Evaluator, evaluators
from nas.training.importance import importances
from nas.units import QUANTISED, Precision, parse_duration, parse_resolution, write_resolution

if TYPE_CHECKING:
    from nas.training.dataset import Dataset
    from nas.training.supernet.weights import Supernet


DEFAULT_DATA = "digits"
_ALONE = (
    "training: one network alone has all the time, chosen by training-free scores, since shared weights ended lower within a time limit. "
    "Those are: --evaluator supernet-in-time."
)
_EMBEDDED = (
    "data: none given, so embedded pictures of 8x8 digits stand in, with a short training and few scores. That shows that training, search, export and test "
    "work here, and what the device admits; it says nothing of the accuracy on your pictures, nor which network is best there. Do this: --data FOLDER."
)


@dataclass(frozen=True)
class Problem:
    """A request made whole: every name looked up, every budget read."""

    request: Request
    targets: Sequence[Target]
    goal: Goal
    space: SearchSpace
    judge: Judge
    evaluator: type[Evaluator]
    dataset: Dataset | None = None
    table: Path | None = None
    notices: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """Name of the first device."""
        return self.targets[0].profile.name

    def revised(self, timings: Sequence[Verification], known: Mapping[str, Estimate]) -> Problem:
        """Return the problem with what timings say about the first device's estimates; itself where they say nothing.

        Where a device states throughput, a latency says nothing about it.

        Args:
            timings: Of some candidates.
            known: Estimates of the first device before them, by key.
        """
        profile = self.targets[0].profile
        timed = {
            t.key: Timed(e.latency_ms, e.lower_ms, e.upper_ms, t.median_ms, t.iqr_ms or 0.0, e.basis == "estimated")
            for t in timings
            if t.median_ms and (e := known.get(t.key)) is not None and e.lower_ms > 0
        }
        if not timed or profile.quantity != "latency" or self.targets[0].predictor is None:
            return self
        return replace(self, judge=self.judge.corrected(profile.name, correction_of(timed, self.request.confidence)))

    @property
    def latency_models(self) -> dict[str, ModelError]:
        """How far the latency model of each device is off at the most precise precision that is asked for, where that was tested."""
        errors: dict[str, ModelError] = {}
        for target in self.targets:
            if target.predictor is not None and (error := target.profile.at(target.precision).model_error) is not None:
                errors.setdefault(target.profile.name, error)
        return errors

    @property
    def precision(self) -> str:
        """The least precise of the devices' precisions: what members are scored at where they do not say it themselves."""
        return Precision.least(target.precision for target in self.targets)

    def quantises(self, architecture: Architecture) -> bool:
        """Return whether a network's file is to hold integers."""
        precision = self.judge.verdicts([architecture])[0].precisions[self.device]
        return precision in QUANTISED or precision == "mixed"

    @property
    def recipe(self) -> tuple[str, ...]:
        """Methods of quantisation by name."""
        return self.request.quantisation or DEFAULT_RECIPE

    def assignment(self, supernet: Supernet | None = None) -> Assignment:
        """Return what the evaluator is made from, once shared weights are there."""
        request = self.request
        return Assignment(self.space, request.seed, self.precision, self.dataset, supernet, self.recipe, self.table, request.column)

    def point(
        self,
        architecture: Architecture,
        verdict: Verdict,
        *,
        accuracy_pct: float | None = None,
        supernet_accuracy_pct: float | None = None,
        trial: int | None = None,
    ) -> Point:
        """Return an architecture as results show it."""
        devices = {device: self._latency(device, estimate, verdict.precisions[device]) for device, estimate in verdict.estimates.items()}
        first = devices[self.device]
        sizes = {name: int(value) for name, value in verdict.values.items() if name.endswith("_bytes")}
        return Point(
            key=architecture.key,
            architecture=Genotype(space=architecture.space, version=architecture.version, genes=architecture.genes),
            devices=devices,
            latency_ms=first.latency_ms,
            lower_ms=first.lower_ms,
            upper_ms=first.upper_ms,
            precision=first.precision,
            resolution=write_resolution(verdict.resolution),
            accuracy_pct=accuracy_pct,
            supernet_accuracy_pct=supernet_accuracy_pct,
            macs=int(verdict.values["macs"]),
            params=int(verdict.values["params"]),
        ).model_copy(
            update=sizes
            | self._risk(architecture, first.precision)
            | dict(self.space.facts(architecture))
            | ({} if trial is None else {"trial": trial})
        )

    def _risk(self, architecture: Architecture, precision: str) -> dict[str, float]:
        if not self.targets[0].predictor:
            return {}
        profile = self.targets[0].profile
        if precision != "w8a8" and not knows(profile.name, profile.runtime, precision):
            return {}
        graph = self.space.lower(architecture, self.judge.resolution)
        risk = {"int8_drop_pct": round(predicted_drop(graph, profile.runtime).drop_pct, 2)} if precision == "w8a8" else {}
        if (place := placement(profile.name, profile.runtime, graph, precision)) is not None:
            risk["off_npu_pct"] = round(100 * place.off_npu, 1)
        return risk

    def _latency(self, device: str, estimate: Estimate, precision: str) -> DeviceLatency:
        own = [target for target in self.targets if target.profile.name == device]
        target = next((t for t in own if t.precision == precision), own[0])
        profile = target.profile
        limits: dict[str, object] = {} if profile.quantity == "latency" else {"quantity": profile.quantity}
        if (budget := self.judge.budget_of(device)) is not None:
            limits |= {"budget_ms": budget.limit.value, "margin_ms": budget.limit.value - estimate.upper_ms}
        if (frames := self.judge.budget_of(device, "throughput")) is not None:
            least_fps = 1e3 * self.judge.pictures(profile) / max(estimate.upper_ms, 1e-9)
            limits |= {"budget_fps": frames.limit.value, "margin_fps": least_fps - frames.limit.value}
        return DeviceLatency(
            latency_ms=estimate.latency_ms,
            lower_ms=estimate.lower_ms,
            upper_ms=estimate.upper_ms,
            basis=estimate.basis,
            precision=precision,
            extrapolated=bool(estimate.extrapolated),
            grade=target.profile.at(target.precision).grade if target.predictor else None,
        ).model_copy(update=limits)


def make_problem(request: Request, *, decoder: str | None = None) -> Problem:
    """Look up everything that a request names, and check that something can meet the budgets.

    Args:
        request: What is asked for.
        decoder: See `nas.training.dataset.Dataset.open`.

    Raises:
        UsageError: Something in it is wrong; nothing has been written yet.
        DataError: Data or a table cannot be used.
        InfeasibleError: No member of the space, as far as samples say, is within the budgets.
    """
    family, kind, table = _kinds(request)
    _check_early(request, kind, family)
    targets = load_targets(request.devices, request.precision, [path for path in request.tables if Path(path) != table], request.space)
    goal = make_goal(targets, request.budgets, batch=request.batch, minimize=request.minimize)
    check_for_devices(request, targets)
    resolution = parse_resolution(request.resolution) if request.resolution else None
    options: dict[str, object] = {"resolution": resolution, "anchors": request.anchors or None, "weights_dir": request.weights_dir}
    options |= {
        "mixers": request.mixers or None,
        "knobs": request.knobs or None,
        "pairs": request.pairs or None,
        "edits": request.edits or None,
        "importance": request.importance,
    }
    dataset = _dataset(request, decoder) if "data" in kind.needs else None
    name, notices = request.space, list[str]()
    if dataset is not None:
        options["num_classes"] = dataset.num_classes
        name, notices = _preset(request, dataset, targets)
        if kind.fresh and not request.evaluator and evaluators.get(family.evaluator).in_time:
            notices.append(_ALONE)
        if kind.fresh and resolution is None and "resolution" in family.options:
            options["resolution"] = own_size = _own_size(dataset, least := family.least_alone if issubclass(family, ElasticSpace) else 32)
            notices.append(
                f"resolution: {write_resolution(own_size)} px, that of the pictures ({least} at least, 128 at most). Another one: --resolution."
            )
    options = {key: value for key, value in options.items() if key in family.options and value is not None}
    if request.pairs == (SIMILAR,):
        options["pairs"], notice = similar_pairs(request, dataset, name, options)
        request = request.model_copy(update={"pairs": options["pairs"]})  # kept by name: another machine need not choose again
        notices.append(notice)
    space = get_space(name, **options)
    if "without" in family.options and (lacking := lacking_families(space, targets)):
        notices += [f"left out: {part}, since {reason}." for part, reason in sorted(lacking.items())]
        options["without"] = sorted(lacking)
        space = get_space(name, **options)
    own = None if "resolution" in family.options else resolution
    larger = (
        larger_preset(Judge(space, goal, targets, request.confidence, own, request.batch), options) if dataset and not kind.fresh else ""
    )
    if request.precision == "any" and isinstance(space, ElasticSpace) and "table" not in kind.needs:
        space, targets = choose_by_part(space, targets)
    judge = Judge(space, goal, targets, request.confidence, own, request.batch)
    problem = Problem(request, targets, goal, space, judge, kind, dataset, table)
    if not kind.surveys and not kind.transfers:
        check_feasible(problem)
    if dataset is not None and len({target.precision for target in targets}) > 1 and problem.precision.startswith("w"):
        notices.append(f"accuracy: scored at {problem.precision}, the least precise of the devices' precisions.")
    if kind.caution:
        notices.append(f"{kind.caution}.")
    profiles = {target.profile.name: target.profile for target in targets if target.predictor is not None}
    notices += [f"{name}: {line}." for name, profile in profiles.items() for line in remarks(profile)]
    return replace(problem, notices=(*notices, *([larger] if larger else [])))


def check_request(request: Request) -> None:
    """Refuse options that were given in vain. A stored request is not asked again: what it says was once accepted.

    Raises:
        UsageError: There are such, or an unknown space or evaluator.
    """
    family, kind, _ = _kinds(request)
    check_options(request, kind, family)


def _kinds(request: Request) -> tuple[type[SearchSpace], type[Evaluator], Path | None]:
    """Return the family of the space, the evaluator, and the file of known accuracies if there is one."""
    family, table = spaces.get(family_of(request.space) or request.space), table_of_accuracies(request)
    own = family.evaluator_with_data if request.data and family.evaluator_with_data else family.evaluator
    kind = evaluators.get(request.evaluator or ("table" if table else own))
    if request.time_limit and not request.evaluator and not issubclass(family, ChainSpace):  # which races its anchors
        by_part = request.precision == "any" or bool(SpaceName.parse(request.space).precisions)  # which training-free scores do not see
        others = (found for found in map(evaluators.get, kind.in_time) if not (found.fresh and by_part))
        kind = next((found for found in others if not useless(request, found, family)), kind)
    return family, kind, table


def _dataset(request: Request, decoder: str | None) -> Dataset:
    from nas.training.dataset import load_dataset

    return load_dataset(request.data or DEFAULT_DATA, seed=request.seed, decoder=decoder)


def _own_size(dataset: Dataset, least: int) -> Resolution:
    """Return the size at which a network that starts from nothing is trained and deployed where the user names none."""
    from nas.training.supernet.train import default_resolution

    return default_resolution(dataset, least)


def _preset(request: Request, dataset: Dataset, targets: Sequence[Target]) -> tuple[str, list[str]]:
    import torch

    images = dataset.count("train") + dataset.count("validation")
    tiny = any(target.profile.memory is not None for target in targets)
    name, why = choose_preset(request.space, images, torch.cuda.is_available(), tiny=tiny)
    return name, [*dataset.notices, *([] if request.data else [_EMBEDDED]), *([why] if why else [])]


def _check_early(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> None:
    """Refuse what can be refused before the data are read.

    Raises:
        UsageError: A device that cannot be measured, a runner that is no command, an unknown searcher or exporter, a space that the evaluator cannot score,
            a folder of weights that is not there, an unknown importance.
        ArtifactError: The given supernet cannot be read.
    """
    if request.verify and not request.runner and any(device not in ("local-cpu", "local-cuda") for device in request.devices):
        raise UsageError("--verify: the device cannot be measured from here. Do this: --runner 'CMD {onnx}', which prints milliseconds.")
    if request.runner:
        runner_words(request.runner)
    if "supernet" in kind.needs and not issubclass(family, ElasticSpace):
        served = ", ".join(filter(is_elastic, spaces.names()))
        raise UsageError(
            f"space {request.space}: no supernet serves it, and no table of accuracies is given. "
            f"Do this: --table FILE.npz --column NAME, another --evaluator, or one of the spaces {served}."
        )
    if request.importance:
        importances.get(request.importance)
    if request.weights_dir:
        from nas.spaces.pretrained.origins import check_folder

        check_folder(Path(request.weights_dir))
    if request.supernet:
        from nas.training.supernet.checkpoint import read_checkpoint

        read_checkpoint(Path(request.supernet), "supernet")
    if request.searcher:
        searchers.get(request.searcher)
    if request.time_limit:
        parse_duration(request.time_limit)
    exporters.check(request.exporter)
    methods(request.quantisation)


def check_feasible(problem: Problem, looks: int = 256) -> None:
    """Look at the smallest member and at samples, before anything is trained.

    Raises:
        InfeasibleError: None of them is within the budgets; the message names the nearest miss.
    """
    import numpy as np

    space, judge = problem.space, problem.judge
    rng = np.random.default_rng([problem.request.seed, 1])
    first = [space.extreme(False)] if hasattr(space, "extreme") else []
    judged: list[tuple[Architecture, Verdict]] = []
    for members in (first, [space.sample(rng) for _ in range(looks)]):
        judged += zip(members, judge.verdicts(members), strict=True)
        if any(verdict.feasible for _, verdict in judged):
            return
    raise nearest_miss(problem, judged)


def nearest_miss(problem: Problem, judged: Sequence[tuple[Architecture, Verdict]]) -> InfeasibleError:
    """Return the error that names the candidate which breaks the budgets least."""

    def worst(verdict: Verdict) -> float:
        return max(verdict.violations.values(), default=0.0)

    architecture, verdict = min(judged, key=lambda pair: worst(pair[1]))
    name = problem.space.facts(architecture).get("network") or architecture.key
    broken = max(verdict.violations, key=lambda key: verdict.violations[key])
    budget = next((b for b in problem.goal.budgets if b.name == broken), None)
    limit = budget.limit.text if budget else "the device's operators"
    where = f" on {budget.device}" if budget and budget.device else ""
    device = budget.device if budget and budget.device else problem.device
    estimate = verdict.estimates[device]
    over = 100 * verdict.violations[broken]
    if estimate.unsupported:
        miss = "with an operator that the device lacks"
    elif budget and budget.limit.quantity == "throughput":
        profile = next(target.profile for target in problem.targets if target.profile.name == device)
        fps = 1e3 * problem.judge.pictures(profile)
        miss = f"lower end {fps / max(estimate.upper_ms, 1e-9):,.4g} fps ({fps / max(estimate.latency_ms, 1e-9):,.4g} fps {estimate.basis}), {over:.0f} % short"
    elif budget and budget.limit.quantity != "latency":
        miss = f"{over:.0f} % above it"
    else:
        miss = f"upper end {estimate.upper_ms:.3g} ms ({estimate.latency_ms:.3g} ms {estimate.basis})"
    return InfeasibleError(
        f"search: nothing of {len(judged)} in space {problem.space.name} meets {limit}{where}. The nearest miss is {name}, {miss}. "
        f"{_only_interval(problem, verdict)}Do this: raise the budget, or search another space."
    )


def _only_interval(problem: Problem, verdict: Verdict) -> str:
    """Return a line where the central values are within every budget, so that the width of the intervals alone forbids an answer."""
    latencies = {b.name for b in problem.goal.budgets if b.limit.quantity in ("latency", "throughput")}
    if any(estimate.unsupported for estimate in verdict.estimates.values()) or not latencies:
        return ""
    for budget in problem.goal.budgets:
        if budget.name not in latencies:
            if verdict.violations[budget.name] > 0:
                return ""
            continue
        profile = next(target.profile for target in problem.targets if target.profile.name == budget.device)
        ms = verdict.estimates[budget.device].latency_ms
        images = problem.judge.batch or 1 if profile.quantity == "reciprocal_throughput" else 1
        value = 1e3 * problem.judge.pictures(profile) / max(ms, 1e-9) if budget.limit.quantity == "throughput" else ms * images
        if budget.violation(value) > 0:
            return ""
    coverage = f"{100 * problem.judge.confidence:.0f} %"
    return f"Its central value is within; the interval at {coverage} alone forbids it (--confidence for a narrower one, which holds less often). "
