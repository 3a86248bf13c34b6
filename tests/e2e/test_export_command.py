import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.spaces.naming import get_space
from tests.e2e.conftest import Result


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    from nas.spaces.elastic import ElasticSpace

    space = get_space("hybrid-s", num_classes=1000, resolution=(128, 128))
    assert isinstance(space, ElasticSpace)
    path = tmp_path / "arch.json"
    path.write_text(space.extreme(False).to_json())
    return path


def test_random_weights(nas: Callable[..., Result], refused: Callable[..., str], arch: Path, tmp_path: Path) -> None:
    to = tmp_path / "m.onnx"
    result = nas("export", arch, "--weights", "random", "--to", to, "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["size_bytes"] == to.stat().st_size
    assert found["max_difference"] <= 1e-4
    assert found["operators"]["Conv"] > 4
    assert found["architecture"] == json.loads(arch.read_text())
    assert "the file exists" in refused("export", arch, "--weights", "random", "--to", to)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--to", "m.onnx"], 2, "without weights. Do this: --weights"),
        (["--to", "m.pb", "--weights", "random"], 2, "format: unknown name, got '.pb'"),
        (["--to", "m", "--weights", "random"], 2, "says no format"),
        (["--to", "m.onnx", "--quantisation", "mse,magic"], 2, "quantisers: unknown name, got 'magic'"),
        (["--to", "m.onnx", "--trial", "3"], 2, "belongs to a run directory"),
        (["--to", "m.onnx", "--weights", "nowhere.safetensors"], 1, "nowhere.safetensors"),
        (["--to", "nowhere/m.onnx", "--weights", "random"], 1, "cannot be written"),
        (["--to", "m.onnx", "--weights", "random", "--input", "bytes"], 2, "mean and deviation are those of the data"),
    ],
)
def test_bad_input(refused: Callable[..., str], arch: Path, words: list[str], code: int, message: str) -> None:
    assert message in refused("export", arch, *words, code=code)


def test_what_is_no_run(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "not a run directory" in refused("export", tmp_path, "--to", tmp_path / "m.onnx", code=1)


def test_a_published_network_needs_timm(refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    path = tmp_path / "arch.json"
    path.write_text(get_space("zoo").architecture(["resnet18@tv_in1k"]).to_json())
    line = refused("export", path, "--to", tmp_path / "m.onnx")
    assert "pip install timm" in line
    assert "timm.create_model('resnet18.tv_in1k', pretrained=True) at 224x224" in line


def test_a_published_network_goes_through_timm(nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    import torch

    asked = []

    def create_model(name: str, pretrained: bool) -> torch.nn.Module:
        asked.append((name, pretrained))
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    path = tmp_path / "arch.json"
    path.write_text(get_space("zoo").architecture(["resnet18@tv_in1k"]).to_json())
    result = nas("export", path, "--to", tmp_path / "m.onnx", "--format", "json")
    assert result.code == 0, result.err
    assert asked == [("resnet18.tv_in1k", True)]
    assert json.loads(result.out)["weights"] == "published"


def test_features_are_named_outputs_equal_to_the_maps_of_the_classifier(
    nas: Callable[..., Result], refused: Callable[..., str], arch: Path, tmp_path: Path
) -> None:
    import onnxruntime

    to = tmp_path / "backbone.onnx"
    result = nas("export", arch, "--weights", "random", "--task", "features", "--to", to, "--format", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["max_difference"] <= 1e-4
    outputs = onnxruntime.InferenceSession(str(to), providers=["CPUExecutionProvider"]).get_outputs()
    assert [(output.name, output.shape[2:]) for output in outputs] == [(f"stride{s}", [128 // s, 128 // s]) for s in (4, 8, 16, 32)]
    said = refused("export", arch, "--weights", "random", "--task", "features", "--to", tmp_path / "net.pt2")
    assert "--task features: writes ONNX files" in said
