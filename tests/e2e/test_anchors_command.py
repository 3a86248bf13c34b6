import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Result
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]

NETWORK = """
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 16, 1), nn.ReLU(), nn.Conv2d(16, channels, 3, padding=1))

    def forward(self, x):
        return x + self.body(x)


def make():
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), Block(8), Block(8), *head)
"""


@pytest.fixture
def network(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(NETWORK)
    return f"{tmp_path / 'mine.py'}:make"


def test_points_with_what_they_cost_on_each_device(nas: Callable[..., Result], network: str) -> None:
    result = nas("anchors", "show", network, "--resolution", "64", "--device", "sa8295p", "--device", "rtx-4090", "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [row["label"] for row in found["segments"]] == ["0", "1.add", "2.add", "5"]
    assert [row["shape"] for row in found["segments"]] == [[1, 8, 32, 32], [1, 8, 32, 32], [1, 8, 32, 32], [1, 10]]
    assert [row["reduction"] for row in found["segments"]] == [2, 2, 2, 0]
    assert found["segments"][1]["macs"] == 32 * 32 * (8 * 16 + 16 * 8 * 9)
    assert len(found["devices"]) == 2
    for device, whole in found["devices"].items():
        assert sum(row["latency_ms"][device] for row in found["segments"]) == pytest.approx(whole["latency_ms"])


@pytest.mark.usefixtures("tiny_plugins")
def test_what_a_device_lacks_is_said(nas: Callable[..., Result], network: str, tmp_path: Path) -> None:
    device = write_device(tmp_path, quantity="reciprocal_throughput")
    (tmp_path / "mine.py").write_text(NETWORK.replace("x + self", "torch.sinc(x) + self"))
    words = ("anchors", "show", network, "--resolution", "64", "--device", device)
    found = json.loads(nas(*words, "--format", "json").out)["devices"]["tiny fp16"]
    assert found["quantity"] == "reciprocal_throughput"
    assert len(found["unsupported"]) == 1
    table = nas(*words).out
    assert "a frame at full load, no latency" in table
    assert f"without {found['unsupported'][0]}, which it lacks" in table


def test_the_table_says_where_weights_come_from(nas: Callable[..., Result], network: str) -> None:
    result = nas("anchors", "show", network, "--resolution", "64", "--all")
    assert result.code == 0, result.err
    assert "1.add" in result.out
    assert "points; weights fresh or the function's own" in result.out


def test_mistakes_are_one_line(refused: Callable[..., str], network: str) -> None:
    assert "Did you mean" in refused("anchors", "show", "mobilenetv2_1000")
    assert "has no function" in refused("anchors", "show", f"{network}s")
    assert "no such file" in refused("anchors", "show", "absent.pt2", code=1)
    assert "unknown name" in refused("anchors", "show", network, "--device", "sa8295", "--device", "nothing")
