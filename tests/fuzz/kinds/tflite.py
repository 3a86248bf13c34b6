"""TensorFlow Lite files: bytes of small valid ones mutated. They are written here with flatbuffers, as the schema has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite

from nas.graphs.frontends.tflite_file import read_tflite
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise

ENDING = ".tflite"
WORDS = (b"TFL3", b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f", b"TFLite_Detection_PostProcess\0")


def read(path: Path) -> Graph:
    """Read, count and normalise, as ``nas predict`` does."""
    graph = read_tflite(path)
    normalise(graph)
    _ = graph.cost, graph.key
    return graph


def absurd(graph: Graph) -> str:
    """Numbers that no network has."""
    cost = graph.cost
    return f"a count beyond any device: {cost}" if max(cost.macs >> 24, cost.params, cost.activation_elements) > 2**48 else ""


class Writer:
    """A model of one graph, table by table."""

    def __init__(self) -> None:
        self.b = flatbuffers.Builder(4096)
        self.buffers = [b""]
        self.tensors: list[tuple[str, tuple[int, ...], int, int, bool]] = []
        self.operators: list[tuple[int, list[int], list[int], int, Callable[[], int] | None]] = []

    def tensor(self, name: str, shape: tuple[int, ...], array: Any = None, kind: int = 0, quantised: bool = False) -> int:
        """Add a tensor, constant where `array` is given."""
        place = 0
        if array is not None:
            self.buffers.append(np.asarray(array).tobytes())
            place = len(self.buffers) - 1
        self.tensors.append((name, shape, kind, place, quantised))
        return len(self.tensors) - 1

    def op(self, code: int, inputs: list[int], outputs: list[int], options: int = 0, build: Callable[[], int] | None = None) -> None:
        """Add an operator; `build` writes its options."""
        self.operators.append((code, inputs, outputs, options, build))

    def table(self, name: str, **fields: int) -> int:
        """Write a table of the schema."""
        getattr(tflite, f"{name}Start")(self.b)
        for field, value in fields.items():
            getattr(tflite, f"{name}Add{field}")(self.b, value)
        return int(getattr(tflite, f"{name}End")(self.b))

    def _offsets(self, start: Callable[..., Any], offsets: list[int]) -> int:
        start(self.b, len(offsets))
        for offset in reversed(offsets):
            self.b.PrependUOffsetTRelative(offset)
        return int(self.b.EndVector())

    def _integers(self, values: tuple[int, ...] | list[int]) -> int:
        return int(self.b.CreateNumpyVector(np.array(values, np.int32)))

    def bytes(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Return the file."""
        b, codes = self.b, sorted({code for code, *_ in self.operators})
        buffers = []
        for data in self.buffers:
            vector = b.CreateByteVector(data) if data else None
            buffers.append(self.table("Buffer", **({"Data": vector} if vector is not None else {})))
        tensors = []
        for name, shape, kind, place, quantised in self.tensors:
            fields = {"Shape": self._integers(shape), "Name": b.CreateString(name)}
            if quantised:
                scales = b.CreateNumpyVector(np.ones(1, np.float32))
                fields["Quantization"] = self.table("QuantizationParameters", Scale=scales)
            tensors.append(self.table("Tensor", Type=kind, Buffer=place, **fields))
        operators = []
        for code, ins, outs, options, build in self.operators:
            fields = {"Inputs": self._integers(ins), "Outputs": self._integers(outs), "OpcodeIndex": codes.index(code)}
            if build is not None:
                fields |= {"BuiltinOptionsType": options, "BuiltinOptions": build()}
            operators.append(self.table("Operator", **fields))
        graph = self.table(
            "SubGraph",
            Tensors=self._offsets(tflite.SubGraphStartTensorsVector, tensors),
            Inputs=self._integers(inputs),
            Outputs=self._integers(outputs),
            Operators=self._offsets(tflite.SubGraphStartOperatorsVector, operators),
        )
        used = [self.table("OperatorCode", BuiltinCode=code, DeprecatedBuiltinCode=min(code, 127)) for code in codes]
        model = self.table(
            "Model",
            Version=3,
            OperatorCodes=self._offsets(tflite.ModelStartOperatorCodesVector, used),
            Subgraphs=self._offsets(tflite.ModelStartSubgraphsVector, [graph]),
            Buffers=self._offsets(tflite.ModelStartBuffersVector, buffers),
        )
        b.Finish(model, file_identifier=b"TFL3")
        return bytes(b.Output())


def network(kind: int = 0, quantised: bool = False) -> bytes:
    """A convolution, a depthwise one, a sum, a mean, a dense layer and a softmax; 8-bit where `kind` is INT8."""
    w, code, options = Writer(), tflite.BuiltinOperator, tflite.BuiltinOptions
    number = np.int8 if quantised else np.float32

    def value(name: str, shape: tuple[int, ...], array: Any = None) -> int:
        return w.tensor(name, shape, array, kind, quantised)

    x, a, b, c, d, y = (
        value(n, s) for n, s in zip("xabcdy", ((1, 8, 8, 3), (1, 4, 4, 8), (1, 4, 4, 8), (1, 4, 4, 8), (1, 8), (1, 5)), strict=True)
    )
    kernel, depth, dense = (value(n, s, np.ones(s, number)) for n, s in (("k", (8, 3, 3, 3)), ("e", (1, 3, 3, 8)), ("f", (5, 8))))
    bias, axes, shape = (
        w.tensor("z", (8,), np.zeros(8, np.int32 if quantised else np.float32), 2 if quantised else 0),
        w.tensor("i", (2,), np.array([1, 2], np.int32), 2),
        value("s", (1, 5)),
    )
    w.op(
        code.CONV_2D,
        [x, kernel, bias],
        [a],
        options.Conv2DOptions,
        lambda: w.table("Conv2DOptions", Padding=0, StrideW=2, StrideH=2, FusedActivationFunction=3),
    )
    w.op(
        code.DEPTHWISE_CONV_2D,
        [a, depth, bias],
        [b],
        options.DepthwiseConv2DOptions,
        lambda: w.table("DepthwiseConv2DOptions", Padding=0, StrideW=1, StrideH=1, DepthMultiplier=1),
    )
    w.op(code.ADD, [a, b], [c], options.AddOptions, lambda: w.table("AddOptions", FusedActivationFunction=1))
    w.op(code.MEAN, [c, axes], [d], options.ReducerOptions, lambda: w.table("ReducerOptions", KeepDims=0))
    w.op(code.FULLY_CONNECTED, [d, dense, -1], [shape], options.FullyConnectedOptions, lambda: w.table("FullyConnectedOptions"))
    w.op(code.SOFTMAX, [shape], [y], options.SoftmaxOptions, lambda: w.table("SoftmaxOptions"))
    return w.bytes([x], [y])


def seeds() -> list[bytes]:
    """The network in floats and in eight bits."""
    return [network(), network(tflite.TensorType.INT8, True)]
