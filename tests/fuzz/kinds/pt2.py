"""Archives of `torch.export`: the program in them mutated as text and by its structure, the archive itself as bytes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import nn

from nas.graphs.frontends.pt2_file import read_pt2
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise

ENDING = ".pt2"
WORDS = (
    b"as_tensor",
    b"as_ints",
    b"as_none",
    b'"as_int": -1',
    b"torch.ops.aten.view.default",
    b"torch.ops.aten.nonzero.default",
    b"expr_str",
)
_PROGRAMS: list[dict[str, Any]] = []


def read(path: Path) -> Graph:
    """Read, count and normalise, as ``nas predict`` does."""
    graph = read_pt2(path)
    normalise(graph)
    _ = graph.cost, graph.key
    return graph


def absurd(graph: Graph) -> str:
    """Numbers that no network has."""
    cost = graph.cost
    return f"a count beyond any device: {cost}" if max(cost.macs >> 24, cost.params, cost.activation_elements) > 2**48 else ""


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm = nn.Linear(8, 24), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(x)).reshape(1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return nn.functional.scaled_dot_product_attention(q, k, v).mean(2)


def _programs() -> list[dict[str, Any]]:
    if not _PROGRAMS:
        conv = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        for module, shape in ((conv, (1, 3, 8, 8)), (_Attention(), (1, 4, 8))):
            held = io.BytesIO()
            torch.export.save(torch.export.export(module.eval(), (torch.zeros(shape),)), held)
            with zipfile.ZipFile(held) as archive:
                member = next(name for name in archive.namelist() if name.endswith("models/model.json"))
                program = json.loads(archive.read(member))
            for node in program["graph_module"]["graph"]["nodes"]:
                node["metadata"] = {}
            _PROGRAMS.append(program)
    return _PROGRAMS


def _archive(text: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:  # stored, so that a mutant reaches the program itself
        archive.writestr("net/models/model.json", text)
    return held.getvalue()


def seeds() -> list[bytes]:
    """Two programs."""
    return [_archive(json.dumps(program).encode()) for program in _programs()]


@st.composite
def structures(draw: Any) -> SearchStrategy[bytes]:
    """A program in which one to three values anywhere are others of JSON."""
    program = json.loads(json.dumps(draw(st.sampled_from(_programs()))))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = program["graph_module"]
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 7)):
                at = at[key]
                continue
            at[key] = draw(
                st.sampled_from(
                    [None, 0, 1, -1, 7, 2**40, 1e300, "", "x", [], {}, True, [1, 2], "torch.ops.aten.add.Tensor", {"as_int": 3}]
                )
            )
            break
    return _archive(json.dumps(program).encode())
