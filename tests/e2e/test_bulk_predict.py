"""Many files on several devices: budgets and their exit code, formats, an older file beside a newer one, a profile that is pinned."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.e2e.conftest import Result
from tests.e2e.test_predict_command import write_model
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
pytestmark = pytest.mark.usefixtures("tiny_plugins")


@pytest.fixture
def devices(tmp_path: Path) -> list[str]:
    paths = [write_device(tmp_path, name) for name in ("one", "two")]
    return [word for path in paths for word in ("--device", str(path))]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two networks of 6,912 and 27,648 multiply-adds: 0.0069 and 0.028 ms on the devices."""
    return [write_model(tmp_path / "small.onnx"), write_model(tmp_path / "large.onnx", (1, 3, 16, 16))]


def test_every_file_on_every_device(nas: Callable[..., Result], files: list[Path], devices: list[str]) -> None:
    result = nas("predict", *files, *devices, "--format", "json")
    assert result.code == 0
    rows = json.loads(result.out)
    assert [(row["network"], row["device"]) for row in rows] == [(f.name, d) for f in files for d in ("one", "two")]
    assert rows[2]["macs"] == 4 * rows[0]["macs"]
    assert all(len(row["profile_hash"]) == 16 for row in rows)
    table = nas("predict", *files, *devices).out
    assert table.count("small.onnx") == 2
    assert "two:" in table


@pytest.mark.parametrize(("budget", "on", "code"), [("0.0075ms", "upper", 3), ("0.0075ms", "point", 0), ("two:1ms", "upper", 0)])
def test_budgets_decide_the_exit_code(
    nas: Callable[..., Result], files: list[Path], devices: list[str], budget: str, on: str, code: int
) -> None:
    result = nas("predict", files[0], *devices, "--budget", budget, "--on", on, "--format", "json")
    assert result.code == code
    check = json.loads(result.out)[-1]["budgets"][0]
    assert (check["unit"], check["judged"], check["holds"]) == ("ms", on, code == 0)


def test_throughput_is_held_in_frames_a_second(nas: Callable[..., Result], files: list[Path], tmp_path: Path) -> None:
    device = write_device(tmp_path, "full-load", quantity="reciprocal_throughput")
    result = nas("predict", files[0], "--device", device, "--budget", "140kfps".replace("k", "000"))
    assert result.code == 3
    assert "fps" in result.out
    assert "% short" in result.out
    assert " ms" not in result.out
    assert nas("predict", files[0], "--device", device, "--budget", "120000fps").code == 0
    assert nas("predict", files[0], "--device", device, "--budget", "5ms").code == 2


def test_a_damaged_file_stops_no_other(nas: Callable[..., Result], files: list[Path], devices: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    result = nas("predict", files[0], bad, *devices, "--format", "csv")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "bad.onnx" in result.err
    rows = list(csv.DictReader(io.StringIO(result.out)))
    assert [bool(row["error"]) for row in rows] == [False, False, True, True]
    assert nas("predict", files[1], bad, *devices, "--budget", "0.01ms").code == 3


def test_junit_names_what_is_broken(nas: Callable[..., Result], files: list[Path], devices: list[str], tmp_path: Path) -> None:
    result = nas("predict", *files, tmp_path / "none.onnx", *devices, "--budget", "0.01ms", "--format", "junit")
    assert result.code == 3
    root = ElementTree.fromstring(result.out)
    assert [(s.get("name"), s.get("tests"), s.get("failures"), s.get("errors")) for s in root] == [
        (d, "3", "1", "1") for d in ("one", "two")
    ]
    failure = root[0].find("testcase[@name='large.onnx']/failure")
    assert failure is not None
    assert "budget of 0.01ms is BROKEN" in failure.get("message", "")


def test_an_older_file_beside_a_newer_one(nas: Callable[..., Result], files: list[Path], devices: list[str], tmp_path: Path) -> None:
    result = nas("predict", files[1], *devices[:2], "--compare", files[0], "--format", "json")
    change = json.loads(result.out)["comparison"]
    assert change["change_pct"] == pytest.approx(300)
    assert change["kinds"][0]["op"] == "Conv"
    assert change["operators"][0]["after_ms"] == pytest.approx(4 * change["operators"][0]["before_ms"])
    (tmp_path / "old").mkdir()
    write_model(tmp_path / "old" / "large.onnx")
    out = nas("predict", files[1], *devices, "--compare", tmp_path / "old").out
    assert "slower than large.onnx" in out
    assert "what got slower most" in out
    one = nas("predict", files[1], *devices[:2], "--compare", tmp_path / "old", "--format", "json")
    assert json.loads(one.out)["comparison"]["change_pct"] == pytest.approx(300)


def test_a_pinned_profile(
    nas: Callable[..., Result], refused: Callable[..., str], files: list[Path], devices: list[str], tmp_path: Path
) -> None:
    pinned = json.loads(nas("predict", files[0], *devices[:2], "--format", "json").out)["profile_hash"]
    assert nas("predict", files[0], *devices[:2], "--profile-hash", pinned).code == 0
    assert nas("predict", files[0], *devices, "--profile-hash", f"one:{pinned}").code == 0
    assert "D:HASH" in refused("predict", files[0], *devices, "--profile-hash", pinned)
    (tmp_path / "tiny.json").write_text('{"version": 1, "other": 2}')
    assert "has another profile or latency model" in refused("predict", files[0], *devices[:2], "--profile-hash", pinned, code=1)
