"""A run's result as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nas.report.tables import Column, print_lines, print_table, stdout_console
from nas.results import ByClass, DeviceLatency, Ledger, Point, Result, decimals_of

if TYPE_CHECKING:
    from rich.console import Console


_SHOWN_CLASSES = 20  # by hand: one screen


def result_text(result: Result) -> str:
    """Return what `print_result` prints."""
    import io

    from rich.console import Console

    buffer = io.StringIO()
    print_result(result, Console(file=buffer, width=100_000, highlight=False))
    return buffer.getvalue()


def print_result(result: Result, console: Console | None = None) -> None:
    """Print status, front, choice, margin and what stands in the way of more."""
    console = console or stdout_console()
    front, chosen = result.front, result.chosen
    digits = decimals_of(result.blind.pictures if result.blind else None)
    if result.blind and result.blind.verdict:
        print_lines([result.blind.verdict], console)
    if result.status != "finished":
        _print_status(result, console)
    if front and not result.contenders:  # those have a table of their own
        others = [name for name in result.objectives if name != "accuracy_pct" and not name.startswith("latency_ms")]
        better = f"better in accuracy and {' and '.join(others)}" if others else "both faster and more accurate"
        _print_points(
            f"The front: nothing else within the budgets is {better}", front, chosen, console, digits, result.knee, scored=result.scored
        )
    if result.zoo and result.zoo != front:
        _print_points("Published networks within the same budgets (their authors' weights, ImageNet-1k)", result.zoo, None, console, 2)
    if result.contenders:
        _print_contenders(result, console)
    if chosen:
        print_lines(_choice(result), console)
        if result.blind and chosen.accuracy_pct is not None:
            between = interval(chosen.accuracy_pct, result.blind.pictures)
            print_lines([f"  {chosen.accuracy_pct:.{digits}f} % of the test pictures ({between}); {result.blind.line}"], console)
        print_lines((f"  {line}" for line in result.blocks), console)
    if sensitive := sorted(result.sensitivity_db.items(), key=lambda item: item[1])[:3]:
        blocks = ", ".join(f"{block} {ratio:.1f} dB" for block, ratio in sensitive)
        print_lines([f"  most sensitive to 8 bits (signal to noise of the scores where one block alone is quantised): {blocks}"], console)
    if result.by_class:
        print_lines(_by_class(result.by_class), console)
    for part in result.why_not_more.lines if result.why_not_more else ():
        print_lines([part], console)
    for verified in result.verified:
        print_lines([verified.line], console)
    print_lines([result.revision.line] if result.revision else [], console)
    print_lines((f"open: {text}" for text in result.open), console)
    print_lines((f"note: {text}" for text in result.notices), console)
    if result.model:
        print_lines([f"model: {result.model}"], console)
    elif result.model_reason:
        print_lines([f"no model file: {result.model_reason}"], console)
    if result.ledger:
        print_lines(_ledger(result.ledger), console)
    spent = "".join(f", {phase} {seconds:.1f} s" for phase, seconds in result.seconds.items() if seconds)
    print_lines(
        [
            f"{result.evaluations} evaluations, {result.proposals} proposals{spent}."
            + (f" Run directory: {result.run_dir}" if result.run_dir else "")
        ],
        console,
    )


def _print_contenders(result: Result, console: Console) -> None:
    several = any(c.kind for c in result.contenders)
    columns = [
        Column(""),
        *([Column("kind")] if several else []),
        Column("network"),
        Column("px", 5),
        Column("ms", 3),
        Column("upper ms"),
        Column("probe %", 4),
        *([Column("shared weights, val. %", 4)] if several else []),
        Column("while compared, val. %", 2),
        Column("fine-tuned, val. %", 1),
        Column("test %"),
        Column("epochs", 7),
        Column("outcome", 6, text=True),
    ]
    tested = sum(result.by_class.pictures) if result.by_class else result.blind.pictures if result.blind else 0
    rows = []
    for c in result.contenders:
        mark = "→" if result.chosen and c.key == result.chosen.key else ""
        row = [mark, *([c.kind] if several else []), c.network, str(c.resolution), f"{c.latency_ms:.3g}", f"{c.upper_ms:.3g}"]
        row.append(with_interval(c.probe_accuracy_pct, c.probe_pictures or c.pictures))
        row += [with_interval(c.supernet_accuracy_pct, c.scored_pictures)] if several else []
        row.append(" ".join(with_interval(value, c.pictures) for value in c.raced_accuracy_pct[-1:]))
        row += [with_interval(c.validation_accuracy_pct, c.pictures), with_interval(c.accuracy_pct, tested)]
        row += [f"{c.epochs:.1f}" if c.epochs else "", c.outcome]
        rows.append(row)
    what = "Networks of every kind that was tried" if several else "Published networks"
    print_table(f"{what} on these pictures (with 95 % intervals)", columns, rows, console)


def with_interval(value: float | None, pictures: int) -> str:
    """Return an accuracy with half the width of its 95 % interval, and no more digits than that leaves: ``81.3 ± 2.4``."""
    if value is None or not pictures:
        return ""
    half = wilson(value, pictures)[1]
    digits = 1 if half < 10 else 0
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def interval(accuracy_pct: float, pictures: int) -> str:
    """Return the 95 % interval of an accuracy in words."""
    lower, upper = _ends(accuracy_pct, pictures)
    return f"95 % interval {lower:.1f}–{upper:.1f} %"


def _ends(accuracy_pct: float, pictures: int) -> tuple[float, float]:
    """Return the ends of an accuracy's 95 % interval, in %."""
    middle, half = wilson(accuracy_pct, pictures)
    return max(0.0, middle - half), min(100.0, middle + half)  # rounding alone leaves 0…100


def wilson(accuracy_pct: float, pictures: int) -> tuple[float, float]:
    """Return the middle and half the width of an accuracy's 95 % interval, in %.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927: the score interval.
    """
    share, z = accuracy_pct / 100, 1.96
    widened = 1 + z**2 / pictures
    half = z / widened * (share * (1 - share) / pictures + z**2 / (4 * pictures**2)) ** 0.5
    return 100 * (share + z**2 / (2 * pictures)) / widened, 100 * half


def _by_class(classes: ByClass) -> list[str]:
    """Return the accuracy of each class, the worst first, each with what it is taken for most often."""
    lines = []
    order = sorted((accuracy_pct, i) for i, accuracy_pct in enumerate(classes.accuracy_pct) if accuracy_pct is not None)
    for accuracy_pct, i in order[:_SHOWN_CLASSES]:
        wrong = [(count, classes.classes[j]) for j, count in enumerate(classes.confusion[i]) if j != i and count]
        taken = f", most often taken for {max(wrong)[1]} ({max(wrong)[0]})" if wrong else ""
        lower, upper = _ends(accuracy_pct, classes.pictures[i])
        lines.append(f"  {classes.classes[i]}: {accuracy_pct:.0f} % ({lower:.0f}–{upper:.0f}) of {classes.pictures[i]}{taken}")
    more = [f"  … {len(order) - _SHOWN_CLASSES} more classes in results.json"] if len(order) > _SHOWN_CLASSES else []
    return ["on the test pictures of each class, with 95 % intervals:", *lines, *more]


def _ledger(ledger: Ledger) -> list[str]:
    from nas.units import write_duration

    forecast = f", {write_duration(ledger.forecast_s)} were forecast" if ledger.forecast_s is not None else ""
    limit = f", of {write_duration(ledger.limit_s)} allowed" if ledger.limit_s is not None else ""
    energy = f", {ledger.energy_j / 3.6e6:.3g} kWh of the processor package" if ledger.energy_j is not None else ""
    phases = "; ".join(
        f"{cost.phase} {write_duration(cost.seconds)}"
        + (f" (forecast {write_duration(cost.forecast_s)})" if cost.forecast_s is not None else "")
        for cost in ledger.phases
    )
    phases += f"; all else (reading pictures, prices, the choice) {write_duration(ledger.other_s)}" if ledger.phases else ""
    return [f"cost: {write_duration(ledger.seconds)}{limit}{forecast}; {ledger.processor_s / 3600:.3g} processor-hours{energy}. {phases}"]


def _print_status(result: Result, console: Console) -> None:
    done, total = result.done, result.total
    progress = f", {done}" + (f" of {total}" if total else "") if done is not None else ""
    eta = result.eta_s
    remaining = f", about {eta:.0f} s to go in this phase" if eta is not None else ""
    volume = result.hypervolume
    speed, best = result.evaluations_per_s, result.best_accuracy_pct
    front = f"; front of {len(result.front)}" + (f", hypervolume {volume:.4g}" if volume is not None else "")
    front += (f", best {best:.2f} %" if best is not None else "") + (f", {speed:.3g} evaluations/s" if speed is not None else "")
    print_lines([f"{result.status}: {result.phase or '?'}{progress}{remaining}{front}"], console)


def _print_points(
    title: str,
    points: Sequence[Point],
    chosen: Point | None,
    console: Console,
    digits: int,
    knee: str | None = None,
    scored: str = "",
) -> None:
    devices = list(points[0].devices) if points else []
    facts = [key for key in ("network", "weights", "pretraining", "distilled") if any(getattr(p, key) is not None for p in points)]
    columns = [Column(""), *(Column(key, priority) for key, priority in zip(facts or ["architecture"], (0, 2, 9, 10), strict=False))]
    columns.append(Column("top-1 %"))
    if not facts:
        columns.append(Column(f"{scored} %", 1))
    columns += [Column(f"{device} {points[0].devices[device].unit}") for device in devices]
    columns += [
        Column("interval", 3),
        Column("basis", 4),
        Column("precision", 6),
        Column("MMACs", 7),
        Column("Mparams", 8),
        Column("px", 5),
    ]
    sizes = [
        name
        for name in ("size_bytes", "memory_bytes", "peak_memory_bytes", "ram_bytes", "flash_bytes")
        if any(getattr(p, name) is not None for p in points)
    ]
    columns += [Column(f"{name.removesuffix('_bytes').replace('_', ' ')} MB", 1) for name in sizes]
    risky = any(p.int8_drop_pct is not None for p in points)
    columns += [Column("int8 may lose", 2)] if risky else []
    placed = any(p.off_npu_pct is not None for p in points)
    columns += [Column("off NPU %", 2)] if placed else []
    rows = []
    for p in sorted(points, key=lambda point: point.latency_ms):
        row = [" ".join(mark for mark, holds in (("→", p == chosen), ("knee", p.key == knee)) if holds)]
        row += [str(getattr(p, key) or "") for key in facts] or [p.key]
        row.append(_percent(p.accuracy_pct, 2 if facts else digits))
        if not facts:
            row.append(_percent(p.supernet_accuracy_pct, digits))
        row += [p.devices[device].shown[0] for device in devices]
        first = p.devices[devices[0]]
        row += [first.shown[1], first.known_as, p.precision, f"{p.macs / 1e6:,.0f}", f"{p.params / 1e6:.1f}", str(p.resolution)]
        row += [f"{getattr(p, name) / 1e6:.3g}" for name in sizes]
        row += ["" if p.int8_drop_pct is None else f"{p.int8_drop_pct:.1f}"] if risky else []
        row += ["" if p.off_npu_pct is None else f"{p.off_npu_pct:.0f}"] if placed else []
        rows.append(row)
    print_table(title, columns, rows, console)


def _percent(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _choice(result: Result) -> list[str]:
    chosen = result.chosen
    assert chosen is not None
    lines = [f"choice: {chosen.name}: {result.why}".rstrip(": ")]
    if chosen.chain:
        lines.append(f"  {chosen.chain}")
    for device, at in chosen.devices.items():
        value, spread = at.shown
        grade = f", grade {at.grade}" if at.grade and at.basis == "estimated" else ""
        margins = [_held(margin, budget, unit) for margin, budget, unit in _budgets(at)]
        lines.append(f"  {device} {at.precision}: {value} {at.unit} {at.known_as}, {spread} {at.unit}{grade}{''.join(margins)}")
        if at.basis == "estimated" and (error := result.latency_models.get(device)):
            lines.append(f"  {error.line}")
        if at.known_as == "extrapolated":
            lines.append(
                f"  outside what the latency model of {device} was calibrated on: time this network there before you rely on it (nas search --verify)."
            )
    if chosen.int8_drop_pct is not None:
        lines.append(
            f"  int8 is likely to cost {chosen.int8_drop_pct:.1f} points of accuracy, predicted from the graph alone; the test of the quantised file counts."
        )
    return lines


def _budgets(at: DeviceLatency) -> Iterator[tuple[float, float, str]]:
    """Yield margin, budget and unit of each budget of a device."""
    if at.margin_ms is not None and at.budget_ms is not None:
        yield at.margin_ms, at.budget_ms, "ms"
    if at.margin_fps is not None and at.budget_fps is not None:
        yield at.margin_fps, at.budget_fps, "fps"


def _held(margin: float, budget: float, unit: str) -> str:
    return f"; {margin:.3g} {unit} ({100 * margin / budget:.1f} %) inside the budget of {budget:g} {unit}"
