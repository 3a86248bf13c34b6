"""ONNX files: bytes of valid models mutated, and models whose attributes, shapes and edges hypothesis draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from onnx import TensorProto, helper, numpy_helper

from nas.graphs.frontends.onnx_file import read_onnx
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise

ENDING = ".onnx"
WORDS = tuple(
    name.encode()
    for name in ("Conv", "Loop", "If", "NonZero", "Reshape", "Expand", "Tile", "ConstantOfShape", "Range", "Resize", "Sum", "com.microsoft")
)
ELEMENTS = 2**48


def read(path: Path) -> Graph:
    """Read, count and normalise, as ``nas predict`` does."""
    graph = read_onnx(path)
    normalise(graph)
    _ = graph.cost, graph.key
    return graph


def absurd(graph: Graph) -> str:
    """Numbers that no network has."""
    cost = graph.cost
    if min(cost.macs, cost.params, cost.activation_elements) < 0:
        return f"a negative count: {cost}"
    if max(cost.macs >> 24, cost.params, cost.activation_elements) > ELEMENTS:
        return f"a count beyond any device: {cost}"
    return "" if graph.operators else "no operator"


def _model(nodes: list[Any], weights: dict[str, Any], shape: tuple[int, ...], out: str, opset: int = 17) -> bytes:
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), helper.make_tensor_value_info(out, TensorProto.FLOAT, None)]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def seeds() -> list[bytes]:
    """A convolution net, shape arithmetic, attention, a quantised net, and bodies."""
    n = helper.make_node
    f = np.float32
    conv = _model(
        [n("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, strides=[2, 2]), n("Relu", ["c"], ["r"]), n("GlobalAveragePool", ["r"], ["g"]), n("Flatten", ["g"], ["v"]), n("Gemm", ["v", "f"], ["y"], transB=1)],
        {"w": np.ones((8, 3, 3, 3), f), "b": np.ones(8, f), "f": np.ones((5, 8), f)}, (1, 3, 8, 8), "y",
    )  # fmt: skip
    shapes = _model(
        [n("Shape", ["x"], ["s"]), n("Gather", ["s", "i"], ["a"]), n("Unsqueeze", ["a", "z"], ["u"]), n("Concat", ["u", "m"], ["t"], axis=0), n("Reshape", ["x", "t"], ["q"]), n("Expand", ["q", "e"], ["p"]), n("Slice", ["p", "z", "o"], ["y"])],
        {"i": np.int64(0), "z": np.array([0]), "m": np.array([-1]), "e": np.array([3, 1]), "o": np.array([2])}, (1, 3, 4, 4), "y",
    )  # fmt: skip
    attention = _model(
        [n("MatMul", ["x", "w"], ["q"]), n("Transpose", ["q"], ["k"], perm=[0, 2, 1]), n("MatMul", ["q", "k"], ["l"]), n("Softmax", ["l"], ["p"], axis=-1), n("MatMul", ["p", "q"], ["o"]), n("Einsum", ["o", "w"], ["y"], equation="bij,jk->bik")],
        {"w": np.ones((8, 8), f)}, (1, 4, 8), "y",
    )  # fmt: skip
    pairs = _model(
        [n("QuantizeLinear", ["x", "s", "z"], ["q"]), n("DequantizeLinear", ["q", "s", "z"], ["d"]), n("DequantizeLinear", ["w", "s", "zw"], ["v"]), n("Conv", ["d", "v"], ["c"]), n("QLinearConv", ["q", "s", "z", "w", "s", "zw", "s", "z"], ["k"]), n("DequantizeLinear", ["k", "s", "z"], ["e"]), n("Add", ["c", "e"], ["y"])],
        {"s": f(0.1), "z": np.uint8(0), "zw": np.int8(0), "w": np.ones((4, 3, 1, 1), np.int8)}, (1, 3, 4, 4), "y",
    )  # fmt: skip
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [n("Identity", ["k"], ["k2"]), n("Add", ["v", "x"], ["v2"])], "body",
        [info("i", TensorProto.INT64, []), info("k", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("k2", TensorProto.BOOL, []), info("v2", TensorProto.FLOAT, None)],
    )  # fmt: skip
    loop = _model([n("Loop", ["n", "t", "x"], ["y"], body=body)], {"n": np.int64(3), "t": np.bool_(True)}, (1, 4), "y")
    return [conv, shapes, attention, pairs, loop]


_SIZES = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 16, 224, 1 << 20, 1 << 33, -1, -(1 << 40)])


@st.composite
def structures(draw: Any) -> SearchStrategy[bytes]:
    """A chain of operators that exist, with operands, attributes and constants that need not fit."""
    shape = draw(st.lists(_SIZES, min_size=0, max_size=5))
    values, constants, nodes = ["x"], {}, []
    for i in range(draw(st.integers(1, 5))):
        schema = draw(st.sampled_from(_SCHEMAS))
        inputs = []
        for _ in range(draw(st.integers(schema.min_input, min(schema.max_input, schema.min_input + 3)))):
            if draw(st.booleans()):
                inputs.append(draw(st.sampled_from(values)))
            else:
                name = f"w{len(constants)}"
                kind = draw(st.sampled_from([np.float32, np.int64, np.uint8, np.float16, np.bool_]))
                numbers = draw(st.lists(st.sampled_from([0, 1, 2, -1, 3, 1 << 30, 1 << 40]), max_size=5))
                with np.errstate(all="ignore"):
                    array = np.array(numbers, np.int64).astype(kind)
                constants[name] = array.reshape(()) if array.size == 1 and draw(st.booleans()) else array
                inputs.append(name)
        outputs = [f"v{i}_{j}" for j in range(max(1, schema.min_output))]
        attributes = {}
        for name, attribute in schema.attributes.items():
            if attribute.required or draw(st.integers(0, 3)) == 0:
                value = draw(_attribute(attribute.type.name))
                if value is not None:
                    attributes[name] = value
        nodes.append(helper.make_node(schema.name, inputs, outputs, **attributes))
        values += outputs
    return _model(
        nodes, constants, tuple(shape), draw(st.sampled_from(values)), draw(st.sampled_from([1, 6, 9, 11, 13, 17, 18, 21, 23, 99]))
    )


_SCHEMAS = sorted((s for s in onnx.defs.get_all_schemas() if s.domain == ""), key=lambda s: s.name)


def _attribute(kind: str) -> SearchStrategy[Any]:
    match kind:
        case "INT":
            return st.sampled_from([0, 1, 2, -1, 3, 1 << 40])
        case "INTS":
            return st.lists(st.sampled_from([0, 1, 2, 3, -1, 1 << 40]), min_size=1, max_size=5)
        case "FLOAT":
            return st.sampled_from([0.0, 1.0, -1.0, 1e30, float("nan")])
        case "FLOATS":
            return st.lists(st.sampled_from([0.0, 1.0, 1e30]), min_size=1, max_size=4)
        case "STRING":
            return st.sampled_from(["", "SAME_UPPER", "VALID", "linear", "ij,jk->ik", "bidirectional", "constant", "...i,i...->..."])
        case _:
            return st.none()
