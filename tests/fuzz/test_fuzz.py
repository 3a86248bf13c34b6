"""Malformed inputs of every kind get one line: the kept failures, and a short seeded run. `fuzzer.py` is the long one."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COUNT = 150
LONG = ("artifact", "caches", "folders", "pictures", "pt2", "table")
"""Kinds that take five seconds or more."""


def _kinds() -> list[str]:
    return sorted(path.stem for path in (HERE / "kinds").glob("*.py") if not path.stem.startswith("_"))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow if kind in LONG else ()) for kind in _kinds()])
def test_malformed_inputs_get_one_line(kind: str) -> None:
    if importlib.util.find_spec("hypothesis") is None:
        pytest.skip("hypothesis is not installed: pip install -e '.[dev]'")
    command = [sys.executable, "-m", "tests.fuzz.fuzzer", "--kind", kind, "--count", str(COUNT), "--seed", "0"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout)
    assert outcome["refused"] > 0  # the mutants are not all valid, or nothing was tried
