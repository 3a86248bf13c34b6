"""Quantised ONNX files with QuantizeLinear / DequantizeLinear pairs, by ONNX Runtime's quantiser and our ranges.

Ranges come from ONNX Runtime itself, one picture at a time through the float file with its intermediate values as outputs, so memory holds
the activations of one picture however many there are.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from nas.errors import ArtifactError, UsageError
from nas.exporter import Artifact, Exporter, exporters
from nas.graph import Graph
from nas.mixer import fuse
from nas.quantiser import ACTIVATION_BITS, DEFAULT_RECIPE, Activations, Quantiser, methods, range_of

if TYPE_CHECKING:
    from torch import Tensor, nn

QUANTISED_OPS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Relu", "Clip", "MaxPool")
"""What runs on integers; normalisations, softmax and smooth activations stay in float, as `nas.quantisation.simulate` has them."""

OPSET = 21
"""The first with 16-bit QuantizeLinear."""


@exporters.register("onnx-quantised")
class QuantisedOnnxExporter(Exporter):
    """Writes ``w8a8`` or ``w8a16`` at batch 1.

    Args:
        precision: ``w8a8`` or ``w8a16``.
        pictures: Calibration pictures from *train*, normalised as the network expects them, in batches (n, c, h, w).
        recipe: Methods by name, see `nas.quantiser`.
        float_parts: Paths of parts that stay in float.

    Raises:
        UsageError: No such precision, or no picture.
    """

    def __init__(
        self, precision: str, pictures: Sequence[Tensor], recipe: Sequence[str] = DEFAULT_RECIPE, float_parts: Sequence[str] = ()
    ) -> None:
        if precision not in ACTIVATION_BITS:
            raise UsageError(f"export: no quantised precision, got {precision!r}. Expected one of {', '.join(ACTIVATION_BITS)}.")
        if not pictures:
            raise UsageError("export: quantisation needs calibration pictures, got none.")
        self.precision, self.pictures, self.recipe, self.float_parts = precision, pictures, tuple(recipe), tuple(float_parts)

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`; the difference that the artifact states is between the fp32 module and the quantised file."""
        import torch

        from nas.exporters.onnx import written

        if path.exists():
            raise ArtifactError(f"export: the file exists, got {str(path)!r}. Do this: name another or remove it.")
        deployed = fuse(module).to("cpu").float()
        chosen = methods(self.recipe)
        prepared = deployed
        for method in chosen:
            prepared = method.prepare(prepared, self.pictures, graph.inputs[0].shape)
        probe = self.pictures[0][:1]
        props = dict(metadata or {}) | {"precision": self.precision, "quantisation": " ".join(self.recipe)}
        part = path.with_name(f".{path.name}.part")
        try:
            with tempfile.TemporaryDirectory() as room:
                source = Path(room) / "float.onnx"
                onnx.save(written(prepared, probe, OPSET), str(source))
                model = _quantised(source, self._singles(), self.precision, chosen, self.float_parts)
            for key, value in props.items():
                entry = model.metadata_props.add()
                entry.key, entry.value = key, value
            onnx.checker.check_model(model)
            onnx.save(model, str(part))
            data = part.read_bytes()
            with torch.no_grad():
                expected = deployed(probe).numpy()
            found = _run(part, probe.numpy())
            if found.shape != expected.shape or not np.isfinite(found).all():
                raise ArtifactError(f"export {path}: the reloaded model gives no finite scores of shape {expected.shape}.")
            part.replace(path)
        except OSError as error:
            raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
        finally:
            part.unlink(missing_ok=True)
        operators = dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
        difference = float(np.abs(found - expected).max())
        return Artifact(path, "onnx-quantised", self.precision, hashlib.sha256(data).hexdigest(), len(data), difference, operators, props)

    def _singles(self) -> Iterator[np.ndarray]:
        for batch in self.pictures:
            for i in range(len(batch)):
                yield batch[i : i + 1].numpy()


def _run(path: Path, picture: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: picture})[0]
    return found


def _quantised(
    source: Path, pictures: Iterator[np.ndarray], precision: str, recipe: Sequence[Quantiser], kept: Sequence[str]
) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    bits = ACTIVATION_BITS[precision]
    seen = _observed(source, pictures)
    ranges = {}
    for name, activations in seen.items():
        low, high = range_of(recipe, activations, bits)
        ranges[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    model = onnx.shape_inference.infer_shapes(onnx.load(str(source)))
    floats = [node.name for node in model.graph.node if any(_scope_of(node).startswith(part) for part in kept)]
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if bits == 8 else QuantType.QUInt16,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[],
        nodes_to_exclude=floats,
        op_types_to_quantize=list(QUANTISED_OPS),
        extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _scope_of(node: onnx.NodeProto) -> str:
    """Return the path of the module that a node comes from, as PyTorch's exporter noted it."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            scopes = [part.strip(" '\"") for part in prop.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _observed(source: Path, pictures: Iterator[np.ndarray]) -> dict[str, Activations]:
    """Run the float file with everything that a quantised operator touches as an output."""
    import onnxruntime

    model = onnx.load(str(source))
    constants = {tensor.name for tensor in model.graph.initializer}
    touched = [
        n for node in model.graph.node if node.op_type in QUANTISED_OPS for n in (*node.input, *node.output) if n and n not in constants
    ]
    inputs = [info.name for info in model.graph.input]
    names = [name for name in dict.fromkeys(touched) if name not in inputs]
    have = {info.name for info in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = {name: Activations() for name in [*inputs, *names]}
    for picture in pictures:
        seen[inputs[0]].observe(picture)
        for name, value in zip(names, session.run(names, {inputs[0]: picture}), strict=True):
            if value.dtype == np.float32:
                seen[name].observe(value)
    return {name: activations for name, activations in seen.items() if activations.sample is not None}
