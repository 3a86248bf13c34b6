"""A space, a predictor and a device for tests: one convolution of four widths, priced by its MACs.

The fixture `tiny_plugins` registers them for one test, so that no contract suite meets them.
"""

import json
from pathlib import Path

import pytest

from nas.devices.predictor import Estimate, OperatorLatency, Predictor, predictors
from nas.errors import ArtifactError
from nas.graphs.graph import GraphBuilder
from nas.spaces.space import Choice, SearchSpace, spaces
from nas.training.evaluator import Metrics

MS_PER_MMAC = 1.0


class TinyPublished(SearchSpace):
    """Four widths of one convolution, with accuracies."""

    name = "tiny-published"
    evaluator = "published"
    choices = (Choice("width", (8, 16, 32, 64), ordered=True), Choice("head", ("Relu", "FancyOp")))

    @classmethod
    def make(cls, preset="", **options):
        return cls()

    def published(self, architecture):
        return Metrics({8: 60.0, 16: 70.0, 32: 75.0, 64: 80.0}[architecture.genes[0]] + (architecture.genes[1] == "FancyOp"), "published")

    def facts(self, architecture):
        return {"network": f"tiny-{architecture.genes[0]}", "weights": "a", "pretraining": "ImageNet-1k", "distilled": "no"}

    def timed_as(self, architecture, resolution=None):
        return f"tiny-{architecture.genes[0]}-{architecture.genes[1]}"

    def segments(self, architecture, resolution=None):
        b = GraphBuilder("tiny")
        x = b.conv(b.input((1, 3, *(resolution or (32, 32)))), architecture.genes[0], 3)
        head = architecture.genes[1]
        x = b.unary("Relu", x) if head == "Relu" else b.add_operator(head, [x], shape=b.shape(x))
        return (("net", b.build(x)),)

    def build(self, architecture, *, num_classes=None, resolution=None):
        from torch import nn

        return nn.Sequential(nn.Conv2d(3, architecture.genes[0], 3, padding=1), nn.ReLU())


class MacsOnly(Predictor):
    """One millisecond a MMAC, ± 10 %; only convolutions and ReLU."""

    def fit(self, samples, profiles):
        return self

    def estimate(self, graph, profile, precision, confidence=0.9):
        factor = {"fp16": 1.0, "w8a8": 0.5}[precision] * MS_PER_MMAC / 1e6
        shares = tuple(OperatorLatency(op.name, op.op, factor * graph.macs_of(op)) for op in graph.operators)
        total = sum(share.latency_ms for share in shares)
        return Estimate(total, 0.9 * total, 1.1 * total, confidence, unsupported=graph.unknown, operators=shares)

    def save(self, path):
        path.write_text(json.dumps({"version": 1}))

    @classmethod
    def load(cls, path):
        if not path.is_file():
            raise ArtifactError(f"predictor {path}: no such file.")
        return cls()


@pytest.fixture
def tiny_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(spaces._registered, "tiny-published", TinyPublished)
    monkeypatch.setitem(predictors._registered, "tiny-macs", MacsOnly)


def write_device(folder: Path, name: str = "tiny", extra: str = "", **changes: str) -> Path:
    """Write a profile and its artifact; return the profile's path."""
    fields = {"quantity": "latency", "kind": "npu", "runtime": "none", "default_precision": "fp16"} | changes
    head = "\n".join(f'{key} = "{value}"' for key, value in fields.items())
    precisions = "".join(f'[precisions.{p}]\npredictor = "tiny-macs"\nartifact = "tiny.json"\n' for p in ("fp16", "w8a8"))
    path = folder / f"{name}.toml"
    path.write_text(f'title = "Tiny"\n{head}\n{precisions}{extra}[origin]\ntitle = "a test"\n')
    (folder / "tiny.json").write_text('{"version": 1}')
    return path
