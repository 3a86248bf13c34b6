"""Few-shot transfer: exact where the device is additive, robust, honest about what it cannot know, the same after a round trip."""

from pathlib import Path

import numpy as np
import pytest

from latency_predictors._operator_counts import catalogue
from latency_predictors.transfer import Transfer, choose, fit_rows, make_basis, predict_rows
from nas.errors import ArtifactError, DataError, UnknownNameError, UsageError
from nas.graph import Graph
from nas.latency_table import read_latency_table
from nas.latency_transfer import TransferProtocol, bench_latency_transfer, figures
from nas.predictor import Sample
from nas.protocols.latency_models import stub_profile
from nas.space import get_space

RNG = np.random.default_rng(0)
SPACE = get_space("fbnet")
MEMBERS = [SPACE.sample(RNG) for _ in range(120)]
GRAPHS = [SPACE.lower(a) for a in MEMBERS]
PROFILE = stub_profile("synthetic", "fp32")


def synthetic_ms(graph: Graph) -> float:
    """An additive device: 20 µs an operator, 2 GMACs/s dense, 0.4 depthwise."""
    total = 0.0
    for op in graph.operators:
        depthwise = op.op == "Conv" and op.attribute("groups") > 2
        total += 0.02 + graph.macs_of(op) / (0.4e6 if depthwise else 2e6)
    return total


def samples(rows: list[int], broken: dict[int, float] | None = None) -> list[Sample]:
    return [Sample(GRAPHS[i], "fp32", synthetic_ms(GRAPHS[i]) * (broken or {}).get(i, 1.0), f"n{i}", "synthetic") for i in rows]


def fitted(count: int = 20, broken: int = 0) -> Transfer:
    found = catalogue([[("graph", g)] for g in GRAPHS])
    rows = choose(make_basis(found), found, range(100), count, np.random.default_rng(1))
    return Transfer().fit(samples(rows, dict.fromkeys(rows[3 : 3 + broken], 3.0)), [PROFILE])


@pytest.mark.parametrize("broken", [0, 2])
def test_additive_device_is_found_despite_broken_timings(broken: int) -> None:
    model = fitted(20, broken)
    truth = np.array([synthetic_ms(g) for g in GRAPHS[100:]])
    mean = model.estimate_batch([SPACE.segments(a) for a in MEMBERS[100:]], PROFILE, "fp32").latency_ms
    assert figures(mean, truth)["spearman"] > 0.98
    assert figures(mean, truth)["mean_error_pct"] < 3
    assert model.fitted is not None
    assert len(model.fitted.doubted) >= broken


def test_batch_equals_single_and_file_equals_memory(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "m.npz")
    again = Transfer.load(tmp_path / "m.npz")
    batch = model.estimate_batch([SPACE.segments(a) for a in MEMBERS[100:105]], PROFILE, "fp32")
    for i, graph in enumerate(GRAPHS[100:105]):
        for one in (model.estimate(graph, PROFILE, "fp32"), again.estimate(graph, PROFILE, "fp32")):
            assert one.latency_ms == pytest.approx(batch.latency_ms[i], rel=1e-9)
            assert one.upper_ms == pytest.approx(batch.upper_ms[i], rel=1e-9)
            assert sum(op.latency_ms for op in one.operators) == pytest.approx(one.latency_ms)


def test_foreign_operators_are_extrapolated() -> None:
    estimate = fitted().estimate(get_space("ofa").lower(get_space("ofa").sample(RNG)), PROFILE, "fp32")
    assert any("Hard" in reason or "Mul" in reason for reason in estimate.extrapolated)


def test_related_device_is_used_and_foreign_one_is_not() -> None:
    """Six noisy timings: a source that is the device itself must carry most of the evidence, one that is noise must not."""
    found = catalogue([[("graph", g)] for g in GRAPHS])
    truth = np.array([synthetic_ms(g) * (1 + 0.3 * np.sin(17 * g.cost.params)) for g in GRAPHS])
    noise = np.random.default_rng(3).uniform(1, 2, len(GRAPHS))
    shares = {}
    for name, source in (("itself", truth), ("noise", noise)):
        basis = make_basis(found, None, {name: (range(len(GRAPHS)), source)})
        groups = basis.groups(found)
        rows = list(range(0, 60, 5))
        fit = fit_rows(basis, {k: v[rows] for k, v in groups.items()}, basis.prices(found), truth[rows])
        mean, _ = predict_rows(fit, groups)
        shares[name] = fit.sources_share, figures(mean[60:], truth[60:])["spearman"]
    assert shares["itself"][0] > 0.7 > 0.5 > shares["noise"][0]
    assert shares["itself"][1] > shares["noise"][1]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few timings"):
        Transfer().fit(samples([0, 1, 2]), [PROFILE])
    with pytest.raises(UsageError, match="not positive"):
        Transfer().fit([*samples(list(range(8))), Sample(GRAPHS[9], "fp32", float("nan"), "x", "synthetic")], [PROFILE])
    with pytest.raises(UsageError, match="not fitted"):
        Transfer().estimate(GRAPHS[0], PROFILE, "fp32")
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="damaged"):
        Transfer.load(tmp_path / "bad.npz")
    with pytest.raises(ArtifactError, match="no such file"):
        Transfer.load(tmp_path / "none.npz")


def table_file(path: Path) -> Path:
    members = [SPACE.sample(np.random.default_rng([7, i])) for i in range(150)]
    rows = np.array([SPACE.encode(a) for a in members])
    ms = np.array([synthetic_ms(SPACE.lower(a)) for a in members])
    wobble = 1 + 0.02 * np.random.default_rng(5).standard_normal(len(ms))
    np.savez(path, arch=rows, **{"ms/new": ms * wobble, "ms/rounded": np.ceil(ms), "ms/old": 3 * ms})
    return path


def test_bench_runs_the_protocol(tmp_path: Path) -> None:
    table = read_latency_table(table_file(tmp_path / "t.npz"))
    protocol = TransferProtocol(samples=10, train_samples=80, query=60, trim=0.1, repeats=2)
    result = bench_latency_transfer(table, ["old"], ["new", "rounded"], protocol)
    again = bench_latency_transfer(table, ["old"], ["new", "rounded"], protocol)
    assert result == again
    assert result["devices"]["new"]["spearman"] > 0.95
    assert set(result["baselines"]) == {"macs", "op_count_ridge", "nnls"}
    assert any("rounded: whole milliseconds" in line for line in result["defects"])
    with pytest.raises(UsageError, match="both sides"):
        bench_latency_transfer(table, ["new"], ["new"], protocol)
    with pytest.raises(UnknownNameError, match="Did you mean 'new'"):
        bench_latency_transfer(table, [], ["neww"], protocol)
    with pytest.raises(UsageError, match="too few"):
        bench_latency_transfer(table, [], ["new"], TransferProtocol(train_samples=140, query=60))


def test_broken_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_latency_table(tmp_path / "none.npz")
    np.savez(tmp_path / "a.npz", arch=np.zeros((3, 22), int))
    with pytest.raises(DataError, match="lacks ms/<device>"):
        read_latency_table(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", arch=np.zeros((3, 22), int), **{"ms/x": np.array([1.0, np.nan, 2.0])})
    with pytest.raises(DataError, match="device x: a latency that is not positive"):
        read_latency_table(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", arch=np.zeros((3, 4), int), **{"ms/x": np.ones(3)})
    with pytest.raises(DataError, match="no known spelling"):
        read_latency_table(tmp_path / "c.npz")
