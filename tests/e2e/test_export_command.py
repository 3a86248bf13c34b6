import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.spaces.naming import get_space
from tests.e2e.conftest import Result
from tests.e2e.test_design import write_pictures


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


@pytest.mark.slow
def test_weights_are_tested_on_pictures_that_they_have_not_seen(
    nas: Callable[..., Result], refused: Callable[..., str], arch: Path, tmp_path: Path
) -> None:
    from nas.training.dataset import load_dataset

    data, weights = write_pictures(tmp_path / "data", per_class=12), tmp_path / "w.safetensors"
    seeds = {load_dataset(str(data), seed=seed).key for seed in (0, 3)}
    assert len(seeds) == 2  # what is drawn as test depends on the seed
    trained = nas("train", arch, "--data", data, "--seed", "3", "--resolution", "32", "--epochs", "1", "--batch", "4", "--out", weights)
    assert trained.code == 0, trained.err
    words = ["export", arch, "--weights", weights, "--data", data, "--to"]
    result = nas(*words, tmp_path / "a.onnx", "--format", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy_pct"] is not None
    (data / "light" / "0.png").rename(data / "dark" / "another.png")
    assert "trained on other pictures or splits, got data" in refused(*words, tmp_path / "b.onnx", code=1)
    assert nas("export", arch, "--weights", weights, "--to", tmp_path / "b.onnx").code == 0


def test_a_run_whose_pictures_have_changed_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    from nas.results import Result as Found
    from nas.runs.directory import RunDirectory
    from nas.runs.request import Request

    data = write_pictures(tmp_path / "data", per_class=12)
    request = Request(devices=("sa8295p",), space="hybrid-xs", data=str(data))
    run = RunDirectory.create(tmp_path / "run", "run", request.model_dump(), {"the data": "those that were here before"})
    assert "the data has changed since" in refused("export", run.path, "--to", tmp_path / "m.onnx", code=1)
    run.write("results.json", Found(run_dir=str(run.path), status="finished").dump())
    assert "the data has changed since" in refused("rank", run.path, code=1)
