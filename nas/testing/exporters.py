"""What every exporter must satisfy; each check takes its class, an order that it can fulfil, and a folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nas.errors import ArtifactError
from nas.exporting.exporter import Exporter, ExportOrder
from nas.graphs.graph import Graph, GraphBuilder

if TYPE_CHECKING:
    from torch import Tensor, nn

SIDE, CLASSES = 16, 4  # by hand


def subject() -> tuple[nn.Module, Graph]:
    """Return a small network with seeded weights, and its graph at batch 1."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, CLASSES))
    b = GraphBuilder("subject")
    x = b.unary("Relu", b.conv(b.input((1, 3, SIDE, SIDE)), 8, 3, stride=2, pads=(1, 1, 1, 1), name="conv"))
    x = b.reshape(b.global_pool(x), (1, 8))
    return module.eval(), b.build(b.gemm(x, CLASSES))


def pictures() -> list[Tensor]:
    """Return calibration pictures in batches."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, SIDE, SIDE, generator=generator) for _ in range(4)]


def check_file(kind: type[Exporter], order: ExportOrder, folder: Path) -> None:
    """The file appears under its name with the suffix of the format, and the artifact says what it is; the module is left as it was."""
    import torch

    module, graph = subject()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    path = folder / f"model{kind.suffix}"
    artifact = kind.make(order).export(module, graph, path, metadata={"seed": "0"})
    assert artifact.path == path
    files = kind.files(path)
    assert artifact.size_bytes == sum(file.stat().st_size for file in files)
    assert artifact.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert 0 <= artifact.max_difference < float("inf")
    assert artifact.metadata["seed"] == "0"
    assert sorted(folder.iterdir()) == sorted(files), "nothing else may be left behind"
    read = kind.read_metadata(path)
    assert read is not None, "a file carries what it is told"
    assert read == dict(artifact.metadata)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items()), "the module was changed"
    content = b"".join(file.read_bytes() for file in files)
    for place in (Path.cwd(), Path.home()):
        assert len(place.parts) < 3 or str(place).encode() not in content, "a file holds no path of the machine"


def check_answers(kind: type[Exporter], order: ExportOrder, folder: Path, tolerance: float) -> None:
    """Where the format can be run here, the file answers as the network, within `tolerance` of the largest score."""
    import torch

    module, graph = subject()
    path = folder / f"answers{kind.suffix}"
    artifact = kind.make(order).export(module, graph, path)
    scores = kind.reload(path)
    if scores is None:
        return
    picture = pictures()[0][:1]
    with torch.no_grad():
        expected = module(picture).numpy()
    assert np.abs(scores(picture.numpy()) - expected).max() <= tolerance * max(1.0, float(np.abs(expected).max()))
    noted = kind.annotate(artifact, {"note": "held"})
    assert noted.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in kind.files(path))).hexdigest()
    assert (kind.read_metadata(path) or {}).get("note") == "held"
    again = kind.reload(path)
    assert again is not None
    assert np.array_equal(again(picture.numpy()), scores(picture.numpy())), "annotating must not change what the file answers"


def check_refusal(kind: type[Exporter], order: ExportOrder, folder: Path) -> None:
    """A file that is there is not overwritten."""
    module, graph = subject()
    path = folder / f"taken{kind.suffix}"
    path.write_bytes(b"mine")
    with pytest.raises(ArtifactError):
        kind.make(order).export(module, graph, path)
    assert path.read_bytes() == b"mine"
