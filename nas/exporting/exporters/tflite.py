"""TensorFlow Lite files (``.tflite``), converted by litert-torch, reloaded in LiteRT and compared; 8 bits by ai-edge-quantizer.

Pictures are NHWC there, as its runtimes and their accelerators expect.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import MALFORMED, ArtifactError, MissingExtraError, UsageError, one_line
from nas.exporting.exporter import (
    Artifact,
    Exporter,
    ExportOrder,
    Scores,
    artifact_of,
    checked_difference,
    exporters,
    refuse_existing,
    refuse_precision,
)
from nas.graphs.graph import Graph

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE: dict[str, float | None] = {"fp32": 1e-3, "w8a8": None}
"""Largest difference from the float network that counts as equal; a quantised file is meant to differ. Set by hand."""

_ENTRY = b"nas"
"""Name of our entry among the metadata of a file."""


@exporters.register("tflite")
class TfliteExporter(Exporter):
    """Writes fp32 and w8a8 at batch 1.

    Args:
        order: At which precision, and what calibrates it.
    """

    suffix = ".tflite"

    own_quantisation = True

    def __init__(self, order: ExportOrder) -> None:
        self.order = order

    @classmethod
    def make(cls, order: ExportOrder) -> Exporter:
        """Return this exporter."""
        refuse_precision("tflite", order.precision, TOLERANCE)
        if order.precision == "w8a8" and order.pictures is None:
            raise UsageError("--precision w8a8: quantisation needs pictures of the task. Do this: --data NAME|DIR, or export a run.")
        return cls(order)

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`; the difference that the artifact states is from the fp32 module."""
        import torch

        from nas.spaces.operator_family import fuse

        refuse_existing(path)
        litert_torch = _imported("litert_torch")
        deployed = fuse(module).to("cpu").float().eval()
        probe = torch.from_numpy(np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32))
        with torch.no_grad():
            expected = deployed(probe).numpy()
        facts = dict(metadata or {}) | {"precision": self.order.precision, "layout": "NHWC"}
        part = path.with_name(f".{path.name}.part")
        with tempfile.TemporaryDirectory() as room:
            plain = Path(room) / "float.tflite"
            last = litert_torch.to_channel_last_io(deployed, args=[0]).eval()
            litert_torch.convert(last, (probe.permute(0, 2, 3, 1).contiguous(),)).export(str(plain))
            data = plain.read_bytes()
            if self.order.precision == "w8a8":
                assert self.order.pictures is not None
                data = _quantised(plain, self.order.pictures())
        try:
            part.write_bytes(_with_facts(data, facts))
            difference = checked_difference(path, self.reload(part)(probe.numpy()), expected, TOLERANCE[self.order.precision])
            part.replace(path)
        except OSError as error:
            raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
        finally:
            part.unlink(missing_ok=True)
        return artifact_of(TfliteExporter, path, "tflite", self.order.precision, difference, _operators(path), facts)

    @classmethod
    def reload(cls, path: Path) -> Scores:
        """Return what a file answers in LiteRT; pictures are NCHW as everywhere, and turned here."""
        interpreter = _imported("ai_edge_litert.interpreter").Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        entry, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

        def scores(picture: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(entry["index"], _stored(picture.transpose(0, 2, 3, 1), entry))
            interpreter.invoke()
            return _read(interpreter.get_tensor(answer["index"]), answer)

        return scores

    @classmethod
    def read_metadata(cls, path: Path) -> dict[str, str] | None:
        """Return our entry among the metadata of a file, without its runtime."""
        import tflite

        try:
            model = tflite.Model.GetRootAs(path.read_bytes(), 0)
            for i in range(model.MetadataLength()):
                entry = model.Metadata(i)
                if entry is not None and entry.Name() == _ENTRY:
                    data = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
                    return {str(key): str(value) for key, value in json.loads(data).items()}
        except MALFORMED as error:
            raise ArtifactError(f"model {path}: cannot be read ({one_line(error)}).") from None
        return None

    @classmethod
    def annotate(cls, artifact: Artifact, facts: Mapping[str, str]) -> Artifact:
        """Write the file again with further facts."""
        known = dict(artifact.metadata) | dict(facts)
        part = artifact.path.with_name(f".{artifact.path.name}.part")
        part.write_bytes(_with_facts(artifact.path.read_bytes(), known))
        part.replace(artifact.path)
        return artifact_of(cls, artifact.path, "tflite", artifact.precision, artifact.max_difference, artifact.operators, known)


def _quantised(plain: Path, batches: Sequence[Tensor]) -> bytes:
    """Return a file of static 8-bit weights and activations, calibrated picture by picture."""
    quantizer_of = _imported("ai_edge_quantizer.quantizer")
    recipes = _imported("ai_edge_quantizer.recipe")
    interpreter = _imported("ai_edge_litert.interpreter").Interpreter(model_path=str(plain))
    key, signature = next(iter(interpreter.get_signature_list().items()))
    name = signature["inputs"][0]
    pictures = [batch[i : i + 1].permute(0, 2, 3, 1).contiguous().numpy() for batch in batches for i in range(len(batch))]
    quantizer = quantizer_of.Quantizer(str(plain), recipes.static_wi8_ai8())
    statistics = quantizer.calibrate({key: [{name: picture} for picture in pictures]})
    return bytes(quantizer.quantize(statistics).quantized_model)


def _with_facts(data: bytes, facts: Mapping[str, str]) -> bytes:
    """Return a file with our facts as an entry of its metadata, in place of an older one.

    Weights that lie behind the tables, where a converter puts them for the sake of large files, come into the tables: their places would move.
    """
    import flatbuffers

    schema = _imported("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    for buffer in model.buffers:
        if buffer.offset > 1:  # 0 and 1 say that the data lie here
            buffer.data = np.frombuffer(data, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    text = np.frombuffer(json.dumps(dict(facts), ensure_ascii=False).encode(), dtype=np.uint8)
    model.metadata = model.metadata or []
    entry = next((entry for entry in model.metadata if entry.name in (_ENTRY, _ENTRY.decode())), None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = _ENTRY.decode(), len(model.buffers)
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = text
    builder = flatbuffers.Builder(len(data) + len(text) + 1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _operators(path: Path) -> Counter[str]:
    from nas.graphs.frontends.tflite_file import read_tflite

    return Counter(op.op for op in read_tflite(path).operators)


def _stored(values: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Return floats as a tensor stores them."""
    scale, zero = entry["quantization"]
    if entry["dtype"] == np.float32:
        return np.ascontiguousarray(values, dtype=np.float32)
    limits = np.iinfo(entry["dtype"])
    return np.asarray(np.clip(np.round(values / scale) + zero, limits.min, limits.max), dtype=entry["dtype"])


def _read(values: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """Return what a tensor stores as floats."""
    scale, zero = entry["quantization"]
    if entry["dtype"] == np.float32:
        return np.array(values, dtype=np.float32)
    return np.asarray((values.astype(np.float32) - zero) * scale, dtype=np.float32)


def _imported(module: str) -> Any:
    """Return a module of the extra.

    Raises:
        MissingExtraError: It is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] == module.partition(".")[0]:
            raise MissingExtraError(module.partition(".")[0].replace("_", "-"), "tflite") from None
        raise
