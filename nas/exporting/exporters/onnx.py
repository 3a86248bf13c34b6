"""ONNX files: fused, written, reloaded in ONNX Runtime and compared before they appear under their name."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from nas.errors import ArtifactError, one_line
from nas.exporting.exporter import PEAKS, Artifact, Exporter, ExportOrder, Scores, exporters, refuse_existing
from nas.graphs.graph import Graph
from nas.graphs.onnx_session import onnx_session
from nas.spaces.operator_family import fuse

if TYPE_CHECKING:
    import torch
    from torch import nn

OPSET = 18  # by hand: what vendors' converters read
TOLERANCE = 1e-4
"""Largest difference of an output that counts as equal, relative to the largest output where that is above one. Set by hand."""

_COARSE = 0.05
"""The same for a file whose numbers are rounded on the way. Set by hand."""


@exporters.register("onnx")
class OnnxExporter(Exporter):
    """Writes fp32 ONNX at batch 1, with static shapes, in one file; other precisions are written by its siblings."""

    input_ranges = frozenset(PEAKS)
    concurrent = True

    @classmethod
    def make(cls, order: ExportOrder) -> Exporter:
        """Return this exporter, or the one of ONNX's other precisions."""
        if order.precision == "fp32":
            return cls()
        return exporters.get("onnx-fp16" if order.precision == "fp16" else "onnx-quantised").make(order)

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`."""
        refuse_existing(path)
        import torch

        deployed = fuse(module).to("cpu").float()
        shape = graph.inputs[0].shape
        probe = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
        with torch.no_grad():
            expected = deployed(probe).numpy()
        model = written(deployed, probe)

        def compare(file: Path) -> float:
            difference = float(np.abs(scores_of(file, probe.numpy()) - expected).max())
            if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
                raise ArtifactError(
                    f"export {path}: the reloaded model disagrees, got a difference of {difference:.2g}. Expected {TOLERANCE:g}."
                )
            return difference

        return publish(model, path, "onnx", "fp32", {"precision": "fp32"} | dict(metadata or {}), compare)

    @classmethod
    def reload(cls, path: Path) -> Scores:
        """Return what a file answers in ONNX Runtime; each call has one core, which for many pictures is quicker than all cores for each."""
        session = onnx_session(path, threads=1)
        name = session.get_inputs()[0].name
        return lambda picture: session.run(None, {name: picture})[0]

    @classmethod
    def read_metadata(cls, path: Path) -> dict[str, str] | None:
        """Return the properties of a model."""
        try:
            model = onnx.load(str(path), load_external_data=False)
        except (OSError, DecodeError) as error:
            raise ArtifactError(f"model {path}: cannot be read ({getattr(error, 'strerror', None) or one_line(error)}).") from None
        return {prop.key: prop.value for prop in model.metadata_props} or None

    @classmethod
    def normalising(cls, artifact: Artifact, peak: float, mean: Sequence[float], std: Sequence[float]) -> Artifact:
        """See `fold_normalisation`."""
        return fold_normalisation(artifact, peak, mean, std)

    @classmethod
    def annotate(cls, artifact: Artifact, facts: Mapping[str, str]) -> Artifact:
        """See `annotate`."""
        return annotate(artifact, facts)


def publish(
    model: onnx.ModelProto, path: Path, form: str, precision: str, metadata: Mapping[str, str], compare: Callable[[Path], float]
) -> Artifact:
    """Write a model beside `path`, let `compare` read it back, and only then give it its name; what has the name before is replaced.

    Args:
        model: To write; its metadata become `metadata`.
        path: Of the file.
        form: Exporter's name.
        precision: Of the file.
        metadata: Written into the file.
        compare: Returns the largest difference of a score from what it should be; raises where that is too much.

    Raises:
        ArtifactError: The file cannot be written.
    """
    remove_origins(model)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        difference = compare(part)
        part.replace(path)
    except OSError as error:
        raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
    finally:
        part.unlink(missing_ok=True)
    operators = dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
    return Artifact(path, form, precision, hashlib.sha256(data).hexdigest(), len(data), difference, operators, dict(metadata))


def remove_origins(model: onnx.ModelProto) -> None:
    """Take out what PyTorch writes of where each node comes from: stack traces with the paths of this machine, module and class names."""
    for graph in _graphs_in(model.graph):
        for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            del entry.metadata_props[:]
            entry.doc_string = ""
    for function in model.functions:
        for entry in (function, *function.node, *function.value_info):
            del entry.metadata_props[:]
            entry.doc_string = ""
    model.doc_string = ""


def _graphs_in(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and the bodies of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs_in(body)


def fold_normalisation(artifact: Artifact, peak: float, mean: Sequence[float], std: Sequence[float]) -> Artifact:
    """Rewrite a file so that it takes RGB in 0…`peak` and normalises by itself.

    The scale goes into the weights of the first convolution. So does the mean where that convolution pads nothing; where it pads with
    zeros, which stand for the mean colour, one subtraction before it keeps the borders exact. A file that begins with anything else
    (quantised, half precision) gets a subtraction and a multiplication. Metadata say what the input is.

    Args:
        artifact: A file whose one input takes normalised pictures (1, 3, h, w).
        peak: The largest value of a channel, 1 or 255.
        mean: By channel, in 0…1.
        std: By channel, in 0…1.

    Raises:
        ArtifactError: The rewritten file does not say what the first one said; the first one stays.
    """
    path, model = artifact.path, onnx.load(str(artifact.path))
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    shift, scale = peak * np.asarray(mean), 1 / (peak * np.asarray(std))
    raw = np.random.default_rng(0).uniform(0, peak, shape)
    expected = scores_of(path, ((raw - shift[:, None, None]) * scale[:, None, None]).astype(np.float32))
    _write_normalisation(model.graph, shift, scale)
    props = {key: value for key, value in artifact.metadata.items() if key not in ("mean", "std")}
    taken = {
        "input": f"NCHW float32, RGB in 0…{peak:g}",
        "peak": f"{peak:g}",
        "normalisation": json.dumps({"mean": list(mean), "std": list(std)}),
    }
    coarse = any(node.op_type in ("QuantizeLinear", "Cast") for node in model.graph.node)  # a last bit may fall on a step's other side
    limit = (_COARSE if coarse else TOLERANCE) * max(1.0, float(np.abs(expected).max()))

    def compare(file: Path) -> float:
        difference = float(np.abs(scores_of(file, raw.astype(np.float32)) - expected).max())
        if not difference <= limit:
            raise ArtifactError(f"export {path}: normalisation cannot be folded, got a difference of {difference:.2g}. Expected {limit:g}.")
        return max(difference, artifact.max_difference)

    return publish(model, path, artifact.format, artifact.precision, props | taken, compare)


def _write_normalisation(graph: onnx.GraphProto, shift: np.ndarray, scale: np.ndarray) -> None:
    """Edit a file's graph: its input becomes (x − shift) · scale, by channel, with as few operators as that takes."""
    name = graph.input[0].name
    readers = [node for node in graph.node if name in node.input]
    weights = {tensor.name: tensor for tensor in graph.initializer}
    first = readers[0]
    folds = len(readers) == 1 and first.op_type == "Conv" and all(entry in weights for entry in first.input[1:])
    if folds:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in first.attribute}
        shared = sum(first.input[1] in node.input for node in graph.node) > 1
        padded = any(attributes.get("pads", ())) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
        folds = attributes.get("group", 1) == 1 and not shared and weights[first.input[1]].data_type == onnx.TensorProto.FLOAT
    if folds:
        kernel = numpy_helper.to_array(weights[first.input[1]]).astype(np.float64) * scale[:, None, None]
        weights[first.input[1]].CopyFrom(numpy_helper.from_array(kernel.astype(np.float32), first.input[1]))
        if not padded:
            bias = numpy_helper.to_array(weights[first.input[2]]).astype(np.float64) if len(first.input) > 2 else np.zeros(len(kernel))
            graph.initializer.append(numpy_helper.from_array((bias - (kernel.sum((2, 3)) @ shift)).astype(np.float32), "normalised_bias"))
            del first.input[2:]
            first.input.append("normalised_bias")
            return
    steps = [("Sub", shift)] if folds else [("Sub", shift), ("Mul", scale)]
    last = name
    for i, (op, values) in enumerate(steps):
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32).reshape(1, 3, 1, 1), f"normalisation_{op.lower()}"))
        graph.node.insert(i, onnx.helper.make_node(op, [last, f"normalisation_{op.lower()}"], [f"normalised_{op.lower()}"]))
        last = f"normalised_{op.lower()}"
    for node in readers:
        node.input[:] = [last if entry == name else entry for entry in node.input]


def annotate(artifact: Artifact, props: Mapping[str, str]) -> Artifact:
    """Write further metadata into a file, in place of what it says under the same keys.

    Raises:
        ArtifactError: It cannot be written.
    """
    facts = dict(artifact.metadata) | dict(props)
    model = onnx.load(str(artifact.path))
    return publish(model, artifact.path, artifact.format, artifact.precision, facts, lambda _: artifact.max_difference)


def written(module: nn.Module, probe: torch.Tensor, opset: int = OPSET) -> onnx.ModelProto:
    """Return a fused module as PyTorch writes it for the probe's shape.

    Raises:
        ArtifactError: PyTorch cannot write it.
    """
    import torch

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
    _name_by_stage(proto)
    return proto


def _name_by_stage(model: onnx.ModelProto) -> None:
    """Call each node after the part of the network that it comes from: ``stage2.block1.mixer/Conv``, with a number where there are several."""
    used: Counter[str] = Counter()
    for node in model.graph.node:
        scope = scope_of(node)
        name = f"{scope}/{node.op_type}" if scope else node.op_type
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}_{used[name]}"


def scope_of(node: onnx.NodeProto) -> str:
    """Return the path of the module that a node comes from, as PyTorch's exporter noted it; empty where it did not."""
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            scopes = [part.strip(" '\"") for part in prop.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def scores_of(path: Path, probe: np.ndarray) -> np.ndarray:
    """Return what a file says of an input in ONNX Runtime."""
    session = onnx_session(path)
    scores: np.ndarray = session.run(None, {session.get_inputs()[0].name: probe})[0]
    return scores
