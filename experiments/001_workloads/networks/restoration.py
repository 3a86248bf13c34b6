"""Networks whose output is an image: noise, blur, holes, resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks import Network
from networks._blocks import conv, enlarge


def dncnn() -> nn.Module:
    """DnCNN (Zhang et al. 2017) as KAIR publishes it for grey images: 17 convolutions of 64 channels, batch norms merged."""

    class DnCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            middle = [conv(64, 64, norm=False, bias=True) for _ in range(15)]
            self.body = nn.Sequential(conv(1, 64, norm=False, bias=True), *middle, conv(64, 1, norm=False, act=None, bias=True))

        def forward(self, x: Tensor) -> Tensor:
            return x - self.body(x)

    return DnCNN()


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (n, c, h, w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NAFBlock(nn.Module):
    """NAFNet's block (Chen et al. 2022): two residuals with simple gates, channel attention in the first."""

    def __init__(self, c: int):
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(c), ChannelNorm(c)
        self.expand, self.spatial = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, 1, 1, groups=2 * c)
        self.attend = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.project, self.widen, self.narrow = nn.Conv2d(c, c, 1), nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1)), nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.spatial(self.expand(self.norm1(x))).chunk(2, 1)
        gated = a * b
        y = x + self.project(gated * self.attend(gated)) * self.beta
        a, b = self.widen(self.norm2(y)).chunk(2, 1)
        return y + self.narrow(a * b) * self.gamma


class NAFNet(nn.Module):
    """NAFNet: a U-Net of `NAFBlock`s."""

    def __init__(self, encoder: tuple[int, ...], middle: int, decoder: tuple[int, ...], width: int = 64):
        super().__init__()
        self.intro, self.ending = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.encoders, self.downs, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        c = width
        for count in encoder:
            self.encoders.append(nn.Sequential(*(NAFBlock(c) for _ in range(count))))
            self.downs.append(nn.Conv2d(c, 2 * c, 2, 2))
            c *= 2
        self.middle = nn.Sequential(*(NAFBlock(c) for _ in range(middle)))
        for count in decoder:
            self.ups.append(nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)))
            c //= 2
            self.decoders.append(nn.Sequential(*(NAFBlock(c) for _ in range(count))))

    def forward(self, image: Tensor) -> Tensor:
        rows, columns = -image.shape[-2] % 16, -image.shape[-1] % 16
        whole = nn.functional.pad(image, (0, columns, 0, rows))
        x, skips = self.intro(whole), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for decoder, up in zip(self.decoders, self.ups, strict=True):
            x = decoder(up(x) + skips.pop())
        return (self.ending(x) + whole)[:, :, : image.shape[-2], : image.shape[-1]]


class Residual(nn.Module):
    """SRResNet's block."""

    def __init__(self, c: int):
        super().__init__()
        self.body = nn.Sequential(conv(c, c, act=nn.PReLU, bias=True), conv(c, c, act=None, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def srgan() -> nn.Module:
    """SRGAN's generator (Ledig et al. 2017): 16 residual blocks, ×4."""

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = conv(3, 64, 9, act=nn.PReLU, norm=False, bias=True)
            self.body = nn.Sequential(*(Residual(64) for _ in range(16)), conv(64, 64, act=None, bias=True))
            ups = [nn.Sequential(nn.Conv2d(64, 256, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU()) for _ in range(2)]
            self.tail = nn.Sequential(*ups, nn.Conv2d(64, 3, 9, 1, 4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.tail(x + self.body(x))

    return Generator()


class AOTBlock(nn.Module):
    """AOT-GAN's block (Zeng et al. 2021): four dilated branches, then a gate from a norm over each map."""

    def __init__(self, c: int = 256, rates: tuple[int, ...] = (1, 2, 4, 8)):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.ReflectionPad2d(rate), nn.Conv2d(c, c // 4, 3, dilation=rate), nn.ReLU()) for rate in rates
        )
        self.fuse = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3))
        self.gate = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3))

    def forward(self, x: Tensor) -> Tensor:
        out = self.fuse(torch.cat([branch(x) for branch in self.branches], 1))
        raw = self.gate(x)
        mean, deviation = raw.mean((2, 3), keepdim=True), raw.std((2, 3), keepdim=True) + 1e-9
        mask = torch.sigmoid(5 * (2 * (raw - mean) / deviation - 1))
        return x * (1 - mask) + out * mask


def aotgan() -> nn.Module:
    """AOT-GAN's generator: image and mask, four channels, in."""

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                nn.ReflectionPad2d(3),
                conv(4, 64, 7, norm=False, bias=True, pad=0),
                conv(64, 128, 4, 2, norm=False, bias=True, pad=1),
                conv(128, 256, 4, 2, norm=False, bias=True, pad=1),
            )
            self.middle = nn.Sequential(*(AOTBlock() for _ in range(8)))
            self.up1, self.up2 = (conv(cin, cout, norm=False, bias=True) for cin, cout in ((256, 128), (128, 64)))
            self.last = nn.Conv2d(64, 3, 3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            image, mask = x[:, :3], x[:, 3:]
            masked = image * (1 - mask) + mask
            x = self.middle(self.encoder(torch.cat((masked, mask), 1)))
            x = self.up2(enlarge(self.up1(enlarge(x, 2, align=True)), 2, align=True))
            painted = torch.tanh(self.last(x))
            return painted * mask + masked * (1 - mask)

    return Generator()


NETWORKS = {
    "dncnn": Network(dncnn, (1, 1, 256, 256), "authors", "dncnn_25", "dncnn", normalises=False),
    "nafnet_denoise": Network(
        lambda: NAFNet((2, 2, 4, 8), 12, (2, 2, 2, 2)), (1, 3, 256, 256), "authors", "NAFNet-SIDD-width64", "nafnet", normalises=False
    ),
    "nafnet_deblur": Network(
        lambda: NAFNet((1, 1, 1, 28), 1, (1, 1, 1, 1)), (1, 3, 360, 640), "authors", "NAFNet-REDS-width64", "nafnet", normalises=False
    ),
    "srgan": Network(srgan, (1, 3, 128, 128), "authors", "SRResNet, 16 blocks, ×4", "srgan", normalises=False),
    "aotgan": Network(
        aotgan, (1, 4, 512, 512), "authors", "CelebA-HQ", "aotgan", normalises=False, note="image and mask enter as one tensor"
    ),
}
