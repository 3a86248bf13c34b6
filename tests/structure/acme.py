"""A foreign distribution: nine plug-ins, one file each, and their entry points. `test_extension.py` writes it to a folder."""

SPACE = '''
from dataclasses import dataclass
from typing import ClassVar

from nas.graphs.graph import GraphBuilder
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.operator_family import mixers
from nas.spaces.space import Choice


@dataclass(frozen=True)
class Stem(Part):
    def lower(self, builder, x):
        return builder.unary("Relu", builder.conv(x, 16, 3, stride=4, pads=(1, 1, 1, 1), name="conv"))

    def build(self):
        from torch import nn

        return nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU())


@dataclass(frozen=True)
class Mix(Part):
    kernel: int

    @property
    def slot(self):
        return f"{self.label}/{self.kernel}"

    def lower(self, builder, x):
        return mixers.get("acme-mixer")(self.kernel).lower(builder, x)

    def build(self):
        return mixers.get("acme-mixer")(self.kernel).build(self.shape[1], self.shape[2:])


@dataclass(frozen=True)
class Head(Part):
    classes: int

    def lower(self, builder, x):
        return builder.gemm(builder.reshape(builder.global_pool(x), (1, self.shape[1])), self.classes)

    def build(self):
        from torch import nn

        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.shape[1], self.classes))


class Acme(ElasticSpace):
    """One mixer of two kernels between a stem and a head."""

    name = "acme"
    options: ClassVar = frozenset({"num_classes"})
    choices = (Choice("kernel", (3, 5), ordered=True),)

    def __init__(self, num_classes=2):
        self.num_classes = num_classes

    @classmethod
    def make(cls, preset="", **options):
        cls.check_options(preset, options)
        return cls(**options)

    def parts(self, architecture, resolution=None, num_classes=None):
        height, width = resolution or (32, 32)
        shape = (1, 16, -(-height // 4), -(-width // 4))
        kernel = architecture.genes[0]
        return Stem("stem", (1, 3, height, width)), Mix("mix", shape, kernel), Head("head", shape, num_classes or self.num_classes)

    def slots(self, resolution, num_classes):
        members = [self.parts(self.architecture((k,)), resolution, num_classes) for k in (3, 5)]
        return {part.slot: (part,) for parts in members for part in parts}

    def segments(self, architecture, resolution=None):
        return tuple((part.label, part.graph()) for part in self.parts(architecture, resolution))
'''
MIXER = '''
from dataclasses import dataclass
from typing import ClassVar

from nas.spaces.operator_family import OperatorFamily, Source


@dataclass(frozen=True)
class AcmeMixer(OperatorFamily):
    """A depthwise convolution."""

    kernel: int = 3
    npu_grade: ClassVar = "green"
    source: ClassVar = Source("Acme", "none")

    @classmethod
    def choices(cls):
        return {"kernel": (3, 5)}

    def lower(self, builder, x):
        return builder.depthwise(x, self.kernel, name="depthwise")

    def build(self, channels, resolution):
        from torch import nn

        return nn.Conv2d(channels, channels, self.kernel, padding=self.kernel // 2, groups=channels)
'''
SEARCHER = '''
from nas.searching.searcher import Searcher


class InOrder(Searcher):
    """Proposes members in the order of the space."""

    def ask(self, number):
        members = list(self.space.enumerate())
        return members[number % len(members)]

    def tell(self, trial):
        pass
'''
EVALUATOR = '''
from nas.training.evaluator import evaluators

Quantised = evaluators.get("quantised")


class Careful(Quantised):
    """Scores as the quantised evaluator does, and says so under its own key."""

    @property
    def key(self):
        return f"careful-{super().key}"
'''
PREDICTOR = '''
import json

from nas.devices.predictor import Estimate, OperatorLatency, Predictor


class ByMacs(Predictor):
    """So many milliseconds a million multiply-adds, and as many an operator."""

    def __init__(self, ms=1.0):
        self.ms = ms

    def fit(self, samples, profiles):
        return self

    def estimate(self, graph, profile, precision, confidence=0.9):
        shares = tuple(OperatorLatency(op.name, op.op, self.ms * (1e-3 + graph.macs_of(op) / 1e6)) for op in graph.operators if op.op not in graph.unknown)
        total = sum(share.latency_ms for share in shares)
        return Estimate(total, total * (1 - 0.2 * confidence), total * (1 + 0.2 * confidence), confidence, unsupported=graph.unknown, operators=shares)

    def save(self, path):
        path.write_text(json.dumps({"ms": self.ms}))

    @classmethod
    def load(cls, path):
        return cls(json.loads(path.read_text())["ms"])
'''
EXPORTER = '''
from pathlib import Path

from nas.exporting.exporter import exporters

Onnx = exporters.get("onnx-quantised")


class AcmeFile(Onnx):
    """The ONNX file under a suffix of its own."""

    suffix = ".acme"
'''
QUANTISER = '''
from nas.quantisation.method import Quantiser


class Wide(Quantiser):
    """Ranges as they were seen."""

    def bounds(self, activations, bits):
        return activations.low, activations.high
'''
DATASET = '''
import hashlib

import numpy as np

from nas.training.dataset import Dataset, complete_splits


class Shades(Dataset):
    """Light and dark pictures."""

    @classmethod
    def accepts(cls, source):
        return source == "acme-shades"

    @classmethod
    def open(cls, source, *, seed, images, decoder=None):
        labels = np.arange(120) % 2
        rng = np.random.default_rng(0)
        pixels = np.clip(rng.normal(60 + 120 * labels[:, None, None, None], 30, (120, 16, 16, 3)), 0, 255).astype(np.uint8)
        splits, notices = complete_splits(labels, {"train": np.arange(120)}, seed=seed, images=images)
        found = cls("acme-shades", ("dark", "light"), labels, splits, hashlib.sha256(pixels.tobytes()).hexdigest(), (16, 16), notices)
        found.held = pixels
        return found

    def read(self, indices, resolution):
        return self.held[indices]
'''
DEVICE = """
title = "Acme NPU 1"
kind = "npu"
runtime = "acme"
default_precision = "w8a8"
[precisions.w8a8]
predictor = "by-macs"
artifact = "acme-npu-1.json"
[origin]
title = "Acme"
"""
ENTRY_POINTS = """
[nas.spaces]
acme = acme_nas.space:Acme
[nas.mixers]
acme-mixer = acme_nas.mixer:AcmeMixer
[nas.searchers]
in-order = acme_nas.searcher:InOrder
[nas.evaluators]
careful = acme_nas.evaluator:Careful
[nas.predictors]
by-macs = acme_nas.predictor:ByMacs
[nas.exporters]
acme-file = acme_nas.exporter:AcmeFile
[nas.quantisers]
wide = acme_nas.quantiser:Wide
[nas.datasets]
shades = acme_nas.dataset:Shades
[nas.devices]
acme = acme_nas.devices
"""
FILES = {
    "space": SPACE,
    "mixer": MIXER,
    "searcher": SEARCHER,
    "evaluator": EVALUATOR,
    "predictor": PREDICTOR,
    "exporter": EXPORTER,
    "quantiser": QUANTISER,
    "dataset": DATASET,
}
