"""The networks of the table spaces (NAS-Bench-201, FBNet, OFA) as modules in their training form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from nas.spaces.architecture import Gene

# NAS-Bench-201 -------------------------------------------------------------------------------------------------------


class Zero(nn.Module):
    """The ``none`` edge: (n, c, h, w) -> zeros of the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by zero, as the benchmark does."""
        return x * 0.0


class Cell(nn.Module):
    """Four nodes, each the sum of its edges. (n, c, h, w) -> (n, c, h, w)."""

    def __init__(self, operations: Sequence[str], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_edge(op, channels) for op in operations)

    def forward(self, x: Tensor) -> Tensor:
        """Run the edges in the benchmark's order."""
        e = self.edges
        a = e[0](x)
        b = e[1](x) + e[2](a)
        out: Tensor = e[3](x) + e[4](a) + e[5](b)
        return out


def _relu_conv_norm(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(c_out))


def _edge(operation: str, channels: int) -> nn.Module:
    """Return the operation of an edge; what has weights is called after itself, so that a supernet holds those of each operation apart."""
    match operation:
        case "none":
            return Zero()
        case "skip_connect":
            return nn.Identity()
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        case _:
            return nn.Sequential(OrderedDict({operation: _relu_conv_norm(channels, channels, int(operation[-1]))}))


class Reduction(nn.Module):
    """Residual block of stride 2. (n, c, h, w) -> (n, 2c, h/2, w/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = _relu_conv_norm(channels, 2 * channels, 3, 2)
        self.conv_b = _relu_conv_norm(2 * channels, 2 * channels, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Add the pooled shortcut to the convolutions."""
        out: Tensor = self.shortcut(x) + self.conv_b(self.conv_a(x))
        return out


def nasbench201_stem(channels: int) -> nn.Module:
    """Return what comes before the cells. (n, 3, h, w) -> (n, channels, h, w)."""
    return nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))


def nasbench201_head(channels: int, num_classes: int) -> nn.Module:
    """Return what comes after the cells. (n, channels, h, w) -> (n, num_classes)."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


# Chains of inverted residuals: FBNet and OFA -------------------------------------------------------------------------


def conv_norm(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, activation: str = "") -> nn.Sequential:
    """Return convolution, batch normalisation and activation ("same" padding)."""
    layers: list[nn.Module] = [nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out)]
    return nn.Sequential(*layers, *activation_of(activation))


def activation_of(name: str) -> list[nn.Module]:
    """Return the module of an activation, in a list that is empty for none."""
    modules: dict[str, list[nn.Module]] = {"": [], "Relu": [nn.ReLU()], "HardSwish": [nn.Hardswish()]}
    return modules[name]


class Residual(nn.Module):
    """Adds the input to the output of a body."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h, w)."""
        out: Tensor = x + self.body(x)
        return out


class SqueezeExcite(nn.Module):
    """Channel attention with a hard sigmoid. (n, c, h, w) -> (n, c, h, w).

    Source:
        Howard et al., "Searching for MobileNetV3", ICCV 2019, arXiv:1905.02244.
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, reduced, 1), nn.ReLU(), nn.Conv2d(reduced, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Multiply by the gate."""
        out: Tensor = x * self.gate(x)
        return out


def fbnet_network(blocks: Sequence[tuple[Gene, int, int, int, int, int, int]], header: int, num_classes: int) -> nn.Module:
    """Return a network of blocks (operation, c_in, c_out, stride, kernel, expansion, groups). (n, 3, h, w) -> (n, num_classes)."""
    layers: list[nn.Module] = [conv_norm(3, 16, 3, activation="Relu")]
    for operation, c_in, c_out, stride, kernel, expansion, groups in blocks:
        if operation == "skip":
            layers += [conv_norm(c_in, c_out, 1, stride, activation="Relu")] if c_in != c_out or stride > 1 else []
            continue
        middle = c_in * expansion
        body = nn.Sequential(
            conv_norm(c_in, middle, 1, groups=groups, activation="Relu"),
            *([nn.ChannelShuffle(groups)] if groups > 1 else []),
            conv_norm(middle, middle, kernel, stride, middle, "Relu"),
            conv_norm(middle, c_out, 1, groups=groups),
        )
        layers.append(Residual(body) if c_in == c_out and stride == 1 else body)
    tail = [conv_norm(blocks[-1][2], header, 1, activation="Relu"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(header, num_classes)]
    return nn.Sequential(*layers, *tail)


def ofa_network(
    stem: int, blocks: Sequence[tuple[int, int, int, int, int, str, int]], expand: int, features: int, num_classes: int
) -> nn.Module:
    """Return a network of blocks (c_in, middle, c_out, kernel, stride, activation, reduced or 0). (n, 3, h, w) -> (n, num_classes)."""
    layers: list[nn.Module] = [conv_norm(3, stem, 3, 2, activation="HardSwish")]
    for c_in, middle, c_out, kernel, stride, activation, reduced in blocks:
        body = nn.Sequential(
            *([conv_norm(c_in, middle, 1, activation=activation)] if middle != c_in else []),
            conv_norm(middle, middle, kernel, stride, middle, activation),
            *([SqueezeExcite(middle, reduced)] if reduced else []),
            conv_norm(middle, c_out, 1),
        )
        layers.append(Residual(body) if c_in == c_out and stride == 1 else body)
    layers += [conv_norm(blocks[-1][2], expand, 1, activation="HardSwish"), nn.AdaptiveAvgPool2d(1)]
    layers += [nn.Conv2d(expand, features, 1, bias=False), nn.Hardswish(), nn.Flatten(), nn.Linear(features, num_classes)]
    return nn.Sequential(*layers)
