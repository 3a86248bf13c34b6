"""What networks take on devices, as a person or a build server reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from nas.report.tables import Column, print_lines, print_table
from nas.results import CARRIED_OVER, BudgetCheck, Comparison, Estimate, Interval, OperatorChange, Unpriced

Row = Estimate | Unpriced

_MOST_CHANGES = 10
"""Operators that a comparison shows. Set by hand."""


def print_predictions(results: Sequence[Row], *, breakdown: bool) -> None:
    """Print one estimate in sentences, several as a table with what must be known of them under it."""
    estimates = [result for result in results if isinstance(result, Estimate)]
    several = len(results) > 1
    if several:
        _print_many(results)
    for estimate in estimates:
        if not several:
            _print_one(estimate)
        if several and (breakdown or estimate.comparison):
            print_lines(["", f"{estimate.network} on {estimate.device}"])
        if estimate.comparison:
            _print_comparison(estimate.comparison)
        if breakdown:
            _print_breakdown(estimate)


def frames_a_second(ms: float) -> float:
    """Return frames a second of a time a frame in ms."""
    return 1e3 / max(ms, 1e-9)


def time_of(estimate: Estimate) -> tuple[str, str, str]:
    """Return (value, interval, unit): frames a second where a device states throughput, else milliseconds; lower end first."""
    return _in_unit(estimate, estimate.quantity)


def _in_unit(times: Interval | Estimate, quantity: str) -> tuple[str, str, str]:
    if quantity == "latency":
        return f"{times.latency_ms:.4g}", f"{_digits(times.lower_ms)}–{_digits(times.upper_ms)}", "ms"
    value, lower, upper = (frames_a_second(ms) for ms in (times.latency_ms, times.upper_ms, times.lower_ms))
    return _digits(value), f"{_digits(lower)}–{_digits(upper)}", "fps"


def _digits(number: float) -> str:
    """Return three digits, or all of a larger number's."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def basis_of(estimate: Estimate) -> str:
    """Return how an estimate is known, in a word."""
    return "extrapolated" if estimate.basis == "estimated" and estimate.extrapolated else estimate.basis


def _print_many(results: Sequence[Row]) -> None:
    rows: list[list[str]] = []
    notes: dict[str, list[str]] = {}
    judged = any(isinstance(result, Estimate) and result.budgets for result in results)
    for result in results:
        if isinstance(result, Unpriced):
            rows.append([result.network, result.device, "", "", "", "not priced", *[""] * 5])
            continue
        value, interval, unit = time_of(result)
        broken = [check for check in result.budgets if not check.holds]
        verdict = "" if not result.budgets else ", ".join(map(_verdict, broken)) or "holds"
        rows.append(
            [
                result.network,
                result.device,
                value,
                unit,
                interval,
                basis_of(result),
                result.grade or "",
                verdict,
                result.precision,
                f"{result.macs / 1e6:,.0f}",
                f"{result.params / 1e6:.1f}",
            ]
        )
        for line in _doubts(result):
            notes.setdefault(line, []).append(f"{result.network} on {result.device}")
    columns = [
        *(
            Column("network"),
            Column("device"),
            Column("time"),
            Column("unit"),
            Column("interval", 2),
            Column("basis", 3),
            Column("grade", 4),
        ),
        *(Column("budget", 1 if judged else 9), Column("precision", 4), Column("MMACs", 5), Column("Mparams", 6)),
    ]
    print_table("", columns, rows)
    for line, where in notes.items():
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
        print_lines([f"{shown}: {line}"])
    errors = {r.device: r.model_error.line for r in results if isinstance(r, Estimate) and r.model_error and r.basis == "estimated"}
    print_lines(f"{device}: {line}" for device, line in errors.items())
    hashes = {r.device: r.profile_hash for r in results if isinstance(r, Estimate)}
    print_lines([f"profiles: {', '.join(f'{device}:{value}' for device, value in hashes.items())}"])


def _verdict(check: BudgetCheck) -> str:
    """Return how a budget is broken, in a few words."""
    if check.over_pct <= 0:
        return "BROKEN: lacks operators"
    return f"BROKEN: {check.over_pct:.3g} % {'short' if check.quantity == 'throughput' else 'over'}"


def _doubts(estimate: Estimate) -> list[str]:
    lines = []
    if estimate.unsupported:
        lines.append(f"not in these figures, as the device or its model lacks them: {', '.join(estimate.unsupported)}")
    if estimate.width_why:
        lines.append(estimate.width_why)
    elif estimate.extrapolated:
        lines.append(f"outside what was calibrated: {'; '.join(estimate.extrapolated_why)}")
    return lines + [notice for notice in estimate.notices if CARRIED_OVER in notice]


def _print_one(result: Estimate) -> None:
    value, spread, unit = time_of(result)
    what = "latency" if unit == "ms" else "throughput at full load (not latency)"
    head = f"{result.network} on {result.device} {result.precision} ({result.runtime}, batch {result.batch})"
    grade = f", grade {result.grade}" if result.grade else ""
    interval = f"{spread} {unit} at {100 * result.confidence:.0f} %"
    print_lines([f"{head}: {what} {value} {unit} {basis_of(result)}, {interval}{grade if result.basis == 'estimated' else ''}"])
    print_lines([f"  {result.model_error.line}"] if result.model_error and result.basis == "estimated" else [])
    print_lines(f"  {_check_line(check)}" for check in result.budgets)
    if (model := result.estimated) and result.basis in ("measured", "proxy"):
        if not result.repeats_within_pct:
            print_lines(["how well timings repeat on this device is unknown: the interval is as wide as is usual on others"])
        alone, ends, unit = _in_unit(model, result.quantity)
        print_lines([f"the model alone would say {alone} {unit}, {ends} {unit}{grade}"])
        if model.extrapolated_why:
            print_lines([f"  where the model is outside what it was calibrated on: {'; '.join(model.extrapolated_why)}"])
    print_lines([f"{result.macs / 1e6:,.0f} MMACs, {result.params / 1e6:.2f} M parameters; profile {result.profile_hash}"])
    if result.ram_bytes is not None and result.flash_bytes is not None:
        planned = f"{result.ram_bytes / 1e6:.2f} MB of RAM for activations, {result.flash_bytes / 1e6:.2f} MB of flash for weights"
        print_lines([f"{planned}, counted from the graph"])
    if result.peak_memory_mb is not None:
        span = f"{result.peak_memory_lower_mb:.0f}–{result.peak_memory_upper_mb:.0f}"
        print_lines([f"{result.peak_memory_mb:.0f} MB of memory at the peak, estimated, {span} MB at 90 % (process, runtime included)"])
    for place, where in ((result.placement, ""), (result.placement_onnx, " under ONNX Runtime")):
        if place is not None and not place.wholly_on_npu:
            cost = f"; networks that fell back took {place.slower:g} times as long (median)" if place.slower else ""
            print_lines([f"may not run wholly on the NPU{where}: {place.why}{cost}"])
    print_lines(_remarks(result))


def _check_line(check: BudgetCheck) -> str:
    side = {"upper": " at the interval's worse end", "point": " in the middle of the interval", "count": ""}[check.judged]
    figures = f"{check.value:.4g} {check.unit}{side}, {abs(check.over_pct):.1f} %"
    if check.holds:
        return f"budget of {check.budget} holds: {figures} inside"
    if check.over_pct <= 0:
        return f"budget of {check.budget} is BROKEN: the device or its model lacks operators, so the figures say nothing"
    return f"budget of {check.budget} is BROKEN: {figures} {'short' if check.quantity == 'throughput' else 'over'}"


def _remarks(result: Estimate) -> list[str]:
    """Return what must be known of the figures, a line each."""
    lines = []
    if len(result.precisions) > 1:
        lines.append("operators " + ", ".join(f"at {precision}: {count}" for precision, count in result.precisions.items()))
    if added := result.input_normalisation_ms:
        share = f"{added:.3g} ms for normalising the picture, which the device's timings include"
        lines.append(f"of this, {share}" if result.input_normalised else f"not in these figures: {share}")
    if result.unsupported:
        lines.append(f"NOT in these figures, as the device or its model lacks them: {', '.join(result.unsupported)}")
    if result.unchecked:
        lines.append(f"priced, but not known to run on this device: {', '.join(result.unchecked)}")
    if (drop := result.int8_drop_pct) is not None:
        lines.append(
            f"int8 is likely to cost {drop:.1f} points of accuracy, up to {result.int8_drop_upper_pct:.1f} at 90 %, predicted from the graph alone"
        )
    if result.grade == "D" and result.basis == "estimated":
        remedy = "Do this: time a few networks there, then nas devices calibrate NAME --from timings.csv"
        lines.append(f"grade D: {result.device} has no model of its own that errs by less than 35 %. {remedy}")
    if result.width_why:
        lines.append(result.width_why)
    elif result.extrapolated:
        lines.append(f"outside what was calibrated: {'; '.join(result.extrapolated_why)}")
    return lines + list(result.notices)


def _print_breakdown(result: Estimate) -> None:
    total = sum(op.latency_ms for op in result.operators) or 1.0
    kinds: dict[str, list[float]] = {}
    for op in result.operators:
        kinds.setdefault(op.op, []).append(op.latency_ms)
    ranked = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows = [[kind, str(len(ms)), f"{sum(ms):.4f}", f"{100 * sum(ms) / total:.1f}"] for kind, ms in ranked]
    print_table("by kind of operator", ["operator", "count", "ms", "%"], rows)
    rows = [[op.name, op.op, f"{op.latency_ms:.4f}", f"{100 * op.latency_ms / total:.1f}"] for op in result.operators]
    print_table("in order", ["name", Column("operator", 1), "ms", Column("%", 2)], rows)


def _print_comparison(change: Comparison) -> None:
    word = "slower" if change.change_ms > 0 else "faster"
    old = change.before
    print_lines(
        [
            f"{abs(change.change_ms):.4g} ms ({abs(change.change_pct):.1f} %) {word} than {change.network}: "
            f"{old.latency_ms:.4g} ms before, {old.latency_ms + change.change_ms:.4g} ms now, by the latency model on both sides"
        ]
    )
    columns = [Column("operator"), Column("count before", 2), Column("count now", 2)]
    columns += [Column("ms before"), Column("ms now"), Column("change ms")]
    rows = [[c.op, str(c.before_count), str(c.after_count), _ms(c.before_ms), _ms(c.after_ms), f"{c.change_ms:+.4f}"] for c in change.kinds]
    print_table("by kind of operator", columns, rows)
    slower = [c for c in change.operators if c.change_ms > 0][:_MOST_CHANGES]
    if slower:
        how = "by name" if change.paired_by == "name" else "by order, as their names do not agree"
        columns = [Column("name"), Column("operator", 2), Column("ms before", 1), Column("ms now", 1), Column("change ms")]
        print_table(f"what got slower most, paired {how}", columns, map(_change_cells, slower))


def _change_cells(change: OperatorChange) -> list[str]:
    return [change.name, change.op, _ms(change.before_ms), _ms(change.after_ms), f"{change.change_ms:+.4f}"]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


FIELDS = (
    *("network", "device", "precision", "runtime", "quantity", "batch", "latency_ms", "lower_ms", "upper_ms", "confidence", "basis"),
    *("extrapolated", "macs", "params", "profile_hash"),
)
"""Columns of the CSV that are fields of an estimate."""


def as_csv(results: Sequence[Row]) -> str:
    """Return one line a network and device, with a head; budgets and what is unsupported are joined by blanks."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*FIELDS, "unsupported", "within_budgets", "broken_budgets", "error"])
    for result in results:
        if isinstance(result, Unpriced):
            writer.writerow([result.network, result.device, *[""] * (len(FIELDS) - 2), "", "", "", result.error])
            continue
        within = ("yes" if result.within_budgets else "no") if result.budgets else ""
        broken = " ".join(check.budget for check in result.budgets if not check.holds)
        writer.writerow([*(getattr(result, name) for name in FIELDS), " ".join(result.unsupported), within, broken, ""])
    return buffer.getvalue()


def as_junit(results: Sequence[Row]) -> str:
    """Return JUnit's XML: a suite a device, a case a network; a broken budget is a failure, what cannot be priced an error.

    Source:
        The form that Jenkins, GitLab and GitHub's reporters read (testmoapp/junitxml).
    """
    from xml.etree import ElementTree as Xml

    root = Xml.Element("testsuites", name="nas predict")
    for device in dict.fromkeys(result.device for result in results):
        rows = [result for result in results if result.device == device]
        failed = sum(isinstance(row, Estimate) and not row.within_budgets for row in rows)
        errors = sum(isinstance(row, Unpriced) for row in rows)
        suite = Xml.SubElement(root, "testsuite", name=device, tests=str(len(rows)), failures=str(failed), errors=str(errors))
        for row in rows:
            case = Xml.SubElement(suite, "testcase", classname=device, name=row.network)
            if isinstance(row, Unpriced):
                Xml.SubElement(case, "error", message=row.error)
                continue
            value, interval, unit = time_of(row)
            case.set("time", f"{row.latency_ms / 1e3:.6f}")
            for check in row.budgets:
                if not check.holds:
                    Xml.SubElement(case, "failure", message=_check_line(check), type="budget")
            text = f"{value} {unit} {basis_of(row)}, {interval} {unit}; {row.precision}, profile {row.profile_hash}"
            Xml.SubElement(case, "system-out").text = "\n".join([text, *_doubts(row)])
    Xml.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"
