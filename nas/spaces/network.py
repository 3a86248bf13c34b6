"""A network as a user names it: an architecture, a model file, or a published network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nas.errors import ArtifactError, UsageError
from nas.graphs import workloads
from nas.graphs.frontends.sizes import Sizes
from nas.graphs.graph import Graph
from nas.graphs.operators import Shape
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.outline import is_reference
from nas.spaces.space import Resolution, SearchSpace

MODEL_FILES = (".onnx", ".tflite", ".pt2")
"""Endings of the files that a graph is read from."""

_TORCH = "export it in PyTorch: torch.onnx.export(model.eval(), (example,), 'model.onnx', dynamo=True), or torch.export.save to a .pt2"
_OTHER_FILES = {
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".ptl", ".torchscript"),
        f"such a file holds weights or a program of Python; {_TORCH}",
    ),
    **dict.fromkeys((".h5", ".keras", ".pb"), "convert it: tf.lite.TFLiteConverter writes a .tflite, tf2onnx an .onnx"),
    **dict.fromkeys(
        (".mlmodel", ".mlpackage"),
        "predict the .onnx or .pt2 that it was converted from; Core ML's own files are written by its converter alone",
    ),
    **dict.fromkeys(
        (".xml", ".param", ".dlc", ".engine", ".plan", ".trt", ".hef", ".blob", ".rknn", ".mnn", ".tmfile", ".ort", ".om", ".kmodel"),
        "predict the .onnx or .tflite that it was compiled from",
    ),
    **dict.fromkeys(
        (".caffemodel", ".prototxt", ".pdmodel", ".pdiparams", ".params"), "convert it to .onnx (caffe2onnx, paddle2onnx, mxnet's exporter)"
    ),
    **dict.fromkeys((".gguf", ".ggml", ".pkl", ".joblib"), "export the network to .onnx"),
}
"""What to do with files that are not read, by ending."""


@dataclass(frozen=True)
class Network:
    """What a user meant.

    Attributes:
        name: For people.
        graph: Deploy form at batch 1, or what the file holds.
        timed_as: Name under which profiles may have a timing of this very network; empty where none can be.
        space: Where it is a member of one.
        architecture: Where it is a member of a space.
    """

    name: str
    graph: Graph
    timed_as: str = ""
    space: SearchSpace | None = None
    architecture: Architecture | None = None


def load_network(
    subject: str,
    resolution: Resolution | None = None,
    *,
    input_shapes: Mapping[str, Shape] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Network:
    """Return the network that `subject` names: ``ARCH.json``, ``MODEL.onnx`` (``.tflite``, ``.pt2``) or a published network.

    Args:
        subject: As a user writes it.
        resolution: Of an architecture's input; a file and a published network have their own.
        input_shapes: Of a model file's inputs by name, for sizes that it leaves open or to replace; the empty name is its only input.
        dims: Values of a model file's symbolic sizes by name.

    Raises:
        UnknownNameError: Neither a file nor a published network.
        UsageError: No such architecture, a resolution for what has its own, or sizes for what is no model file or lacks that name.
        ArtifactError: The file is missing or damaged.
        GraphError: The file holds no graph with static shapes.
    """
    path = Path(subject)
    sizes = Sizes(input_shapes or {}, dims or {})
    if sizes and path.suffix not in MODEL_FILES:
        raise UsageError(f"input shape: {subject} has sizes of its own. Expected a model file ({', '.join(MODEL_FILES)}).")
    if path.suffix == ".json":
        space, architecture = read_architecture(path)
        graph = space.lower(architecture, resolution)
        return Network(architecture.key, graph, space.timed_as(architecture, resolution), space, architecture)
    if resolution is not None:
        raise UsageError(f"resolution: {subject} has its own. Do this: leave --resolution out.")
    if path.suffix in MODEL_FILES:
        return Network(path.name, _read(path, sizes))
    if path.suffix.lower() in _OTHER_FILES:
        raise UsageError(f"network: a {path.suffix} file is not read, got {subject!r}. Do this: {_OTHER_FILES[path.suffix.lower()]}.")
    if path.suffix.lower() in MODEL_FILES:
        raise UsageError(f"network: endings are written small, got {subject!r}. Expected {path.suffix.lower()}.")
    if subject not in workloads.names() and is_reference(subject) and (traced := _traced(subject)) is not None:
        return Network(subject, traced)
    name = workloads.find(subject)
    return Network(name, workloads.load(name), name)


def _read(path: Path, sizes: Sizes) -> Graph:
    match path.suffix:
        case ".tflite":
            from nas.graphs.frontends.tflite_file import read_tflite

            return read_tflite(path, sizes)
        case ".pt2":
            from nas.graphs.frontends.pt2_file import read_pt2

            return read_pt2(path, sizes)
        case _:
            from nas.graphs.frontends.onnx_file import read_onnx

            return read_onnx(path, sizes)


def read_architecture(path: Path) -> tuple[SearchSpace, Architecture]:
    """Return the architecture in a file, with its space; a point of a run's result holds one too.

    Raises:
        ArtifactError: The file cannot be read.
        UsageError: It holds no architecture of a known space.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"architecture {path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    try:
        data = json.loads(text)
        if isinstance(data, dict) and "architecture" in data:
            text = json.dumps(data["architecture"])
    except json.JSONDecodeError:
        pass  # Architecture.from_json says what is wrong
    architecture = Architecture.from_json(text)
    space = get_space(architecture.space)
    space.validate(architecture)
    return space, architecture


def _traced(name: str) -> Graph | None:
    """Return a published network whose graph is too large to be stored; None where no system has it."""
    from nas.spaces.reference import lower, variants

    return lower(name) if name in variants() else None
