"""Backbones of detectors and segmenters, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Result


def test_backbones_are_ranked_by_the_time_of_their_pyramids(nas: Callable[..., Result], tmp_path: Path) -> None:
    found = nas("predict", "resnet50", "mobilenetv2_100", "--device", "sa8295p", "--task", "features", "--format", "json")
    assert found.code == 0, found.err
    rows = json.loads(found.out)
    assert [row["network"] for row in rows] == [
        f"{name} features {side}x{side}" for side in (512, 640) for name in ("mobilenetv2_100", "resnet50")
    ]
    assert rows[0]["latency_ms"] < rows[2]["latency_ms"]
    one = nas("predict", "resnet50", "--device", "sa8295p", "--task", "features", "--resolution", "512", "--format", "json")
    assert json.loads(one.out)[0]["macs"] == rows[1]["macs"]
    member = tmp_path / "member.json"
    member.write_text(nas("spaces", "sample", "hybrid-s", "--format", "json").out)
    own = nas("predict", member, "--device", "sa8295p", "--task", "features", "--resolution", "512", "--format", "json")
    assert [row["network"].rpartition(" ")[2] for row in json.loads(own.out)] == ["512x512"]
