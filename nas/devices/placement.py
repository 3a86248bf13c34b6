"""Whether a runtime runs a network wholly on a board's NPU: a short list of rules learnt from published jobs, and what falling back costs.

Two sorts of rule: an operator is in the network with which most networks of two lineages or more fell back in part; and the share of networks without any
such operator that fell back on the board at that precision, all of them where it has none on its NPU. An operator never makes placement better. Rules are learnt by `learn` from rows of any runtime and stand in ``hardware_profiles/placement.json`` (``experiments/018_placement_and_memory``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypedDict

from nas.devices.learnt import read_learnt
from nas.graphs.graph import Graph, Operator
from nas.graphs.passes import normalise

FILE = "placement.json"
MOST = 0.5
"""Share of networks that fell back, from which an operator is a rule. Set by hand."""

_FEWEST_LINEAGES, _FEWEST_ROWS = 2, 4  # by hand: one network, or one lineage, is no rule
_PRIOR_ROWS = 4.0  # by hand: a board with few jobs leans on the mean of all by so many rows


@dataclass(frozen=True, slots=True)
class Placed:
    """One job: what a rule is learnt from.

    Attributes:
        kinds: Operators of the network, see `kinds_of`.
        lineage: Of the network.
        board: Name of its profile, with the runtime.
        group: Boards and precisions that lack the same operators.
        precision: One of `nas.units.Precision`, or a mixture.
        fell: Whether a layer ran off the NPU.
        whole: Whether all of them did.
    """

    kinds: frozenset[str]
    lineage: str
    board: str
    group: str
    precision: str
    fell: bool
    whole: bool


class Rules(TypedDict):
    """What was learnt of a runtime.

    Attributes:
        boards: ``board|precision`` -> share that fell back, of networks without an operator of `operators`.
        operators: Group -> operator -> share of the networks with it that fell back.
        usual: Share that fell back, over all rows.
        limit: Chance from which a network is said to fall back.
    """

    boards: dict[str, float]
    operators: dict[str, dict[str, float]]
    usual: float
    limit: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network is likely to run.

    Attributes:
        off_npu: Chance that a part of it runs on CPU or GPU, 0 to 1.
        wholly_on_npu: Whether it is said to run wholly on the NPU.
        operator: Kind of operator that falls back; empty where none is the reason.
        slower: How many times longer such networks take, in the middle; None where nobody can say.
        why: In words; empty where it runs wholly on the NPU.
    """

    off_npu: float
    wholly_on_npu: bool
    operator: str
    slower: float | None
    why: str


@lru_cache(maxsize=4096)
def kinds_of(graph: Graph) -> frozenset[str]:
    """Return the kinds of a compiled graph's operators and fused activations.

    Convolutions over three axes, grouped ones, and depthwise windows over 3 × 3 are kinds of their own.
    """
    compiled = normalise(graph)
    kinds = {_kind(compiled, op) for op in compiled.operators}
    return frozenset(kinds | {str(op.attribute("activation")) for op in compiled.operators if op.attribute("activation")})


def _kind(graph: Graph, op: Operator) -> str:
    if op.category != "conv":
        return op.op
    groups = int(op.attribute("groups") or 1)
    if len(op.outputs[0].shape) == 5:
        return "Conv3d"
    if 1 < groups < graph.values[op.inputs[0]].shape[1]:
        return "GroupedConv"
    return "DepthwiseConv>3" if groups > 1 and max(op.attribute("kernel")) > 3 else op.op


def learn(rows: Sequence[Placed]) -> Rules:
    """Return the rules of one runtime.

    Operators are taken one after the other, in each group that with the largest share of networks fallen in part first, until none has `MOST` of those
    left; networks that fell back whole say nothing of operators. The chance from which a network is said to fall back is that which tells rows apart best.
    """
    usual = sum(row.fell for row in rows) / max(1, len(rows))
    operators: dict[str, dict[str, float]] = defaultdict(dict)
    for group in sorted({row.group for row in rows}):
        left = [row for row in rows if row.group == group and not row.whole]
        while (best := _best_operator(left)) is not None:
            share, operator = best
            operators[group][operator] = round(share, 3)
            left = [row for row in left if operator not in row.kinds]
    plain = [row for row in rows if not row.kinds & operators[row.group].keys()]
    rules = Rules(boards=_shares(plain, usual), operators={k: v for k, v in operators.items() if v}, usual=round(usual, 4), limit=0.0)
    chances = [placement_by(rules, row.kinds, row.board, row.group, row.precision)[0] for row in rows]
    rules["limit"] = _best_limit(chances, [row.fell for row in rows])
    return rules


def _best_limit(chances: Sequence[float], fell: Sequence[bool]) -> float:
    """Return the chance from which networks are said to fall back: that of the best mean of both shares that are right."""
    off, on = max(1, sum(fell)), max(1, len(fell) - sum(fell))

    def right(limit: float) -> float:
        predicted = [chance >= limit for chance in chances]
        return (
            sum(a and b for a, b in zip(predicted, fell, strict=True)) / off
            + sum(not a and not b for a, b in zip(predicted, fell, strict=True)) / on
        )

    return max(sorted(set(chances)), key=right, default=MOST)


def _shares(rows: Sequence[Placed], usual: float) -> dict[str, float]:
    grouped: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        grouped[f"{row.board}|{row.precision}"].append(row.fell)
    return {key: round((sum(fell) + _PRIOR_ROWS * usual) / (len(fell) + _PRIOR_ROWS), 3) for key, fell in sorted(grouped.items())}


def _best_operator(rows: Sequence[Placed]) -> tuple[float, str] | None:
    """Return the operator with which most networks fell back, and that share, each lineage weighing alike; None where there is no rule."""
    candidates = []
    for kind in {kind for row in rows for kind in row.kinds}:
        by_lineage: dict[str, list[bool]] = defaultdict(list)
        for row in rows:
            if kind in row.kinds:
                by_lineage[row.lineage].append(row.fell)
        count = sum(map(len, by_lineage.values()))
        share = sum(sum(fell) / len(fell) for fell in by_lineage.values()) / len(by_lineage)
        several = sum(any(fell) for fell in by_lineage.values()) >= _FEWEST_LINEAGES
        if several and count >= _FEWEST_ROWS and share >= MOST:
            candidates.append((share, count, kind))
    if not candidates:
        return None
    share, _, kind = max(candidates)
    return share, kind


def placement_by(rules: Rules, kinds: frozenset[str], board: str, group: str, precision: str) -> tuple[float, str]:
    """Return the chance that a network with some kinds of operators falls back, and the operator that is the reason (empty: none)."""
    share = rules["boards"].get(f"{board}|{precision}", rules["usual"])
    lacking = [(chance, kind) for kind, chance in rules["operators"].get(group, {}).items() if kind in kinds]
    if not lacking:
        return share, ""
    chance, kind = max(lacking)
    return max(chance, share), kind


def knows(device: str, runtime: str, precision: str) -> bool:
    """Return whether jobs of a device and precision are known."""
    learnt = _learnt().get(runtime)
    return learnt is not None and f"{device}|{precision}" in learnt["rules"]["boards"]


def placement(device: str, runtime: str, graph: Graph, precision: str) -> Placement | None:
    """Return where a network is likely to run on a device; None where no job of that device and precision is known.

    Args:
        device: Name of its profile.
        runtime: Of the profile.
        graph: Of the network.
        precision: At which it runs.
    """
    if not knows(device, runtime, precision):
        return None
    learnt = _learnt()[runtime]
    rules = learnt["rules"]
    chance, operator = placement_by(rules, kinds_of(graph), device, learnt["groups"].get(f"{device}|{precision}", ""), precision)
    wholly = chance < rules["limit"]
    slower = learnt["slower"]["part" if operator else "whole"]
    why = ""
    if operator:
        why = f"{operator} falls back to CPU or GPU on {device} at {precision}"
    elif not wholly:
        why = f"{chance:.0%} of the networks did not run wholly on the NPU of {device} at {precision}, whatever their operators"
    return Placement(chance, wholly, operator, None if wholly else slower, why)


class _Learnt(TypedDict):
    rules: Rules
    groups: dict[str, str]
    slower: dict[str, float | None]


@cache
def _learnt() -> Mapping[str, _Learnt]:
    """Return what was learnt, by runtime.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    return read_learnt(FILE, "placement", "runtimes", _check_shares)


def _check_shares(runtimes: Mapping[str, _Learnt]) -> None:
    for learnt in runtimes.values():
        if not all(0 <= share <= 1 for share in (*learnt["rules"]["boards"].values(), learnt["rules"]["usual"], learnt["rules"]["limit"])):
            raise ValueError("a share is none")
