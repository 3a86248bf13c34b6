"""One page a run, ``report.html``: the answer, the front with every candidate named, where the time goes, and how to do it again.

The page holds everything that it shows, Vega included (``vega.js``): it opens without a network and asks for nothing. Charts are
Vega-Lite specifications; what they draw also stands in tables or in ``results.json``. It names no folder, host or user of the machine.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import Any

from nas.report.results import result_text
from nas.results import DeviceLatency, Point, Result, decimals_of
from nas.results.listings import RunSummary
from nas.units import write_duration

Spec = dict[str, Any]
"""A Vega-Lite specification: JSON whose shape its schema defines."""

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_MOST_OPERATORS = 40
"""Bars of single operators that are shown; the others are one bar."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; display: block; overflow-x: auto; } th, td { padding: .15rem .6rem; text-align: left; }
td.number { white-space: nowrap; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; } tr.chosen { font-weight: 600; } th { border-bottom: 1px solid #999; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; } .chart { width: 100%; } img { max-width: 100%; } .answer { font-size: 1.1rem; }
.warning { color: #a00; }
"""

_START = """
for (const spec of document.querySelectorAll("script.spec"))
  vegaEmbed("#" + spec.dataset.at, JSON.parse(spec.textContent), {actions: {export: true, source: false, compiled: false, editor: false}});
"""


@dataclass(frozen=True)
class OperatorTime:
    """What one operator of the chosen network takes on a device, by the latency model."""

    name: str
    stage: str
    op: str
    latency_ms: float


@dataclass(frozen=True)
class Page:
    """What the page of a run shows.

    Attributes:
        result: Of the run.
        candidates: Further networks by what they are, such as ``scored by the search``.
        operators: Of the choice, by device.
        command: That does the run again.
        facts: Of the run, such as versions: what and its value.
        pictures: PNG files by title.
    """

    result: Result
    candidates: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    operators: Mapping[str, Sequence[OperatorTime]] = field(default_factory=dict)
    command: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def page_html(page: Page) -> str:
    """Return the page of a run as one HTML document."""
    title = "Search result" if page.result.chosen is None else f"Search result: {page.result.chosen.name}"
    return _document(title, _answer(page.result), _sections(page))


def runs_html(rows: Sequence[RunSummary], results: Mapping[str, Result]) -> str:
    """Return the page of several runs as one HTML document: their choices side by side, and their fronts in one chart.

    Args:
        rows: What each has chosen.
        results: By the name of the run.
    """
    return _document("Runs side by side", "", _sections_of_runs(rows, results))


def _document(title: str, lead: str, parts: Iterator[tuple[str, str]]) -> str:
    sections = "\n".join(f"<section><h2>{escape(heading)}</h2>\n{body}\n</section>" for heading, body in parts if body)
    script = files("nas.report").joinpath("vega.js").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n'
        f"<h1>{escape(title)}</h1>\n{lead}\n{sections}\n<script>{script}</script><script>{_START}</script>\n</body></html>\n"
    )


def _sections(page: Page) -> Iterator[tuple[str, str]]:
    """Yield (title, HTML) in reading order; what a run does not have is empty."""
    result = page.result
    yield "Accuracy and latency", _chart("front", front_spec(result, page.candidates)) if result.front else ""
    yield "The front", _front_table(result)
    yield "Published networks compared on these pictures", _contenders_table(result)
    yield "Where the milliseconds go", _chart("operators", operators_spec(page.operators)) if any(page.operators.values()) else ""
    yield (
        "Estimates and timings",
        _chart("timings", timings_spec(result)) if any(v.median_ms for v in result.verified) else "",
    )
    blocks = _lines(result.blocks)
    pictures = "".join(
        f'<p><img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></p>'
        for title, png in page.pictures.items()
    )
    yield "The network", blocks + pictures
    yield "What stands in the way of more", _lines(result.why_not_more.lines) if result.why_not_more else ""
    yield "Each class", _chart("classes", classes_spec(result)) if result.by_class else ""
    yield "Sensitivity at 8 bits", _chart("sensitivity", sensitivity_spec(result)) if result.sensitivity_db else ""
    yield "What it cost", _cost(result)
    yield "Progress of the search", _chart("progress", progress_spec(result)) if len(result.hypervolume_history) > 1 else ""
    yield "What to know", _lines((*result.open, *result.notices))
    yield "Model card", _card(page)
    yield "Do it again", f"<pre>{escape(page.command)}</pre>" if page.command else ""
    shown = result.model_copy(update={"run_dir": "", "model": None})
    yield "As text", f"<details><summary>The result as the terminal shows it</summary><pre>{escape(result_text(shown))}</pre></details>"


def _sections_of_runs(rows: Sequence[RunSummary], results: Mapping[str, Result]) -> Iterator[tuple[str, str]]:
    devices = list(dict.fromkeys(device for row in rows for device in row.devices))
    columns = ["run", "space", "network", "top-1 %", *(f"on {device}" for device in devices), "front", "evaluations", "time"]
    body = []
    for row in rows:
        latencies = [f"{at.shown[0]} {at.unit} ({at.shown[1]}), {_known(at)}" if (at := row.devices.get(d)) else "" for d in devices]
        counts = [str(row.front_size), str(row.evaluations), write_duration(row.seconds)]
        body.append([row.run, row.space or "", row.network or row.status, _number(row.accuracy_pct, 2), *latencies, *counts])
    yield "Choices", _table(columns, body)
    yield "Accuracy and latency", _chart("fronts", fronts_spec(results)) if any(result.front for result in results.values()) else ""


def _answer(result: Result) -> str:
    chosen = result.chosen
    if chosen is None:
        return f'<p class="answer">{escape(result.status)}: no network has been chosen.</p>'
    digits = decimals_of(result.blind.pictures if result.blind else None)
    accuracy = "" if chosen.accuracy_pct is None else f", {chosen.accuracy_pct:.{digits}f} % top-1"
    where = "; ".join(f"{at.shown[0]} {at.unit} ({at.shown[1]}) on {device}, {_known(at)}" for device, at in chosen.devices.items())
    warning = f'<p class="warning">{escape(result.blind.verdict)}</p>' if result.blind and result.blind.verdict else ""
    model = "A model file was written." if result.model else f"No model file: {result.model_reason}"
    why = f"{result.why[:1].upper()}{result.why[1:]}."
    return f'{warning}<p class="answer"><b>{escape(chosen.name)}</b>: {escape(where)}{accuracy}. {escape(why)} {escape(model)}</p>'


def _known(at: DeviceLatency) -> str:
    return at.known_as + (f", grade {at.grade}" if at.grade and at.basis == "estimated" else "")


def _lines(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line.strip())}</li>" for line in lines) + "</ul>" if lines else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[bool] = ()) -> str:
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    kinds = [' class="number"' if n else "" for n in numeric]
    head = "".join(f"<th{kind}>{escape(column)}</th>" for column, kind in zip(columns, kinds, strict=True))
    body = ""
    for i, row in enumerate(rows):
        mark = ' class="chosen"' if i < len(chosen) and chosen[i] else ""
        body += f"<tr{mark}>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _is_number(cell: str) -> bool:
    return not cell or re.fullmatch(r"[-+\d.,–± ]+", cell) is not None


def _front_table(result: Result) -> str:
    points = sorted(result.front, key=lambda point: point.latency_ms)
    if not points:
        return ""
    digits = decimals_of(result.blind.pictures if result.blind else None)
    scored = any(p.supernet_accuracy_pct is not None for p in points)
    devices = list(points[0].devices)
    columns = ["network", "top-1 %", *([f"{result.scored} %"] if scored else [])]
    for device in devices:
        columns += [f"{device} {points[0].devices[device].unit}", "interval", "known as"]
    columns += ["precision", "MMACs", "Mparams", "px"]
    rows = []
    for p in points:
        row = [p.name, _number(p.accuracy_pct, digits), *([_number(p.supernet_accuracy_pct, digits)] if scored else [])]
        for device in devices:
            row += [*p.devices[device].shown, _known(p.devices[device])]
        rows.append([*row, p.precision, f"{p.macs / 1e6:,.0f}", f"{p.params / 1e6:.1f}", str(p.resolution)])
    return _table(columns, rows, [result.chosen is not None and p.key == result.chosen.key for p in points])


def _contenders_table(result: Result) -> str:
    if not result.contenders:
        return ""
    columns = ["network", "px", "ms", "upper ms", "probe %", "fine-tuned, validation %", "test %", "outcome"]
    rows = [
        [
            c.network,
            str(c.resolution),
            f"{c.latency_ms:.3g}",
            f"{c.upper_ms:.3g}",
            *(_number(value, 1) for value in (c.probe_accuracy_pct, c.validation_accuracy_pct, c.accuracy_pct)),
            c.outcome,
        ]
        for c in result.contenders
    ]
    return _table(columns, rows, [result.chosen is not None and c.key == result.chosen.key for c in result.contenders])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cost(result: Result) -> str:
    if ledger := result.ledger:
        rows = [[p.phase, "" if p.forecast_s is None else write_duration(p.forecast_s), write_duration(p.seconds)] for p in ledger.phases]
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


def _chart(name: str, spec: Spec) -> str:
    text = json.dumps(
        {"$schema": _SCHEMA, "background": "white", "autosize": {"type": "fit-x", "contains": "padding"}, **spec}, ensure_ascii=False
    ).replace("<", "\\u003c")
    return f'<div class="chart" id="{name}"></div><script class="spec" type="application/json" data-at="{name}">{text}</script>'


def _rows(points: Sequence[Point], group: str) -> Iterator[dict[str, object]]:
    for p in points:
        for device, at in p.devices.items():
            value, lower, upper = at.values
            yield {
                "network": p.name,
                "what": group,
                "device": device,
                "value": value,
                "lower": lower,
                "upper": upper,
                "accuracy": p.compared_accuracy_pct if p.compared_accuracy_pct == p.compared_accuracy_pct else None,
                "top-1 %": p.accuracy_pct,
                "known as": _known(at),
                "precision": at.precision,
                "input": str(p.resolution),
                "Mparams": round(p.params / 1e6, 3),
                "MMACs": round(p.macs / 1e6, 1),
            }


def front_spec(result: Result, candidates: Mapping[str, Sequence[Point]]) -> Spec:
    """Return the chart of accuracy over latency: every candidate with its name, the front with its intervals, the choice and the budget."""
    others = {**candidates, **({"published, within the budgets": result.zoo} if result.zoo and result.zoo != result.front else {})}
    rows = [row for group, points in others.items() for row in _rows(points, group)]
    rows += list(_rows(result.front, "front"))
    if result.chosen is not None:
        rows += list(_rows([result.chosen], "choice"))
    first = result.front[0].devices
    budgets = [{"device": name, "budget": limit} for name, at in first.items() if (limit := at.budget_ms or at.budget_fps)]
    devices = list(first)
    unit = first[devices[0]].unit
    shown: list[Spec] = [{"filter": "datum.device == device"}]
    x: Spec = {"field": "value", "type": "quantitative", "scale": {"type": "log"}}
    x["title"] = f"{'latency' if unit == 'ms' else 'throughput'}, {unit} (log)"
    by_score = any(p.supernet_accuracy_pct is not None for p in result.front)
    y: Spec = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"zero": False},
        "title": f"{result.scored if by_score else 'top-1'}, %",
    }
    tooltip = [{"field": key} for key in ("network", "what", "top-1 %", "known as", "precision", "input", "Mparams", "MMACs")]
    tooltip += [{"field": key, "format": ".4g", "title": f"{key} ({unit})"} for key in ("value", "lower", "upper")]
    groups = [*others, "front", "choice"]
    colours = [*("#bbb", "#8c6bb1", "#74a9cf")[: len(others)], "#1f77b4", "#d62728"]
    layers: list[Spec] = [
        {
            "transform": [*shown, {"filter": "datum.what == 'front'"}],
            "mark": {"type": "rule", "opacity": 0.5},
            "encoding": {"x": {**x, "field": "lower"}, "x2": {"field": "upper"}, "y": y, "color": {"value": "#1f77b4"}},
        },
        {
            "transform": shown,
            "mark": {"type": "point", "filled": True, "opacity": 0.9},
            "params": [{"name": "zoom", "select": "interval", "bind": "scales"}],
            "encoding": {
                "x": x,
                "y": y,
                "tooltip": tooltip,
                "color": {"field": "what", "type": "nominal", "scale": {"domain": groups, "range": colours}, "title": None},
                "shape": {"condition": {"test": "datum.what == 'choice'", "value": "diamond"}, "value": "circle"},
                "size": {"condition": {"test": "datum.what == 'choice'", "value": 220}, "value": 45},
            },
        },
        {
            "transform": [*shown, {"filter": "datum.what == 'choice'"}],
            "mark": {"type": "text", "dy": -14, "fontWeight": "bold"},
            "encoding": {"x": x, "y": y, "text": {"field": "network"}},
        },
    ]
    if budgets:
        layers.append(
            {
                "data": {"values": budgets},
                "transform": shown,
                "mark": {"type": "rule", "strokeDash": [6, 4], "color": "#d62728"},
                "encoding": {"x": {**x, "field": "budget"}, "tooltip": [{"field": "budget", "title": f"budget ({unit})"}]},
            }
        )
    return {"width": "container", "height": 420, "data": {"values": rows}, "params": [_switch(devices)], "layer": layers}


def _switch(devices: Sequence[str]) -> Spec:
    """Return the parameter that says whose latency is drawn; a choice where there are several devices."""
    bind = {"bind": {"input": "select", "options": list(devices), "name": "device "}} if len(devices) > 1 else {}
    return {"name": "device", "value": devices[0], **bind}


def fronts_spec(results: Mapping[str, Result]) -> Spec:
    """Return the chart of several runs' fronts: accuracy over latency, a colour a run, each choice large."""
    rows: list[dict[str, object]] = []
    for run, result in results.items():
        key = result.chosen.key if result.chosen else None
        for point in result.front:
            rows += [row | {"choice": point.key == key} for row in _rows([point], run)]
    devices = list(dict.fromkeys(str(row["device"]) for row in rows))
    tooltip = [{"field": name} for name in ("network", "what", "top-1 %", "known as", "precision", "input", "value", "lower", "upper")]
    return {
        "width": "container",
        "height": 420,
        "data": {"values": rows},
        "params": [_switch(devices), {"name": "zoom", "select": "interval", "bind": "scales"}],
        "transform": [{"filter": "datum.device == device"}],
        "mark": {"type": "point", "filled": True},
        "encoding": {
            "x": {"field": "value", "type": "quantitative", "scale": {"type": "log"}, "title": "latency in ms, or frames a second (log)"},
            "y": {"field": "accuracy", "type": "quantitative", "scale": {"zero": False}, "title": "compared accuracy, %"},
            "color": {"field": "what", "type": "nominal", "title": "run"},
            "size": {"condition": {"test": "datum.choice", "value": 220}, "value": 45},
            "tooltip": tooltip,
        },
    }


def operators_spec(operators: Mapping[str, Sequence[OperatorTime]]) -> Spec:
    """Return the chart of the chosen network's time by operator, in order, coloured by kind."""
    rows: list[dict[str, object]] = []
    for device, each in operators.items():
        largest = set(sorted(range(len(each)), key=lambda i: -each[i].latency_ms)[:_MOST_OPERATORS])
        rows += [
            {"device": device, "at": i, "operator": op.name, "stage": op.stage, "kind": op.op, "ms": op.latency_ms}
            for i, op in enumerate(each)
            if i in largest
        ]
        if rest := [op for i, op in enumerate(each) if i not in largest]:
            label = f"{len(rest)} smaller ones"
            rows.append(
                {
                    "device": device,
                    "at": len(each),
                    "operator": label,
                    "stage": "",
                    "kind": "others",
                    "ms": sum(op.latency_ms for op in rest),
                }
            )
    return {
        "width": "container",
        "height": 14 * max(len([row for row in rows if row["device"] == device]) for device in operators),
        "data": {"values": rows},
        "params": [_switch(list(operators))],
        "transform": [{"filter": "datum.device == device"}],
        "mark": "bar",
        "encoding": {
            "y": {"field": "operator", "type": "nominal", "sort": {"field": "at"}, "title": None, "axis": {"labelLimit": 320}},
            "x": {"field": "ms", "type": "quantitative", "title": "ms, by the latency model"},
            "color": {"field": "kind", "type": "nominal"},
            "tooltip": [{"field": "operator"}, {"field": "stage"}, {"field": "kind"}, {"field": "ms", "format": ".4f"}],
        },
    }


def timings_spec(result: Result) -> Spec:
    """Return the chart of timings beside the intervals that were estimated for them."""
    estimates = {p.key: p for p in result.front}
    rows = []
    for v in result.verified:
        point = estimates.get(v.key)
        at = point.devices.get(v.device or "") if point else None
        if point and at and v.median_ms is not None:
            rows.append({"network": point.name, "timed": v.median_ms, "value": at.latency_ms, "lower": at.lower_ms, "upper": at.upper_ms})
    x: Spec = {"type": "quantitative", "title": "ms"}
    y: Spec = {"field": "network", "type": "nominal", "title": None}
    return {
        "width": "container",
        "height": 30 * len(rows),
        "data": {"values": rows},
        "layer": [
            {"mark": "rule", "encoding": {"y": y, "x": {**x, "field": "lower"}, "x2": {"field": "upper"}}},
            {"mark": {"type": "tick", "color": "#1f77b4"}, "encoding": {"y": y, "x": {**x, "field": "value"}}},
            {
                "mark": {"type": "point", "filled": True, "color": "#d62728", "size": 70},
                "encoding": {"y": y, "x": {**x, "field": "timed"}, "tooltip": [{"field": key} for key in ("network", "timed", "value")]},
            },
        ],
    }


def classes_spec(result: Result) -> Spec:
    """Return the chart of each class's accuracy on the test pictures, worst first, with 95 % intervals."""
    from nas.report.results import wilson

    found = result.by_class
    assert found is not None
    rows = []
    for name, pictures, accuracy in zip(found.classes, found.pictures, found.accuracy_pct, strict=True):
        if accuracy is not None:
            middle, half = wilson(accuracy, pictures)
            rows.append({"class": name, "accuracy": accuracy, "lower": middle - half, "upper": middle + half, "pictures": pictures})
    answered = zip(found.accuracy_pct, found.classes, strict=True)
    worst_first = [name for _, name in sorted((accuracy, name) for accuracy, name in answered if accuracy is not None)]
    y: Spec = {"field": "class", "type": "nominal", "sort": worst_first, "title": None}
    x: Spec = {"type": "quantitative", "title": "accuracy of the exported file on the test pictures, %", "scale": {"domain": [0, 100]}}
    tip = [{"field": "class"}, {"field": "pictures"}, {"field": "accuracy", "format": ".1f"}]
    return {
        "width": "container",
        "height": 18 * len(rows),
        "data": {"values": rows},
        "layer": [
            {"mark": "bar", "encoding": {"y": y, "x": {**x, "field": "accuracy"}, "tooltip": tip, "color": {"value": "#9ecae1"}}},
            {"mark": "rule", "encoding": {"y": y, "x": {**x, "field": "lower"}, "x2": {"field": "upper"}}},
        ],
    }


def sensitivity_spec(result: Result) -> Spec:
    """Return the chart of each block's signal-to-noise ratio where it alone has 8 bits, the most sensitive first."""
    rows = [{"block": block, "dB": ratio} for block, ratio in result.sensitivity_db.items()]
    return {
        "width": "container",
        "height": 16 * len(rows),
        "data": {"values": rows},
        "mark": "bar",
        "encoding": {
            "y": {"field": "block", "type": "nominal", "sort": {"field": "dB"}, "title": None},
            "x": {"field": "dB", "type": "quantitative", "title": "signal to noise of the scores, dB (less is more sensitive)"},
            "tooltip": [{"field": "block"}, {"field": "dB", "format": ".1f"}],
        },
    }


def progress_spec(result: Result) -> Spec:
    """Return the chart of the front's hypervolume after each evaluation."""
    rows = [{"evaluations": i + 1, "hypervolume": value} for i, value in enumerate(result.hypervolume_history)]
    return {
        "width": "container",
        "height": 160,
        "data": {"values": rows},
        "mark": {"type": "line", "interpolate": "step-after"},
        "encoding": {
            "x": {"field": "evaluations", "type": "quantitative"},
            "y": {"field": "hypervolume", "type": "quantitative", "scale": {"zero": False}, "title": "hypervolume of the front"},
        },
    }
