"""Large-kernel depthwise convolution with dilated branches and squeeze-and-excite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.operator_family import Grade, OperatorFamily, Source, mixers
from nas.spaces.space import Resolution
from search_spaces.layers.channel_attention import SqueezeExcite, lower_squeeze_excite
from search_spaces.layers.convolution import DILATED_BRANCHES, ConvBranches, affine, convolution, depthwise_branches


class LargeKernel(nn.Module):
    """SE(BN(Σ BN(DW))), for kernels 3 and 5 SE(BN(DW)); deploys as DW with bias, then SE. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, channels: int, kernel: int, squeeze: int) -> None:
        super().__init__()
        self.depthwise: nn.Module
        if kernel >= 7:
            self.depthwise = depthwise_branches(channels, kernel, "dilated")
        else:
            self.depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.attention = SqueezeExcite(channels, squeeze) if squeeze else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.norm(self.depthwise(x)))

    def fuse(self) -> nn.Module:
        """Return the convolution with all branches and both norms in it, then the channel attention."""
        scale, shift = affine(self.norm)
        if isinstance(self.depthwise, ConvBranches):
            weight, bias = self.depthwise.folded()
            like = self.depthwise.branches[0].get_submodule("conv")
        else:
            like = self.depthwise
            weight, bias = like.get_parameter("weight").double(), shift.new_zeros(())
        assert isinstance(like, nn.Conv2d)
        conv = convolution(like, weight * scale.view(-1, 1, 1, 1), bias * scale + shift, training=self.training)
        return nn.Sequential(conv, self.attention)


@mixers.register("unireplknet")
@dataclass(frozen=True)
class UniRepLKNet(OperatorFamily):
    """The depthwise half of a UniRepLKNet block; its other half is the channel mixer ``grn``.

    Attributes:
        kernel: A key of `DILATED_BRANCHES`; from 7 on it trains with the dilated branches.
        squeeze: Channels by hidden width of squeeze-and-excite; 0 leaves it out.
    """

    kernel: int = 13
    squeeze: int = 4

    npu_grade: ClassVar[Grade] = "green"
    source: ClassVar[Source] = Source("UniRepLKNet: A Universal Perception Large-Kernel ConvNet", "arXiv 2311.15599")

    @classmethod
    def choices(cls) -> Mapping[str, tuple[Any, ...]]:
        return {"kernel": tuple(sorted(DILATED_BRANCHES)), "squeeze": (0, 4)}

    def _hidden(self, channels: int) -> int:
        if self.squeeze and channels < self.squeeze:
            raise UsageError(f"unireplknet: too few channels to squeeze by {self.squeeze}, got {channels}.")
        return channels // self.squeeze if self.squeeze else 0

    def lower(self, builder: GraphBuilder, x: str) -> str:
        hidden = self._hidden(builder.shape(x)[1])
        x = builder.depthwise(x, self.kernel, name="depthwise")
        return lower_squeeze_excite(builder, x, hidden) if hidden else x

    def build(self, channels: int, resolution: Resolution) -> nn.Module:
        return LargeKernel(channels, self.kernel, self._hidden(channels))
