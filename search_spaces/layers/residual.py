"""The block of residual networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.layers.convolution import ConvNorm


class ResidualBlock(nn.Module):
    """y = relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))), 3 × 3. (n, c, h, w) -> (n, c', h / stride, w / stride).

    Args:
        channels: c.
        out: c'.
        stride: Of the first convolution and of the shortcut, 1 or 2.

    Source:
        The basic block of He et al., arXiv 1512.03385, figure 5, its shortcut by option B of section 4.1 where the shape changes.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, out, 3, stride=stride)
        self.conv2 = ConvNorm(out, out, 3)
        self.shortcut = nn.Identity() if (channels, stride) == (out, 1) else ConvNorm(channels, out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))
