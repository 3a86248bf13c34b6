import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Result

ROOT = Path(__file__).parents[2]
PROFILE = """
title = "Acme NPU 1"
kind = "npu"
runtime = "acme"
default_precision = "w8a8"
[precisions.w8a8]
peak_gmacs = 1000.0
[precisions.w8a8.timings_ms]
resnet18 = 1.5
resnet50 = 3.5
[origin]
title = "Acme"
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "acme-1.toml"
    path.write_text(PROFILE)
    return path


def test_add_list_show(nas: Callable[..., Result], profile: Path) -> None:
    assert nas("devices", "add", profile).code == 0
    rows = {row["name"]: row for row in json.loads(nas("devices", "list", "--format", "json").out)}
    assert rows["acme-1"]["networks"] == 2
    assert rows["acme-1"]["quantity"] == "latency"
    shown = json.loads(nas("devices", "show", "acme-1", "--format", "json").out)
    assert shown["precisions"]["w8a8"]["timings_ms"] == {"resnet18": 1.5, "resnet50": 3.5}
    assert "Acme NPU 1" in nas("devices", "show", "acme-1").out
    assert "Acme NPU 1" in nas("devices", "list").out


def test_a_taken_name_is_refused(nas: Callable[..., Result], refused: Callable[..., str], profile: Path) -> None:
    nas("devices", "add", profile)
    assert "taken" in refused("devices", "add", profile)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("peak_gmacs", "peak_gmac"), "unknown key. Did you mean 'peak_gmacs'"),
        (("peak_gmacs = 1000.0", "bandwidth_gb_s = -3.0"), "bandwidth_gb_s: input should be greater than 0, got -3.0"),
        (('default_precision = "w8a8"', 'default_precision = "fp16"'), "default_precision 'fp16' is not among"),
        (("kind", "kind = ["), "not TOML"),
    ],
)
def test_a_bad_profile_is_one_line(refused: Callable[..., str], profile: Path, change: tuple[str, str], message: str) -> None:
    profile.write_text(PROFILE.replace(*change))
    assert message in refused("devices", "add", profile)


def test_unknown_device(refused: Callable[..., str], nas: Callable[..., Result], profile: Path) -> None:
    nas("devices", "add", profile)
    assert "Did you mean 'acme-1'" in refused("devices", "show", "acmi-1")
    assert nas("devices", "show", "acme").out.startswith("acme-1")  # a part that one device alone has
    assert "no such file" in refused("devices", "show", "nowhere/acme.toml")


@pytest.mark.parametrize("words", [["devices", "list", "--help"], ["devices", "list"]])
def test_startup_imports_neither_torch_nor_optuna(words: list[str]) -> None:
    code = "import sys, nas.cli\ntry: nas.cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "sys.stderr.write(repr([m for m in ('torch', 'optuna', 'onnx', 'scipy', 'pandas') if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "[]"
    assert done.stdout
