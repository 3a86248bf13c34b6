"""Simulated quantisation: a network computed in float whose weights and activations pass through their grids.

Weights of convolutions and matrix products are rounded per output channel; whatever an operator that computes reads is rounded per tensor, as
ONNX Runtime's static quantisation does, and so is what a part hands over. Normalisations, smooth activations and softmax compute in float
between rounded tensors there and here; ReLU is part of the operator before it.

Source:
    Krishnamoorthi, "Quantizing deep convolutional networks", arXiv 1806.08342, section 2 (per-channel weights, per-tensor activations).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.quantisation.method import NATURAL, Activations, Quantiser, activation_bits, grid, methods, precision_at, range_of, wide_operators
from nas.quantisation.weights import rounded_weight

_WEIGHT_AT = {"conv1d": 1, "conv2d": 1, "conv3d": 1, "linear": 1, "layer_norm": 2}
"""Position of the weight among the arguments; what follows it is a bias, which has 32 bits."""

_READING = (
    _WEIGHT_AT.keys()
    | {"matmul", "bmm", "mm", "add", "sub", "mul", "div", "cat", "avg_pool2d", "adaptive_avg_pool2d", "mean", "max_pool2d", "pad"}
    | {"softmax", "sigmoid", "hardsigmoid", "hardswish", "silu", "tanh", "gelu"}
)


class Simulated(nn.Module):
    """A network that answers as its quantised form would.

    Args:
        module: Fused, in evaluation mode, with prepared weights.
        precision: ``w8a8`` or ``w8a16`` for everything that `precisions` does not name; ``fp32`` or ``fp16`` leave it in float.
        precisions: Precision by the path of a part; the longest path that fits decides.
    """

    def __init__(self, module: nn.Module, precision: str, precisions: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.module = module
        self._default, self._precisions = precision, dict(precisions or {"": precision})
        self._visit: Callable[[Tensor], Tensor] | None = None
        self._scopes: list[str] = [""]
        self.ranges: list[tuple[float, int, int] | None] = []
        """(scale, zero point, bits) of each tensor that is read, in order; None in float."""
        self._weights: dict[int, tuple[Tensor, Tensor]] = {}
        for path, part in module.named_modules():

            def enter(_part: nn.Module, _args: Any, scope: str = path) -> None:
                self._scopes.append(scope)

            def leave(_part: nn.Module, _args: Any, out: Any, is_named: bool = path in self._precisions) -> Any:
                if is_named and self._visit is not None and isinstance(out, Tensor):
                    out = self._visit(out)  # what a part hands over lies on its own grid, whatever reads it
                self._scopes.pop()
                return out

            part.register_forward_pre_hook(enter)
            part.register_forward_hook(leave)

    @property
    def bits(self) -> int:
        """Activation bits of the part that runs now; 0 in float."""
        return activation_bits(precision_at(self._scopes[-1], self._precisions, self._default))

    def calibrate(self, batches: Sequence[Tensor], recipe: Sequence[Quantiser]) -> None:
        """Set the ranges from pictures; memory holds one batch and a sample of each tensor."""
        sites: list[tuple[Activations, int]] = []
        wide = wide_operators(recipe)
        for x in batches:
            with torch.inference_mode(), _Observing(self, sites, wide):
                self.module(x)
        self.ranges = [(*grid(range_of(recipe, observed, bits), bits), bits) if bits else None for observed, bits in sites]

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, classes)."""
        with torch.inference_mode(), _Rounding(self):
            scores: Tensor = self.module(x)
        return scores

    def rounded(self, weight: Tensor) -> Tensor:
        """Return a weight on its grid, worked out once."""
        entry = self._weights.get(id(weight))
        if entry is None:
            entry = self._weights[id(weight)] = (weight, rounded_weight(weight))
        return entry[1]


class _Sites(TorchDispatchMode):
    """Visits, in order, every tensor that a quantised operator reads."""

    def __init__(self, network: Simulated) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network = network
        self.at = self._within = 0
        self.shares: tuple[Tensor | None, int] = None, 0
        """What the last softmax made, and the bits of the part that it is in."""
        self._idle = False

    def __enter__(self) -> Any:
        self._within += 1  # an attention enters once more
        self.network._visit = self._visit_output
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        self._within -= 1
        if not self._within:
            self.network._visit = None
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def _visit_output(self, tensor: Tensor) -> Tensor:
        self._idle = True  # what `visit` computes is no part of the network
        try:
            return self.visit(tensor)
        finally:
            self._idle = False

    def visit(self, tensor: Tensor) -> Tensor:
        raise NotImplementedError

    def weight(self, tensor: Tensor) -> Tensor:
        raise NotImplementedError

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.rstrip("_")
        if self._idle:
            return func(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            with self:
                return attention(lambda inner, *arguments: inner(*arguments), *args, **kwargs)
        result = func(*operands(name, args, self.visit, self.weight), **kwargs)
        if name == "softmax":
            self.shares = result, self.network.bits
        return result


Visit = Callable[[Tensor], Tensor]


def operands(name: str, args: Sequence[Any], visit: Visit, weight: Visit) -> Sequence[Any]:
    """Return the arguments of an ATen operator after `visit` for each tensor that it reads quantised, and `weight` for its weight."""
    if name not in _READING:
        return args

    def operand(arg: Any, is_weight: bool) -> Any:
        if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor):
            return [operand(part, is_weight) for part in arg]
        if not isinstance(arg, Tensor) or not arg.is_floating_point() or arg.dim() == 0:
            return arg
        return weight(arg) if is_weight else visit(arg)

    weight_at = _WEIGHT_AT.get(name, len(args))
    return [operand(arg, i == weight_at) if i <= weight_at else arg for i, arg in enumerate(args)]


def attention(
    run: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *_: Any, scale: float | None = None, **__: Any
) -> Tensor:
    """Return what a fused attention gives, from the operators that it hides; `run(operator, *arguments)` performs each."""
    aten = torch.ops.aten
    logits = run(aten.matmul.default, q, k.transpose(-2, -1))
    logits = run(aten.mul.Tensor, logits, scale if scale is not None else q.shape[-1] ** -0.5)
    shares = run(aten.softmax.int, logits if mask is None else run(aten.add.Tensor, logits, mask), -1)
    return run(aten.matmul.default, shares, v)


class _Observing(_Sites):
    def __init__(self, network: Simulated, sites: list[tuple[Activations, int]], wide: frozenset[str]) -> None:
        super().__init__(network)
        self.sites, self.wide = sites, wide

    def visit(self, tensor: Tensor) -> Tensor:
        if self.at == len(self.sites):
            self.sites.append((Activations(), self.network.bits))
        if self.sites[self.at][1]:
            self.sites[self.at][0].observe(tensor.detach().float().cpu().numpy())
            shares, bits = self.shares
            if tensor is shares and bits == self.network.bits and (bits == 16 or "Softmax" not in self.wide):
                self.sites[self.at][0].natural = NATURAL["Softmax"]
        self.at += 1
        return tensor

    def weight(self, tensor: Tensor) -> Tensor:
        return tensor


class _Rounding(_Sites):
    def visit(self, tensor: Tensor) -> Tensor:
        bounds = self.network.ranges[self.at]
        self.at += 1
        if bounds is None:
            return tensor
        scale, zero, bits = bounds
        clipped = tensor.clamp(-zero * scale, (2**bits - 1 - zero) * scale)
        return clipped.mul_(1 / scale).round_().mul_(scale)  # the zero point is whole

    def weight(self, tensor: Tensor) -> Tensor:
        return self.network.rounded(tensor) if self.network.bits else tensor


def simulate(
    module: nn.Module,
    batches: Sequence[Tensor],
    precision: str,
    recipe: Sequence[str],
    precisions: Mapping[str, str] | None = None,
) -> Simulated:
    """Return a fused module's quantised form: weights prepared and ranges set from `batches` by the recipe.

    Raises:
        UnknownNameError: The recipe names a method that does not exist.
    """
    chosen = methods(recipe)
    for method in chosen:
        module = method.prepare(module, batches, (1, *batches[0].shape[1:]))
    simulated = Simulated(module, precision, precisions)
    simulated.calibrate(batches, chosen)
    return simulated
