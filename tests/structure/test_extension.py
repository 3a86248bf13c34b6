"""A foreign distribution adds nine plug-ins, one file each, found by entry point: their suites pass, and one search uses them all."""

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ACME = Path(__file__).with_name("acme_nas")
"""The distribution: a file a plug-in, and their entry points. The pages of docs/plug-ins show the same files."""

SEARCH = """
import sys
import nas.runs.trained_search
from nas.results import Fronts
nas.runs.trained_search.published_front = lambda _: Fronts(front=())
import nas

result = nas.search(
    "acme-npu-1", "9ms", space="acme", evaluator="careful", searcher="in-order", exporter="acme-file", quantisation=("wide",),
    data="acme-shades", evals=2, epochs=1, finetune_epochs=1, out=sys.argv[1],
)
print(result.model_dump_json())
"""
SUITES = """
import tempfile
from pathlib import Path
import numpy as np
from nas.devices.predictor import load_predictor, predictors
from nas.devices.names import find_profile
from nas.devices.profile import load_profile
from nas.exporting.exporter import ExportOrder, exporters
from nas.quantisation.method import quantisers
from nas.searching.searcher import searchers
from nas.spaces.naming import get_space
from nas.spaces.operator_family import mixers
from nas.testing import datasets, devices, evaluators, exporters as files, operators, predictors as prices, quantisers as methods
from nas.testing import searchers as search, spaces
from nas.training.dataset import load_dataset
from nas.training.evaluator import Assignment, evaluators as registry
from nas.training.supernet.weights import Supernet

space = get_space("acme")
spaces.check_space("acme")
profile, path = load_profile("acme-npu-1"), find_profile("acme-npu-1")
devices.check_profile(profile, path), devices.check_timings(profile), devices.check_estimates(profile, path.parent)
predictor = load_predictor(profile, "w8a8", path.parent)
for check in (prices.check_estimate_is_an_interval, prices.check_unknown_operator_is_named, prices.check_more_work_takes_longer,
              prices.check_batch_equals_single, prices.check_batch_members_are_independent):
    check(predictor, profile, "w8a8")
data = load_dataset("acme-shades")
datasets.check_splits(data), datasets.check_pixels(data), datasets.check_thinned(data)
datasets.check_key(lambda seed: load_dataset("acme-shades", seed=seed))
assignment = Assignment(get_space("acme", num_classes=2), precision="w8a8", dataset=data, supernet=Supernet(get_space("acme", num_classes=2), 2, (32, 32)), recipe=("wide",))
members = list(space.enumerate())
evaluators.check_key(registry.get("careful"), assignment)
evaluators.check_scores(registry.get("careful").make(assignment), members)
evaluators.check_pictures(registry.get("careful").make(assignment), members)
evaluators.check_module(registry.get("careful").make(assignment), members[0], (32, 32))
with tempfile.TemporaryDirectory() as folder:
    files.check_file(exporters.get("acme-file"), ExportOrder("w8a8", files.pictures), Path(folder))
methods.check_quantiser(quantisers.get("wide")())
mixer = mixers.get("acme-mixer")
operators.check_shape_and_counts(mixer()), operators.check_searched(mixer)
operators.check_fuse(mixer(5), 16, (9, 13))
operators.check_gradients(mixer(), 16, (9, 13))
chosen = get_space("hybrid-s", mixers=("acme-mixer",))
assert {value.partition(":")[0] for c in chosen.choices if c.name.endswith(".mixer") for value in c.values} == {"acme-mixer"}
search.check_proposes_members(searchers.get("in-order"), objectives=2, count=20)
search.check_follows_the_seed(searchers.get("in-order"), count=20)
search.check_works_without_prescreen(searchers.get("in-order"))
print("green")
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    meta = tmp_path / "acme_nas-1.0.dist-info"
    shutil.copytree(ACME, tmp_path / "acme_nas", ignore=shutil.ignore_patterns("__pycache__"))
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nas\nVersion: 1.0\n")
    shutil.copy(ACME / "entry_points.txt", meta)
    return tmp_path


def run(code: str, foreign: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{ROOT}:{foreign}", "HOME": str(foreign), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment, cwd=foreign, check=False)


CONTRACTS = {
    "nas.spaces.space": "SearchSpace",
    "nas.spaces.operator_family": "OperatorFamily",
    "nas.devices.predictor": "Predictor",
    "nas.training.dataset": "Dataset",
    "nas.training.evaluator": "Evaluator",
    "nas.quantisation.method": "Quantiser",
    "nas.searching.searcher": "Searcher",
    "nas.exporting.exporter": "Exporter",
}


@pytest.mark.parametrize(("module", "name"), CONTRACTS.items())
def test_a_contract_shows_when_each_method_is_called(module: str, name: str) -> None:
    text = import_module(module).__doc__ or ""
    picture = text.partition("\nLife of ")[2]
    methods = {
        method for method, thing in vars(getattr(import_module(module), name)).items() if getattr(thing, "__isabstractmethod__", False)
    }
    assert picture
    assert {method for method in methods if method not in picture} == set()


def test_nine_plug_ins_one_file_each() -> None:
    kinds = [line for line in (ACME / "entry_points.txt").read_text().splitlines() if line.startswith("[nas.")]
    assert len(kinds) == 9


@pytest.mark.slow
def test_one_search_uses_them_all(foreign: Path) -> None:
    done = run(SEARCH, foreign, str(foreign / "run"))
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "finished"
    assert result["chosen"]["devices"]["acme-npu-1"]["precision"] == "w8a8"
    assert result["chosen"]["architecture"]["space"] == "acme"
    assert result["model"].endswith("model.acme")
    assert result["chosen"]["accuracy_pct"] >= 50
    assert result["evaluations"] == 2
    assert (foreign / "run" / "model.acme").is_file()


@pytest.mark.slow
def test_their_contract_suites_are_green(foreign: Path) -> None:
    done = run(SUITES, foreign)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("green")


def test_clash_is_raised(foreign: Path) -> None:
    entry = foreign / "acme_nas-1.0.dist-info" / "entry_points.txt"
    entry.write_text("[nas.clash]\nspace = acme_nas.space:Acme\n")
    done = run("from nas.registry import Registry\nRegistry('clash', 'acme_nas').names()", foreign)
    assert done.returncode == 1
    assert "a name is taken twice, got 'space'" in done.stderr
