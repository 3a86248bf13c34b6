"""Several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.errors import ArtifactError, UsageError
from nas.results import Result
from nas.results.listings import RunSummary


def compare_runs(runs: Sequence[Path], to: Path | None) -> tuple[RunSummary, ...]:
    """See `nas.compare`."""
    from nas.report.html import runs_html
    from nas.runs.lifecycle import show

    if len(runs) < 2:
        raise UsageError(f"compare: two runs or more are needed, got {len(runs)}. Do this: nas show RUN for one.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise UsageError("compare: a run is named twice. Do this: leave it out once.")
    if to is not None and to.exists():
        raise UsageError(f"--to {to}: exists already. Do this: give another name.")
    results = {name: show(run) for name, run in zip(_names(runs), runs, strict=True)}
    rows = tuple(_summary(name, result) for name, result in results.items())
    if to is not None:
        try:
            to.write_text(runs_html(rows, results), encoding="utf-8")
        except OSError as error:
            raise ArtifactError(f"--to {to}: cannot be written ({error.strerror}).") from None
    return rows


def _names(runs: Sequence[Path]) -> list[str]:
    """Return a name for each run: its directory's, with as much of the path before it as tells it from the others."""
    parts = [run.resolve().parts for run in runs]
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({part[-n:] for part in parts}) == len(parts))
    return ["/".join(part[-depth:]) for part in parts]


def _summary(name: str, result: Result) -> RunSummary:
    chosen = result.chosen
    return RunSummary(
        run=name,
        status=result.status,
        space=chosen.architecture.space if chosen else None,
        network=chosen.name if chosen else None,
        accuracy_pct=chosen.accuracy_pct if chosen else None,
        devices=chosen.devices if chosen else {},
        front_size=len(result.front),
        evaluations=result.evaluations,
        seconds=sum(result.seconds.values()),
    )
