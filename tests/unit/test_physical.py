"""The pooled fit: it finds prices that are there, its left-out residuals are those of real refits, and the artifacts match the passes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latency_predictors._pooled import Priors, fit_pooled
from latency_predictors._quantities import COLUMN, quantities_of
from latency_predictors._switches import COLUMNS, columns_of
from latency_predictors.physical import Physical, Pool, timings_of
from nas.devices.predictor import Sample
from nas.devices.profile import load_profile
from nas.errors import UsageError
from nas.graphs import workloads
from nas.graphs.graph import Graph, GraphBuilder, join
from nas.graphs.images import with_normalisation
from nas.graphs.passes import normalise
from nas.spaces.naming import get_space

ARTIFACTS = Path(__file__).parents[2] / "latency_predictors" / "artifacts"


def problem(networks: int = 24, devices: int = 3, columns: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, Priors]:
    rng = np.random.default_rng(0)
    features = rng.uniform(0.1, 3.0, (1, networks, columns))
    price = np.array([1.0, 0.3, 2.0, 0.05])
    scale = np.array([1.0, 0.4, 3.0])[:devices]
    log_ms = np.log(scale[:, None] * (features[0] @ price)) + rng.normal(0, 0.02, (devices, networks))
    priors = Priors(
        price_log=np.zeros((1, columns)),
        price_sd=np.full((1, columns), 2.0),
        group=np.zeros(columns, dtype=np.int64),
        group_sd=np.full((1, 1), 0.1),
        deviation_sd=np.full((1, columns), 0.02),
        network_sd=np.array([0.03]),
        noise_sd=np.array([0.03]),
        network_nu=np.array([np.inf]),
    )
    return features, log_ms, price, priors


def test_prices_are_found() -> None:
    features, log_ms, price, priors = problem()
    fit = fit_pooled(features, log_ms, np.ones_like(log_ms), priors)
    found = np.exp(fit.device[0, 0])
    assert found[:3] == pytest.approx(price[:3], rel=0.15)
    assert np.abs(fit.residual).mean() < 0.03


def test_left_out_residuals_are_those_of_a_refit() -> None:
    features, log_ms, _, priors = problem()
    fit = fit_pooled(features, log_ms, np.ones_like(log_ms), priors)
    for n in (0, 7):
        keep = [i for i in range(features.shape[1]) if i != n]
        refit = fit_pooled(features[:, keep], log_ms[:, keep], np.ones_like(log_ms[:, keep]), priors, leave_out=False)
        truth = log_ms[:, n] - np.log(np.einsum("k,dk->d", features[0, n], np.exp(refit.device[0])))
        assert fit.left_out[0, :, n] == pytest.approx(truth, abs=0.01)


def test_groups_are_left_out_together() -> None:
    features, log_ms, _, priors = problem()
    log_ms[1, 5] = np.nan
    groups = ["pair" if i in (2, 5) else str(i) for i in range(features.shape[1])]
    fit = fit_pooled(features, log_ms, np.ones_like(log_ms), priors, groups)
    keep = [i for i in range(features.shape[1]) if i not in (2, 5)]
    refit = fit_pooled(features[:, keep], log_ms[:, keep], np.ones_like(log_ms[:, keep]), priors, leave_out=False)
    truth = log_ms - np.log(np.einsum("nk,dk->dn", features[0], np.exp(refit.device[0])))
    assert fit.left_out[0, :, [2, 5]] == pytest.approx(truth[:, [2, 5]].T, abs=0.01, nan_ok=True)


def maps_of(pool: Pool) -> np.ndarray:
    maps = np.stack([columns_of(s) for s in pool.settings])
    maps[:, :, COLUMNS.index("launch")] = 0
    return maps


def drawn_samples() -> list[Sample]:
    def network(name: str, channels: int, depth: int) -> Graph:
        b = GraphBuilder(name)
        x = b.conv(b.input((1, 3, 32, 32)), channels, 3)
        for _ in range(depth):
            x = b.conv(x, channels, 3)
        return b.build(x)

    sizes = [(16 * (1 + i % 5), 1 + i % 4) for i in range(18)]
    return [
        Sample(network(f"n{i}", c, n), p, (1 + d) * (0.4 + 4e-4 * c**2 * n) * (1.0 if p == "fp16" else 0.6), f"n{i}", f"d{d}", f"f{i % 9}")
        for i, (c, n) in enumerate(sizes)
        for d in range(2)
        for p in ("fp16", "w8a8")
    ]


def test_a_fit_without_some_networks_is_that_of_the_others() -> None:
    samples = drawn_samples()
    out = {"n2", "n11"}
    near = Physical(members=3).fit(samples).without(out)
    again = Physical(members=3).fit([s for s in samples if s.name not in out])
    for precision, pool in again.pools.items():
        assert near.pools[precision].settings == pool.settings
        assert near.pools[precision].timings.networks == pool.timings.networks
        cost = [np.einsum("nq,mqk,mdk->mdn", p.timings.totals, maps_of(p), np.exp(p.device)) for p in (near.pools[precision], pool)]
        assert cost[0] == pytest.approx(cost[1], rel=0.02)


def test_intervals_are_calibrated_on_families_where_there_are_enough() -> None:
    samples = [s for s in drawn_samples() if s.precision == "fp16"]
    families = Physical(members=3).fit(samples).pools["fp16"]
    few = Physical(members=3).fit([replace(s, family=f"f{int(s.name[1:]) % 5}") for s in samples]).pools["fp16"]
    alone = Physical(members=3).fit([replace(s, family=s.name) for s in samples]).pools["fp16"]
    assert few.left_out == pytest.approx(alone.left_out)
    assert families.device == pytest.approx(alone.device)
    assert not np.allclose(families.left_out, alone.left_out, rtol=1e-3)


def test_one_broken_timing_bends_nothing() -> None:
    features, log_ms, price, priors = problem()
    log_ms[1, 3] += 1.4
    fit = fit_pooled(features, log_ms, np.ones_like(log_ms), priors)
    assert np.exp(fit.device[0, 1])[:3] == pytest.approx(0.4 * price[:3], rel=0.2)


@pytest.mark.parametrize("artifact", sorted(ARTIFACTS.glob("qualcomm-*.npz")), ids=lambda p: p.stem)
def test_artifacts_were_fitted_to_what_the_passes_give_today(artifact: Path) -> None:
    timings = Physical.load(artifact).pools["fp16"].timings
    known = [name for name in timings.networks if name in workloads.names()]
    assert len(known) >= 20
    for name in known:
        today, fitted = (
            quantities_of(with_normalisation(workloads.load(name)), normalise).total,
            timings.totals[timings.networks.index(name)],
        )
        assert fitted[COLUMN["image"]] in (0, pytest.approx(today[COLUMN["image"]]))  # some were compiled without normalising
        today[COLUMN["image"]] = fitted[COLUMN["image"]]
        today[~(timings.totals > 0).any(axis=0)] = 0  # the artifact may be older than a quantity
        assert today == pytest.approx(fitted, rel=1e-4, abs=1e-6), f"{name}: refit with experiments/004_qualcomm_latency/run.py --fit"


def test_an_image_costs_its_normalisation_where_the_graph_has_one() -> None:
    def image(*steps: tuple[int, ...], channels: int = 3) -> float:
        b = GraphBuilder("a")
        x = b.input((1, channels, 8, 8))
        for shape in steps:
            x = b.scale(x, shape, parameter=False)
        return float(quantities_of(b.build(b.conv(x, 8, 3)), normalise).total[COLUMN["image"]])

    assert image() == 0
    assert image((3, 1, 1)) == 96e-6
    assert image((3, 1, 1), (3, 1, 1)) == 192e-6
    assert image((1,)) == 0
    assert image((8, 1, 1), channels=8) == 0


def test_stored_elements_images_and_regrouping_are_counted_by_operator() -> None:
    b = GraphBuilder("a")
    x = b.conv(b.input((1, 3, 64, 64)), 8, 3)
    total = quantities_of(b.build(b.unary("Gelu", x)), normalise).total
    assert total[COLUMN["image/read"]] == pytest.approx(64 * 64 / 1e6)
    assert total[COLUMN["gelu/deep"]] == pytest.approx(4 * total[COLUMN["gelu"]])
    b = GraphBuilder("b")
    y = b.reshape(b.conv(b.input((1, 8, 16, 16)), 30, 1), (1, 3, 10, 16, 16))
    total = quantities_of(b.build(y), normalise).total
    assert total[COLUMN["image/read"]] == 0
    assert total[COLUMN["regroup"]] == pytest.approx(30 * 256 / 1e6)
    b = GraphBuilder("c")
    z = b.gemm(b.input((1, 8, 8, 40)), 40)
    total = quantities_of(b.build(b.unary("Gelu", z)), normalise).total
    assert total[COLUMN["gelu/deep"]] == pytest.approx(64 / 40 * total[COLUMN["gelu"]])


def test_bad_samples_are_refused() -> None:
    b = GraphBuilder("a")
    first = b.build(b.conv(b.input((1, 3, 8, 8)), 8, 3))
    b = GraphBuilder("b")
    second = b.build(b.conv(b.input((1, 3, 8, 8)), 16, 3))
    with pytest.raises(UsageError, match="must be positive"):
        timings_of([Sample(first, "fp16", -1.0, "a", "d")], minimum=1)
    with pytest.raises(UsageError, match="one name for two networks"):
        timings_of([Sample(first, "fp16", 1.0, "a", "d"), Sample(second, "fp16", 1.0, "a", "d")], minimum=1)
    with pytest.raises(UsageError, match="too few networks"):
        timings_of([Sample(first, "fp16", 1.0, "a", "d")])


def test_a_second_walk_through_many_networks_meets_the_same_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted of a graph is kept by its identity; the published networks are over a thousand."""
    b = GraphBuilder("one")
    graph = b.build(b.conv(b.input((1, 3, 8, 8)), 4, 3))
    names = [f"made-up-{i}" for i in range(1500)]
    monkeypatch.setattr(workloads, "names", lambda: frozenset(names))
    monkeypatch.setattr(workloads, "load", lambda _name: graph)
    first, second = ([Physical().form_timed(name) for name in names] for _ in range(2))
    assert all(a is b is not None for a, b in zip(first, second, strict=True))


def test_segments_whose_ids_fall_on_one_slot_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, space = load_profile("sa8295p"), get_space("hybrid-xs")
    rng = np.random.default_rng(0)
    chains = [space.segments(space.sample(rng), None) for _ in range(80)]
    artifact = ARTIFACTS / profile.at("fp16").artifact
    plain = Physical.load(artifact)
    monkeypatch.setattr("latency_predictors.physical._SLOT_BITS", 1)  # two slots
    crowded = Physical.load(artifact)
    for _ in range(2):  # segments that are new, then known
        found, expected = (predictor.estimate_batch(chains, profile, "fp16").latency_ms for predictor in (crowded, plain))
        assert np.array_equal(found, expected)
    assert found[0] == pytest.approx(plain.estimate(join(chains[0]), profile, "fp16").latency_ms)
