"""How well scores order networks, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

from nas.report.tables import Column, print_lines, print_table
from nas.results import Agreement, Ranking

LABELS = {
    "supernet": "supernet",
    "features": "supernet's features",
    "calibrated": "calibrated scores",
    "vote": "vote of training-free scores",
    "params": "parameters",
    "macs": "multiply-adds",
}


def label_of(name: str) -> str:
    """Return what a score or a baseline is called in a table."""
    return f"latency on {name.partition('/')[2]}" if name.startswith("latency_ms/") else LABELS.get(name, name)


COLUMNS = (
    Column("order by"),
    Column("Kendall's tau (90 %)"),
    Column("Spearman (90 %)", 2),
    Column("tau in the best tenth (90 %)", 3),
    Column("points lost by its first choice (90 %)", 1),
)


PICKED = "Intervals hold for networks drawn at random; these were picked by their scores, and may lie outside more often."


def ranking_rows(result: Ranking) -> Iterator[list[str]]:
    """Yield the cells of one row for each score and baseline, and for the second seed."""
    for name, agreement in (result.scores | result.baselines).items():
        yield _row(label_of(name), agreement)
    if result.ceiling:
        yield _row(f"second seed, {result.ceiling.n} networks", result.ceiling)


PREDICTED = ("network of the front", "accuracy by calibration, %", "90 %")


def predicted_rows(result: Ranking) -> Iterator[list[str]]:
    """Yield the cells of one row for each network whose accuracy is predicted, the best first."""
    for network in sorted(result.predicted, key=lambda network: -network.accuracy_pct):
        yield [network.key, f"{network.accuracy_pct:.1f}", "{:.1f}–{:.1f}".format(*network.interval_pct)]


def print_ranking(result: Ranking) -> None:
    """Print one row for each score and baseline, then what follows from them."""
    print_table(f"{result.n} networks of {result.space}; {result.truth}", COLUMNS, list(ranking_rows(result)))
    print_lines(list(conclusions(result)))
    if result.predicted:
        print_table(
            f"Not trained; {result.truth}, as the others let expect", [Column(head) for head in PREDICTED], list(predicted_rows(result))
        )
        print_lines([PICKED])


def conclusions(result: Ranking) -> Iterator[str]:
    """Yield what the figures say, in sentences."""
    for name, agreement in result.scores.items():
        if agreement.above_baselines is None:
            yield f"{label_of(name)}: no order to compare."
            continue
        share = 100 * agreement.above_baselines
        verdict = (
            "it beats counting and the vote"
            if share >= 90
            else "it does not beat what costs next to nothing"
            if share <= 10
            else "no conclusion"
        )
        yield f"{label_of(name)}: above every baseline in {share:.0f} % of the resamples; {verdict}."
    if result.intervals:
        intervals = result.intervals
        yield (
            f"{intervals.nominal:.0%} intervals on accuracy from {intervals.known} known networks hold {intervals.covered:.0%} of the other {intervals.n}; half are narrower than {intervals.median_points:.1f} points."
        )
    if result.ceiling is None and "trained alone" in result.truth:
        yield "How far training alone agrees with itself was not looked at. Do this: --ceiling N."


def _row(label: str, agreement: Agreement) -> list[str]:
    return [
        label,
        _shown(agreement.kendall, agreement.kendall_interval),
        _shown(agreement.spearman, agreement.spearman_interval),
        _shown(agreement.top_tenth_kendall, agreement.top_tenth_interval),
        _shown(agreement.regret_points, agreement.regret_interval),
    ]


def _shown(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
