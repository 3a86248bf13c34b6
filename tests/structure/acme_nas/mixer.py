"""A token mixer: a depthwise convolution."""

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
