"""The basic block of residual networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.layers.convolution import ConvNorm
from search_spaces.layers.pyramid import BRANCH_SCALE


class ResidualBlock(nn.Module):
    """y = relu(s(x) + conv(relu(conv(x)))), a batch norm after each convolution. (n, c, h, w) -> (n, width, h / stride, w / stride).

    Args:
        channels: c.
        width: Of both convolutions.
        stride: Of the first, and of the shortcut.
        projects: Whether the shortcut s is a 1 × 1 convolution; else it is x itself.

    Source:
        He et al., arXiv 1512.03385, figure 5 (left) and shortcuts B of section 3.3. Differs: the last norm starts at `BRANCH_SCALE`.
    """

    def __init__(self, channels: int, width: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, width, 3, stride=stride)
        self.conv2 = ConvNorm(width, width, 3)
        self.shortcut = ConvNorm(channels, width, 1, stride=stride) if projects else nn.Identity()
        nn.init.constant_(self.conv2.norm.weight, BRANCH_SCALE)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(F.relu(self.conv1(x))))
