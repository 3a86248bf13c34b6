from pathlib import Path

import pytest

from nas.devices.predictor import measured
from nas.errors import UsageError
from nas.runs.targets import load_targets, make_goal
from nas.searching.judge import Judge
from nas.spaces.naming import get_space
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
pytestmark = pytest.mark.usefixtures("tiny_plugins")

# widths 8, 16, 32, 64 at 32x32 are 0.22, 0.44, 0.88, 1.77 MMACs, and as many ms; upper ends are 10 % above


def judge(folder: Path, budgets: list[str], precision: str | None = None, batch: int | None = None, **changes: str) -> Judge:
    targets = load_targets([str(write_device(folder, **changes))], precision)
    return Judge(get_space("tiny-published"), make_goal(targets, budgets, batch=batch), targets, batch=batch)


def feasible(judge: Judge) -> list[tuple[object, ...]]:
    members = list(judge.space.enumerate())
    return [a.genes for a, v in zip(members, judge.verdicts(members), strict=True) if v.feasible]


def test_the_upper_end_decides(tmp_path: Path) -> None:
    assert feasible(judge(tmp_path, ["0.9ms"])) == [(8, "Relu"), (16, "Relu")]
    assert feasible(judge(tmp_path, ["0.98ms"])) == [(8, "Relu"), (16, "Relu"), (32, "Relu")]


def test_an_unsupported_operator_is_never_feasible(tmp_path: Path) -> None:
    for budgets in ([], ["1s"], ["1GMACs"], ["9MB-peak"], ["9MB-ram"], ["9MB-flash"], ["50pct-drop"]):
        assert all(genes[1] == "Relu" for genes in feasible(judge(tmp_path, budgets)))
    found = judge(tmp_path, ["1s"])
    member = found.space.architecture((8, "FancyOp"))
    assert found.estimates(member)["tiny"].unsupported == ("FancyOp",)


def test_every_budget_is_hard(tmp_path: Path) -> None:
    assert feasible(judge(tmp_path, ["10ms", "0.5MMACs"])) == [(8, "Relu"), (16, "Relu")]
    assert feasible(judge(tmp_path, ["10ms", "0.3kparams"])) == [(8, "Relu")]
    assert feasible(judge(tmp_path, ["10ms", "1000B"])) == [(8, "Relu"), (16, "Relu")]  # 448 and 896 bytes at fp16
    assert feasible(judge(tmp_path, ["10ms", "0.1MB-peak"])) == [(8, "Relu"), (16, "Relu")]


def test_values_and_violation_keys_are_those_of_the_goal(tmp_path: Path) -> None:
    found = judge(tmp_path, ["0.9ms", "20MB"])
    values, violations = found.judge([found.space.architecture((8, "Relu"))])[0]
    assert set(violations) == {budget.name for budget in found.goal.budgets} == {"latency/tiny", "size"}
    assert set(values) == {"latency_ms/tiny", "macs", "params"}
    assert values["macs"] == 8 * 27 * 32 * 32


def test_a_timing_makes_it_measured(tmp_path: Path) -> None:
    path = write_device(tmp_path)
    path.write_text(path.read_text().replace("[precisions.w8a8]", "[precisions.fp16.timings_ms]\ntiny-64-Relu = 0.5\n[precisions.w8a8]"))
    targets = load_targets([str(path)])
    found = Judge(get_space("tiny-published"), make_goal(targets, ["0.9ms"]), targets)
    verdict = found.verdicts([found.space.architecture((64, "Relu"))])[0]
    assert verdict.estimates["tiny"] == measured(targets[0].profile, "fp16", "tiny-64-Relu", 0.9)
    assert verdict.estimates["tiny"].basis == "measured"
    assert verdict.feasible
    assert found.verdicts([found.space.architecture((8, "Relu"))])[0].estimates["tiny"].basis == "estimated"


def test_any_takes_the_most_precise_that_fits(tmp_path: Path) -> None:
    found = judge(tmp_path, ["1ms"], precision="any")
    taken = {a.genes[0]: found.verdicts([a])[0].precisions["tiny"] for a in found.space.enumerate() if a.genes[1] == "Relu"}
    assert taken == {8: "fp16", 16: "fp16", 32: "fp16", 64: "w8a8"}


def test_throughput_is_not_latency(tmp_path: Path) -> None:
    quantity = {"quantity": "reciprocal_throughput"}
    with pytest.raises(UsageError, match=r"throughput, not latency.*200fps.*--batch"):
        judge(tmp_path, ["5ms"], **quantity)
    assert feasible(judge(tmp_path, ["2000fps"], **quantity)) == [(8, "Relu"), (16, "Relu")]
    assert feasible(judge(tmp_path, ["2ms"], batch=4, **quantity)) == [(8, "Relu"), (16, "Relu")]


def test_costs_to_minimize_are_objectives_and_values(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    targets = load_targets([str(write_device(tmp_path)), str(write_device(tmp_path / "b", name="other"))])
    goal = make_goal(targets, ["tiny:10ms", "other:0.5ms", "0.3kparams"], minimize=["latency", "params", "macs", "size", "memory"])
    costs = ["latency_ms/tiny", "latency_ms/other", "params", "macs", "size_bytes", "memory_bytes"]
    assert [(o.name, o.direction) for o in goal.objectives] == [("accuracy_pct", "maximize"), *((name, "minimize") for name in costs)]
    found = Judge(get_space("tiny-published"), goal, targets)
    graph = found.space.lower(member := found.space.architecture((8, "Relu")))
    values = found.verdicts([member])[0].values
    assert (values["params"], values["macs"]) == (graph.cost.params, graph.cost.macs)
    assert (values["size_bytes"], values["memory_bytes"]) == (graph.size_bytes("fp16"), graph.peak_memory_bytes("fp16"))
    assert feasible(found) == [(8, "Relu")]
    with pytest.raises(UsageError, match="Did you mean 'params'"):
        make_goal(targets, [], minimize=["parms"])
    with pytest.raises(UsageError, match="given twice"):
        make_goal(targets, [], minimize=["macs", "macs"])


def test_two_devices_both_hold(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [str(write_device(tmp_path)), str(write_device(tmp_path / "b", name="other"))]
    targets = load_targets(paths)
    found = Judge(get_space("tiny-published"), make_goal(targets, ["10ms", "other:0.3ms"]), targets)
    assert [b.name for b in found.goal.budgets] == ["latency/other", "latency/tiny"]
    assert feasible(found) == [(8, "Relu")]


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        (["5 parsecs"], "unknown unit 'parsecs'"),
        (["-5ms"], "must be positive"),
        (["nowhere:5ms"], "not asked for, got 'nowhere'"),
        (["tiny:20MB"], "belongs to no device"),
        (["5ms", "6ms"], "two budgets of one kind"),
        (["tiny:5ms", "tiny:6ms"], "two budgets of one kind"),
    ],
)
def test_bad_budgets(tmp_path: Path, budgets: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        judge(tmp_path, budgets)


def test_bad_devices(tmp_path: Path) -> None:
    path = str(write_device(tmp_path))
    with pytest.raises(UsageError, match="given twice"):
        load_targets([path, path])
    with pytest.raises(UsageError, match="no precision 'fp32'"):
        load_targets([path], "fp32")
