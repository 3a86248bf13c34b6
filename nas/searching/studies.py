"""The searches that one storage holds, as `nas studies` lists them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nas.results import StudySummary
from nas.searching.backend import Backend, Record
from nas.searching.leases import LEASE_S, Lease


def summaries(backend: Backend) -> list[StudySummary]:
    """Return one summary a study, by name.

    Raises:
        ArtifactError: The storage is away, or damaged.
    """
    return [_summary(backend, name, study_id) for name, study_id in sorted(backend.studies().items())]


def _summary(backend: Backend, name: str, study_id: int) -> StudySummary:
    facts = {key: value for key, value in backend.study_attributes(study_id).items() if isinstance(value, str)}
    records = backend.records(study_id, 0, set())
    best = _best(records, backend.directions(study_id))
    now_s = backend.clock_s() or time.time()
    return StudySummary(
        study=name,
        status=_status(facts, records, now_s),
        space=facts.get("space", "unknown"),
        devices=_devices(facts),
        goal=facts.get("goal", "unknown"),
        searcher=facts.get("searcher"),
        evaluations=sum(record.state == "COMPLETE" for record in records),
        proposals=len(records),
        workers=len({_lease(record).worker.nonce for record in records if _at_work(record, now_s)}),
        best=best,
    )


def _status(facts: Mapping[str, str], records: Sequence[Record], now_s: float) -> str:
    if any(_at_work(record, now_s) for record in records):
        return "running"
    stated = facts.get("status", "")
    if stated in ("finished", "training"):
        return stated
    return "interrupted" if records else "new"


def _at_work(record: Record, now_s: float) -> bool:
    """Return whether a trial's worker was heard of within its lease."""
    if record.state != "RUNNING":
        return False
    lease = _lease(record)
    alive = lease.worker.alive
    return bool(alive) or (alive is None and now_s - lease.at_s < LEASE_S)


def _lease(record: Record) -> Lease:
    return Lease.from_json(record.attributes.get("owner"), record.attributes.get("lease"))


def _best(records: Sequence[Record], directions: Sequence[str]) -> float | None:
    """Return the best first objective of what is within its budgets."""
    able = [
        float(record.values[0])
        for record in records
        if record.state == "COMPLETE" and record.values and all(float(v) <= 0 for v in record.violations.values())
    ]
    finite = [value for value in able if math.isfinite(value)]
    if not finite:
        return None
    return max(finite) if directions and directions[0] == "maximize" else min(finite)


def _devices(facts: Mapping[str, str]) -> tuple[str, ...]:
    try:
        request: Any = json.loads(facts.get("request", "{}"))
    except ValueError:
        return ()
    devices = request.get("devices", []) if isinstance(request, dict) else []
    return tuple(str(device) for device in devices) if isinstance(devices, list) else ()
