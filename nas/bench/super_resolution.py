"""Super-resolution networks of Qualcomm AI Hub as graphs: plain stacks of convolutions that calibrate a convolution's price.

Written from the papers; parameter counts equal those that AI Hub states, and the number of layers that its compiler reports agrees with
the operators written here. XLSR is left out: its published description leaves one layer open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from nas.graphs.graph import Graph, GraphBuilder

_SIZE = 128  # AI Hub compiles these models for 128 x 128 pixels


def quicksrnet(name: str, channels: int, depth: int, *, residual: bool = False, scale: int = 3) -> Graph:
    """QuickSRNet (Berger et al., CVPRW 2023): (1, 3, 128, 128) -> (1, 3, 128·scale, 128·scale)."""
    b = GraphBuilder(name)
    x = entry = b.input((1, 3, _SIZE, _SIZE))
    for _ in range(depth + 1):
        x = b.conv(x, channels, 3, activation="Clip")
    x = b.conv(x, 3 * scale**2, 3)
    if residual:
        x = b.binary("Add", x, b.add_operator("Tile", [entry], shape=(1, 3 * scale**2, _SIZE, _SIZE)))
    return b.build(_shuffle(b, b.unary("Clip", x), scale))


def sesr_m5() -> Graph:
    """SESR-M5 (Bhardwaj et al., MLSys 2022) with its linear blocks expanded to 256 channels, as AI Hub runs it (343k parameters)."""
    b = GraphBuilder("sesr_m5")
    x = entry = b.input((1, 3, _SIZE, _SIZE))
    x = skip = b.conv(b.conv(x, 256, 5, bias=False), 16, activation="Clip")
    for _ in range(5):
        x = b.unary("Clip", b.binary("Add", b.conv(b.conv(x, 256, 3, bias=False), 16), x))
    x = b.conv(b.conv(b.binary("Add", x, skip), 256, 5, bias=False), 48)
    x = b.binary("Add", x, b.add_operator("Tile", [entry], shape=(1, 48, _SIZE, _SIZE)))
    return b.build(_shuffle(b, x, 4))


def rrdbnet(name: str) -> Graph:
    """ESRGAN's generator (Wang et al., ECCVW 2018): 23 residual-in-residual dense blocks, 64 channels, growth 32, ×4."""
    b = GraphBuilder(name)
    x = first = b.conv(b.input((1, 3, _SIZE, _SIZE)), 64, 3)
    for _ in range(23):
        outer = x
        for _ in range(3):
            dense = [x]
            for _ in range(4):
                dense.append(b.unary("LeakyRelu", b.conv(b.concat(dense) if len(dense) > 1 else x, 32, 3)))
            x = b.binary("Add", b.conv(b.concat(dense), 64, 3), x)
        x = b.binary("Add", b.scale(x, (1,), parameter=False), outer)
    x = b.binary("Add", b.conv(x, 64, 3), first)
    for _ in range(2):
        x = b.unary("LeakyRelu", b.conv(_enlarge(b, x, 2), 64, 3))
    return b.build(b.conv(b.unary("LeakyRelu", b.conv(x, 64, 3)), 3, 3))


def srvgg() -> Graph:
    """Real-ESRGAN general x4v3 (SRVGGNetCompact, Wang et al. 2021): 32 convolutions of 64 channels with PReLU, ×4."""
    b = GraphBuilder("real_esrgan_general_x4v3")
    x = entry = b.input((1, 3, _SIZE, _SIZE))
    for _ in range(33):
        x = b.unary("PRelu", b.conv(x, 64, 3))
    x = _shuffle(b, b.conv(x, 48, 3), 4)
    return b.build(b.binary("Add", x, _enlarge(b, entry, 4)))


def _shuffle(b: GraphBuilder, x: str, scale: int) -> str:
    n, c, h, w = b.shape(x)
    return b.add_operator("DepthToSpace", [x], {"blocksize": scale}, shape=(n, c // scale**2, h * scale, w * scale))


def _enlarge(b: GraphBuilder, x: str, scale: int) -> str:
    n, c, h, w = b.shape(x)
    return b.add_operator("Resize", [x], {"mode": "nearest"}, shape=(n, c, h * scale, w * scale))


NETWORKS: Mapping[str, Callable[[], Graph]] = {
    "quicksrnetsmall": lambda: quicksrnet("quicksrnetsmall", 32, 2),
    "quicksrnetmedium": lambda: quicksrnet("quicksrnetmedium", 32, 5),
    "quicksrnetlarge": lambda: quicksrnet("quicksrnetlarge", 64, 11, residual=True),
    "sesr_m5": sesr_m5,
    "esrgan": lambda: rrdbnet("esrgan"),
    "real_esrgan_x4plus": lambda: rrdbnet("real_esrgan_x4plus"),
    "real_esrgan_general_x4v3": srvgg,
}
"""By AI Hub's model name."""


@cache
def load(name: str) -> Graph:
    """Return one of `NETWORKS`."""
    return NETWORKS[name]()
