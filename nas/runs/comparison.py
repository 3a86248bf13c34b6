"""An older network beside a newer one: what got slower, and where."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from nas.results import Comparison, Estimate, Interval, OperatorChange, OperatorShare

_SHARE_NAMED = 0.5
"""Operators are paired by name where so many of the newer network's names are the older one's too. Set by hand."""


def compared(before: Estimate, after: Estimate) -> Comparison:
    """Return what changed between two estimates of one device at one precision, by the latency model alone on both sides.

    A device's own timing of a published network has no breakdown, so the model's word stands for it here.
    """
    old, new = _modelled(before), _modelled(after)
    pairs, named = _pairs(before.operators, after.operators)
    changes = [_change(a, b) for a, b in pairs]
    change_ms = new.latency_ms - old.latency_ms
    return Comparison(
        network=before.network,
        before=old,
        change_ms=change_ms,
        change_pct=100 * change_ms / old.latency_ms if old.latency_ms else 0.0,
        kinds=_slowest_first(_kinds(before.operators, after.operators)),
        operators=_slowest_first(change for change in changes if change.change_ms),
        paired_by="name" if named else "order",
    )


def _modelled(estimate: Estimate) -> Interval:
    known = estimate.estimated or estimate
    return Interval(latency_ms=known.latency_ms, lower_ms=known.lower_ms, upper_ms=known.upper_ms)


def _pairs(
    before: Sequence[OperatorShare], after: Sequence[OperatorShare]
) -> tuple[list[tuple[OperatorShare | None, OperatorShare | None]], bool]:
    """Return operators that stand for each other, and whether their names say so; else the longest runs of equal kinds do."""
    old = {op.name: op for op in before}
    shared = sum(op.name in old for op in after)
    if shared >= _SHARE_NAMED * max(1, len(after)) and len(old) == len(before):
        new = {op.name: op for op in after}
        return [(old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])], True
    pairs: list[tuple[OperatorShare | None, OperatorShare | None]] = []
    matcher = SequenceMatcher(None, [op.op for op in before], [op.op for op in after], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            pairs += zip(before[i1:i2], after[j1:j2], strict=True)
        else:
            pairs += [(op, None) for op in before[i1:i2]] + [(None, op) for op in after[j1:j2]]
    return pairs, False


def _change(before: OperatorShare | None, after: OperatorShare | None) -> OperatorChange:
    named = after or before
    assert named is not None
    return OperatorChange(
        name=named.name, op=named.op, before_ms=before.latency_ms if before else None, after_ms=after.latency_ms if after else None
    )


def _kinds(before: Sequence[OperatorShare], after: Sequence[OperatorShare]) -> list[OperatorChange]:
    sums: tuple[dict[str, float], dict[str, float]] = (defaultdict(float), defaultdict(float))
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for side, operators in enumerate((before, after)):
        for op in operators:
            sums[side][op.op] += op.latency_ms
            counts[side][op.op] += 1
    old, new = sums
    return [
        OperatorChange(
            name="",
            op=kind,
            before_ms=old.get(kind),
            after_ms=new.get(kind),
            before_count=counts[0][kind],
            after_count=counts[1][kind],
        )
        for kind in dict.fromkeys([*old, *new])
    ]


def _slowest_first(changes: Iterable[OperatorChange]) -> tuple[OperatorChange, ...]:
    return tuple(sorted(changes, key=lambda change: -change.change_ms))
