"""How much accuracy a network loses from float to int8, said before anything is quantised.

A ridge regression on what a graph shows of itself: size, depth, the share of depthwise and of linear (unclamped) convolutions, activations whose ranges
are uneven, attention, norms. The network's weights are not seen, so the answer is a risk, not a promise; it is fitted to published pairs of float and int8 accuracies
of four vendors' tools and Qualcomm's AI Hub (``experiments/024_int8_drop``), and how well it orders families that it has not seen stands in the file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError
from nas.graphs.graph import Graph, Operator
from nas.graphs.passes import normalise

FEATURES = (
    *(
        "few params",
        "log macs",
        "log depth",
        "depthwise",
        "hard-swish",
        "swish",
        "gelu",
        "residuals",
        "linear",
        "log width",
        "attention",
        "norms",
    ),
)
"""Shares are of the operators that compute, those of activations of their outputs; few params is how far, as a logarithm, a network is under 5 M."""
_SMALL = 15.5  # by hand
OFFSET_PCT = 0.3
"""Added before a logarithm is taken, so that a loss of nothing has one. Set by hand."""
_TOOLS = {"horizon-bpu": "rdk", "stedgeai": "stm32", "hailort": "hailo", "voyager-sdk": "axelera", "qnn": "aihub", "tflite": "aihub"}
"""Runtimes whose tools the fit knows."""


@dataclass(frozen=True, slots=True)
class Drop:
    """What a network loses in 8 bits, in points of top-1.

    Attributes:
        drop_pct: The middle.
        upper_pct: Nine of ten networks of families that the fit had not seen lost less.
    """

    drop_pct: float
    upper_pct: float


def features(graph: Graph) -> npt.NDArray[np.float64]:
    """Return what the fit goes by, (features,)."""
    compiled = normalise(graph)
    operators = [op for op in compiled.operators if op.category != "unknown"]
    work = [op for op in operators if op.category in ("conv", "matmul", "attention")]
    convolutions = [op for op in work if op.category == "conv"]
    count, moved = max(1, len(work)), max(1, sum(map(_elements, work)))
    depthwise = [op for op in convolutions if (op.attribute("groups") or 1) == compiled.values[op.inputs[0]].shape[1] > 1]

    def active(name: str) -> float:
        return sum(_elements(op) for op in operators if name in (op.attribute("activation"), op.op)) / moved

    def share(chosen: list[Operator]) -> float:
        return len(chosen) / count

    width = float(np.mean([op.outputs[0].shape[1] for op in convolutions])) if convolutions else 150.0
    return np.array(
        [
            *(max(0.0, _SMALL - math.log(max(1, graph.cost.params))), math.log(max(1, graph.cost.macs)), math.log(count), share(depthwise)),
            *(active("HardSwish"), active("Swish"), active("Gelu")),
            share([op for op in operators if op.op == "Add"]),
            share([op for op in convolutions if not op.attribute("activation")]),
            math.log(width),
            share([op for op in operators if op.category in ("attention", "softmax")]),
            share([op for op in operators if op.category == "norm"]),
        ]
    )


def _elements(op: Operator) -> int:
    return sum(value.elements for value in op.outputs)


@cache
def _fitted() -> dict[str, Any]:
    spec = find_spec("hardware_profiles")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError("int8 drop: the package hardware_profiles is missing. Do this: install the whole distribution.")
    path = Path(next(iter(spec.submodule_search_locations))) / "int8_drop.json"
    try:
        coefficients: dict[str, Any] = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactError(f"int8 drop: cannot read {path} ({error}).") from None
    if tuple(coefficients["features"]) != FEATURES:
        raise ArtifactError(f"int8 drop: {path} has other features. Do this: python experiments/024_int8_drop/run.py.")
    return coefficients


def predicted_drop(graph: Graph, runtime: str = "") -> Drop:
    """Return what a network is likely to lose from float to int8 by a runtime's tool; by the mean of all tools where the fit does not know it."""
    fit = _fitted()
    tools: dict[str, float] = fit["tools"]
    first = runtime.split()[0] if runtime else ""
    level = tools.get(_TOOLS.get(first, ""), sum(tools.values()) / len(tools))
    scaled = (features(graph) - np.array(fit["mean"])) / np.array(fit["deviation"])
    logarithm = level + float(scaled @ np.array(fit["weights"]))
    middle, upper = (max(0.0, math.exp(logarithm + shift) - OFFSET_PCT) for shift in (0.0, fit["upper"]))
    return Drop(middle, upper)
