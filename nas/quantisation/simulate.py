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

from nas.quantisation.weights import rounded_weight
from nas.quantiser import ACTIVATION_BITS, Activations, Quantiser, grid, methods, precision_at, range_of

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
        self._ranges: list[tuple[float, int, int] | None] = []
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
        return ACTIVATION_BITS.get(precision_at(self._scopes[-1], self._precisions, self._default), 0)

    def calibrate(self, batches: Sequence[Tensor], recipe: Sequence[Quantiser]) -> None:
        """Set the ranges from pictures; memory holds one batch and a sample of each tensor."""
        sites: list[tuple[Activations, int]] = []
        for x in batches:
            with torch.inference_mode(), _Observing(self, sites):
                self.module(x)
        self._ranges = [(*grid(range_of(recipe, seen, bits), bits), bits) if bits else None for seen, bits in sites]

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, classes)."""
        with torch.inference_mode(), _Rounding(self):
            found: Tensor = self.module(x)
        return found

    def learning(self, x: Tensor) -> Tensor:
        """As `forward`, with gradients that pass roundings unchanged and stop where a range clips; weights are rounded anew.

        Source:
            Bengio et al., arXiv 1308.3432 (straight-through estimator); Jacob et al., arXiv 1712.05877, section 3.
        """
        with torch.enable_grad(), _Learning(self):
            found: Tensor = self.module(x)
        return found

    def rounded(self, weight: Tensor) -> Tensor:
        """Return a weight on its grid, worked out once."""
        held = self._weights.get(id(weight))
        if held is None:
            held = self._weights[id(weight)] = (weight, rounded_weight(weight))
        return held[1]


class _Sites(TorchDispatchMode):
    """Visits, in order, every tensor that a quantised operator reads."""

    def __init__(self, network: Simulated) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.network = network
        self.at = 0
        self._idle = False

    def __enter__(self) -> Any:
        self.network._visit = self._visit_output
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
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
                return _attention(*args, **kwargs)
        if name in _READING:
            weight_at = _WEIGHT_AT.get(name, len(args))
            args = [self._operand(arg, i == weight_at) if i <= weight_at else arg for i, arg in enumerate(args)]
        return func(*args, **kwargs)

    def _operand(self, arg: Any, is_weight: bool) -> Any:
        if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor):
            return [self._operand(part, is_weight) for part in arg]
        if not isinstance(arg, Tensor) or not arg.is_floating_point() or arg.dim() == 0:
            return arg
        return self.weight(arg) if is_weight else self.visit(arg)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *_: Any, scale: float | None = None, **__: Any) -> Tensor:
    """The products that a fused attention hides."""
    logits = q @ k.transpose(-2, -1) * (scale if scale is not None else q.shape[-1] ** -0.5)
    return (logits if mask is None else logits + mask).softmax(dim=-1) @ v


class _Observing(_Sites):
    def __init__(self, network: Simulated, sites: list[tuple[Activations, int]]) -> None:
        super().__init__(network)
        self.sites = sites

    def visit(self, tensor: Tensor) -> Tensor:
        if self.at == len(self.sites):
            self.sites.append((Activations(), self.network.bits))
        if self.sites[self.at][1]:
            self.sites[self.at][0].observe(tensor.detach().float().cpu().numpy())
        self.at += 1
        return tensor

    def weight(self, tensor: Tensor) -> Tensor:
        return tensor


class _Rounding(_Sites):
    def visit(self, tensor: Tensor) -> Tensor:
        found = self.network._ranges[self.at]
        self.at += 1
        if found is None:
            return tensor
        scale, zero, bits = found
        return self.stepped(tensor.clamp(-zero * scale, (2**bits - 1 - zero) * scale), scale)

    def stepped(self, clipped: Tensor, scale: float) -> Tensor:
        return clipped.mul_(1 / scale).round_().mul_(scale)  # the zero point is whole

    def weight(self, tensor: Tensor) -> Tensor:
        return self.network.rounded(tensor) if self.network.bits else tensor


class _Learning(_Rounding):
    """Rounds straight through. Operators come past whole, as in inference, and autograd records what each of them runs."""

    def __init__(self, network: Simulated) -> None:
        super().__init__(network)
        self._recorded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
        self._guards: list[Any] = []

    def __enter__(self) -> Any:
        self._guards.append(guard := torch._C._AutoDispatchBelowADInplaceOrView())
        guard.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._guards.pop().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C._ForceDispatchKeyGuard(*self._recorded):
            return super().__torch_dispatch__(func, types, args, kwargs)

    def stepped(self, clipped: Tensor, scale: float) -> Tensor:
        return clipped + (super().stepped(clipped.detach().clone(), scale) - clipped).detach()

    def weight(self, tensor: Tensor) -> Tensor:
        return tensor + (rounded_weight(tensor) - tensor).detach() if self.network.bits else tensor


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
