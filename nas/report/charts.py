"""Charts of a report as Vega-Lite specifications: they hold their data and are drawn by the page's own copy of Vega."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.results import DeviceLatency, Point, Result

Spec = dict[str, Any]
"""A Vega-Lite specification: JSON whose shape its schema defines."""

_MOST_OPERATORS = 40
"""Bars of single operators that are shown; the others are one bar. Set by hand."""

PUBLISHED = "published networks within the budgets, top-1 on ImageNet-1k"
"""What networks of the zoo are called beside others, whose accuracies are of other pictures."""

_HEADROOM = 1.7
"""Of the drawing of a network over its highest stage, for the label. Set by hand."""

_BEHIND = ("#bbb", "#8c6bb1", "#74a9cf")
_FRONT, _CHOICE = "#1f77b4", "#d62728"
_HEIGHT, _LABEL_HEIGHT = 440, 12  # by hand
_LETTER_WIDTH = 0.0065
"""Of a label, in widths of the chart. Set by hand."""

_WIDE = "width > 520"
"""Where labels beside points have room: not on a phone."""


@dataclass(frozen=True)
class OperatorTime:
    """What one operator of the chosen network takes on a device, by the latency model."""

    name: str
    stage: str
    op: str
    latency_ms: float


@dataclass(frozen=True)
class Stage:
    """A stage of the chosen network, or neighbouring ones whose maps have one size.

    Attributes:
        names: Of the stages, in order.
        output: Shape of what it gives, without the batch: ``192×28×28`` maps, ``197×384`` tokens, ``1000`` numbers.
        side: Of its maps in pixels; 1 where they are pooled.
        macs: Multiply-adds of one picture.
        params: Parameters.
        operators: How many it has.
    """

    names: tuple[str, ...]
    output: str
    side: float
    macs: int
    params: int
    operators: int

    @property
    def name(self) -> str:
        """The stage, or the first and the last of several."""
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} … {self.names[-1]}"


def known_as(at: DeviceLatency) -> str:
    """Return how a latency is known, with the grade of an estimate."""
    return at.known_as + (f", grade {at.grade}" if at.grade and at.basis == "estimated" else "")


def _rows(points: Sequence[Point], group: str) -> Iterator[dict[str, object]]:
    for p in points:
        accuracy = p.compared_accuracy_pct
        for device, at in p.devices.items():
            value, lower, upper = (f"{number:.4g}" for number in at.values)
            yield {
                "network": p.name,
                "label": p.label,
                "key": p.key,
                "what": group,
                "device": device,
                "value": value,
                "lower": lower,
                "upper": upper,
                "accuracy": accuracy if accuracy == accuracy else None,
                "top-1 %": p.accuracy_pct,
                "basis": known_as(at),
                "precision": at.precision,
                "input": p.resolution,
                "trial": p.trial,
                "Mparams": f"{p.params / 1e6:.4g}",
                "MMACs": f"{p.macs / 1e6:.4g}",
            }


_NUMBERS = ("value", "lower", "upper", "accuracy", "top-1 %", "Mparams", "MMACs")
_TOLD = ("network", "what", "top-1 %", "basis", "precision", "input", "trial", "Mparams", "MMACs")


def _data(rows: Sequence[Mapping[str, object]]) -> Spec:
    """Return rows as inline CSV, a third of what JSON takes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return {"values": text.getvalue(), "format": {"type": "csv", "parse": dict.fromkeys(_NUMBERS, "number")}}


def _contenders(result: Result, device: str) -> list[dict[str, object]]:
    """Return the networks that were probed on the user's pictures and are not on the front."""
    front = {point.key for point in result.front}
    return [
        {
            "network": f"{c.network} at {c.resolution} px",
            "what": "probed on these pictures",
            "device": device,
            "value": c.latency_ms,
            "upper": c.upper_ms,
            "accuracy": c.probe_accuracy_pct,
            "top-1 %": c.accuracy_pct,
            "input": c.resolution,
        }
        for c in result.contenders
        if c.key not in front and c.probe_accuracy_pct is not None
    ]


def front_spec(result: Result, candidates: Mapping[str, Sequence[Point]]) -> Spec:
    """Return the chart of accuracy over latency: every candidate with its name, the front with its intervals, the choice and the budget."""
    first = result.front[0].devices
    devices = list(first)
    others = {**candidates, **({PUBLISHED: result.zoo} if result.zoo and result.zoo != result.front else {})}
    probed = _contenders(result, devices[0])
    rows = [row for group, points in others.items() for row in _rows(points, group)] + probed  # in the order in which they are drawn
    rows += [*_rows(result.front, "front"), *(_rows([result.chosen], "choice") if result.chosen else ())]
    behind = [*others, *(["probed on these pictures"] if probed else [])]
    units = {at.unit for at in first.values()}
    title = (
        "latency or throughput, ms or fps (log)" if len(units) > 1 else "latency, ms (log)" if units == {"ms"} else "throughput, fps (log)"
    )
    x: Spec = {"field": "value", "type": "quantitative", "scale": {"type": "log", "nice": False, "padding": 24}, "title": title}
    y: Spec = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"zero": False, "nice": False, "padding": 24},
        "title": result.accuracy_axis,
    }
    tooltip = [{"field": key} for key in _TOLD]
    tooltip += [{"field": key, "format": ".4g", "title": f"{key} ({'/'.join(sorted(units))})"} for key in ("value", "lower", "upper")]
    groups = [*behind, "front", "choice"]
    legend = {"orient": "top", "columns": {"expr": "width > 520 ? 5 : 1"}, "symbolOpacity": 1, "labelLimit": 400}
    scale = {"domain": groups, "range": [*_BEHIND[: len(behind)], _FRONT, _CHOICE]}
    colour: Spec = {"field": "what", "type": "nominal", "scale": scale, "title": None, "legend": legend}
    shown: Spec = {"filter": "datum.device == device"}
    at_front = [shown, {"filter": "datum.what == 'front'"}]
    large, small = "datum.what == 'choice'", "datum.what != 'front'"
    layers: list[Spec] = [
        {
            "transform": at_front,
            "mark": {"type": "rule", "opacity": 0.5},
            "encoding": {"x": {**x, "field": "lower"}, "x2": {"field": "upper"}, "y": y, "color": {"value": _FRONT}},
        },
        {
            "transform": [shown],
            "mark": {"type": "point", "filled": True},
            "params": [{"name": "zoom", "select": "interval", "bind": "scales"}],
            "encoding": {
                "x": x,
                "y": y,
                "tooltip": tooltip,
                "color": colour,
                "shape": {"condition": {"test": large, "value": "diamond"}, "value": "circle"},
                "size": {"condition": [{"test": large, "value": 220}, {"test": small, "value": 30}], "value": 55},
                "opacity": {"condition": {"test": f"{small} && !({large})", "value": 0.5}, "value": 1},
            },
        },
        *_labels(result, rows, at_front, x, y),
        *_budget_lines(first, shown, x),
    ]
    return {"width": "container", "height": _HEIGHT, "data": _data_of_all(rows), "params": [_switch(devices)], "layer": layers}


def _data_of_all(rows: Sequence[Mapping[str, object]]) -> Spec:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _data([{name: row.get(name) for name in columns} for row in rows])


def _labels(result: Result, rows: Sequence[Mapping[str, object]], at_front: Sequence[Spec], x: Spec, y: Spec) -> list[Spec]:
    """Return the layers that write names beside the points of a front, each on a white edge, and make room for them on the left."""
    labelled = result.labelled(_HEIGHT / _LABEL_HEIGHT, [float(str(row["accuracy"])) for row in rows if row["accuracy"] is not None])
    long = max((len(p.label) for p in result.front if p.key in labelled), default=0)
    space = min(0.35, _LETTER_WIDTH * long)
    edges = []
    for device, at in result.front[0].devices.items():
        values = [float(str(row["value"])) for row in rows if row["device"] == device] + [at.budget_ms or at.budget_fps or 0.0]
        low = min((end for p in result.front if (end := p.devices[device].values[1]) > 0), default=0.0)
        if low and values:
            accuracy = result.front[0].compared_accuracy_pct
            edges.append({"device": device, "value": low * (low / max(values)) ** (space / (1 - space)), "accuracy": accuracy})
    chosen = [*at_front, {"filter": {"field": "key", "oneOf": sorted(labelled)}}]
    opacity = {"condition": {"test": _WIDE, "value": 1}, "value": 0}
    words = {"x": {**x, "field": "lower"}, "y": y, "text": {"field": "label"}, "opacity": opacity}
    mark: Spec = {"type": "text", "align": "right", "dx": -5, "fontSize": 10}
    room: Spec = {
        "data": {"values": edges},
        "transform": [at_front[0]],
        "mark": {"type": "point", "opacity": 0},
        "encoding": {"x": x, "y": y},
    }
    return [
        {"transform": chosen, "mark": {**mark, "stroke": "white", "strokeWidth": 3}, "encoding": words},
        {"transform": chosen, "mark": mark, "encoding": {**words, "color": {"value": "#222"}}},
        room,
    ]


def _budget_lines(devices: Mapping[str, DeviceLatency], shown: Spec, x: Spec) -> list[Spec]:
    budgets = [
        {"device": name, "budget": limit, "words": f"budget {limit:g} {at.unit}"}
        for name, at in devices.items()
        if (limit := at.budget_ms or at.budget_fps)
    ]
    if not budgets:
        return []
    where = {**x, "field": "budget"}
    base: Spec = {"data": {"values": budgets}, "transform": [shown]}
    text = {"type": "text", "align": "right", "baseline": "top", "dx": -4, "dy": 2, "color": _CHOICE}
    return [
        {**base, "mark": {"type": "rule", "strokeDash": [6, 4], "color": _CHOICE}, "encoding": {"x": where}},
        {**base, "mark": text, "encoding": {"x": where, "y": {"value": 0}, "text": {"field": "words"}}},
    ]


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
            rows += [row | {"choice": "yes" if point.key == key else ""} for row in _rows([point], run)]
    devices = list(dict.fromkeys(str(row["device"]) for row in rows))
    tooltip = [{"field": name} for name in ("network", "what", "top-1 %", "basis", "precision", "input", "value", "lower", "upper")]
    x: Spec = {"field": "value", "type": "quantitative", "title": "latency in ms, or frames a second (log)"}
    return {
        "width": "container",
        "height": 420,
        "data": _data(rows),
        "params": [_switch(devices), {"name": "zoom", "select": "interval", "bind": "scales"}],
        "transform": [{"filter": "datum.device == device"}],
        "mark": {"type": "point", "filled": True, "opacity": 0.9},
        "encoding": {
            "x": {**x, "scale": {"type": "log", "nice": False, "padding": 24}},
            "y": {"field": "accuracy", "type": "quantitative", "scale": {"zero": False, "padding": 24}, "title": "compared accuracy, %"},
            "color": {"field": "what", "type": "nominal", "title": "run", "legend": {"orient": "top"}},
            "size": {"condition": {"test": "datum.choice == 'yes'", "value": 220}, "value": 45},
            "tooltip": tooltip,
        },
    }


def stages_spec(stages: Sequence[Stage], operators: Mapping[str, Sequence[OperatorTime]]) -> Spec:
    """Return the drawing of the chosen network: a bar a stage in order, as high as its maps are wide, coloured by its share of the time."""
    rows: list[dict[str, object]] = []
    for device, each in operators.items():
        total = sum(op.latency_ms for op in each) or 1.0
        for at, stage in enumerate(stages):
            ms = sum(op.latency_ms for op in each if op.stage in stage.names)
            row = {
                "device": device,
                "at": at,
                "stage": stage.name,
                "output": stage.output,
                "side": stage.side,
                "ms": ms,
                "share": ms / total,
            }
            rows.append(row | {"MMACs": stage.macs / 1e6, "Mparams": stage.params / 1e6, "operators": stage.operators})
    x: Spec = {"field": "stage", "type": "nominal", "sort": None, "title": None}
    level = f"width > {70 * len(stages)}"
    tooltip = [{"field": key} for key in ("stage", "output", "operators")]
    tooltip += [{"field": "ms", "format": ".3g"}, {"field": "share", "format": ".1%"}]
    tooltip += [{"field": key, "format": ",.3~f"} for key in ("MMACs", "Mparams")]
    y: Spec = {
        "field": "side",
        "type": "quantitative",
        "scale": {"type": "sqrt", "domainMax": _HEADROOM * max(stage.side for stage in stages)},
        "title": "side of its maps, px",
    }
    share = {"field": "share", "type": "quantitative", "title": "share of the time", "scale": {"scheme": "blues", "domainMin": 0}}
    legend = {"orient": "top", "format": ".0%", "gradientLength": 160}
    turned = {
        "angle": {"expr": f"{level} ? 0 : -60"},
        "align": {"expr": f"{level} ? 'center' : 'left'"},
        "dx": {"expr": f"{level} ? 0 : 4"},
    }
    small = {"type": "text", **turned, "dy": {"expr": f"{level} ? -6 : -2"}, "fontSize": 10}
    return {
        "width": "container",
        "height": 220,
        "data": {"values": rows},
        "params": [_switch(list(operators))],
        "transform": [{"filter": "datum.device == device"}],
        "encoding": {"x": {**x, "axis": {"labelAngle": -40, "labelLimit": 120}}, "y": {**y, "axis": {"tickCount": 5}}},
        "layer": [
            {
                "mark": {"type": "bar", "stroke": "#555", "strokeWidth": 0.5},
                "encoding": {"color": {**share, "legend": legend}, "tooltip": tooltip},
            },
            {"mark": small, "encoding": {"text": {"field": "output"}}},
        ],
    }


def operators_spec(operators: Mapping[str, Sequence[OperatorTime]]) -> Spec:
    """Return the chart of the chosen network's time by operator, in order, coloured by kind."""
    rows: list[dict[str, object]] = []
    for device, each in operators.items():
        most = _MOST_OPERATORS + (len(each) == _MOST_OPERATORS + 1)
        largest = set(sorted(range(len(each)), key=lambda i: -each[i].latency_ms)[:most])
        rows += [
            {"device": device, "at": i, "operator": op.name, "stage": op.stage, "kind": op.op, "ms": op.latency_ms}
            for i, op in enumerate(each)
            if i in largest
        ]
        if rest := [op.latency_ms for i, op in enumerate(each) if i not in largest]:
            rows.append({"device": device, "at": len(each), "operator": f"{len(rest)} smaller ones", "kind": "others", "ms": sum(rest)})
    legend = {"orient": "top", "columns": {"expr": "width > 520 ? 8 : 2"}}
    return {
        "width": "container",
        "height": 14 * max(len([row for row in rows if row["device"] == device]) for device in operators),
        "data": {"values": rows},
        "params": [_switch(list(operators))],
        "transform": [{"filter": "datum.device == device"}],
        "mark": "bar",
        "encoding": {
            "y": {
                "field": "operator",
                "type": "nominal",
                "sort": {"field": "at"},
                "title": None,
                "axis": {"labelLimit": {"expr": "width > 520 ? 230 : 120"}},
            },
            "x": {"field": "ms", "type": "quantitative", "title": "ms, by the latency model", "axis": {"tickCount": 6}},
            "color": {"field": "kind", "type": "nominal", "title": None, "legend": legend},
            "tooltip": [{"field": "operator"}, {"field": "stage"}, {"field": "kind"}, {"field": "ms", "format": ".4f"}],
        },
    }


def timings_spec(result: Result) -> Spec:
    """Return the chart of timings beside the intervals that were estimated for them."""
    rows = [
        {"network": v.network, "timed": v.median_ms, "value": v.latency_ms, "lower": v.lower_ms, "upper": v.upper_ms}
        for v in result.verified
        if v.latency_ms is not None
    ]
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

    classes = result.by_class
    assert classes is not None
    rows = []
    for name, pictures, accuracy in zip(classes.classes, classes.pictures, classes.accuracy_pct, strict=True):
        if accuracy is not None:
            middle, half = wilson(accuracy, pictures)
            rows.append({"class": name, "accuracy": accuracy, "lower": middle - half, "upper": middle + half, "pictures": pictures})
    answered = zip(classes.accuracy_pct, classes.classes, strict=True)
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
