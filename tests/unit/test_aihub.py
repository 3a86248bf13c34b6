"""The AI Hub table: traps are found and said aloud; protocols never show a tested network to the fit."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from latency_predictors._quantities import QUANTITIES, quantities_of
from nas.bench import super_resolution
from nas.bench.aihub import classifiers, graphs_of, prepared, read_models, read_table, slug
from nas.bench.latency_models import run_baselines, splits_of
from nas.devices.predictor import Sample
from nas.devices.scores import Prediction, score
from nas.errors import DataError, UnknownNameError, UsageError
from nas.graphs import workloads
from nas.graphs.graph import GraphBuilder
from nas.graphs.passes import normalise

DATA = Path(__file__).parents[3] / "shared" / "data"
HEADER = "release,date,model,precision,component,device,runtime,ms,unit,layers,layers_npu,layers_cpu,qairt\n"


def row(date: str, model: str, device: str, ms: float, *, runtime: str = "qnn_dlc", layers_npu: int = 10, sdk: str = "2.42.0") -> str:
    return f"v1,{date},{model},float,C,{device},{runtime},{ms},NPU,10,{layers_npu},0,{sdk}\n"


def write(path: Path, rows: list[str]) -> Path:
    with gzip.open(path, "wt") as file:
        file.write(HEADER + "".join(rows))
    return path


def test_newest_measurement_in_the_usual_state_counts(tmp_path: Path) -> None:
    rows = [row(f"2025-0{m}-01", "a", "X ADP", ms, sdk=f"2.3{m}.0") for m, ms in enumerate([2.0, 2.0, 2.1, 2.2, 8.4], 1)]
    rows += [row("2025-06-01", "b", "X ADP", 1.0, layers_npu=9), row("2025-05-01", "b", "X ADP", 3.0)]
    table = read_table(write(tmp_path / "p.csv.gz", rows), ["a", "b"])
    found = {t.network: t for t in table.timings}
    assert (found["a"].latency_ms, found["a"].sdk) == (2.2, "2.34.0")
    assert found["b"].latency_ms == 3.0
    assert any("fell back" in note for note in table.notes)
    assert any("two speed states" in note for note in table.notes)


def test_copies_of_one_data_set_share_a_name(tmp_path: Path) -> None:
    rows = [row("2025-01-01", f"m{i}", device, i + 1.0) for i in range(50) for device in ("P ADP", "Q (Proxy)")]
    table = read_table(write(tmp_path / "p.csv.gz", rows), [f"m{i}" for i in range(50)])
    assert len(table.titles) == 1
    assert table.device("Q (Proxy)") == table.device("p") == "p"
    with pytest.raises(UnknownNameError):
        table.device("nothing")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="column"):
        read_table(tmp_path / "p.csv", ["a"])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv", ["a"])
    with pytest.raises(UsageError, match="runtime"):
        read_table(tmp_path / "p.csv", ["a"], "cuda")


def test_titles_become_names() -> None:
    assert [slug(t) for t in ("SA8295P ADP", "QCS8450 (Proxy)", "Snapdragon 8 Elite QRD")] == [
        "sa8295p",
        "qcs8450",
        "snapdragon-8-elite-qrd",
    ]


@pytest.mark.parametrize(
    ("name", "params"),
    [("quicksrnetsmall", 27_195), ("quicksrnetmedium", 54_939), ("quicksrnetlarge", 423_579), ("sesr_m5", 342_928), ("esrgan", 16_697_987)],
)
def test_super_resolution_networks_have_the_parameters_that_ai_hub_states(name: str, params: int) -> None:
    assert super_resolution.load(name).cost.params == params


def test_a_prepared_graph_differs_by_what_its_image_costs_alone() -> None:
    graph = super_resolution.load("quicksrnetlarge")
    plain, ready = (quantities_of(g, normalise).total for g in (graph, prepared(graph)))
    differs = np.flatnonzero(plain != ready)
    assert [QUANTITIES[i] for i in differs] == ["image"]
    assert ready[differs[0]] == 0
    assert prepared(graph).cost.macs == graph.cost.macs


def samples(networks: int = 8, devices: int = 3) -> list[Sample]:
    found = []
    for i in range(networks):
        b = GraphBuilder(f"n{i}")
        graph = b.build(b.conv(b.input((1, 8, 16, 16)), 8 + i, 3))
        found += [Sample(graph, "fp16", (i + 1.0) * (d + 1), f"n{i}", f"d{d}", f"f{i // 2}") for d in range(devices)]
    return found


@pytest.mark.parametrize("protocol", ["loo", "family", "few:3"])
def test_splits_hide_what_they_test(protocol: str) -> None:
    names = [f"n{i}" for i in range(8)]
    tested = set()
    for split in splits_of(samples(), "d0", names, protocol):
        hidden = {s.name for s in split.tested}
        assert hidden
        assert not hidden & {s.name for s in split.fitted}
        if protocol == "family":
            assert not {s.family for s in split.tested} & {s.family for s in split.fitted}
        if protocol.startswith("few"):
            assert len([s for s in split.fitted if s.device == "d0"]) == 3
        tested |= hidden
    assert len(tested) == 8 or protocol.startswith("few")


def test_a_donor_shows_its_own_timing_alone() -> None:
    for split in splits_of(samples(), "d0", [f"n{i}" for i in range(8)], "loo", donor="d1"):
        (hidden,) = split.tested
        assert {s.device for s in split.fitted if s.name == hidden.name} == {"d1"}


def test_bad_protocols_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown"):
        list(splits_of(samples(), "d0", ["n0", "n1", "n2"], "magic"))
    with pytest.raises(UsageError, match="fewer than 3"):
        list(splits_of(samples(), "d0", [f"n{i}" for i in range(8)], "few:6"))
    with pytest.raises(UsageError, match="too few"):
        list(splits_of(samples(), "d9", ["n0"], "loo"))


def test_baselines_answer_the_same_splits() -> None:
    found = run_baselines(list(splits_of(samples(), "d0", [f"n{i}" for i in range(8)], "loo", donor="d1")), "d0", "fp16")
    assert set(found) == {"macs", "op_count_ridge", "nonnegative_least_squares", "nearest_device_scaled"}
    assert found["nearest_device_scaled"]["mean_error_pct"] < 1e-6


def test_score_counts_networks_and_coverage() -> None:
    found = score([Prediction("a", 1.0, 1.05, 0.9, 1.2), Prediction("b", 2.0, 3.0, 2.5, 3.5), Prediction("c", 4.0, 4.0, 3.0, 5.0)]).dump()
    assert found["mean_error_pct"] == pytest.approx((5 + 50 + 0) / 3)
    assert found["within_10_pct"] == pytest.approx(200 / 3)
    assert found["coverage_pct"] == pytest.approx(200 / 3)
    assert found["spearman"] == pytest.approx(1.0)


@pytest.mark.skipif(not (DATA / "aihub_perf.csv.gz").is_file(), reason="the shared data are not here")
def test_the_real_table_names_its_duplicates() -> None:
    models = read_models(DATA / "aihub_models.csv")
    graphs, families, _ = graphs_of(models)
    table = read_table(DATA / "aihub_perf.csv.gz", graphs)
    assert table.device("QCS8275 (Proxy)") == table.device("SA7255P ADP")
    assert table.device("QCS9075 (Proxy)") == table.device("SA8775P ADP")
    timed = {t.network for t in table.timings if t.device == "sa8295p" and t.precision == "fp16"}
    assert len(timed & set(classifiers(models))) >= 18
    assert families["resnet50"] == families["resnext101"]
    assert graphs["fcn_resnet50"].cost.macs / workloads.load("fcn_resnet50").cost.macs == pytest.approx((520 / 224) ** 2, rel=0.02)
