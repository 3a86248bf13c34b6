"""An ``.onnx`` file with random weights from a graph, so that any network can be timed without the framework that built it.

Composites are written out (attention as products and a softmax), fused activations stand behind their operator, and every weight has
the scale that keeps activations in the normal range of floats. Numbers mean nothing; shapes, operators and costs are the graph's.
"""

# ruff: noqa: N802, N815 - a method that writes an operator bears its name

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.errors import ArtifactError, GraphError
from nas.graphs.graph import Attributes, Graph, Operator

OPSET, IR_VERSION = 20, 9  # of the ONNX specification: 20 has Gelu, 9 is the IR that goes with it
_ONNX_TYPES = {
    "fp64": TensorProto.DOUBLE,
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
_PLAIN = {
    *("Relu", "Sigmoid", "Tanh", "Mish", "Softplus", "Selu", "Erf", "HardSwish", "Softsign"),
    *("Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Not", "Identity"),
    *("GlobalAveragePool", "GlobalMaxPool"),
}
_BINARY = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "Equal", "Less", "Greater", "And", "Or"}


def write_onnx(graph: Graph, path: Path, rng: np.random.Generator) -> None:
    """Write `graph` with random weights; the file has been checked before it appears.

    Raises:
        GraphError: An operator that cannot be written; the message names all of them.
        ArtifactError: The path exists or cannot be written.
    """
    if path.exists():
        raise ArtifactError(f"onnx: the file exists, got {str(path)!r}. Do this: name another or remove it.")
    writer = _Writer(graph, rng)
    missing = sorted({op.op for op in graph.operators if not writer.knows(op.op)})
    if missing:
        raise GraphError(f"onnx: operators that cannot be written, got {', '.join(missing)} in {graph.name or 'the graph'}.")
    for op in graph.operators:
        writer.write(op)
    model = writer.model()
    partial = path.with_name(path.name + ".partial")
    try:
        onnx.save_model(model, str(partial))
        partial.replace(path)
    except OSError as error:
        raise ArtifactError(f"onnx: cannot be written, got {str(path)!r} ({error}).") from None


class _Writer:
    def __init__(self, graph: Graph, rng: np.random.Generator) -> None:
        self.graph, self.rng = graph, rng
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.constants: dict[tuple[Any, ...], str] = {}
        self.fresh = 0
        self.special: dict[str, Callable[[Operator], str]] = {
            name.removeprefix("_op_"): getattr(self, name) for name in dir(self) if name.startswith("_op_")
        }

    def knows(self, op: str) -> bool:
        return op in self.special or op in _PLAIN or op in _BINARY or op.startswith("Reduce")

    def model(self) -> onnx.ModelProto:
        def described(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, _ONNX_TYPES[self.graph.values[name].dtype], self.graph.values[name].shape)
                for name in names
            ]

        inputs = described([value.name for value in self.graph.inputs])
        made = helper.make_graph(self.nodes, self.graph.name or "graph", inputs, described(self.graph.outputs), self.initializers)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="nas")

    def write(self, op: Operator) -> None:
        activation = op.attribute("activation")
        first = len(self.nodes)
        if op.op in self.special:
            made = self.special[op.op](op)
        elif op.op in _PLAIN:
            made = self.emit(op.op, op.inputs)
        elif op.op in _BINARY:
            made = self._binary(op)
        else:
            axes = self.constant(np.array(op.attribute("axes"), dtype=np.int64))
            made = self.emit(op.op, [op.inputs[0], axes], keepdims=int(op.attribute("keepdims", 1)))
        if activation:
            made = self._activation(activation, made, op)
        if made != op.outputs[0].name:
            self._rename(made, op.outputs[0].name, first)

    def _rename(self, old: str, new: str, first: int) -> None:
        """Let the last value of an operator bear its name in the graph; an operator that made nothing becomes an identity."""
        made = False
        for node in self.nodes[first:]:
            for i, name in enumerate(node.output):
                if name == old:
                    node.output[i] = new
                    made = True
            for i, name in enumerate(node.input):
                if made and name == old:
                    node.input[i] = new
        if not made:
            self.nodes.append(helper.make_node("Identity", [old], [new]))

    def emit(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> str:
        names = [self.name() for _ in range(outputs)]
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{len(self.nodes)}", **plain))
        return names[0]

    def name(self) -> str:
        self.fresh += 1
        return f"_v{self.fresh}"

    def constant(self, array: npt.NDArray[Any]) -> str:
        """Return the name of a small constant, one initializer for equal ones."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self._initializer(array)
        return self.constants[key]

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def _initializer(self, array: npt.NDArray[Any]) -> str:
        name = f"_w{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, shape: Sequence[int], fan_in: int | None = None, fill: float | None = None) -> str:
        """Return the name of a random weight of He's scale, or of a constant one."""
        if fill is not None:
            return self._initializer(np.full(shape, fill, dtype=np.float32))
        numbers = self.rng.standard_normal(tuple(shape), dtype=np.float32)
        return self._initializer(numbers * np.float32(math.sqrt(2 / (fan_in or max(1, prod(shape[1:]))))))

    def shape(self, value: str) -> tuple[int, ...]:
        return self.graph.values[value].shape

    # Operators ------------------------------------------------------------------------------------------------------

    def _activation(self, name: str, x: str, op: Operator) -> str:
        if name in _PLAIN:
            return self.emit(name, [x])
        match name:
            case "Gelu":
                return self.emit("Gelu", [x], approximate="tanh" if op.attribute("approximate") == "tanh" else "none")
            case "Swish":
                return self.emit("Mul", [x, self.emit("Sigmoid", [x])])
            case "HardSigmoid":
                return self.emit("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
            case "Clip" | "Relu6":
                low, high = op.attribute("min", 0.0 if name == "Relu6" else None), op.attribute("max", 6.0)
                return self.emit("Clip", [x, "" if low is None else self.scalar(low), "" if high is None else self.scalar(high)])
            case "Elu" | "LeakyRelu":
                return self.emit(name, [x])
            case "PRelu":
                return self.emit("PRelu", [x, self.weight((1,), fill=0.25)])
        raise GraphError(f"onnx: an activation that cannot be written, got {name!r} at {op.name}.")

    def _op_Clip(self, op: Operator) -> str:
        limits = [op.attribute("min"), op.attribute("max")]
        return self.emit("Clip", [op.inputs[0], *("" if limit is None else self.scalar(limit) for limit in limits)])

    def _unary(self, op: Operator) -> str:
        return self._activation(op.op, op.inputs[0], op)

    _op_Gelu = _op_Swish = _op_HardSigmoid = _op_Elu = _op_LeakyRelu = _unary

    def _op_PRelu(self, op: Operator) -> str:
        shape = op.weights[0].shape if op.weights else (1,)
        rank = len(op.outputs[0].shape)
        wide = shape if len(shape) != 1 or rank == 1 else (shape[0], *(1 for _ in range(rank - 2)))
        return self.emit("PRelu", [op.inputs[0], self.weight(wide, fill=0.25)])

    def _binary(self, op: Operator) -> str:
        inputs = list(op.inputs)
        if len(inputs) == 1:
            if op.weights:
                inputs.append(self.weight(op.weights[0].shape, fill=float(op.attribute("constant", 0.5))))
            elif op.attribute("scalar") is not None:
                inputs.append(self.scalar(float(op.attribute("scalar"))))
            else:
                inputs.append(inputs[0])
        return self.emit(op.op, inputs)

    def _window(self, op: Operator) -> Attributes:
        attributes = {"kernel_shape": op.attribute("kernel"), "strides": op.attribute("stride"), "pads": op.attribute("pads")}
        return attributes | {"dilations": op.attribute("dilation")}

    def _op_Conv(self, op: Operator) -> str:
        first = op.weights[0].shape
        weights = [self.weight(first)] + [self.weight(w.shape, fill=0.01) for w in op.weights[1:2]]
        return self.emit("Conv", [op.inputs[0], *weights], group=op.attribute("groups"), **self._window(op))

    def _op_ConvTranspose(self, op: Operator) -> str:
        first = op.weights[0].shape
        weights = [self.weight(first, fan_in=first[0])] + [self.weight(w.shape, fill=0.01) for w in op.weights[1:2]]
        extra = op.attribute("output_padding")
        return self.emit("ConvTranspose", [op.inputs[0], *weights], group=op.attribute("groups"), output_padding=extra, **self._window(op))

    def _op_Gemm(self, op: Operator) -> str:
        features, inner = op.weights[0].shape
        biases = [self.weight(w.shape, fill=0.01) for w in op.weights[1:2]]
        if len(self.shape(op.inputs[0])) == 2:
            return self.emit("Gemm", [op.inputs[0], self.weight((features, inner)), *biases], transB=1)
        product = self.emit("MatMul", [op.inputs[0], self.weight((inner, features), fan_in=inner)])
        return self.emit("Add", [product, *biases]) if biases else product

    def _op_MatMul(self, op: Operator) -> str:
        inputs = list(op.inputs) + [self.weight(w.shape, fan_in=w.shape[-2]) for w in op.weights[: 2 - len(op.inputs)]]
        return self.emit("MatMul", inputs)

    def _op_Attention(self, op: Operator) -> str:
        heads = op.attribute("heads")
        q, k, v = op.inputs[:3]
        shapes = [self.shape(name) for name in op.inputs[:3]]
        if heads:
            (q, depth), (k, _), (v, _) = (self._split_heads(n, s, heads) for n, s in zip((q, k, v), shapes, strict=True))
        else:
            depth = shapes[0][-1]
        rank = len(shapes[0]) + bool(heads)
        if not op.attribute("key_transposed"):
            k = self.emit("Transpose", [k], perm=(*range(rank - 2), rank - 1, rank - 2))
        scores = self.emit("Mul", [self.emit("MatMul", [q, k]), self.scalar(depth**-0.5)])
        for extra in op.inputs[3:]:
            scores = self.emit("Add", [scores, extra])
        target = (*shapes[0][:-2], *((heads,) if heads else ()), shapes[0][-2], shapes[2][-2])
        for weight in op.weights:
            scores = self._add_bias(scores, weight.shape, target)
        mixed = self.emit("MatMul", [self.emit("Softmax", [scores], axis=-1), v])
        if heads:
            mixed = self.emit("Transpose", [mixed], perm=(*range(rank - 3), rank - 2, rank - 3, rank - 1))
            mixed = self._reshape(mixed, op.outputs[0].shape)
        return mixed

    def _split_heads(self, value: str, shape: tuple[int, ...], heads: int) -> tuple[str, int]:
        """(…, n, heads·d) -> (…, heads, n, d)."""
        depth = shape[-1] // heads
        wide = self._reshape(value, (*shape[:-1], heads, depth))
        rank = len(shape) + 1
        return self.emit("Transpose", [wide], perm=(*range(rank - 3), rank - 2, rank - 3, rank - 1)), depth

    def _add_bias(self, scores: str, bias: tuple[int, ...], target: tuple[int, ...]) -> str:
        """Add a constant to scores of shape `target`, through a reshape where it does not broadcast (windows of a batch)."""
        name = self.weight(bias, fill=0.1)
        if len(bias) <= len(target) and np.broadcast_shapes(bias, target) == target:
            return self.emit("Add", [scores, name])
        wide = (-1, bias[-4], *target[-3:])  # windows of one image share a mask: (images, windows, heads, n, m)
        return self._reshape(self.emit("Add", [self._reshape(scores, wide), name]), target)

    def _op_LayerNormalization(self, op: Operator) -> str:
        axis = op.attribute("axis", -1)
        weights = [self.weight(w.shape, fill=1.0 - i) for i, w in enumerate(op.weights[:2])]
        shape, epsilon = self.shape(op.inputs[0]), float(op.attribute("epsilon", 1e-5))
        rank = len(shape)
        over = op.weights[0].shape if op.weights else shape[axis:]
        if len(over) == 1 and axis % rank == 1 and rank > 2:  # over the channels of images: ONNX normalises trailing axes
            weights = weights or [self.weight((shape[1],), fill=1.0)]
            last = self.emit("Transpose", [op.inputs[0]], perm=(0, *range(2, rank), 1))
            normal = self.emit("LayerNormalization", [last, *weights], axis=-1, epsilon=epsilon)
            return self.emit("Transpose", [normal], perm=(0, rank - 1, *range(1, rank - 1)))
        weights = weights or [self.weight(over, fill=1.0)]
        return self.emit("LayerNormalization", [op.inputs[0], *weights], axis=axis, epsilon=epsilon)

    def _op_BatchNormalization(self, op: Operator) -> str:
        channels = self.shape(op.inputs[0])[1]
        rows = [self.weight((channels,), fill=fill) for fill in (1.0, 0.0, 0.0, 1.0)]
        return self.emit("BatchNormalization", [op.inputs[0], *rows], epsilon=float(op.attribute("epsilon", 1e-5)))

    def _op_InstanceNormalization(self, op: Operator) -> str:
        channels = self.shape(op.inputs[0])[1]
        rows = [self.weight((channels,), fill=fill) for fill in (1.0, 0.0)]
        return self.emit("InstanceNormalization", [op.inputs[0], *rows], epsilon=float(op.attribute("epsilon", 1e-5)))

    def _op_GroupNormalization(self, op: Operator) -> str:
        shape = self.shape(op.inputs[0])
        groups = int(op.attribute("groups", 1))
        ones, zeros = (self.weight((groups,), fill=fill) for fill in (1.0, 0.0))
        flat = self._reshape(op.inputs[0], (shape[0], groups, -1))
        normal = self.emit("InstanceNormalization", [flat, ones, zeros], epsilon=float(op.attribute("epsilon", 1e-5)))
        normal = self._reshape(normal, shape)
        for i, _ in enumerate(op.weights[:2]):
            row = self.weight((shape[1], *(1 for _ in shape[2:])), fill=1.0 - i)
            normal = self.emit("Add" if i else "Mul", [normal, row])
        return normal

    def _op_RMSNormalization(self, op: Operator) -> str:
        mean = self.emit("ReduceMean", [self.emit("Mul", [op.inputs[0]] * 2), self.constant(np.array([-1], dtype=np.int64))], keepdims=1)
        normal = self.emit("Div", [op.inputs[0], self.emit("Sqrt", [self.emit("Add", [mean, self.scalar(1e-6)])])])
        for weight in op.weights[:1]:
            normal = self.emit("Mul", [normal, self.weight(weight.shape, fill=1.0)])
        return normal

    def _op_LpNormalization(self, op: Operator) -> str:
        return self.emit("LpNormalization", [op.inputs[0]], axis=op.attribute("axis", -1), p=op.attribute("p", 2))

    def _op_Softmax(self, op: Operator) -> str:
        return self.emit(op.op, [op.inputs[0]], axis=op.attribute("axis", -1))

    _op_LogSoftmax = _op_Softmax

    def _op_AveragePool(self, op: Operator) -> str:
        return self.emit("AveragePool", [op.inputs[0]], ceil_mode=op.attribute("ceil"), **self._window(op))

    def _op_MaxPool(self, op: Operator) -> str:
        return self.emit("MaxPool", [op.inputs[0]], ceil_mode=op.attribute("ceil"), **self._window(op))

    def _reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.emit("Reshape", [value, self.constant(np.array(shape, dtype=np.int64))])

    def _op_Reshape(self, op: Operator) -> str:
        return self._reshape(op.inputs[0], op.outputs[0].shape)

    def _op_Transpose(self, op: Operator) -> str:
        return self.emit("Transpose", op.inputs, perm=op.attribute("perm"))

    def _op_Concat(self, op: Operator) -> str:
        return self.emit("Concat", [*(self.weight(w.shape) for w in op.weights), *op.inputs], axis=op.attribute("axis"))

    def _op_Split(self, op: Operator) -> str:
        sizes = self.constant(np.array(op.attribute("sizes"), dtype=np.int64))
        names = [value.name for value in op.outputs]
        self.nodes.append(helper.make_node("Split", [op.inputs[0], sizes], names, axis=op.attribute("axis")))
        return names[0]

    def _op_Slice(self, op: Operator) -> str:
        out = op.outputs[0].shape
        if op.attribute("axes") is not None:
            axes, starts, ends = (list(op.attribute(name)) for name in ("axes", "starts", "ends"))
            steps = list(op.attribute("steps") or [1] * len(axes))
        else:
            axis, start, step = op.attribute("axis"), op.attribute("start"), op.attribute("step", 1)
            axes, starts, ends, steps = [axis], [start], [start + (out[axis] - 1) * step + 1], [step]
        return self.emit("Slice", [op.inputs[0], *(self.constant(np.array(n, dtype=np.int64)) for n in (starts, ends, axes, steps))])

    def _op_Pad(self, op: Operator) -> str:
        before, after = self.shape(op.inputs[0]), op.outputs[0].shape
        rank, pads = len(before), tuple(op.attribute("pads"))
        grown = [b - a for a, b in zip(before, after, strict=True)]
        if len(pads) != 2 * rank or [pads[i] + pads[rank + i] for i in range(rank)] != grown:
            pads = (*(g // 2 for g in grown), *(g - g // 2 for g in grown))
        values = self.constant(np.array(pads, dtype=np.int64))
        return self.emit("Pad", [op.inputs[0], values], mode=op.attribute("mode", "constant"))

    def _op_Expand(self, op: Operator) -> str:
        if not op.inputs:
            return self.weight(op.outputs[0].shape, fill=0.0)
        return self.emit("Expand", [op.inputs[0], self.constant(np.array(op.outputs[0].shape, dtype=np.int64))])

    def _op_Tile(self, op: Operator) -> str:
        before, after = self.shape(op.inputs[0]), op.outputs[0].shape
        return self.emit(
            "Tile", [op.inputs[0], self.constant(np.array([b // a for a, b in zip(before, after, strict=True)], dtype=np.int64))]
        )

    def _op_Gather(self, op: Operator) -> str:
        index, axis = op.attribute("index"), op.attribute("axis", 0)
        if len(op.inputs) > 1 or any(not w.dtype.startswith("int") for w in op.weights):
            raise GraphError(f"onnx: cannot be written, got a {op.op} whose rows depend on the data at {op.name}.")
        shape, out = self.shape(op.inputs[0]), op.outputs[0].shape
        if index is None:  # which entries is not recorded: any table of the right size costs the same
            count = out[axis] if len(out) == len(shape) else 1
            index = [i % shape[axis] for i in range(count)]
        rows = np.array(index, dtype=np.int64)
        return self.emit("Gather", [op.inputs[0], self.constant(rows.reshape(()) if len(out) < len(shape) else rows)], axis=axis)

    def _op_DepthToSpace(self, op: Operator) -> str:
        factor = op.outputs[0].shape[-1] // self.shape(op.inputs[0])[-1]
        return self.emit("DepthToSpace", op.inputs, blocksize=factor, mode=op.attribute("mode", "CRD"))

    def _op_SpaceToDepth(self, op: Operator) -> str:
        return self.emit("SpaceToDepth", op.inputs, blocksize=self.shape(op.inputs[0])[-1] // op.outputs[0].shape[-1])

    def _op_Cast(self, op: Operator) -> str:
        return self.emit("Cast", op.inputs, to=_ONNX_TYPES[op.outputs[0].dtype])

    def _op_Roll(self, op: Operator) -> str:
        x = op.inputs[0]
        shape = self.shape(x)
        for axis, shift in zip(op.attribute("axes"), op.attribute("shifts"), strict=True):
            cut = (-shift) % shape[axis]
            if cut:
                at = [self.constant(np.array([n], dtype=np.int64)) for n in (0, cut, shape[axis], axis)]
                x = self.emit(
                    "Concat",
                    [self.emit("Slice", [x, at[1], at[2], at[3]]), self.emit("Slice", [x, at[0], at[1], at[3]])],
                    axis=axis,
                )
        return x

    def _op_Resize(self, op: Operator) -> str:
        sizes = self.constant(np.array(op.outputs[0].shape, dtype=np.int64))
        mode = {"bilinear": "linear", "bicubic": "cubic"}.get(op.attribute("mode", "nearest"), op.attribute("mode", "nearest"))
        return self.emit("Resize", [op.inputs[0], "", "", sizes], mode=mode)
