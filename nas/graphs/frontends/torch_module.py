"""A graph from a `torch.nn.Module`: one run on fake tensors, every ATen operator written down under its ONNX name.

Nothing is computed and no weight is read, so a network of any size traces in a fraction of a second. What depends on
weights alone (a gathered position table, a slice of a fused projection) is folded into a weight of the operator that reads it;
each trainable parameter counts once. An ATen operator without an ONNX name keeps its own and is reported as unknown.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nas.errors import GraphError
from nas.graphs.graph import Attributes, Graph, Operator, Value, Weight, freeze
from nas.graphs.operators import Shape

DTYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.int16: "int16",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.bool: "bool",
    torch.complex64: "complex64",
}


def trace_module(module: nn.Module, input_shape: Sequence[int], name: str = "", *, weight_work: bool = False) -> Graph:
    """Trace a module in evaluation mode.

    Args:
        module: On any device, ``meta`` included; left as it is.
        input_shape: Of the one input, batch first: (n, c, h, w).
        name: Of the graph; default the class.
        weight_work: Whether to write down what an eager runtime works out from weights at every run (standardised weights, position
            tables), which is no operator of the graph: how many numbers, as ``weight_elements`` of the first operator of that module.

    Returns:
        The graph as the module is written: batch norms are operators of their own, nothing is fused or removed.

    Raises:
        GraphError: The module does not run on that shape, or its control flow depends on values.

    Source:
        The dispatch-mode recording follows PyTorch's own `torch.utils.flop_counter.FlopCounterMode`.
    """
    name = name or type(module).__name__
    # a copy that shares the weights: what a module remembers of this run (cached masks and tables) must not stay in the original
    module = copy.deepcopy(module, {id(t): t for t in [*module.parameters(), *module.buffers()]}).eval()
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    sources = {key: value.numel() for key, value in module.named_parameters()}
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    recorder = _Recorder()
    with ExitStack() as stack:
        stack.enter_context(_fused_encoder_off())
        _name_scopes(module, recorder)
        stack.enter_context(fake)
        faked: dict[str, Tensor] = {key: fake.from_tensor(tensor.detach()) for key, tensor in tensors.items()}
        x = torch.empty(*input_shape, device=device, dtype=dtype)
        for key, tensor in faked.items():
            recorder.bind(tensor, _Constant(tuple(tensor.shape), DTYPES[tensor.dtype], (key,) if key in sources else ()))
        entry = Value("input", tuple(x.shape), DTYPES[x.dtype])
        recorder.bind(x, entry)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(recorder)
        try:
            result = torch.func.functional_call(module, faked, (x,))
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, NotImplementedError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise GraphError(
                f"trace {name}: the module does not run on an input of shape {tuple(input_shape)}, got: {reason}. "
                "Do this: give another input shape, or remove control flow that depends on values."
            ) from error
    outputs = tuple(dict.fromkeys(ref.name for ref in map(recorder.ref, _tensors(result)) if isinstance(ref, Value)))
    if not outputs:
        raise GraphError(f"trace {name}: no output depends on the input.")
    operators = _operators(recorder.steps, sources)
    return Graph((entry,), _with_weight_work(operators, recorder.worked) if weight_work else operators, outputs, name)


class Recording:
    """A program that another frontend runs itself, operator by operator, on tensors without numbers.

    Use it as a context: make the constants and the inputs, call ATen operators on them, and ask for the graph.

    Args:
        name: Of the graph.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._recorder, self._stack = _Recorder(), ExitStack()
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._sources: dict[str, int] = {}
        self._inputs: list[Value] = []

    def __enter__(self) -> Recording:
        self._stack.enter_context(self._fake)
        self._stack.enter_context(torch.inference_mode())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def constant(self, name: str, shape: Sequence[int], dtype: torch.dtype, parameter: bool) -> Tensor:
        """Return a tensor of the program's own; a `parameter` counts as trainable."""
        tensor = torch.empty(tuple(shape), dtype=dtype)
        if parameter:
            self._sources[name] = tensor.numel()
        self._recorder.bind(tensor, _Constant(tuple(shape), DTYPES[dtype], (name,) if parameter else ()))
        return tensor

    def input(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return an input of the graph."""
        tensor = torch.empty(tuple(shape), dtype=dtype)
        self._inputs.append(Value(name, tuple(shape), DTYPES[dtype]))
        self._recorder.bind(tensor, self._inputs[-1])
        return tensor

    def start(self) -> None:
        """Record operators from here on; constants and inputs have been made."""
        self._stack.enter_context(self._recorder)

    def enter(self, path: str) -> None:
        """Name the module in which the next operators stand."""
        self._recorder.scopes = [f"{path}|leaf"]

    def unread(self) -> list[Value]:
        """Return the values that no operator reads."""
        read = {name for step in self._recorder.steps for name in step.inputs}
        return [value for step in self._recorder.steps for value in step.outputs if value.name not in read]

    def graph(self, outputs: Sequence[Tensor | Value], notices: tuple[str, ...] = ()) -> Graph:
        """Return what has been recorded.

        Raises:
            GraphError: No output depends on an input.
        """
        refs = [ref if isinstance(ref, Value) else self._recorder.ref(ref) for ref in outputs]
        names = tuple(dict.fromkeys(ref.name for ref in refs if isinstance(ref, Value)))
        operators = _operators(self._recorder.steps, self._sources)
        if not names or not operators:
            raise GraphError(f"trace {self.name}: no operator leads from an input to an output.")
        return Graph(tuple(self._inputs), operators, names, self.name, notices)


@dataclass(frozen=True, slots=True)
class _Constant:
    """A tensor that follows from weights alone; `sources` are the parameters behind it."""

    shape: Shape
    dtype: str
    sources: tuple[str, ...] = ()


_Ref = Value | _Constant


@dataclass(slots=True)
class _Step:
    name: str
    op: str
    inputs: list[str]
    outputs: list[Value]
    constants: list[_Constant]
    attributes: Attributes = field(default_factory=dict)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[_Step] = []
        self.scopes: list[str] = []
        self.worked: list[tuple[str, int]] = []  # module and size of what was computed from constants alone
        self._refs: dict[int, _Ref] = {}
        self._alive: list[Tensor] = []  # an id names a tensor only while it lives
        self._taken: Counter[str] = Counter()
        self._viewed: dict[int, Tensor] = {}  # a view -> what it is a view of

    def bind(self, tensor: Tensor, ref: _Ref) -> None:
        self._refs[id(tensor)] = ref
        self._alive.append(tensor)

    def known(self, tensor: Tensor) -> _Ref:
        """Return what stands for a tensor; of complex numbers that a transform made, pairs on a last axis, as ONNX writes them."""
        return self._refs.get(id(tensor)) or _Constant(tuple(tensor.shape), DTYPES[tensor.dtype])

    def ref(self, tensor: Tensor) -> _Ref:
        """Return what stands for a tensor, of its own shape."""
        known = self.known(tensor)
        if tensor.is_complex() and known.dtype != "complex64":
            known = self.emit("Cast", [known], tuple(tensor.shape), {"to": "complex64"}, "complex64")
            self.bind(tensor, known)
        return known

    def pairs(self, tensor: Tensor) -> _Ref:
        """Return complex numbers as pairs on a last axis, real ones as they are."""
        known = self.known(tensor)
        return self.emit("Cast", [known], (*known.shape, 2), {"to": "fp32"}, "fp32") if known.dtype == "complex64" else known

    def emit(
        self, op: str, operands: Sequence[_Ref], shape: Sequence[int], attributes: Attributes | None = None, dtype: str | None = None
    ) -> _Ref:
        """Record an operator of one output; on constants alone it folds to a constant."""
        dtype = dtype or (operands[0].dtype if operands else "fp32")
        if not any(isinstance(ref, Value) for ref in operands):
            return _folded(operands, shape, dtype)
        return self.emit_many(op, operands, [(tuple(shape), dtype)], attributes)[0]

    def emit_many(
        self, op: str, operands: Sequence[_Ref], outputs: Sequence[tuple[Shape, str]], attributes: Attributes | None = None
    ) -> list[Value]:
        label = self._label(op)
        made = [Value(label if i == 0 else f"{label}:{i}", shape, dtype) for i, (shape, dtype) in enumerate(outputs)]
        inputs = [ref.name for ref in operands if isinstance(ref, Value)]
        constants = [ref for ref in operands if isinstance(ref, _Constant)]
        self.steps.append(_Step(label, op, inputs, made, constants, attributes or {}))
        return made

    def value(self, ref: _Ref) -> Value:
        """Return `ref` as a value; a constant becomes an operator's output."""
        return ref if isinstance(ref, Value) else self.emit_many("Constant", [ref], [(ref.shape, ref.dtype)])[0]

    def _label(self, op: str) -> str:
        path, leaf = self.scopes[-1].partition("|")[::2] if self.scopes else ("", "")
        short = op.rsplit(".", 1)[-1].lower()
        label = path if leaf and path else f"{path}.{short}".strip(".")
        self._taken[label] += 1
        if self._taken[label] > 1 and leaf:
            label = f"{path}.{short}"
            self._taken[label] += 1
        return label if self._taken[label] == 1 else f"{label}_{self._taken[label]}"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for a device or a layout: no tensor comes out
            return func(*args, **kwargs)
        packet = func.overloadpacket.__name__
        plain = packet if packet.startswith("__") else packet.rstrip("_")
        handler = _HANDLERS.get(plain)
        operands = [self.known(t) for t in _tensors((args, kwargs))]
        if handler is None and plain not in _ALIASES and any(isinstance(ref, Value) for ref in operands) and not _makes_constant(plain):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        # a batch norm that uses its own statistics keeps the shape; on fake tensors PyTorch would work through its decomposition
        result = torch.empty_like(args[0]) if plain == "batch_norm" and args[5] is False else func(*args, **kwargs)
        made = list(_tensors(result))
        if not made:
            return result
        if _makes_constant(plain) or not any(isinstance(ref, Value) for ref in operands):
            constants = [ref for ref in operands if isinstance(ref, _Constant)] if not _makes_constant(plain) else []
            for tensor in made:
                self.bind(tensor, _folded(constants, tuple(tensor.shape), DTYPES[tensor.dtype]))
            if not _makes_constant(plain) and plain not in _FREE:
                self.worked.append((self.scopes[-1].partition("|")[0] if self.scopes else "", made[0].numel()))
            return result
        if plain in _ALIASES:
            self.bind(made[0], self._as(operands[0], made[0]))
        elif handler is not None:
            handler(self, _Call(plain, _bound(func, args, kwargs), result))
        else:
            self.unknown(f"aten.{plain}", [self.ref(t) for t in _tensors((args, kwargs))], made)
        if plain in _VIEWS:
            self._viewed[id(made[0])] = args[0]
        elif plain != packet:  # in place: what the result is a view of changes with it
            self._write_through(args[0], made[0])
        return result

    def _write_through(self, target: Tensor, result: Tensor) -> None:
        self.bind(target, self.ref(result))
        whole = self._viewed.get(id(target))
        while whole is not None:
            new, shape = self.ref(target), tuple(whole.shape)
            if math.prod(new.shape) < math.prod(shape):
                new = self.emit("ScatterND", [self.ref(whole), new], shape)
            elif new.shape != shape:
                new = self.emit("Reshape", [new], shape, {"shape": shape})
            self.bind(whole, new)
            target, whole = whole, self._viewed.get(id(whole))

    def unknown(self, op: str, operands: Sequence[_Ref], made: Sequence[Tensor], attributes: Attributes | None = None) -> None:
        """Record an operator of any number of outputs as it is called."""
        values = self.emit_many(op, operands, [(tuple(t.shape), DTYPES[t.dtype]) for t in made], attributes)
        for tensor, value in zip(made, values, strict=True):
            self.bind(tensor, value)

    def _as(self, ref: _Ref, tensor: Tensor) -> _Ref:
        dtype = DTYPES[tensor.dtype]
        if dtype != ref.dtype and not tensor.is_complex():
            return self.emit("Cast", [ref], tuple(tensor.shape), {"to": dtype}, dtype)
        return ref


@dataclass(slots=True)
class _Call:
    """One ATen call: arguments by their schema's names, and the result."""

    name: str
    arguments: Mapping[str, Any]
    result: Any

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)


def _folded(constants: Sequence[_Ref], shape: Sequence[int], dtype: str) -> _Constant:
    sources = dict.fromkeys(s for ref in constants if isinstance(ref, _Constant) for s in ref.sources)
    return _Constant(tuple(shape), dtype, tuple(sources))


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tensors(item)
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)


def _bound(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = func._schema.arguments
    bound = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    bound |= {argument.name: value for argument, value in zip(schema, args, strict=False)}
    return {**bound, **kwargs}


@contextmanager
def _fused_encoder_off() -> Iterator[None]:
    """The fused encoder layer would hide projections and attention."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _name_scopes(module: nn.Module, recorder: _Recorder) -> None:
    for path, part in module.named_modules():
        leaf = "leaf" if not any(True for _ in part.children()) else ""

        def enter(_part: nn.Module, _args: Any, scope: str = f"{path}|{leaf}") -> None:
            recorder.scopes.append(scope)

        def leave(_part: nn.Module, _args: Any, _out: Any) -> None:
            recorder.scopes.pop()

        part.register_forward_pre_hook(enter)
        part.register_forward_hook(leave)


def _operators(steps: Sequence[_Step], sizes: dict[str, int]) -> tuple[Operator, ...]:
    """Turn steps into operators, giving each trainable parameter to the weights that use it, once."""
    left = dict(sizes)
    last = {source: (i, j) for i, step in enumerate(steps) for j, ref in enumerate(step.constants) for source in ref.sources}
    operators = []
    for i, step in enumerate(steps):
        weights = []
        for j, ref in enumerate(step.constants):
            elements, share = math.prod(ref.shape), 0
            for source in ref.sources:
                part = left[source] if last[source] == (i, j) else min(left[source], elements - min(share, elements))
                left[source] -= part
                share += part
            weights.append(Weight(ref.shape, ref.dtype, bool(ref.sources), share if ref.sources and share != elements else None))
        operators.append(Operator(step.name, step.op, tuple(step.inputs), tuple(step.outputs), tuple(weights), freeze(step.attributes)))
    return tuple(operators)


def _with_weight_work(operators: Sequence[Operator], worked: Sequence[tuple[str, int]]) -> tuple[Operator, ...]:
    """Give each computation from weights to the first operator of its module, or of the nearest module around that has one."""
    work: Counter[str] = Counter()
    first: dict[str, str] = {}
    for op in operators:
        at = op.name
        while at not in first:
            first[at] = op.name
            at = at.rpartition(".")[0]
    for scope, elements in worked:
        while scope not in first:
            scope = scope.rpartition(".")[0]
        work[first[scope]] += elements
    return tuple(
        replace(op, attributes=freeze({**dict(op.attributes), "weight_elements": work[op.name]})) if op.name in work else op
        for op in operators
    )


# --- ATen -> ONNX. A handler takes the recorder and the call, and binds the result. -----------------------------------

_Handler = Callable[[_Recorder, _Call], None]
_HANDLERS: dict[str, _Handler] = {}
_ALIASES = {
    *("alias", "contiguous", "clone", "detach", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh", "lift"),
    *("to", "_to_copy", "type_as", "float", "half", "positive", "resolve_conj", "resolve_neg", "requires_grad"),
}

_VIEWS = {"slice", "select", "alias", "view", "unsqueeze", "squeeze"}

_FREE = {
    *_ALIASES,
    *_VIEWS,
    *("reshape", "permute", "transpose", "expand", "expand_as", "t", "chunk", "split", "flatten", "unflatten", "unbind", "_unsafe_view"),
    *("index", "copy", "fill"),
}
"""Views of constants, and what networks keep between runs (index tables)."""


def _makes_constant(plain: str) -> bool:
    return plain.startswith("new_") or plain.endswith("_like") or plain in {"arange", "zeros", "ones", "full", "empty", "linspace", "eye"}


def _handles(*names: str) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _list(value: Any, rank: int) -> tuple[int, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    return items * rank if len(items) == 1 else items


def _bind(recorder: _Recorder, call: _Call, op: str, operands: Sequence[_Ref], attributes: Attributes | None = None) -> None:
    out = call.result
    recorder.bind(out, recorder.emit(op, operands, tuple(out.shape), attributes, DTYPES[out.dtype]))


def _optional(recorder: _Recorder, call: _Call, *names: str) -> list[_Ref]:
    return [recorder.ref(call[name]) for name in names if isinstance(call[name], Tensor)]


@_handles("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv(recorder: _Recorder, call: _Call) -> None:
    x, weight = recorder.ref(call["input"]), recorder.ref(call["weight"])
    x = recorder.value(x)
    bias = _optional(recorder, call, "bias")
    rank = len(weight.shape) - 2
    kernel, dilation = weight.shape[2:], _list(call["dilation"], rank)
    stride = _list(call["stride"] or 1, rank)
    padding = call["padding"]
    if padding == "same":
        total = [dilation[i] * (kernel[i] - 1) for i in range(rank)]
        pads = (*(t // 2 for t in total), *(t - t // 2 for t in total))
    else:
        pads = _list(0 if padding == "valid" else padding, rank) * 2
    attributes = {"kernel": kernel, "stride": stride, "pads": pads, "dilation": dilation, "groups": call["groups"]}
    if isinstance(weight, Value):  # weights computed from the input: outside the vocabulary, so it is reported
        _bind(recorder, call, "DynamicConv", [x, weight, *bias], attributes)
        return
    transposed = "output_padding" in call.arguments and call["transposed"] is not False
    if transposed:
        attributes["output_padding"] = _list(call["output_padding"], rank)
    _bind(recorder, call, "ConvTranspose" if transposed else "Conv", [x, weight, *bias], attributes)


def _transposed(recorder: _Recorder, ref: _Ref) -> _Ref:
    """Swap the last two axes."""
    rank = len(ref.shape)
    perm = (*range(rank - 2), rank - 1, rank - 2)
    shape = tuple(ref.shape[i] for i in perm)
    return recorder.emit("Transpose", [ref], shape, {"perm": perm})


def _product(recorder: _Recorder, a: _Ref, b: _Ref, shape: Shape, bias: Sequence[_Ref] = ()) -> _Ref:
    if isinstance(b, _Constant) and isinstance(a, Value) and len(b.shape) == 2:
        weight = _Constant(b.shape[::-1], b.dtype, b.sources)
        if not bias or isinstance(bias[0], _Constant):
            return recorder.emit("Gemm", [a, weight, *bias], shape)
    if isinstance(a, _Constant) and isinstance(b, Value) and len(a.shape) >= 2 and len(b.shape) >= 2:
        back = (*shape[:-2], shape[-1], shape[-2])
        return _transposed(recorder, _product(recorder, _transposed(recorder, b), _transposed(recorder, a), back, bias))
    return recorder.emit("MatMul", [a, b], shape)


@_handles("linear")
def _linear(recorder: _Recorder, call: _Call) -> None:
    x, weight, bias = recorder.ref(call["input"]), recorder.ref(call["weight"]), _optional(recorder, call, "bias")
    shape = tuple(call.result.shape)
    if isinstance(weight, _Constant):
        recorder.bind(call.result, recorder.emit("Gemm", [x, weight, *bias], shape))
        return
    out = _product(recorder, x, _transposed(recorder, weight), shape)
    recorder.bind(call.result, recorder.emit("Add", [out, *bias], shape) if bias else out)


@_handles("matmul", "mm", "bmm")
def _matmul(recorder: _Recorder, call: _Call) -> None:
    a = recorder.ref(call["self"])
    b = recorder.ref(call["other"] if call["other"] is not None else call["mat2"])
    shape = tuple(call.result.shape)
    if len(b.shape) == 1:
        b = recorder.emit("Reshape", [b], (*b.shape, 1), {"shape": (*b.shape, 1)})
    if len(a.shape) == 1:
        a = recorder.emit("Reshape", [a], (1, *a.shape), {"shape": (1, *a.shape)})
    full = (*_broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    out = _product(recorder, a, b, full)
    recorder.bind(call.result, out if full == shape else recorder.emit("Reshape", [out], shape, {"shape": shape}))


def _broadcast(a: Sequence[int], b: Sequence[int]) -> Shape:
    return tuple(np.broadcast_shapes(tuple(a), tuple(b)))


@_handles("addmm", "baddbmm")
def _addmm(recorder: _Recorder, call: _Call) -> None:
    a = recorder.ref(call["mat1"] if call["mat1"] is not None else call["batch1"])
    b = recorder.ref(call["mat2"] if call["mat2"] is not None else call["batch2"])
    bias, shape = recorder.ref(call["self"]), tuple(call.result.shape)
    if isinstance(bias, _Constant) and len(bias.shape) == 1 and isinstance(b, _Constant):
        recorder.bind(call.result, _product(recorder, a, b, shape, [bias]))
    else:
        recorder.bind(call.result, recorder.emit("Add", [_product(recorder, a, b, shape), bias], shape))


@_handles("scaled_dot_product_attention")
def _attention(recorder: _Recorder, call: _Call) -> None:
    q, k, v = (recorder.value(recorder.ref(call[name])) for name in ("query", "key", "value"))
    _bind(recorder, call, "Attention", [q, k, v, *_optional(recorder, call, "attn_mask")], {"causal": int(call["is_causal"]) or None})


@_handles("batch_norm", "instance_norm")
def _channel_norm(recorder: _Recorder, call: _Call) -> None:
    op = "BatchNormalization" if "cudnn_enabled" in call.arguments and "use_input_stats" not in call.arguments else "InstanceNormalization"
    operands = _optional(recorder, call, "input", "weight", "bias", *(("running_mean", "running_var") if op[0] == "B" else ()))
    _bind(recorder, call, op, operands, {"epsilon": call["eps"]})


@_handles("layer_norm", "rms_norm")
def _layer_norm(recorder: _Recorder, call: _Call) -> None:
    op = "LayerNormalization" if "cudnn_enable" in call.arguments else "RMSNormalization"
    axis = -len(call["normalized_shape"])
    _bind(recorder, call, op, _optional(recorder, call, "input", "weight", "bias"), {"axis": axis, "epsilon": call["eps"]})


@_handles("group_norm")
def _group_norm(recorder: _Recorder, call: _Call) -> None:
    attributes = {"groups": call["num_groups"], "epsilon": call["eps"]}
    _bind(recorder, call, "GroupNormalization", _optional(recorder, call, "input", "weight", "bias"), attributes)


@_handles("lstm")
def _lstm(recorder: _Recorder, call: _Call) -> None:
    x = recorder.value(recorder.ref(call["input"]))
    weights = [recorder.ref(t) for t in call["params"] or ()]
    states = [ref for ref in map(recorder.ref, call["hx"] or ()) if isinstance(ref, Value)]
    attributes = {"layers": call["num_layers"], "bidirectional": int(call["bidirectional"]), "batch_first": int(call["batch_first"])}
    recorder.unknown("LSTM", [x, *states, *weights], list(_tensors(call.result)), attributes)


def _unary(op: str, **attributes: str) -> _Handler:
    """An operator of one operand; `given` maps attribute to argument."""

    def handler(recorder: _Recorder, call: _Call) -> None:
        first = call["self"] if call["self"] is not None else call["input"]
        _bind(recorder, call, op, [recorder.ref(first)], {key: call[source] for key, source in attributes.items()})

    return handler


_HANDLERS |= {
    "relu": _unary("Relu"),
    "hardtanh": _unary("Clip", min="min_val", max="max_val"),
    "relu6": _unary("Clip"),
    "clamp": _unary("Clip", min="min", max="max"),
    "clamp_min": _unary("Clip", min="min"),
    "clamp_max": _unary("Clip", max="max"),
    "gelu": _unary("Gelu", approximate="approximate"),
    "silu": _unary("Swish"),
    "hardswish": _unary("HardSwish"),
    "hardsigmoid": _unary("HardSigmoid"),
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "elu": _unary("Elu", alpha="alpha"),
    "selu": _unary("Selu"),
    "leaky_relu": _unary("LeakyRelu", alpha="negative_slope"),
    "mish": _unary("Mish"),
    "softplus": _unary("Softplus"),
    "erf": _unary("Erf"),
    "softmax": _unary("Softmax", axis="dim"),
    "log_softmax": _unary("LogSoftmax", axis="dim"),
    "neg": _unary("Neg"),
    "abs": _unary("Abs"),
    "exp": _unary("Exp"),
    "log": _unary("Log"),
    "sqrt": _unary("Sqrt"),
    "reciprocal": _unary("Reciprocal"),
    "sin": _unary("Sin"),
    "cos": _unary("Cos"),
    "floor": _unary("Floor"),
    "ceil": _unary("Ceil"),
    "round": _unary("Round"),
    "sign": _unary("Sign"),
    "logical_not": _unary("Not"),
    "pixel_shuffle": _unary("DepthToSpace", blocksize="upscale_factor"),
    "pixel_unshuffle": _unary("SpaceToDepth", blocksize="downscale_factor"),
    "roll": _unary("Roll", shifts="shifts", axes="dims"),
    "repeat": _unary("Tile", repeats="repeats"),
    "repeat_interleave": _unary("Tile", repeats="repeats", axis="dim"),
    "flip": _unary("Slice", axes="dims"),
    "cumsum": _unary("CumSum", axis="dim"),
    "argmax": _unary("ArgMax", axis="dim"),
    "argmin": _unary("ArgMin", axis="dim"),
}


@_handles("view_as_real", "view_as_complex")
def _same_numbers(recorder: _Recorder, call: _Call) -> None:
    recorder.bind(call.result, recorder.pairs(call["self"]))


@_handles("fft_rfft", "fft_rfft2", "fft_irfft", "fft_irfft2", "fft_fft", "fft_fft2", "fft_ifft", "fft_ifft2")
def _transform(recorder: _Recorder, call: _Call) -> None:
    """ONNX transforms one axis at a time, real numbers first, or last on the way back."""
    x, kind = recorder.pairs(call["self"]), call.name.removeprefix("fft_")
    real, inverse = kind.startswith(("r", "ir")), kind.startswith("i")
    rank = call["self"].ndim
    dims = call["dim"] if call["dim"] is not None else ((-2, -1) if kind.endswith("2") else -1)
    axes = [axis % rank for axis in _list(dims, 1)]
    result = tuple(call.result.shape)
    if not real and not call["self"].is_complex():
        raise GraphError(f"trace: {call.name} of real numbers is not known. Do this: use the real transform.")
    shape = tuple(x.shape) if inverse or not real else (*x.shape, 2)
    for axis in axes if inverse else axes[::-1]:
        last = real and axis == axes[-1]
        size = result[axis]
        if last and inverse:
            shape = shape[:-1]
        shape = (*shape[:axis], size, *shape[axis + 1 :])
        attributes = {"axis": axis} | ({"inverse": 1} if inverse else {}) | ({"onesided": 1} if last and not inverse else {})
        x = recorder.emit("DFT", [x], shape, attributes, "fp32")
    recorder.bind(call.result, x)


@_handles("rsqrt")
def _rsqrt(recorder: _Recorder, call: _Call) -> None:
    x = recorder.ref(call["self"])
    _bind(recorder, call, "Reciprocal", [recorder.emit("Sqrt", [x], x.shape)])


@_handles("copy")
def _copy(recorder: _Recorder, call: _Call) -> None:
    recorder.bind(call.result, recorder.ref(call["src"]))


@_handles("glu")
def _glu(recorder: _Recorder, call: _Call) -> None:
    x = recorder.value(recorder.ref(call["self"]))
    shape, axis = tuple(call.result.shape), call["dim"] % len(x.shape)
    a, b = recorder.emit_many("Split", [x], [(shape, x.dtype)] * 2, {"axis": axis, "sizes": (shape[axis],) * 2})
    _bind(recorder, call, "Mul", [a, recorder.emit("Sigmoid", [b], shape)])


@_handles("prelu", "_prelu_kernel")
def _prelu(recorder: _Recorder, call: _Call) -> None:
    _bind(recorder, call, "PRelu", [recorder.ref(call["self"]), recorder.ref(call["weight"])])


def _binary(op: str, first: str = "self", second: str = "other") -> _Handler:
    def handler(recorder: _Recorder, call: _Call) -> None:
        a, b = call[first], call[second]
        attributes: Attributes = {}
        if not isinstance(a, Tensor) or not isinstance(b, Tensor):
            attributes["scalar"] = float(b if isinstance(a, Tensor) else a)
        operands = [recorder.ref(t) for t in (a, b) if isinstance(t, Tensor)]
        if op in {"Sub", "Div", "Pow", "Less", "Greater"} and (not isinstance(a, Tensor) or isinstance(operands[0], _Constant)):
            attributes["reversed"] = 1
        alpha = call["alpha"]
        if alpha is not None and alpha != 1 and len(operands) == 2:
            operands[1] = recorder.emit("Mul", [operands[1]], operands[1].shape, {"scalar": float(alpha)})
        if op == "Clip":
            attributes = {}
        _bind(recorder, call, op, operands, attributes)

    return handler


_HANDLERS |= {
    "add": _binary("Add"),
    "sub": _binary("Sub"),
    "rsub": _binary("Sub", "other", "self"),
    "mul": _binary("Mul"),
    "div": _binary("Div"),
    "true_divide": _binary("Div"),
    "floor_divide": _binary("Div"),
    "pow": _binary("Pow", "self", "exponent"),
    "maximum": _binary("Max"),
    "minimum": _binary("Min"),
    "remainder": _binary("Mod"),
    "eq": _binary("Equal"),
    "ne": _binary("Equal"),
    "lt": _binary("Less"),
    "le": _binary("Less"),
    "gt": _binary("Greater"),
    "ge": _binary("Greater"),
    "logical_and": _binary("And"),
    "logical_or": _binary("Or"),
    "bitwise_and": _binary("And"),
    "bitwise_or": _binary("Or"),
}


@_handles("addcmul", "addcdiv")
def _addc(recorder: _Recorder, call: _Call) -> None:
    base, a, b = (recorder.ref(call[name]) for name in ("self", "tensor1", "tensor2"))
    part = recorder.emit("Mul", [a, b], _broadcast(a.shape, b.shape))
    _bind(recorder, call, "Add", [base, part])


@_handles("where", "masked_fill")
def _where(recorder: _Recorder, call: _Call) -> None:
    operands = _optional(recorder, call, "condition", "mask", "self", "other", "value")
    _bind(recorder, call, "Where", operands)


def _reduced_axes(call: _Call, rank: int) -> tuple[int, ...]:
    """Return the axes of a call's ``dim``, none of them negative; all where it names none."""
    dim = call["dim"]
    axes = range(rank) if dim is None or dim == [] else (dim,) if isinstance(dim, int) else dim
    return tuple(axis % rank for axis in axes)


def _reduction(op: str) -> _Handler:
    def handler(recorder: _Recorder, call: _Call) -> None:
        x = recorder.ref(call["self"])
        made = list(_tensors(call.result))
        attributes = {"axes": _reduced_axes(call, len(x.shape)), "keepdims": int(bool(call["keepdim"]))}
        if len(made) == 1:
            recorder.bind(made[0], recorder.emit(op, [x], tuple(made[0].shape), attributes, DTYPES[made[0].dtype]))
        else:
            recorder.unknown(op, [x], made, attributes)

    return handler


_HANDLERS |= {
    "mean": _reduction("ReduceMean"),
    "sum": _reduction("ReduceSum"),
    "amax": _reduction("ReduceMax"),
    "amin": _reduction("ReduceMin"),
    "max": _reduction("ReduceMax"),
    "min": _reduction("ReduceMin"),
    "prod": _reduction("ReduceProd"),
    "linalg_vector_norm": _reduction("ReduceL2"),
    "norm": _reduction("ReduceL2"),
}


@_handles("var", "var_mean", "std", "std_mean")
def _moments(recorder: _Recorder, call: _Call) -> None:
    """Write a variance as mean((x − mean(x))²), the form in which it reaches an ONNX file."""
    x = recorder.ref(call["self"])
    made = list(_tensors(call.result))
    axes = _reduced_axes(call, len(x.shape))
    reduced = tuple(1 if i in axes else size for i, size in enumerate(x.shape))
    keep = int(bool(call["keepdim"]))
    mean = recorder.emit("ReduceMean", [x], reduced, {"axes": axes, "keepdims": 1})
    centred = recorder.emit("Sub", [x, mean], x.shape)
    square = recorder.emit("Pow", [centred], x.shape, {"scalar": 2.0})
    spread = recorder.emit("ReduceMean", [square], tuple(made[0].shape), {"axes": axes, "keepdims": keep})
    if call.name.startswith("std"):
        spread = recorder.emit("Sqrt", [spread], tuple(made[0].shape))
    recorder.bind(made[0], spread)
    if len(made) > 1:
        shape = tuple(made[1].shape)
        recorder.bind(made[1], mean if shape == reduced else recorder.emit("Reshape", [mean], shape, {"shape": shape}))


def _pool(op: str) -> _Handler:
    def handler(recorder: _Recorder, call: _Call) -> None:
        x = recorder.value(recorder.ref(call["self"]))
        rank = len(_list(call["kernel_size"], 1))
        rank = rank if rank > 1 else len(x.shape) - 2
        kernel = _list(call["kernel_size"], rank)
        attributes = {
            "kernel": kernel,
            "stride": _list(call["stride"], rank) if call["stride"] not in ([], None) else kernel,
            "pads": _list(call["padding"] or 0, rank) * 2,
            "dilation": _list(call["dilation"], rank) if call["dilation"] is not None else None,
            "ceil": int(bool(call["ceil_mode"])) or None,
        }
        _bind(recorder, call, op, [x], attributes)

    return handler


_HANDLERS |= {
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d"), _pool("AveragePool")),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d"), _pool("MaxPool")),
}


def _adaptive(op: str, whole: str) -> _Handler:
    def handler(recorder: _Recorder, call: _Call) -> None:
        x = recorder.value(recorder.ref(call["self"]))
        out = next(_tensors(call.result))
        rank = len(call["output_size"])
        before, after = x.shape[-rank:], tuple(out.shape)[-rank:]
        if before == after:
            recorder.bind(out, x)
            return
        stride = tuple(b // a for b, a in zip(before, after, strict=True))
        if all(size == 1 for size in after) and len(x.shape) == rank + 2:
            ref = recorder.emit(whole, [x], tuple(out.shape))
        elif all(b % a == 0 for b, a in zip(before, after, strict=True)):
            ref = recorder.emit(op, [x], tuple(out.shape), {"kernel": stride, "stride": stride, "pads": (0,) * 2 * rank})
        else:  # windows of unequal size: no ONNX operator
            ref = recorder.emit(f"Adaptive{op}", [x], tuple(out.shape), {"size": after})
        recorder.bind(out, ref)

    return handler


_HANDLERS |= {
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _adaptive("AveragePool", "GlobalAveragePool")),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), _adaptive("MaxPool", "GlobalMaxPool")),
}


@_handles("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as")
def _reshape(recorder: _Recorder, call: _Call) -> None:
    x, shape = recorder.ref(call["self"]), tuple(call.result.shape)
    recorder.bind(call.result, x if x.shape == shape else recorder.emit("Reshape", [x], shape, {"shape": shape}))


@_handles("transpose", "t", "permute")
def _permute(recorder: _Recorder, call: _Call) -> None:
    x = recorder.ref(call["self"])
    rank = len(x.shape)
    if call["dims"] is not None:
        perm = tuple(d % rank for d in call["dims"])
    else:
        a, b = (0, 1) if call["dim0"] is None else (call["dim0"] % rank, call["dim1"] % rank)
        order = list(range(rank))
        if rank > 1:
            order[a], order[b] = order[b], order[a]
        perm = tuple(order)
    if perm == tuple(range(rank)):
        recorder.bind(call.result, x)
    else:
        _bind(recorder, call, "Transpose", [x], {"perm": perm})


@_handles("expand", "broadcast_to")
def _expand(recorder: _Recorder, call: _Call) -> None:
    x, shape = recorder.ref(call["self"]), tuple(call.result.shape)
    recorder.bind(call.result, x if x.shape == shape else recorder.emit("Expand", [x], shape, {"shape": shape}))


@_handles("slice", "narrow")
def _slice(recorder: _Recorder, call: _Call) -> None:
    x, shape = recorder.ref(call["self"]), tuple(call.result.shape)
    if x.shape == shape:
        recorder.bind(call.result, x)
        return
    axis = (call["dim"] or 0) % len(x.shape)
    start = call["start"] or 0
    _bind(recorder, call, "Slice", [x], {"axis": axis, "start": start % x.shape[axis], "size": shape[axis], "step": call["step"]})


@_handles("select")
def _select(recorder: _Recorder, call: _Call) -> None:
    x = recorder.ref(call["self"])
    axis = call["dim"] % len(x.shape)
    if x.shape[axis] == 1:
        shape = tuple(call.result.shape)
        _bind(recorder, call, "Reshape", [x], {"shape": shape})
    else:
        _bind(recorder, call, "Gather", [x], {"axis": axis, "index": call["index"] % x.shape[axis]})


@_handles("index", "index_select", "embedding")
def _gather(recorder: _Recorder, call: _Call) -> None:
    operands = [recorder.ref(t) for t in _tensors(call.arguments)]
    _bind(recorder, call, "Gather", operands)


@_handles("gather")
def _gather_elements(recorder: _Recorder, call: _Call) -> None:
    _bind(recorder, call, "GatherElements", [recorder.ref(call["self"]), recorder.ref(call["index"])], {"axis": call["dim"]})


@_handles("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "unsafe_chunk", "unsafe_split")
def _split(recorder: _Recorder, call: _Call) -> None:
    x, made = recorder.ref(call["self"]), list(call.result)
    axis = (call["dim"] or 0) % len(x.shape)
    unbind = len(made[0].shape) < len(x.shape)
    shapes = [(*x.shape[:axis], 1 if unbind else t.shape[axis], *x.shape[axis + 1 :]) for t in made]
    parts: Sequence[_Ref] = [x]
    if len(made) > 1:
        sizes = tuple(shape[axis] for shape in shapes)
        parts = recorder.emit_many("Split", [x], [(shape, x.dtype) for shape in shapes], {"axis": axis, "sizes": sizes})
    for tensor, part in zip(made, parts, strict=True):
        shape = tuple(tensor.shape)
        recorder.bind(tensor, recorder.emit("Reshape", [part], shape, {"shape": shape}) if unbind else part)


@_handles("cat", "concat", "concatenate")
def _concat(recorder: _Recorder, call: _Call) -> None:
    operands = [ref for ref in map(recorder.ref, call["tensors"]) if 0 not in ref.shape]
    if len(operands) == 1:
        recorder.bind(call.result, operands[0])
    else:
        _bind(recorder, call, "Concat", operands, {"axis": call["dim"] % len(call.result.shape)})


@_handles("stack")
def _stack(recorder: _Recorder, call: _Call) -> None:
    out = call.result
    axis = call["dim"] % len(out.shape)
    part = tuple(1 if i == axis else size for i, size in enumerate(out.shape))
    operands = [recorder.emit("Reshape", [recorder.ref(t)], part, {"shape": part}) for t in call["tensors"]]
    _bind(recorder, call, "Concat", operands, {"axis": axis})


@_handles("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def _pad(recorder: _Recorder, call: _Call) -> None:
    x = recorder.ref(call["self"])
    pads = tuple(call["pad"] if call["pad"] is not None else call["padding"])
    if not any(pads):
        recorder.bind(call.result, x)
        return
    rank = len(x.shape)
    begin, end = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        begin[rank - 1 - i], end[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    _bind(recorder, call, "Pad", [x], {"pads": (*begin, *end), "mode": call["mode"] if call["mode"] != "constant" else None})


def _resize(mode: str) -> _Handler:
    def handler(recorder: _Recorder, call: _Call) -> None:
        x = recorder.ref(call["self"] if call["self"] is not None else call["input"])
        if x.shape == tuple(call.result.shape):
            recorder.bind(call.result, x)
        else:
            _bind(recorder, call, "Resize", [x], {"mode": mode})

    return handler


_HANDLERS |= {
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d"), _resize("nearest")),
    **dict.fromkeys(("upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_linear1d", "upsample_trilinear3d"), _resize("linear")),
    **dict.fromkeys(("upsample_bicubic2d", "_upsample_bicubic2d_aa"), _resize("cubic")),
}


def _named(op: str) -> _Handler:
    """An operator of any operands and outputs."""

    def handler(recorder: _Recorder, call: _Call) -> None:
        recorder.unknown(op, [recorder.ref(t) for t in _tensors(call.arguments)], list(_tensors(call.result)))

    return handler


_HANDLERS |= {
    "topk": _named("TopK"),
    "sort": _named("TopK"),
    "grid_sampler": _named("GridSample"),
    "grid_sampler_2d": _named("GridSample"),
    "scatter": _named("ScatterElements"),
    "one_hot": _named("OneHot"),
}
