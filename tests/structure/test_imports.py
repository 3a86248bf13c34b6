"""The frame holds: `nas` imports no sibling, its top level is light, rich stays at the edge."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIBLINGS = {"search_spaces", "latency_predictors", "hardware_profiles"}
HEAVY = {
    "torch",
    "optuna",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "sklearn",
    "matplotlib",
    "networkx",
    "accelerate",
    "safetensors",
    "nni",
}


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", sorted((ROOT / "nas").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_engine_knows_siblings_by_name_only(path: Path) -> None:
    assert not {name for name in imports(path, top_level=False) if name.split(".")[0] in SIBLINGS}


@pytest.mark.parametrize("path", sorted((ROOT / "nas").glob("*.py")) + sorted((ROOT / "nas" / "cli").glob("*.py")), ids=lambda p: p.name)
def test_top_level_is_light(path: Path) -> None:
    assert not {name for name in imports(path, top_level=True) if name.split(".")[0] in HEAVY}


@pytest.mark.parametrize("path", sorted((ROOT / "nas").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_rich_stays_at_the_edge(path: Path) -> None:
    if path.relative_to(ROOT / "nas").parts[0] not in {"report", "cli"}:
        assert not {name for name in imports(path, top_level=False) if name.split(".")[0] in {"rich", "typer"}}


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from nas.cli import build_app; build_app(); print([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(HEAVY), "numpy", "pydantic"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
