"""The scripts and the notebook in experiments/examples run."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]

EXAMPLES = Path(__file__).parents[2] / "experiments" / "examples"


@pytest.fixture
def example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a script as Python does and return what it prints."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_module_is_priced(example: Callable[..., str]) -> None:
    lines = example("predict_module.py").splitlines()
    assert [line.partition(":")[0] for line in lines[::2]] == ["sa8295p", "rtx-4090"]
    assert all("million multiply-adds" in line for line in lines[1::2])


@pytest.mark.slow
def test_a_device_is_calibrated(example: Callable[..., str]) -> None:
    assert "efficientnet_b0: " in example("calibrate_device.py")


def test_published_networks_are_surveyed_and_the_run_is_read(example: Callable[..., str], tiny_plugins: None, tmp_path: Path) -> None:
    device = write_device(tmp_path, "a-device")
    surveyed = example("survey_zoo.py", device, "100ms", "tiny-published", tmp_path / "run")
    assert "choice: " in surveyed
    read = example("read_run.py", tmp_path / "run")
    assert "finished" in read
    assert read.count("→") == 1


def test_the_notebook_runs() -> None:
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), "tour.ipynb", "exec"), names)
    assert names["estimate"].basis == "measured"
    assert len(names["rows"]) == 4


def test_every_example_is_named() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb") and f"[{path.name}]" not in page] == []
