"""A search space: one mixer of two kernels between a stem and a head."""

from dataclasses import dataclass
from typing import ClassVar

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
