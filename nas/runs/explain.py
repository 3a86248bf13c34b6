"""Why not more? What keeps a more accurate network out of the budget, and what a little more or less of it would buy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from nas.devices.predictor import OperatorLatency
from nas.results import BudgetChange, Genotype, Share, WhyNotMore
from nas.searching.judge import Judge, Verdict
from nas.spaces.architecture import Architecture

Scored = tuple[Architecture, Verdict, float]
"""An architecture, what the judge says of it, and its accuracy in percent."""

CHANGES = (0.9, 1.1)  # by hand: a tenth less, a tenth more


def why_not_more(judge: Judge, scored: Sequence[Scored], chosen: Architecture) -> WhyNotMore:
    """Explain the choice by what it excludes.

    Args:
        judge: Of the search.
        scored: Every architecture whose accuracy is known, inside the budgets or not.
        chosen: The choice, one of them.

    Returns:
        The most accurate network that was excluded, its largest stages and operators on the device whose budget it breaks most, and the
        best accuracy at 0.9 and 1.1 times the budgets.
    """
    accuracy_pct = {architecture.key: accuracy for architecture, _, accuracy in scored}
    usable = [(a, v, accuracy) for a, v, accuracy in scored if not any(e.unsupported for e in v.estimates.values())]
    # without a budget of time the choice may be a faster network that the pictures cannot tell from the most accurate: what a budget buys is told from the latter
    reached_pct = max([accuracy_pct[chosen.key], *(accuracy for _, v, accuracy in usable if v.feasible)])
    changes = [_best_within(usable, factor, judge, reached_pct) for factor in CHANGES]
    lines = [change.line for change in changes]
    excluded = [s for s in usable if not s[1].feasible and s[2] > reached_pct]
    if not excluded:
        nothing = "Why not more? Nothing more accurate was found outside the budget."
        return WhyNotMore(network=None, budget_changes=tuple(changes), lines=(nothing, *lines))
    nearest = min(excluded, key=lambda s: (max(s[1].violations.values()), -s[2]))
    architecture, verdict, best_pct = max(excluded, key=lambda s: (s[2], -max(s[1].violations.values())))
    device = _device(judge, verdict)
    estimate = judge.estimates(architecture)[device]
    stages = shares(estimate.operators, by_stage=True)
    operators = shares(estimate.operators, by_stage=False)
    over_pct = 100 * max(verdict.violations.values())
    name = name_of(judge, architecture)
    eaten = ", ".join(f"{s.name} {s.share_pct:.0f} %" for s in stages[:3])
    kinds = ", ".join(f"{s.name} {s.share_pct:.0f} %" for s in operators[:3])
    lines.insert(
        0,
        f"Why not more? {_nearest_line(judge, nearest, architecture)}The most accurate network that did not fit is {name}, {best_pct:.2f} %: "
        f"{_end_of(judge, verdict, device)}. Its time goes into {eaten}; by operator {kinds}.",
    )
    return WhyNotMore(
        network=name,
        architecture=Genotype(space=architecture.space, version=architecture.version, genes=architecture.genes),
        accuracy_pct=best_pct,
        nearest=name_of(judge, nearest[0]),
        nearest_accuracy_pct=nearest[2],
        nearest_over_pct=100 * max(nearest[1].violations.values()),
        device=device,
        upper_ms=estimate.upper_ms,
        over_pct=over_pct,
        stages=stages,
        operators=operators,
        budget_changes=tuple(changes),
        lines=tuple(lines),
    )


def _nearest_line(judge: Judge, nearest: Scored, most_accurate: Architecture) -> str:
    architecture, verdict, accuracy_pct = nearest
    if architecture.key == most_accurate.key:
        return ""
    end = _end_of(judge, verdict, _device(judge, verdict))
    return f"The nearest miss that is more accurate is {name_of(judge, architecture)}, {accuracy_pct:.2f} %: {end}. "


def _end_of(judge: Judge, verdict: Verdict, device: str) -> str:
    """Return by how much a candidate breaks the budget that it breaks most, in the budget's own unit."""
    broken = max(verdict.violations, key=lambda name: verdict.violations[name])
    over_pct = 100 * verdict.violations[broken]
    over = f"{over_pct:,.0f} %" if over_pct >= 100 else f"{over_pct:.3g} %"
    budget = next((b for b in judge.goal.budgets if b.name == broken), None)
    upper_ms = verdict.estimates[device].upper_ms
    if budget is not None and budget.limit.quantity == "throughput":
        profile = next(target.profile for target in judge.targets if target.profile.name == device)
        return f"lower end {1e3 * judge.pictures(profile) / max(upper_ms, 1e-9):,.4g} fps on {device}, {over} short of {budget.limit.text}"
    if budget is not None and budget.limit.quantity != "latency":
        return f"{over} over the budget of {budget.limit.text}"
    return f"upper end {upper_ms:.3g} ms on {device}, {over} over"


def shares(operators: Iterable[OperatorLatency], *, by_stage: bool) -> tuple[Share, ...]:
    """Return latency by stage or by kind of operator, largest first."""
    sums: dict[str, float] = defaultdict(float)
    for op in operators:
        sums[stage_of(op.name) if by_stage else op.op] += op.latency_ms
    total = sum(sums.values()) or 1.0
    ranked = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Share(name=name, latency_ms=ms, share_pct=100 * ms / total) for name, ms in ranked)


def stage_of(operator: str) -> str:
    """Return the stage that an operator's name begins with: ``stages.2.blocks.0.conv`` is of ``stages.2``, ``layer4.1.conv1`` of ``layer4``."""
    first, *rest = operator.split(".")
    return f"{first}.{rest[0]}" if len(rest) > 1 and rest[0].isdigit() and not first[-1:].isdigit() else first


def name_of(judge: Judge, architecture: Architecture) -> str:
    """Return a network's published name, else its architecture's key."""
    facts = judge.space.facts(architecture)
    return f"{facts['network']} ({facts['weights']}, {facts['pretraining']})" if "network" in facts else architecture.key


def _device(judge: Judge, verdict: Verdict) -> str:
    """Return the device whose latency budget is broken most, else the first one."""
    broken = {b.device: verdict.violations[b.name] for b in judge.goal.budgets if b.device}
    return max(broken, key=lambda device: broken[device]) if broken else next(iter(verdict.estimates))


def _best_within(scored: Sequence[Scored], factor: float, judge: Judge, chosen_pct: float) -> BudgetChange:
    within = [s for s in scored if all(v <= factor - 1 + 1e-12 for v in s[1].violations.values())]
    change = f"{abs(factor - 1):.0%} {'more' if factor > 1 else 'less'} budget"
    if not within:
        return BudgetChange(factor=factor, network=None, accuracy_pct=None, line=f"  {change}: nothing that was scored fits.")
    architecture, _, accuracy_pct = max(within, key=lambda s: s[2])
    gain = accuracy_pct - chosen_pct
    name = name_of(judge, architecture)
    bought = f"buy {gain:.2f}" if gain > 0 else f"cost {-gain:.2f}"
    line = f"  {change} would {bought} points ({name}, {accuracy_pct:.2f} %)." if gain else f"  {change} would change nothing."
    return BudgetChange(factor=factor, network=name, accuracy_pct=accuracy_pct, line=line)
