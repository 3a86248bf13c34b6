"""Few-shot transfer: exact where the device is additive, robust, honest about what it cannot know, the same after a round trip."""

from pathlib import Path

import numpy as np
import pytest

from latency_predictors._operator_counts import catalogue
from latency_predictors.transfer import Transfer, choose, fit_rows, make_basis, predict_rows
from nas.bench.latency_models import stub_profile
from nas.bench.latency_transfer import TransferProtocol, bench_latency_transfer, figures
from nas.devices.latency_table import read_latency_table
from nas.devices.predictor import Sample
from nas.errors import ArtifactError, DataError, UnknownNameError, UsageError
from nas.graphs.graph import Graph
from nas.spaces.naming import get_space

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


def test_related_device_is_used_and_foreign_ones_are_not() -> None:
    """Twelve timings: a source that is the device itself must carry most of the evidence, alone or among foreign ones; noise must not."""
    found = catalogue([[("graph", g)] for g in GRAPHS])
    truth = np.array([synthetic_ms(g) * (1 + 0.3 * np.sin(17 * g.cost.params)) for g in GRAPHS])
    everything = range(len(GRAPHS))
    noise = {f"noise {i}": (everything, np.random.default_rng(i).uniform(1, 2, len(GRAPHS))) for i in range(3)}
    itself = {"itself": (everything, truth)}
    rows = list(range(0, 60, 5))
    results = {}
    for name, sources in (("itself", itself), ("noise", noise), ("both", noise | itself)):
        basis = make_basis(found, None, sources)
        groups = basis.groups(found)
        fit = fit_rows(basis, {k: v[rows] for k, v in groups.items()}, basis.prices(found), truth[rows])
        mean, _ = predict_rows(fit, groups)
        results[name] = fit, figures(mean[60:], truth[60:])["spearman"]
    assert results["itself"][0].sources_share > 0.7 > 0.5 > results["noise"][0].sources_share
    assert min(results["itself"][1], results["both"][1]) > results["noise"][1]
    chosen = results["both"][0]
    position = sorted(noise | itself).index("itself")
    assert sum(share for share, s in zip(chosen.shares, chosen.settings, strict=True) if s.source == position) > 0.5


CELLS = [get_space("nasbench201").lower(get_space("nasbench201").sample(np.random.default_rng([3, i]))) for i in range(80)]


def test_no_operator_makes_a_network_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight timings with 30 % of noise: left alone, some operator would cost less than nothing."""
    found = catalogue([[("graph", g)] for g in CELLS])
    basis = make_basis(found)
    noisy = np.array([synthetic_ms(g) for g in CELLS[:8]]) * np.exp(0.3 * np.random.default_rng(5).standard_normal(8))
    groups, prices = {k: v[:8] for k, v in basis.groups(found).items()}, basis.prices(found)

    def least() -> float:
        fit = fit_rows(basis, groups, prices, noisy)
        each = np.sum([prices[key] @ weights for key, weights in fit.weights.items()], axis=0)
        return float(each.min() / each.max())

    assert least() > -1e-3
    monkeypatch.setattr("latency_predictors.transfer._MOST_NOUGHT", 0)
    assert least() < -0.05


def test_intervals_follow_noise_that_grows_with_latency() -> None:
    truth = np.array([synthetic_ms(g) for g in CELLS])
    found = catalogue([[("graph", g)] for g in CELLS])
    basis = make_basis(found)
    groups = basis.groups(found)
    noisy = truth[:40] * (1 + 0.1 * np.random.default_rng(6).standard_normal(40))
    fit = fit_rows(basis, {k: v[:40] for k, v in groups.items()}, basis.prices(found), noisy)
    _, half = predict_rows(fit, groups)
    order = 40 + np.argsort(truth[40:])
    assert truth[order[-8:]].mean() > 3 * truth[order[:8]].mean()
    assert half[order[-8:]].mean() > 2 * half[order[:8]].mean()


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
    assert result.devices["new"].spearman > 0.95
    assert set(result.baselines) == {"macs", "op_count_ridge", "nnls"}
    assert any("rounded: whole milliseconds" in line for line in result.defects)
    with pytest.raises(UsageError, match="both sides"):
        bench_latency_transfer(table, ["new"], ["new"], protocol)
    with pytest.raises(UnknownNameError, match="Did you mean 'new'"):
        bench_latency_transfer(table, [], ["neww"], protocol)
    with pytest.raises(UsageError, match="too few"):
        bench_latency_transfer(table, [], ["new"], TransferProtocol(train_samples=140, query=60))
    with pytest.raises(UsageError, match="predictor Additive: cannot be fitted to a few timings"):
        bench_latency_transfer(table, [], ["new"], protocol, predictor="additive")


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
