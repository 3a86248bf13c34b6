"""High-resolution networks and hourglasses: heat maps of key points."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks import Network
from networks._blocks import conv, enlarge


class HRNet(nn.Module):
    """HRNet (Sun et al. 2019) with a head on its finest map, or, if `joined`, on all maps enlarged to it."""

    def __init__(self, name: str, points: int, *, joined: bool = False):
        super().__init__()
        import timm

        self.net = timm.create_model(name, pretrained=False)
        for part in ("incre_modules", "downsamp_modules", "final_layer", "global_pool", "head_drop", "classifier"):
            if hasattr(self.net, part):
                delattr(self.net, part)
        widths = [branch[0].conv1.in_channels for branch in self.net.stage4[-1].branches]
        self.joined = joined
        if joined:
            self.head = nn.Sequential(conv(sum(widths), sum(widths), 1, bias=True), nn.Conv2d(sum(widths), points, 1))
        else:
            last = self.net.stage4[-1]
            last.fuse_layers = nn.ModuleList([last.fuse_layers[0]])
            self.head = nn.Conv2d(widths[0], points, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.net.stages(self.net.act2(self.net.bn2(self.net.conv2(self.net.act1(self.net.bn1(self.net.conv1(x)))))))
        if not self.joined:
            return self.head(maps[0])
        return self.head(torch.cat([maps[0], *(enlarge(m, maps[0], align=False) for m in maps[1:])], 1))


NETWORKS = {
    "hrnet_pose": Network(lambda: HRNet("hrnet_w32", 17), (1, 3, 256, 192), "authors", "w32_256x192", "hrnet_pose"),
    "hrnet_face": Network(lambda: HRNet("hrnet_w18", 29, joined=True), (1, 3, 256, 256), "authors", "HR18-COFW", "hrnet_pose"),
}
