"""The search benchmark: what counts as an evaluation, and that peers and searchers are measured alike."""

import json
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nas.bench.search import Enough, Job, Meter, Runs, Table, Task, compare, contestants, peer_names, run_once, run_searcher
from nas.cli import main
from nas.errors import DataError, UnknownNameError

DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = (DATA / "latency_nasbench201.npz", DATA / "nasbench201_accuracy.npz")
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A made-up NAS-Bench-201: accuracy and latency grow with the convolutions, accuracy with noise of its own."""
    folder = tmp_path_factory.mktemp("tables")
    cells = list(product(range(5), repeat=6))
    names = ["|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*(OPERATIONS[i] for i in cell)) for cell in cells]
    gain = np.array([[(0.0, 0.5, 2.0, 3.0, 1.0)[i] for i in cell] for cell in cells])
    noise = np.random.default_rng(0).normal(0, 0.1, len(cells))
    np.savez(folder / "t.npz", arch=np.array(names), **{"ms/toy": gain @ np.array([1, 1, 1, 1, 1, 2.0])})
    accuracy = 50 + gain @ np.array([1, 0.5, 0.5, 1, 1, 2.0]) + noise
    np.savez(folder / "a.npz", arch=np.array(names), columns=np.array(["test"]), accuracy=accuracy[:, None].astype("f4"))
    return folder / "t.npz", folder / "a.npz"


@pytest.fixture(scope="session")
def task(files: tuple[Path, Path]) -> Task:
    return Table.load(*files, "test", ["toy"], raw=False).task("toy", 0.4)


def test_cells_that_are_one_network_have_one_accuracy_and_one_evaluation(task: Task) -> None:
    space = task.table.space
    one, other = (space.architecture([OPERATIONS[i] for i in genes]) for genes in ((2, 3, 0, 0, 1, 1), (3, 2, 0, 0, 1, 1)))
    assert task.table.accuracy_pct[one] == task.table.accuracy_pct[other]
    meter = Meter(task, 5)
    assert [meter.measure(a).state for a in (one, other, one)] == ["complete", "duplicate", "duplicate"]
    assert meter.evaluated == [one]


def test_raw_keeps_them_apart(files: tuple[Path, Path]) -> None:
    raw = Table.load(*files, "test", ["toy"], raw=True)
    one, other = (raw.space.architecture([OPERATIONS[i] for i in genes]) for genes in ((2, 3, 0, 0, 1, 1), (3, 2, 0, 0, 1, 1)))
    assert raw.accuracy_pct[one] != raw.accuracy_pct[other]
    meter = Meter(raw.task("toy", 1.0), 5)
    assert [meter.measure(a).state for a in (one, other)] == ["complete", "complete"]


def test_what_breaks_the_budget_is_no_evaluation_and_the_meter_ends(task: Task) -> None:
    space = task.table.space
    dear = space.architecture(["nor_conv_3x3"] * 6)
    meter = Meter(task, 5)
    assert {meter.measure(dear).state for _ in range(300)} == {"infeasible"}
    with pytest.raises(Enough):
        meter.measure(dear)
    assert (len(meter.evaluated), meter.proposals) == (0, 300)


def test_what_was_not_timed_is_no_evaluation(files: tuple[Path, Path], tmp_path: Path) -> None:
    """A table of latencies may have fewer networks than the space; one that it lacks breaks every budget."""
    with np.load(files[0]) as table:
        np.savez(tmp_path / "few.npz", arch=table["arch"][::8], **{"ms/toy": table["ms/toy"][::8]})
    few = Table.load(tmp_path / "few.npz", files[1], "test", ["toy"], raw=True)
    task = few.task("toy", 1.0)
    assert len(task.able) == len(few.members) == -(-15625 // 8)
    space, meter = few.space, Meter(task, 5)
    cells = [space.architecture(["none"] * 5 + [last]) for last in ("none", "skip_connect")]
    assert [meter.measure(cell).state for cell in cells] == ["complete", "infeasible"]


def test_the_whole_space_has_no_regret(task: Task) -> None:
    assert task.hypervolume(task.able) == task.best_hypervolume > 0
    assert len(task.able) == pytest.approx(0.4 * 15625, rel=0.1)
    assert max(task.table.accuracy_pct[a] for a in task.able) == task.best_accuracy_pct


@pytest.mark.parametrize(
    "name", ["random", "guided", "nsga2", "optuna:nsga2", pytest.param("optuna:tpe", marks=pytest.mark.slow), "pymoo:nsga2"]
)
def test_figures_of_searchers_and_peers(task: Task, name: str) -> None:
    if name.startswith("pymoo"):
        pytest.importorskip("pymoo")
    figures = run_once(name, task, 0, 40)
    assert figures["regret_40"] >= 0
    assert 0 < figures["hypervolume_ratio"] <= 1
    assert figures == {**run_once(name, task, 0, 40), **{k: v for k, v in figures.items() if k.startswith("ms_")}}


def test_guided_finds_what_random_does_not(task: Task) -> None:
    assert run_once("guided", task, 1, 60)["regret_60"] < run_once("random", task, 1, 60)["regret_60"]


def test_all_means_ours_and_peers() -> None:
    names = contestants("all")
    assert {"random", "guided", "evolution", "nsga2", "optuna:tpe"} <= set(names)
    assert "exhaustive" not in names
    with pytest.raises(UnknownNameError, match="Did you mean 'guided'"):
        contestants("guide")
    assert {"optuna:nsga2", "pymoo:nsga2", "smac:hpo", "syne-tune:tpe"} <= set(peer_names())


def test_runs_are_kept_and_not_made_again(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.jsonl"

    def made(seeds: range) -> dict[str, object]:
        runs = Runs(path)
        return compare(task.table, ["random"], [task], evals=10, seeds=seeds, workers=1, runs=runs, report=lambda _: None)["random"]

    made(range(2))
    first = path.read_text()
    path.write_text(first + '{"run": {"searcher": "ran')  # killed while it wrote
    whole = made(range(3))
    assert whole["runs"] == 3
    assert path.read_text().startswith(first)
    assert len(path.read_text().splitlines()) == 3
    monkeypatch.setattr("nas.bench.search.run_once", None)
    assert made(range(3)) == whole
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1 is not a run"):
        Runs(path)


def test_runs_of_other_tables_are_made_again(files: tuple[Path, Path], task: Task, tmp_path: Path) -> None:
    with np.load(files[0]) as table:
        np.savez(tmp_path / "slow.npz", arch=table["arch"], **{"ms/toy": 2 * table["ms/toy"]})
    runs, job = Runs(tmp_path / "runs.jsonl"), Job("random", task, 0, 10)
    runs.add(job, {"regret_10": 1.0})
    same, slow = (Table.load(path, files[1], "test", ["toy"], raw=False).task("toy", 0.4) for path in (files[0], tmp_path / "slow.npz"))
    kept = Runs(tmp_path / "runs.jsonl")
    assert kept.figures(replace(job, task=same)) == {"regret_10": 1.0}
    assert kept.figures(replace(job, task=slow)) is None


def test_command(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    table, accuracy = map(str, files)
    words = ["bench", "search", "--table", table, "--accuracy", accuracy, "--column", "test", "--device", "toy", "--budget-quantile", "0.4"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--searcher", "random", "--evals", "20", "--repeats", "2", "--workers", "1", "--format", "json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)["searchers"]["random"]
    assert found.keys() >= {"regret_20", "found_optimum_pct", "hypervolume_ratio", "ms_per_evaluation", "standard_error"}
    for wrong, line in (("--device", "unknown name, got 'tox'"), ("--column", "unknown name, got 'tox'")):
        with pytest.raises(SystemExit) as end:
            main([*words, wrong, "tox"])
        assert end.value.code == 2
        assert line in capsys.readouterr().err


def test_a_file_that_is_no_table_is_one_line(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("no")
    with pytest.raises(DataError, match="not a table of arrays"):
        Table.load(tmp_path / "x.npz", files[1], "test", ["toy"], raw=False)
    with pytest.raises(DataError, match="lacks the array 'columns'"):
        Table.load(files[0], files[0], "test", ["toy"], raw=False)


@pytest.mark.slow
@pytest.mark.skipif(not all(path.is_file() for path in REAL), reason="needs ../shared/data")
def test_guided_on_the_real_table() -> None:
    """One device, one budget, three seeds of the published protocol; the whole of it is in experiments/."""
    task = Table.load(*REAL, "cifar100_test", ["gold_6226"], raw=False).task("gold_6226", 0.4)
    runs = [run_once("guided", task, seed, 200) for seed in range(3)]
    assert np.mean([run["regret_100"] for run in runs]) <= 0.35
    assert np.mean([run["regret_200"] for run in runs]) <= 0.10
    assert np.mean([run["hypervolume_ratio"] for run in runs]) >= 0.995
    for seed in range(2):  # beside a second objective, too, it ends at the most accurate network within the budget
        meter = Meter(task, 200)
        with suppress(Enough):
            run_searcher("guided", meter, task.goal(2), seed)
        assert max(task.table.accuracy_pct[a] for a in meter.evaluated) == task.best_accuracy_pct
