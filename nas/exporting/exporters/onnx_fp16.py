"""ONNX files in half precision: weights and arithmetic in fp16, scores and pictures in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.errors import ArtifactError, UsageError
from nas.exporting.exporter import Artifact, ExportOrder, exporters, refuse_existing
from nas.exporting.exporters.onnx import OnnxExporter, publish, scores_of
from nas.graphs.graph import Graph

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 0.05
"""Largest difference of a score that counts as equal, relative to the largest score: fp16 keeps 11 bits, and errors add up over the layers.
Set by hand."""


@exporters.register("onnx-fp16")
class HalfOnnxExporter(OnnxExporter):
    """Writes fp16 at batch 1, by ONNX Runtime's converter; constants beyond fp16's range are clipped to it."""

    @classmethod
    def make(cls, order: ExportOrder) -> HalfOnnxExporter:
        """Return this exporter."""
        if order.precision not in ("fp32", "fp16"):
            raise UsageError(f"export: onnx-fp16 writes fp16, got {order.precision!r}. Do this: leave the exporter or the precision out.")
        return cls()

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`; the difference that the artifact states is between the fp32 module and the fp16 file."""
        import tempfile

        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        refuse_existing(path)
        probe = np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)
        with tempfile.TemporaryDirectory() as room:
            full = OnnxExporter().export(module, graph, Path(room) / "float.onnx", metadata=metadata)
            expected = scores_of(full.path, probe)
            model = ONNXModel(convert_float_to_float16(onnx.load(str(full.path)), keep_io_types=True))
        model.topological_sort()  # the converter appends the casts of inputs and outputs

        def compare(file: Path) -> float:
            difference = float(np.abs(scores_of(file, probe) - expected).max())
            if not difference <= TOLERANCE * float(np.abs(expected).max()):
                raise ArtifactError(
                    f"export {path}: fp16 disagrees with fp32, got a difference of {difference:.2g}. Expected {TOLERANCE:.0%}."
                )
            return difference

        return publish(model.model, path, "onnx-fp16", "fp16", dict(full.metadata) | {"precision": "fp16"}, compare)
