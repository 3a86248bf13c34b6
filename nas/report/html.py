"""One page a run, ``report.html``: the answer, the front with every candidate named, where the time goes, and how to do it again.

The page holds everything that it shows, Vega included (``vega.js``): it opens without a network and asks for nothing. What its charts draw
also stands in tables or in ``results.json``. It names no folder, host or user of the machine.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

from nas.report.charts import (
    OperatorTime,
    Spec,
    Stage,
    classes_spec,
    front_spec,
    fronts_spec,
    known_as,
    operators_spec,
    progress_spec,
    sensitivity_spec,
    stages_spec,
    timings_spec,
)
from nas.report.ranking import COLUMNS, PICKED, PREDICTED, conclusions, label_of, predicted_rows, ranking_rows
from nas.report.results import interval, result_text, with_interval
from nas.results import Point, Ranking, Result, decimals_of
from nas.results.listings import RunSummary
from nas.units import write_duration

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; color: #222; background: #fff; overflow-wrap: break-word; }
h1 { font-size: 1.4rem; line-height: 1.3; } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.table { overflow-x: auto; } table { border-collapse: collapse; } th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; }
th { border-bottom: 1px solid #999; vertical-align: bottom; } tbody tr:nth-child(even) { background: #f7f7f9; } tr.chosen { font-weight: 600; }
td small { display: block; color: #666; font-weight: 400; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; } .command { white-space: pre-wrap; } .chart { width: 100%; } img { max-width: 100%; }
.answer { font-size: 1.1rem; } .note { color: #555; margin: .3rem 0 .8rem; } .warning { color: #a00; } .vega-bind { margin: .3rem 0; }
@media (max-width: 600px) { body { font-size: 14px; margin: 1rem auto; padding: 0 .7rem; } th, td { padding: .15rem .35rem; font-size: 12px; } td:first-child { min-width: 7rem; overflow-wrap: anywhere; } }
"""

_START = """
for (const spec of document.querySelectorAll("script.spec"))
  vegaEmbed("#" + spec.dataset.at, JSON.parse(spec.textContent), {actions: {export: true, source: false, compiled: false, editor: false}})
    .then(drawn => (window.views ??= {})[spec.dataset.at] = drawn.view);
"""


@dataclass(frozen=True)
class Page:
    """What the page of a run shows.

    Attributes:
        result: Of the run.
        candidates: Further networks by what they are, such as ``scored by the search``.
        operators: Of the choice, by device.
        stages: Of the choice, from the input on.
        command: That does the run again.
        facts: Of the run, such as versions: what and its value.
        pictures: PNG files by title.
        ranking: How well the scores order networks that were trained alone; None where that was not looked at.
        ranking_plot: PNG file; empty where there is none.
    """

    result: Result
    candidates: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    operators: Mapping[str, Sequence[OperatorTime]] = field(default_factory=dict)
    stages: Sequence[Stage] = ()
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    ranking: Ranking | None = None
    ranking_plot: bytes = b""


def page_html(page: Page) -> str:
    """Return the page of a run as one HTML document."""
    chosen = page.result.chosen
    title = "Search result"
    if chosen is not None:
        title += f": {chosen.network or f'a network of {chosen.architecture.space}'} on {', '.join(chosen.devices)}"
    return _document(title, _answer(page.result), _sections(page))


def runs_html(rows: Sequence[RunSummary], results: Mapping[str, Result]) -> str:
    """Return the page of several runs as one HTML document: their choices side by side, and their fronts in one chart.

    Args:
        rows: What each has chosen.
        results: By the name of the run.
    """
    return _document("Runs side by side", "", _sections_of_runs(rows, results))


def shared_parts() -> dict[str, str]:
    """Return what all pages have alike, each by the mark that stands for it where pages are kept together: style, Vega, and what starts it."""
    return {"@STYLE@": _STYLE, "@VEGA@": files("nas.report").joinpath("vega.js").read_text(encoding="utf-8"), "@START@": _START}


def _document(title: str, lead: str, parts: Iterator[tuple[str, str]]) -> str:
    sections = "\n".join(f"<section><h2>{escape(heading)}</h2>\n{body}\n</section>" for heading, body in parts if body)
    style, vega, start = shared_parts().values()
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{style}</style></head>\n<body>\n'
        f"<h1>{escape(title)}</h1>\n{lead}\n{sections}\n<script>{vega}</script><script>{start}</script>\n</body></html>\n"
    )


def _sections(page: Page) -> Iterator[tuple[str, str]]:
    """Yield (title, HTML) in reading order; what a run does not have is empty."""
    result = page.result
    yield "Accuracy and latency", _chart("front", front_spec(result, page.candidates), _POINT) if result.front else ""
    yield "The front", _front_table(result)
    yield "Networks compared on these pictures", _contenders_table(result)
    timed = any(page.operators.values())
    yield "Where the milliseconds go", _chart("operators", operators_spec(page.operators), _by_kind(page.operators)) if timed else ""
    yield (
        "Estimates and timings",
        _chart("timings", timings_spec(result), _TIMED) if any(v.latency_ms for v in result.verified) else "",
    )
    drawing = _chart("stages", stages_spec(page.stages, page.operators), _STAGES) if page.stages and timed else ""
    pictures = "".join(_picture(title, png) for title, png in page.pictures.items())
    chain = [f"chain: {result.chosen.chain}"] if result.chosen and result.chosen.chain else []
    yield "The network", drawing + _lines((*chain, *result.blocks)) + pictures
    yield "Why not more accurate?", _lines(result.why_not_more.lines) if result.why_not_more else ""
    yield "Each class", _chart("classes", classes_spec(result), _CLASSES) if result.by_class else ""
    yield "Sensitivity at 8 bits", _chart("sensitivity", sensitivity_spec(result)) if result.sensitivity_db else ""
    yield "How far the scores can be trusted", _trust(page)
    yield "What it cost", _cost(result)
    yield "Progress of the search", _chart("progress", progress_spec(result)) if len(result.hypervolume_history) > 1 else ""
    yield "What to know", _lines((*result.open, *result.notices))
    yield "Model card", _card(page)
    yield "Do it again", f'<pre class="command">{escape(page.command)}</pre>' if page.command else ""
    shown = result.model_copy(update={"run_dir": "", "model": None})
    yield "As text", f"<details><summary>The result as the terminal shows it</summary><pre>{escape(result_text(shown))}</pre></details>"


_POINT = "Point at a network for its name, drag to move, scroll to zoom. Lines are intervals; budgets are compared with their upper ends."
_TIMED = "Lines are the estimated intervals, blue ticks the estimates, red points what the device took."
_STAGES = (
    "Each bar is a stage: as high as its maps are wide, and labelled with its output, channels × height × width. Point at it for its cost."
)
_CLASSES = "Worst first. Lines are 95 % intervals, from the number of test pictures of each class."


def _picture(title: str, png: bytes) -> str:
    return f'<p><img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'


def _trust(page: Page) -> str:
    """Return how the scores order networks that were trained alone, where that is known, and how far they say what counting says."""
    result, ranking = page.result, page.ranking
    parts = []
    if result.counting:
        shown = ", ".join(f"{label_of(name)} {tau:.2f}" for name, tau in result.counting.items())
        parts.append(
            f"Kendall's tau of the scores ({result.scored}) with {shown}: the nearer to 1 or -1, the less they say that counting does not."
        )
    if ranking is None:
        if not parts:
            return ""
        parts.append("How they order networks that are trained alone was not measured. To measure it, which takes a while: nas rank RUN.")
        return _lines(parts)
    title = f"{ranking.n} networks of {ranking.space}; {ranking.truth}"
    table = _table([column.head for column in COLUMNS], list(ranking_rows(ranking)))
    plot = _picture("how scores order networks", page.ranking_plot) if page.ranking_plot else ""
    measured = _lines(parts) + f'<p class="note">{escape(title)}</p>' + table + _lines(list(conclusions(ranking))) + plot
    if not ranking.predicted:
        return measured
    note = f"Not trained; {ranking.truth}, as the others let expect. {PICKED}"
    return f'{measured}<p class="note">{escape(note)}</p>' + _table(PREDICTED, list(predicted_rows(ranking)))


def _by_kind(operators: Mapping[str, Sequence[OperatorTime]]) -> str:
    """Return the share of each kind of operator in words, a sentence a device."""
    sentences = []
    for device, each in operators.items():
        total = sum(op.latency_ms for op in each) or 1.0
        kinds: dict[str, float] = {}
        for op in each:
            kinds[op.op] = kinds.get(op.op, 0.0) + op.latency_ms
        ranked = sorted(kinds.items(), key=lambda item: -item[1])[:5]
        sentences.append(f"On {device}: " + ", ".join(f"{kind} {ms / total:.0%}" for kind, ms in ranked) + ".")
    fixed = any(op.op == "Launch" for each in operators.values() for op in each)
    return " ".join(sentences) + (" Launch is the constant cost of every run." if fixed else "")


def _sections_of_runs(rows: Sequence[RunSummary], results: Mapping[str, Result]) -> Iterator[tuple[str, str]]:
    devices = list(dict.fromkeys(device for row in rows for device in row.devices))
    columns = ["run", "space", "network", "top-1 %", *(f"on {device}" for device in devices), "front", "evaluations", "time"]
    body = []
    for row in rows:
        latencies = [f"{at.shown[0]} {at.unit} ({at.shown[1]}), {known_as(at)}" if (at := row.devices.get(d)) else "" for d in devices]
        counts = [str(row.front_size), str(row.evaluations), write_duration(row.seconds)]
        body.append([row.run, row.space or "", row.network or row.status, _number(row.accuracy_pct, 2), *latencies, *counts])
    yield "Choices", _table(columns, body)
    yield "Accuracy and latency", _chart("fronts", fronts_spec(results)) if any(result.front for result in results.values()) else ""


def _answer(result: Result) -> str:
    chosen = result.chosen
    if chosen is None:
        return f'<p class="answer">{escape(result.status)}: no network has been chosen.</p>'
    digits = decimals_of(result.blind.pictures if result.blind else None)
    tested = f"top-1{' as published' if chosen.network else ''}"
    if result.blind and chosen.accuracy_pct is not None:
        tested = f"of {result.blind.pictures:,} test pictures right ({interval(chosen.accuracy_pct, result.blind.pictures)})"
    accuracy = "" if chosen.accuracy_pct is None else f", {chosen.accuracy_pct:.{digits}f} % {tested}"
    where = "; ".join(f"{at.shown[0]} {at.unit} ({at.shown[1]}) on {device}, {known_as(at)}" for device, at in chosen.devices.items())
    warning = f'<p class="warning">{escape(result.blind.verdict)}</p>' if result.blind and result.blind.verdict else ""
    model = "A model file was written." if result.model else f"No model file: {result.model_reason}"
    why = f"{result.why[:1].upper()}{result.why[1:]}."
    return f'{warning}<p class="answer"><b>{escape(chosen.name)}</b>: {escape(where)}{accuracy}. {escape(why)} {escape(model)}</p>'


def _lines(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line.strip())}</li>" for line in lines) + "</ul>" if lines else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[bool] = ()) -> str:
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    kinds = [' class="number"' if n else "" for n in numeric]
    head = "".join(f"<th{kind}>{escape(column)}</th>" for column, kind in zip(columns, kinds, strict=True))
    body = ""
    for i, row in enumerate(rows):
        mark = ' class="chosen"' if i < len(chosen) and chosen[i] else ""
        body += f"<tr{mark}>" + "".join(f"<td{kind}>{_cell(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    """Return a cell; what follows a line break is small."""
    first, _, rest = text.partition("\n")
    return escape(first) + (f"<small>{escape(rest)}</small>" if rest else "")


def _is_number(cell: str) -> bool:
    return not cell or re.fullmatch(r"[-+\d.,–± ]+", cell) is not None


def _front_table(result: Result) -> str:
    points = sorted(result.front, key=lambda point: point.latency_ms)
    if not points:
        return ""
    digits = decimals_of(result.blind.pictures if result.blind else None)
    scored = any(p.supernet_accuracy_pct is not None for p in points)
    probed = any(p.probe_accuracy_pct is not None for p in points)
    devices = list(points[0].devices)
    columns = ["network", "top-1 %", *([f"{result.scored} %"] if scored else []), *(["probe %"] if probed else [])]
    for device in devices:
        columns += [f"{device} {points[0].devices[device].unit}", "interval", "basis"]
    columns += ["precision", "MMACs", "Mparams", "px"]
    rows = []
    for p in points:
        row = [_name(p), _number(p.accuracy_pct, digits), *([_number(p.supernet_accuracy_pct, digits)] if scored else [])]
        row += [_number(p.probe_accuracy_pct, 1)] if probed else []
        for device in devices:
            row += [*p.devices[device].shown, known_as(p.devices[device])]
        rows.append([*row, p.precision, f"{p.macs / 1e6:,.0f}", f"{p.params / 1e6:.1f}", str(p.resolution)])
    return _table(columns, rows, [result.chosen is not None and p.key == result.chosen.key for p in points])


def _name(point: Point) -> str:
    """Return a network's name, with its weights on a second line."""
    return f"{point.network}\n{point.weights}, {point.pretraining}" if point.network else point.key


def _contenders_table(result: Result) -> str:
    if not result.contenders:
        return ""
    several = any(c.kind for c in result.contenders)
    tested = sum(result.by_class.pictures) if result.by_class else result.blind.pictures if result.blind else 0
    columns = [*(["kind"] if several else []), "network", "px", "ms", "upper ms", "probe %"]
    columns += [*(["shared weights, validation %"] if several else []), "while compared, validation %", "fine-tuned, validation %"]
    rows = []
    for c in result.contenders:
        row = [*([c.kind] if several else []), c.network, str(c.resolution), f"{c.latency_ms:.3g}", f"{c.upper_ms:.3g}"]
        row.append(with_interval(c.probe_accuracy_pct, c.probe_pictures or c.pictures))
        row += [with_interval(c.supernet_accuracy_pct, c.scored_pictures)] if several else []
        row.append(with_interval(c.raced_accuracy_pct[-1] if c.raced_accuracy_pct else None, c.pictures))
        row += [with_interval(c.validation_accuracy_pct, c.pictures), with_interval(c.accuracy_pct, tested), c.outcome]
        rows.append(row)
    chosen = [result.chosen is not None and c.key == result.chosen.key for c in result.contenders]
    return _table([*columns, "test %", "outcome"], rows, chosen)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cost(result: Result) -> str:
    if ledger := result.ledger:
        rows = [[p.phase, "" if p.forecast_s is None else write_duration(p.forecast_s), write_duration(p.seconds)] for p in ledger.phases]
        rows += [["all else: reading pictures, prices, the choice", "", write_duration(ledger.other_s)]] if rows else []
        energy = "" if ledger.energy_j is None else f", {ledger.energy_j / 3.6e6:.3g} kWh of the processor package"
        total = f"{write_duration(ledger.seconds)} by the clock, {ledger.processor_s / 3600:.3g} processor-hours{energy}."
        return f"<p>{escape(total)}</p>" + _table(["phase", "forecast", "took"], rows)
    rows = [[phase, write_duration(seconds)] for phase, seconds in result.seconds.items() if seconds]
    return _table(["phase", "took"], rows) if rows else ""


def _card(page: Page) -> str:
    result = page.result
    rows = [[key, value] for key, value in page.facts.items() if value]
    if result.chosen is not None:
        rows += [["parameters", f"{result.chosen.params:,}"], ["multiply-adds", f"{result.chosen.macs:,}"]]
    if result.model_sha256:
        rows.append(["sha256 of the model file", result.model_sha256])
    if result.blind:
        rows.append(["blind answers", result.blind.line])
    rows += [["operators that a device lacks", op] for op in result.lacking_operators]
    return _table(["what", "value"], rows) if rows else ""


def _chart(name: str, spec: Spec, note: str = "") -> str:
    whole = {"$schema": _SCHEMA, "background": "white", "autosize": {"type": "fit-x", "contains": "padding"}, **spec}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    words = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'{words}<div class="chart" id="{name}"></div><script class="spec" type="application/json" data-at="{name}">{text}</script>'
