import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nas.errors import ArtifactError
from nas.exporting.exporter import exporters
from nas.exporting.exporters.onnx import remove_origins
from nas.graphs.graph import Graph, GraphBuilder


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


@pytest.mark.parametrize("form", ["onnx", "onnx-fp16", "onnx-quantised"])
def test_no_exported_byte_tells_of_this_machine(tmp_path: Path, form: str) -> None:
    module, graph = tiny()
    extra = {"precision": "w8a8", "pictures": [torch.randn(2, 3, 16, 24)]} if form == "onnx-quantised" else {}
    exporter = exporters.get(form)(**extra)
    exporter.export(module, graph, tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    for place in (Path.cwd(), Path.home(), Path(__file__).parents[2], Path(torch.__file__).parents[1], tmp_path):
        assert str(place).encode() not in data
    assert b".py" not in data
    assert b"stack_trace" not in data


def test_bodies_of_control_flow_tell_nothing_either() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 18]> m (bool c, float[1] x) => (float[1] y) {
            y = If (c) <then_branch = t () => (float[1] a) { a = Neg (x) }, else_branch = e () => (float[1] b) { b = Abs (x) }>
        }"""
    )
    branches = [attribute.g for attribute in model.graph.node[0].attribute]
    for node in (model.graph.node[0], *(branch.node[0] for branch in branches)):
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/net.py")
        node.doc_string = "/home/somebody"
    remove_origins(model)
    assert b"somebody" not in model.SerializeToString()
    assert [branch.node[0].op_type for branch in branches] == ["Neg", "Abs"]


def stem(kind: str) -> nn.Module:
    first: list[nn.Module] = {
        "padded": [nn.Conv2d(3, 8, 3, stride=2, padding=1)],
        "patches": [nn.Conv2d(3, 8, 4, stride=4, bias=False)],
        "patches with bias": [nn.Conv2d(3, 8, 4, stride=4)],
        "grouped": [nn.Conv2d(3, 6, 3, padding=1, groups=3)],
        "no convolution": [nn.AvgPool2d(2), nn.Conv2d(3, 8, 3)],
    }[kind]
    return nn.Sequential(*first, nn.ReLU(), nn.AdaptiveAvgPool2d(1))


@pytest.mark.parametrize("peak", [1.0, 255.0])
@pytest.mark.parametrize(
    ("kind", "extra"),
    [("padded", ["Sub"]), ("patches", []), ("patches with bias", []), ("grouped", ["Mul", "Sub"]), ("no convolution", ["Mul", "Sub"])],
)
def test_normalisation_folds_into_the_file(tmp_path: Path, kind: str, extra: list[str], peak: float) -> None:
    import json

    import onnxruntime

    from nas.exporting.exporters.onnx import fold_normalisation

    torch.manual_seed(1)
    module, path = stem(kind), tmp_path / "m.onnx"
    b = GraphBuilder("stem")
    graph = b.build(b.conv(b.input((1, 3, 16, 24)), 8, 3))
    plain = exporters.get("onnx")().export(module, graph, path, metadata={"mean": "[0.4]", "std": "[0.2]", "classes": "a"})
    mean, std = (0.45, 0.5, 0.3), (0.2, 0.3, 0.25)
    folded = fold_normalisation(plain, peak, mean, std)
    assert folded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != plain.sha256
    model = onnx.load(path)
    facts = {p.key: p.value for p in model.metadata_props}
    assert facts["input"] == f"NCHW float32, RGB in 0…{peak:g}"
    assert json.loads(facts["normalisation"]) == {"mean": list(mean), "std": list(std)}
    assert facts["classes"] == "a"
    assert not facts.keys() & {"mean", "std"}  # nobody is to normalise twice
    assert sorted(node.op_type for node in model.graph.node if plain.operators.get(node.op_type) is None) == extra
    assert len(model.graph.node) == sum(plain.operators.values()) + len(extra)
    session = onnxruntime.InferenceSession(str(path))
    x = np.random.default_rng(3).uniform(0, peak, (1, 3, 16, 24)).astype(np.float32)
    with torch.no_grad():
        normalised = (torch.from_numpy(x) / peak - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        expected = module.eval()(normalised).numpy()
    assert np.allclose(session.run(None, {"input": x})[0], expected, atol=1e-5)  # at the borders too: the pool sees every pixel
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"]


@pytest.mark.parametrize("form", ["onnx-fp16", "onnx-quantised"])
def test_files_of_lower_precision_normalise_before_they_round(tmp_path: Path, form: str) -> None:
    from nas.exporting.exporters.onnx import fold_normalisation, scores_of

    pictures = [torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    exporter = exporters.get(form)("w8a8", pictures) if form == "onnx-quantised" else exporters.get(form)()  # type: ignore[call-arg]
    path, module = tmp_path / "m.onnx", tiny()
    artifact = exporter.export(*module, path)
    x = np.random.default_rng(3).integers(0, 256, (1, 3, 16, 24)).astype(np.float32)
    expected = scores_of(path, (x / 255 - 0.5) / np.float32(0.25))
    folded = fold_normalisation(artifact, 255.0, (0.5,) * 3, (0.25,) * 3)
    assert np.allclose(scores_of(path, x), expected, atol=0.02)
    written = [node.op_type for node in onnx.load(path).graph.node]
    assert written[:2] == ["Sub", "Mul"]
    assert folded.operators == dict(Counter(written))
    assert sum(folded.operators.values()) == sum(artifact.operators.values()) + 2


def test_a_fold_that_changes_the_scores_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.exporting.exporters import onnx as exporter

    path = tmp_path / "m.onnx"
    artifact = exporters.get("onnx")().export(*tiny(), path)
    before = path.read_bytes()
    monkeypatch.setattr(exporter, "_write_normalisation", lambda *_: None)
    with pytest.raises(ArtifactError, match="cannot be folded"):
        exporter.fold_normalisation(artifact, 255.0, (0.5,) * 3, (0.2,) * 3)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ArtifactError, match="the file exists"):
        exporters.get("onnx")().export(*tiny(), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "mine"


def test_a_disagreement_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.exporting.exporters import onnx as exporter

    monkeypatch.setattr(exporter, "TOLERANCE", -1.0)
    with pytest.raises(ArtifactError, match="disagrees"):
        exporters.get("onnx")().export(*tiny(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        exporters.get("onnx")().export(*tiny(), tmp_path / "nowhere" / "m.onnx")
