"""An ONNX file without its head: the maps at strides 4 to 32 are its outputs, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError
from nas.exporting.exporter import Artifact
from nas.graphs.features import stage_maps
from nas.graphs.frontends.onnx_file import read_onnx
from nas.graphs.onnx_session import onnx_session


def with_features(artifact: Artifact) -> Artifact:
    """Replace an ONNX file of a classifier by that of its backbone, reloaded and compared with the maps inside the classifier.

    Args:
        artifact: In floating point, with a picture as input.

    Raises:
        UsageError: It has no maps of strides 4, 8, 16 and 32, see `nas.graphs.features.stage_maps`.
        ArtifactError: The file disagrees with the classifier.
    """
    import onnx
    from onnx.utils import Extractor

    from nas.exporting.exporters.onnx import publish

    graph = read_onnx(artifact.path)
    maps = stage_maps(graph)
    whole = onnx.shape_inference.infer_shapes(onnx.load(str(artifact.path)))
    part = Extractor(whole).extract_model([graph.inputs[0].name], list(maps))
    for node in part.graph.node:
        node.input[:] = [maps.get(name, name) for name in node.input]
        node.output[:] = [maps.get(name, name) for name in node.output]
    for value in part.graph.output:
        value.name = maps[value.name]
    for name in maps:
        whole.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, graph.values[name].shape))
    picture = np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32)
    expected = _answers(whole.SerializeToString(), list(maps), picture)

    def difference(path: Path) -> float:
        answers = _answers(str(path), list(maps.values()), picture)
        worst = max(float(np.abs(a - b).max()) for a, b in zip(answers, expected, strict=True))
        if worst > 1e-4 * max(1.0, *(float(np.abs(a).max()) for a in expected)):
            raise ArtifactError(f"features {path}: the file disagrees with the classifier, got a difference of {worst:.2g}.")
        return worst

    facts = {key: value for key, value in artifact.metadata.items() if not key.endswith("accuracy_pct")} | {"task": "features"}
    return publish(part, artifact.path, artifact.format, artifact.precision, facts, difference)


def _answers(model: str | bytes, outputs: list[str], picture: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
    session = onnx_session(model)
    answers: list[npt.NDArray[Any]] = session.run(outputs, {session.get_inputs()[0].name: picture})
    return answers
