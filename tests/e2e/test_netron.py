"""Netron opens our ONNX files: its own reader runs in node, float and 8 bits alike, and shows nodes by the stage that they come from."""

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from nas.exporting.exporter import ExportOrder, exporters
from nas.testing import exporters as suite


@pytest.fixture(scope="module")
def netron() -> tuple[str, Path]:
    """Return node and the folder of Netron's scripts."""
    node, spec = shutil.which("node"), find_spec("netron")
    if node is None or spec is None or spec.origin is None:
        pytest.skip(f"{'node' if node is None else 'the package netron'} is not installed")
    version = re.match(r"v(\d+)\.(\d+)", subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout)
    if version is None or (int(version[1]), int(version[2])) < (20, 19):
        pytest.skip("node is older than 20.19, which reads Netron's modules as they are")
    return node, Path(spec.origin).parent


@pytest.mark.parametrize("precision", ["fp32", "w8a8"])
def test_netron_reads_a_file(netron: tuple[str, Path], precision: str, tmp_path: Path) -> None:
    module, graph = suite.subject()
    path = tmp_path / "model.onnx"
    order = ExportOrder(precision, suite.pictures)
    exporters.get("onnx").make(order).export(module, graph, path, metadata={"classes": '["cat", "dog"]'})
    node, folder = netron
    script = Path(__file__).with_name("netron.mjs")
    done = subprocess.run([node, str(script), str(folder), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["format"].startswith("ONNX")
    assert (seen["inputs"], seen["outputs"]) == (["input"], ["scores"])
    assert ["0/Conv", "Conv"] in seen["nodes"], "a node is called after its module"
    assert seen["metadata"]["classes"] == '["cat", "dog"]'
    assert seen["metadata"]["precision"] == precision
