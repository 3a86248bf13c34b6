import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nas.errors import ArtifactError, UnknownNameError, UsageError
from nas.graphs.frontends.exported_program import read_exported_program
from nas.spaces.pretrained import assign, find_weights, load_weights, open_pretrained, read_tensors, verify
from nas.spaces.pretrained.libraries import build_published, timm_library
from nas.spaces.pretrained.origins import PACKAGES


def network(seed: int = 0, classes: int = 5) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, classes)).eval()


PICTURES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def written(folder: Path, kind: str) -> Path:
    path, state = folder / f"w{kind}", network(1).state_dict()
    if kind == ".safetensors":
        save_file(state, path)
    elif kind == ".pt2":
        program = torch.export.export(network(1), (torch.randn(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=64)},))
        torch.export.save(program, path)
    elif kind == ".pth":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("kind", [".safetensors", ".pth", ".pt", ".bin", ".pt2"])
def test_a_file_of_every_kind_gives_the_network_its_weights(tmp_path: Path, kind: str) -> None:
    module = network(0)
    found = load_weights(module, written(tmp_path, kind), (1, 3, 16, 16))
    assert found.by == "name"
    torch.testing.assert_close(module(PICTURES), network(1)(PICTURES), rtol=0, atol=0)


def test_an_exported_program_is_a_module_that_trains(tmp_path: Path) -> None:
    module, size = read_exported_program(written(tmp_path, ".pt2"))
    assert size == (16, 16)
    torch.testing.assert_close(module(PICTURES), network(1)(PICTURES), rtol=0, atol=0)
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    module.train()
    module(PICTURES).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Loud:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "ran"),))  # type: ignore[return-value]

    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"a": Loud()}))
    with pytest.raises(ArtifactError, match="without running"):
        read_tensors(path)
    assert not (tmp_path / "ran").exists()


def test_weights_of_other_names_go_by_order() -> None:
    module, source = network(0), network(1).state_dict()
    found = assign(module, {f"other{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(source.items())})
    assert found.by == "order"
    torch.testing.assert_close(module(PICTURES), network(1)(PICTURES), rtol=0, atol=0)


@pytest.mark.parametrize("change", ["shape", "kind", "fewer", "more", "nan"])
def test_any_mismatch_is_refused_and_nothing_is_copied(change: str) -> None:
    source = {f"x{i}.{name.rpartition('.')[2]}": value.clone() for i, (name, value) in enumerate(network(1).state_dict().items())}
    names = list(source)
    if change == "shape":
        source[names[0]] = source[names[0]][:, :, :2]
    elif change == "kind":
        source = {(n if n != names[1] else "x1.gamma"): v for n, v in source.items()}
    elif change == "fewer":
        source.pop(names[-1])
    elif change == "more":
        source["late.weight"] = torch.ones(1)
    else:
        source[names[2]][0] = float("nan")
    module = network(0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ArtifactError):
        assign(module, source)
    assert all(bool((module.state_dict()[name] == value).all()) for name, value in before.items())


def test_dead_weights_are_told_by_the_trial_run() -> None:
    module = network(0)
    nn.init.zeros_(module[6].weight)
    with pytest.raises(ArtifactError, match="the same for different pictures"):
        verify(module, (1, 3, 16, 16))


@pytest.mark.parametrize("content", [b"", b"nonsense", json.dumps({"a": 1}).encode()])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt2"])
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


def test_a_user_function_is_called_and_judged(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\n"
        "def make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n\n"
        "def wrong():\n    return 3\n\ndef fails():\n    raise ValueError('no such width')\n"
    )
    assert open_pretrained(f"{file}:make", resolution=(32, 32)).name == "make"
    for function, message in (("wrong", "Expected a torch.nn.Module"), ("fails", "no such width"), ("absent", "has no function")):
        with pytest.raises(UsageError, match=message):
            open_pretrained(f"{file}:{function}")


@pytest.mark.skipif(timm_library() is None, reason="needs timm")
def test_a_network_of_one_fixed_size_is_built_for_another(tmp_path: Path) -> None:
    name, picture = "deit_tiny_patch16_224", torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    own, small = build_published(name), build_published(name, 10, (64, 64)).eval()
    save_file(own.state_dict(), tmp_path / f"{name}.safetensors")
    found = open_pretrained(name, folder=tmp_path, resolution=(64, 64))  # learned positions of 14 x 14 are resampled to 4 x 4
    assert found.module.state_dict()["pos_embed"].shape == (1, 17, 192)
    torch.testing.assert_close(found.module.state_dict()["pos_embed"][:, 0], own.state_dict()["pos_embed"][:, 0])
    assert found.module(picture).shape == (2, 1000)
    save_file(small.state_dict(), tmp_path / f"{name}.safetensors")  # of the user's own classes and size
    again = open_pretrained(name, folder=tmp_path, resolution=(64, 64), num_classes=10)
    torch.testing.assert_close(again.module(picture), small(picture))


@pytest.mark.skipif(timm_library() is None, reason="needs timm")
def test_what_cannot_be_built_or_resampled_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="timm cannot build it for 100x100"):
        open_pretrained("nest_tiny", weights="random", resolution=(100, 100))
    path = tmp_path / "deit_tiny_patch16_224.safetensors"
    path.write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="damaged"):
        open_pretrained("deit_tiny_patch16_224", folder=tmp_path, resolution=(64, 64))
    save_file({"pos_embed": torch.zeros(1, 50, 192), "other": torch.zeros(3)}, path)
    with pytest.raises(ArtifactError, match="weights"):
        open_pretrained("deit_tiny_patch16_224", folder=tmp_path, resolution=(64, 64))
    with pytest.raises(ArtifactError, match="no such file"):
        open_pretrained("deit_tiny_patch16_224", weights=tmp_path / "none.pth", resolution=(64, 64))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        find_weights("mobilenetv2_100", tmp_path / "mistyped")


def test_a_folder_of_weights_is_looked_into_first(tmp_path: Path) -> None:
    assert find_weights("no_such_network_at_all", tmp_path) is None
    save_file(network(1).state_dict(), tmp_path / "mobilenetv2_100.safetensors")
    found = find_weights("mobilenetv2_100.ra_in1k", tmp_path)
    assert found is not None
    assert found.source == "weights folder"
    if timm_library() is not None:
        with pytest.raises(ArtifactError, match="does not fit"):
            open_pretrained("mobilenetv2_100", folder=tmp_path)


def test_an_unknown_network_is_told_apart_from_one_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        open_pretrained("mobilenetv2_1000")
    with pytest.raises(ArtifactError, match="no weights on this machine"):
        open_pretrained("repvgg_a0", folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_published_packages_fit(name: str) -> None:
    if find_weights(name) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed (extra `anchors`)")
    if timm_library() is None:
        pytest.skip("timm is not installed")
    opened = open_pretrained(name)
    assert opened.assignment is not None
    assert opened.assignment.by == ("name" if name == "mobilenet_v2" else "order")
