"""A foreign distribution adds a device, a space, a searcher and an evaluator: one file each, found by entry point."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SPACE = '''
from nas.graphs.graph import GraphBuilder
from nas.spaces.space import Choice, SearchSpace


class Acme(SearchSpace):
    """Three widths of one convolution."""

    name = "acme"
    choices = (Choice("width", (8, 16, 32), ordered=True),)

    @classmethod
    def make(cls, preset="", **options):
        return cls()

    def segments(self, architecture, resolution=None):
        b = GraphBuilder("acme")
        x = b.input((1, 3, *(resolution or (32, 32))))
        return (("net", b.build(b.conv(x, architecture.genes[0], 3))),)

    def build(self, architecture, *, num_classes=None, resolution=None):
        raise NotImplementedError
'''
SEARCHER = '''
from nas.searching.searcher import Searcher


class First(Searcher):
    """Proposes the first member again and again."""

    def ask(self, number):
        return next(iter(self.space.enumerate()))

    def tell(self, trial):
        pass
'''
EVALUATOR = '''
from nas.training.evaluator import Evaluator, Metrics


class Width(Evaluator):
    """Wider is better."""

    key = "width"

    def evaluate(self, architecture):
        return Metrics(float(architecture.genes[0]), "validation")
'''
DEVICE = """
title = "Acme NPU 1"
kind = "npu"
runtime = "acme"
default_precision = "w8a8"
[precisions.w8a8]
peak_gmacs = 1000.0
[origin]
title = "Acme"
"""
ENTRY_POINTS = """
[nas.spaces]
acme = acme_nas.space:Acme
[nas.searchers]
first = acme_nas.first:First
[nas.evaluators]
width = acme_nas.width:Width
[nas.devices]
acme = acme_nas.devices
"""
CODE = """
import json
import numpy as np
from nas.training.evaluator import evaluators
from nas.devices.profile import load_profile
from nas.searching.objective import Goal, Objective
from nas.searching.searcher import searchers
from nas.spaces.naming import get_space

space = get_space("acme")
goal = Goal((Objective("accuracy_pct", "maximize"),))
proposal = searchers.get("first")(space, goal, 0).ask(0)
print(json.dumps([
    load_profile("acme-npu-1").title,
    space.lower(proposal).cost.macs,
    evaluators.get("width")().evaluate(proposal).accuracy_pct,
]))
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    package, meta = tmp_path / "acme_nas", tmp_path / "acme_nas-1.0.dist-info"
    (package / "devices").mkdir(parents=True)
    meta.mkdir()
    for name, text in {"__init__": "", "space": SPACE, "first": SEARCHER, "width": EVALUATOR}.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    (package / "devices" / "acme-npu-1.toml").write_text(DEVICE)
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nas\nVersion: 1.0\n")
    (meta / "entry_points.txt").write_text(ENTRY_POINTS)
    return tmp_path


def test_foreign_package_extends_every_room(foreign: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env={"PYTHONPATH": f"{ROOT}:{foreign}"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["Acme NPU 1", 32 * 32 * 3 * 8 * 9, 8.0]


def test_clash_is_raised(foreign: Path) -> None:
    entry = foreign / "acme_nas-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[nas.clash]\nspace = acme_nas.space:Acme\n")
    code = "from nas.registry import Registry\nRegistry('clash', 'acme_nas').names()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": f"{ROOT}:{foreign}"}, check=False
    )
    assert done.returncode == 1
    assert "a name is taken twice, got 'space'" in done.stderr
