from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nas.errors import ArtifactError
from nas.exporter import exporters
from nas.graph import Graph, GraphBuilder


def tiny() -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    b = GraphBuilder("tiny")
    x = b.conv(b.input((1, 3, 16, 24)), 8, 3, activation="Relu")
    return module, b.build(b.gemm(b.flatten(b.global_pool(x)), 4))


def test_the_file_says_what_the_module_says(tmp_path: Path) -> None:
    import onnxruntime

    module, graph = tiny()
    artifact = exporters.get("onnx")().export(module, graph, tmp_path / "m.onnx", metadata={"classes": "a b"})
    assert artifact.max_difference <= 1e-5
    assert artifact.size_bytes == (tmp_path / "m.onnx").stat().st_size
    assert artifact.operators["Conv"] == 1
    model = onnx.load(tmp_path / "m.onnx")
    assert {p.key: p.value for p in model.metadata_props}["classes"] == "a b"
    assert max(o.version for o in model.opset_import if not o.domain) >= 18
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    x = np.random.default_rng(3).standard_normal((1, 3, 16, 24)).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    assert np.allclose(session.run(None, {session.get_inputs()[0].name: x})[0], expected, atol=1e-5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ArtifactError, match="the file exists"):
        exporters.get("onnx")().export(*tiny(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


def test_a_disagreement_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.exporters import onnx as exporter

    monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="disagrees"):
        exporters.get("onnx")().export(*tiny(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        exporters.get("onnx")().export(*tiny(), tmp_path / "nowhere" / "m.onnx")
