"""ONNX files: fused, written, reloaded in ONNX Runtime and compared before they appear under their name."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from nas.errors import ArtifactError
from nas.exporter import Artifact, Exporter, exporters
from nas.graph import Graph
from nas.mixer import fuse

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of an output that counts as equal, relative to the largest output where that is above one."""


@exporters.register("onnx")
class OnnxExporter(Exporter):
    """Writes fp32 ONNX at batch 1, with static shapes, in one file."""

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`; the file's multiply-adds must be the graph's too."""
        if path.exists():
            raise ArtifactError(f"export: the file exists, got {str(path)!r}. Do this: name another or remove it.")
        deployed = fuse(module).to("cpu").float()
        shape = graph.inputs[0].shape
        probe = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        with torch.no_grad():
            expected = deployed(probe).numpy()
        model = written(deployed, probe)
        props = dict(metadata or {})
        for key, value in props.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.checker.check_model(model)
        part = path.with_name(f".{path.name}.part")
        try:
            onnx.save(model, str(part))
            data = part.read_bytes()
            difference = float(np.abs(scores_of(part, probe.numpy()) - expected).max())
            if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise ArtifactError(
                    f"export {path}: the reloaded model disagrees, got a difference of {difference:.2g}. Expected {TOLERANCE:g}."
                )
            part.replace(path)
        except OSError as error:
            raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
        finally:
            part.unlink(missing_ok=True)
        operators = dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
        return Artifact(path, "onnx", "fp32", hashlib.sha256(data).hexdigest(), len(data), difference, operators, props)


def annotate(path: Path, props: Mapping[str, str]) -> str:
    """Write further metadata into a file, in place of what it says under the same keys; return the file's SHA-256.

    Raises:
        ArtifactError: It cannot be written.
    """
    model = onnx.load(str(path))
    merged = {entry.key: entry.value for entry in model.metadata_props} | dict(props)
    onnx.helper.set_model_props(model, merged)
    data = model.SerializeToString()
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
    finally:
        part.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def written(module: nn.Module, probe: torch.Tensor, opset: int = OPSET) -> onnx.ModelProto:
    """Return a fused module as PyTorch writes it for the probe's shape.

    Raises:
        ArtifactError: PyTorch cannot write it.
    """
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (probe,), dynamo=True, opset_version=opset, input_names=["input"], output_names=["scores"], verbose=False
            )
    except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
        raise ArtifactError(f"export: PyTorch cannot write this network as ONNX ({' '.join(str(error).split())[:200]}).") from None
    finally:
        loud.setLevel(level)
    if program is None:
        raise ArtifactError("export: PyTorch gave no model.")
    proto: onnx.ModelProto = program.model_proto
    return proto


def scores_of(path: Path, probe: np.ndarray) -> np.ndarray:
    """Return what a file says of an input in ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {session.get_inputs()[0].name: probe})[0]
    return found
