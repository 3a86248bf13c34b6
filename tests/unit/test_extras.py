"""The base of the distribution is light, and what it leaves out is named with the extra that brings it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from nas.cli import _report
from nas.cli._extras import extra_of, packages

ROOT = Path(__file__).parents[2]
LINES = ["numpy>=2", "torch<3,>=2.6; extra == 'search'", 'onnxruntime>=1; extra == "measure"', "onnxruntime>=1; extra == 'search'"]
LINES += ["pillow>=11; extra == 'search'", "hardware-aware-nas[search]; extra == 'tflite'", "litert-torch>=0.10; extra == 'tflite'"]


def test_the_base_is_six_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [line.partition(">")[0] for line in project["dependencies"]] == ["numpy", "onnx", "pydantic", "pyyaml", "rich", "typer"]


def test_a_package_is_looked_up_in_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.cli._extras.requires", lambda _name: LINES)
    assert packages() == {"numpy": "", "torch": "search", "onnxruntime": "measure", "pillow": "search", "litert-torch": "tflite"}
    assert (extra_of("torch.nn"), extra_of("PIL"), extra_of("pillow"), extra_of("numpy"), extra_of("json")) == (
        *("search", "search", "search"),
        *(None, None),
    )


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("nas.cli._extras.requires", lambda _name: LINES)
    assert _report(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")) == 1
    assert capsys.readouterr().err.endswith("Do this: pip install 'hardware-aware-nas[search]'.\n")


HIDDEN = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))
from nas.cli import main
main(sys.argv[2:])
"""


def without_extras(*words: str) -> "subprocess.CompletedProcess[str]":
    hidden = "torch,optuna,onnxruntime,onnxscript,scipy,sklearn,matplotlib,networkx,accelerate,safetensors,moocore,tflite,PIL,threadpoolctl"
    return subprocess.run([sys.executable, "-c", HIDDEN, hidden, *words], capture_output=True, text=True, cwd=ROOT, check=False)


def test_networks_are_priced_without_the_extras() -> None:
    done = without_extras("predict", "resnet18", "mobilenetv2_100", "--device", "sa8295p", "--device", "hailo-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mobilenetv2_100") >= 2


def test_published_networks_are_searched_without_the_extras(tmp_path: Path) -> None:
    """Those of one resolution; `tests/e2e/test_zoo.py` searches all."""
    words = ("search", "--device", "sa8295p", "--budget", "3ms", "--space", "zoo", "--resolution", "160", "--out", str(tmp_path / "run"))
    done = without_extras(*words)
    assert done.returncode == 0, done.stderr
    assert "choice: " in done.stdout
