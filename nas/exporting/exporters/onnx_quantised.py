"""Quantised ONNX files with QuantizeLinear / DequantizeLinear pairs, by ONNX Runtime's quantiser and our ranges.

Parts may differ in precision. The quantiser runs once for each precision over the nodes of its parts; where a tensor goes from one to another,
the file requantises it, and parts in fp16 or fp32 stay in float, which compilers for a device with fp16 arithmetic take as fp16.

Ranges come from ONNX Runtime itself, one picture at a time through the float file with its intermediate values as outputs, so memory holds
the activations of one picture however many there are.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from nas.errors import ArtifactError, UsageError
from nas.exporting.exporter import Artifact, ExportOrder, exporters, refuse_existing
from nas.exporting.exporters.onnx import OnnxExporter, publish, scope_of, scores_of, written
from nas.graphs.graph import Graph
from nas.graphs.onnx_session import onnx_session
from nas.quantisation.method import (
    DEFAULT_RECIPE,
    Activations,
    Bounds,
    Quantiser,
    methods,
    precision_at,
    range_of,
    wide_operators,
)
from nas.spaces.operator_family import fuse
from nas.units import QUANTISED, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

QUANTISED_OPS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Concat", "Relu", "Clip", "LeakyRelu", "PRelu"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Gelu", "Erf", "Softmax", "LayerNormalization", "ReduceMean"),
    *("AveragePool", "GlobalAveragePool", "MaxPool", "Resize", "Pad"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth"),
)
"""What reads and makes integers: everything, since a runtime for integers leaves operators in float to the CPU.

Source:
    ONNX Runtime's QNN provider on Hexagon: "Non-QDQ … operators are not supported on HTP or DSP backends" (microsoft/onnxruntime#18351); layer
    norm, softmax and GELU have integer forms there (Qualcomm's list of operators of HTP). ONNX Runtime on a CPU computes those in float between
    the integers, and so does `nas.quantisation.simulate`.
"""

OPSET = 21
"""The first with 16-bit QuantizeLinear."""


@exporters.register("onnx-quantised")
class QuantisedOnnxExporter(OnnxExporter):
    """Writes ``w8a8``, ``w8a16``, or a mixture with each other and with float, at batch 1.

    Args:
        precision: Of everything that `precisions` does not name.
        pictures: Calibration pictures from *train*, normalised as the network expects them, in batches (n, c, h, w).
        recipe: Methods by name, see `nas.quantisation.method`.
        precisions: By path of a part, as in `nas.quantisation.simulate.Simulated`.

    Raises:
        UsageError: Nothing is to be quantised, or no picture.
    """

    @classmethod
    def make(cls, order: ExportOrder) -> QuantisedOnnxExporter:
        """Return the exporter of a quantised precision, calibrated from the order's pictures."""
        if order.pictures is None:
            raise UsageError(
                f"--precision {order.precision}: quantisation needs pictures of the task. Do this: --data NAME|DIR, or export a run."
            )
        return cls(order.precision, order.pictures(), order.recipe, order.part_precisions)

    def __init__(
        self,
        precision: str,
        pictures: Sequence[Tensor],
        recipe: Sequence[str] = DEFAULT_RECIPE,
        precisions: Mapping[str, str] | None = None,
    ) -> None:
        named = dict(precisions or {})
        if not {precision, *named.values()} & QUANTISED:
            raise UsageError(
                f"export: no quantised precision, got {precision!r}. Expected one of {', '.join(p for p in Precision if p.quantised)}."
            )
        if not pictures:
            raise UsageError("export: quantisation needs calibration pictures, got none.")
        self.precision, self.pictures, self.recipe, self.precisions = precision, pictures, tuple(recipe), named

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`; the difference that the artifact states is between the fp32 module and the quantised file."""
        import torch

        refuse_existing(path)
        deployed = fuse(module).to("cpu").float()
        chosen = methods(self.recipe)
        prepared = deployed
        for method in chosen:
            prepared = method.prepare(prepared, self.pictures, graph.inputs[0].shape)
        probe = self.pictures[0][:1]
        used = set(self.precisions.values()) or {self.precision}
        precision = "mixed" if len(used) > 1 else next(iter(used))
        props = dict(metadata or {}) | {"precision": precision, "quantisation": " ".join(self.recipe)}
        if precision == "mixed":
            props["precisions"] = json.dumps(self.precisions)
        with tempfile.TemporaryDirectory() as room:
            source = Path(room) / "float.onnx"
            onnx.save(_with_biases(written(prepared, probe, OPSET)), str(source))
            model = _quantised(source, self._singles(), chosen, self.precision, self.precisions)
        with torch.no_grad():
            expected = deployed(probe).numpy()

        def compare(file: Path) -> float:
            scores = scores_of(file, probe.numpy())
            if scores.shape != expected.shape or not np.isfinite(scores).all():
                raise ArtifactError(f"export {path}: the reloaded model gives no finite scores of shape {expected.shape}.")
            return float(np.abs(scores - expected).max())

        return publish(model, path, "onnx-quantised", precision, props, compare)

    def _singles(self) -> Iterator[np.ndarray]:
        for batch in self.pictures:
            for i in range(len(batch)):
                yield batch[i : i + 1].numpy()


def _with_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose linear layers of tokens, written as MatMul and Add, are Gemm between two Reshape.

    A Gemm's bias has 32 bits and its sum is rounded once; an Add's has 8, and what it adds to is rounded before.
    """
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = {info.name: tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim) for info in (*graph.value_info, *graph.input)}
    readers = Counter(name for node in graph.node for name in node.input)
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul" and len(weights.get(node.input[1], ())) == 2}
    for add in [node for node in graph.node if node.op_type == "Add"]:
        for summed, bias in (add.input, reversed(add.input)):
            product = products.get(summed)
            if product is None or len(weights.get(bias, ())) != 1 or readers[summed] != 1 or 0 in shapes.get(summed, (0,)):
                continue
            x, weight = product.input
            rows = {"flat": (-1, weights[weight][0]), "back": shapes[summed]}
            for end, shape in rows.items():
                graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{summed}.{end}.shape"))
            nodes = [
                onnx.helper.make_node("Reshape", [x, f"{summed}.flat.shape"], [f"{summed}.flat"]),
                onnx.helper.make_node("Gemm", [f"{summed}.flat", weight, bias], [f"{summed}.back"], name=product.name),
                onnx.helper.make_node("Reshape", [f"{summed}.back", f"{summed}.back.shape"], [add.output[0]]),
            ]
            for node in nodes:
                node.metadata_props.extend(product.metadata_props)
            graph.node.remove(product)
            at = list(graph.node).index(add)
            graph.node.remove(add)
            for node in reversed(nodes):
                graph.node.insert(at, node)
            break
    return model


def _quantised(
    source: Path, pictures: Iterator[np.ndarray], recipe: Sequence[Quantiser], default: str, precisions: Mapping[str, str]
) -> onnx.ModelProto:
    observed = _observed(source, pictures)
    model = onnx.load(str(source))
    scopes: dict[str, str] = {}
    wanted: dict[str, str] = {}
    wide = wide_operators(recipe)
    for i, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{i}"  # the quantiser tells nodes apart by name
        scope = scope_of(node) or next((scopes[name] for name in node.input if name in scopes), "")  # helpers go with what they follow
        scopes |= dict.fromkeys(node.output, scope)
        precision = precision_at(scope, precisions, default)
        wanted[node.name] = "w8a16" if precision == "w8a8" and node.op_type in wide else precision
    for kind in (Precision.W8A8, Precision.W8A16):
        names, bits = {name for name, at in wanted.items() if at == kind}, kind.activation_bits
        if names:
            model = _with_pairs(model, names, bits, {name: range_of(recipe, activations, bits) for name, activations in observed.items()})
    return model


def _with_pairs(model: onnx.ModelProto, names: Collection[str], bits: int, ranges: Mapping[str, Bounds]) -> onnx.ModelProto:
    """Return a model whose nodes of some names read and make quantised tensors."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    places = _open_borders(model, names)
    model = onnx.shape_inference.infer_shapes(model)
    before = _names(model)
    passing = ("QuantizeLinear", "DequantizeLinear", "Identity")
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in passing}
    known = {}
    for name in {n for node in model.graph.node for n in (*node.input, *node.output)}:
        origin = name  # a tensor that an earlier pass has quantised keeps the range of what it stands for
        while origin in sources:
            origin = sources[origin]
        if origin in ranges:
            known[name] = TensorData(lowest=np.float32(ranges[origin][0]), highest=np.float32(ranges[origin][1]))
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if bits == 8 else QuantType.QUInt16,
        tensors_range=TensorsData(CalibrationMethod.MinMax, known),
        nodes_to_quantize=[node.name for node in model.graph.node if node.name in names],
        nodes_to_exclude=[],
        op_types_to_quantize=list(QUANTISED_OPS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    root = logging.getLogger()
    root.addFilter(_norms_per_tensor)
    try:
        quantizer.quantize_model()
    finally:
        root.removeFilter(_norms_per_tensor)
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    for node in quantised.graph.node:
        node.input[:] = [places.get(name, name) for name in node.input]
    for node in [node for node in quantised.graph.node if node.output[0] in places]:
        quantised.graph.node.remove(node)
    _rename(quantised, {name: f"{name}.{bits}" for name in _names(quantised) - before})  # the next pass makes its names from the same stems
    return quantised


def _norms_per_tensor(record: logging.LogRecord) -> bool:
    """Drop ONNX Runtime's remark, one a layer norm, that a scale of one axis is rounded per tensor: so it is meant."""
    return "out-of-range for weight" not in record.getMessage()


def _open_borders(model: onnx.ModelProto, names: Collection[str]) -> dict[str, str]:
    """Put a place where some nodes read what an earlier pass has quantised, since the quantiser would leave that tensor as it is.

    Returns:
        What each place stands for, by its name.
    """
    quantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants}
    places: dict[str, str] = {}
    for node in model.graph.node:
        if node.name in names:
            for i, name in enumerate(node.input):
                if name in quantised - constants:
                    places[f"{name}.border"] = name
                    node.input[i] = f"{name}.border"
    model.graph.node.extend(onnx.helper.make_node("Identity", [name], [place], place) for place, name in places.items())
    return places


def _names(model: onnx.ModelProto) -> set[str]:
    """Return the names of all tensors."""
    graph = model.graph
    flowing = {name for node in graph.node for name in (*node.input, *node.output) if name}
    return flowing | {tensor.name for tensor in (*graph.initializer, *graph.value_info)}


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give tensors, and the nodes that make them, other names."""
    for node in model.graph.node:
        if any(name in names for name in node.output):
            node.name = f"{node.name}.{next(names[name] for name in node.output if name in names)}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in (*model.graph.initializer, *model.graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)


def _observed(source: Path, pictures: Iterator[np.ndarray]) -> dict[str, Activations]:
    """Run the float file with everything that a quantised operator touches as an output."""
    model = onnx.load(str(source))
    constants = {tensor.name for tensor in model.graph.initializer}
    touched = [
        n for node in model.graph.node if node.op_type in QUANTISED_OPS for n in (*node.input, *node.output) if n and n not in constants
    ]
    inputs = [info.name for info in model.graph.input]
    names = [name for name in dict.fromkeys(touched) if name not in inputs]
    have = {info.name for info in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    session = onnx_session(model.SerializeToString())
    observed = {name: Activations() for name in [*inputs, *names]}
    for picture in pictures:
        observed[inputs[0]].observe(picture)
        for name, value in zip(names, session.run(names, {inputs[0]: picture}), strict=True):
            if value.dtype == np.float32:
                observed[name].observe(value)
    return {name: activations for name, activations in observed.items() if activations.sample is not None}
