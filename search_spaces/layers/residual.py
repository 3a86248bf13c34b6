"""The layer of residual networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.layers.convolution import ConvNorm


class ResidualLayer(nn.Module):
    """y = x + relu(norm(conv(x))), 3 × 3. (n, c, h, w) -> (n, c, h, w).

    Args:
        channels: c.

    Source:
        Page, "How to train your ResNet" (2018), whose shortcuts have the rectifier on the branch, too. Differs: one convolution a branch for two.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.conv(x))
