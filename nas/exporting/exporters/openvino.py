"""OpenVINO's intermediate representation (``.xml`` beside ``.bin``), converted from our ONNX files, reloaded in OpenVINO and compared.

An 8-bit file comes from the quantised ONNX file: OpenVINO makes integer operators of its pairs.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Xml

import numpy as np

from nas.errors import ArtifactError, MissingExtraError
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
    from torch import nn

TOLERANCE: dict[str, float | None] = {"fp32": 1e-3, "fp16": 0.05, "w8a8": None}
"""Largest difference from the float network that counts as equal; a quantised file is meant to differ. Set by hand."""

_ROOM = "nas"
"""Under which our facts stand among those of the model (``rt_info``)."""


@exporters.register("openvino")
class OpenVinoExporter(Exporter):
    """Writes fp32, fp16 and w8a8 at batch 1; compared on the CPU with the hint f32, since the plug-in would take bf16 where there is any.

    Args:
        order: At which precision, and what calibrates it.
    """

    suffix = ".xml"

    def __init__(self, order: ExportOrder) -> None:
        self.order = order

    @classmethod
    def make(cls, order: ExportOrder) -> Exporter:
        """Return this exporter."""
        refuse_precision("openvino", order.precision, TOLERANCE)
        if order.precision == "w8a8":
            exporters.get("onnx-quantised").make(order)  # says what it lacks
        return cls(order)

    @classmethod
    def files(cls, path: Path) -> tuple[Path, ...]:
        """Return the graph and its weights."""
        return path, path.with_suffix(".bin")

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`; the difference that the artifact states is from the fp32 module."""
        import torch

        from nas.spaces.operator_family import fuse

        ov = _openvino()
        refuse_existing(*self.files(path))
        precision = self.order.precision
        facts = dict(metadata or {}) | {"precision": precision}
        source = exporters.get("onnx" if precision != "w8a8" else "onnx-quantised")
        with tempfile.TemporaryDirectory() as room:
            order = self.order if precision == "w8a8" else ExportOrder("fp32")
            written = source.make(order).export(module, graph, Path(room) / "model.onnx", metadata=metadata)
            model = ov.convert_model(str(written.path))
        probe = np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)
        with torch.no_grad():
            expected = fuse(module).to("cpu").float()(torch.from_numpy(probe)).numpy()
        part = path.with_name(f".{path.stem}.part.xml")
        try:
            _save(ov, model, part, facts, compress=precision == "fp16")
            difference = checked_difference(path, self.reload(part)(probe), expected, TOLERANCE[precision])
            for ready, final in zip(self.files(part), self.files(path), strict=True):
                os.replace(ready, final)
        except OSError as error:
            raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
        except RuntimeError as error:  # OpenVINO's own word for a path that is not there
            raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({' '.join(str(error).split())[:200]}).") from None
        finally:
            for file in self.files(part):
                file.unlink(missing_ok=True)
        kinds = Counter(op.get_type_name() for op in model.get_ops() if op.get_type_name() not in ("Constant", "Parameter", "Result"))
        return artifact_of(OpenVinoExporter, path, "openvino", precision, difference, kinds, facts)

    @classmethod
    def reload(cls, path: Path) -> Scores:
        """Return what a file answers in OpenVINO on the CPU."""
        ov = _openvino()
        core = ov.Core()
        compiled = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda picture: np.array(compiled(picture)[0], dtype=np.float32)

    @classmethod
    def read_metadata(cls, path: Path) -> dict[str, str] | None:
        """Return our facts among those of the model, without OpenVINO."""
        try:
            room = Xml.parse(path).getroot().find(f"rt_info/{_ROOM}")
        except (OSError, Xml.ParseError) as error:
            raise ArtifactError(f"model {path}: cannot be read ({error}).") from None
        return None if room is None else {entry.tag: entry.get("value", "") for entry in room}

    @classmethod
    def annotate(cls, artifact: Artifact, facts: Mapping[str, str]) -> Artifact:
        """Write further facts into the graph's file; the weights stay."""
        known = dict(artifact.metadata) | dict(facts)
        tree = Xml.parse(artifact.path)
        info = tree.getroot().find("rt_info")
        room = None if info is None else info.find(_ROOM)
        if info is None or room is None:
            raise ArtifactError(f"export {artifact.path}: holds no facts of ours.")
        info.remove(room)
        room = Xml.SubElement(info, _ROOM)
        for key, value in known.items():
            Xml.SubElement(room, key, value=value)
        part = artifact.path.with_name(f".{artifact.path.name}.part")
        tree.write(part, encoding="utf-8", xml_declaration=True)
        part.replace(artifact.path)
        return artifact_of(cls, artifact.path, "openvino", artifact.precision, artifact.max_difference, artifact.operators, known)


def _save(ov: Any, model: Any, path: Path, facts: Mapping[str, str], *, compress: bool) -> None:
    for key, value in facts.items():
        model.set_rt_info(value, [_ROOM, key])
    if not path.parent.is_dir():
        raise FileNotFoundError(2, "No such file or directory")
    ov.save_model(model, str(path), compress_to_fp16=compress)


def _openvino() -> Any:
    """Return OpenVINO.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise MissingExtraError("openvino", "openvino") from None
    return openvino
