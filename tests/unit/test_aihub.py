"""The AI Hub table: traps are found and said aloud; protocols never show a tested network to the fit."""

import csv
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from latency_predictors._quantities import QUANTITIES, quantities_of
from nas.bench import super_resolution
from nas.bench.aihub import Timing, classifiers, fits, graphs_of, read_models, read_table, resized, samples_of, table_of
from nas.bench.aihub_jobs import BOARDS_FILE, Board, Job, read_boards, read_jobs
from nas.bench.latency_models import run_baselines, splits_of
from nas.bench.lineages import lineage_of, read_lineages
from nas.devices.aihub_graphs import rebuilt
from nas.devices.names import slug
from nas.devices.predictor import Sample
from nas.devices.scores import Prediction, score
from nas.errors import DataError, UnknownNameError, UsageError
from nas.graphs import workloads
from nas.graphs.graph import GraphBuilder
from nas.graphs.images import with_normalisation
from nas.graphs.passes import normalise

DATA = Path(__file__).parents[3] / "shared" / "data"
COLUMNS = "release date model precision component device board runtime ms unit layers layers_npu layers_gpu layers_cpu peak_memory_mb input qairt job"
BOARDS = "board,names,soc,hexagon,proxy,first_seen,last_seen,jobs,models,newest_qairt,note\n"


def row(date: str, model: str, board: str, ms: float | str, **fields: object) -> dict[str, str]:
    """A job wholly on the NPU, in QNN's newer format."""
    given = {
        "date": date,
        "model": model,
        "board": board,
        "ms": ms,
        "device": board,
        "release": "v1",
        "precision": "float",
        "component": "C",
    }
    given |= {"runtime": "qnn_dlc", "unit": "NPU", "layers": 10, "layers_npu": 10, "layers_gpu": 0, "layers_cpu": 0, "peak_memory_mb": 5.0}
    given |= {"input": "3x224x224", "qairt": "2.42.0", "job": f"{board}/{fields.get('device')}/{model}/{date}/{ms}", **fields}
    return {column: str(given[column]) for column in COLUMNS.split()}


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS.split())
        writer.writeheader()
        writer.writerows(rows)
    return path


def jobs(tmp_path: Path, rows: list[dict[str, str]]) -> list[Job]:
    return read_jobs(write(tmp_path / "p.csv.gz", rows))


def test_newest_measurement_in_the_usual_state_counts(tmp_path: Path) -> None:
    rows = [row(f"2025-0{m}-01", "a", "X ADP", ms, qairt=f"2.3{m}.0") for m, ms in enumerate([2.0, 2.0, 2.1, 2.2, 8.4], 1)]
    (timing,) = read_table(write(tmp_path / "p.csv.gz", rows), ["a"]).timings
    assert (timing.latency_ms, timing.sdk, timing.device, timing.measured_on) == (2.2, "2.34.0", "x", "2025-04-01")
    assert timing.repeats_within_pct == pytest.approx(100 * (2.2 / 2.1 - 1))


def test_months_in_a_slower_state_are_named(tmp_path: Path) -> None:
    rows = [
        row(f"2025-0{m}-01", f"n{i}", "X ADP", 8.0 if m == 3 and i < 4 else 2.0 + m / 100, layers=10 + i, layers_npu=10 + i)
        for m in range(1, 7)
        for i in range(20)
    ]
    table = table_of(jobs(tmp_path, rows), ["n0"])
    assert table.slow_months == {"x": {"2025-03": 0.2}}
    assert [note for note in table.notes if "slower state" in note and "x ran" in note and "2025-03" in note]


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"layers_npu": 9, "layers_cpu": 1},
        {"layers_npu": 9, "layers_gpu": 1},
        {"layers_npu": 0, "layers_gpu": 10, "unit": "GPU"},
        {"layers_npu": 9},
        {"layers": 0, "layers_npu": 0},
    ],
)
def test_jobs_that_fell_back_are_dropped_and_said(tmp_path: Path, elsewhere: dict[str, object]) -> None:
    table = table_of(jobs(tmp_path, [row("2025-06-01", "b", "X", 1.0, **elsewhere), row("2025-05-01", "b", "X", 3.0)]), ["b"])
    assert [t.latency_ms for t in table.timings] == [3.0]
    assert any("1 rows fell back" in note for note in table.notes)


def test_a_job_counts_once(tmp_path: Path) -> None:
    rows = [row("2025-05-01", "b", "X", 3.0, job="j1"), row("2025-05-01", "b", "X", 3.0, job="j1", device="Y")]
    assert any("1 rows repeat a job" in note for note in table_of(jobs(tmp_path, rows), ["b"]).notes)


def test_names_of_one_board_are_one_device(tmp_path: Path) -> None:
    rows = [
        row("2025-01-01", "m", "P ADP", 1.0),
        row("2025-02-01", "m", "P ADP", 1.2, device="Q (Proxy)"),
        row("2025-01-01", "m", "Z", 2.0),
    ]
    (tmp_path / BOARDS_FILE).write_text(
        f"{BOARDS}P ADP,P ADP | Q (Proxy) | R ADP,P1,v73,no,,,,,,\nZ,Z | T (Proxy),Z1,v68,yes,,,,,,a phone\n"
    )
    table = read_table(write(tmp_path / "p.csv.gz", rows), ["m"])
    assert {t.device: t.latency_ms for t in table.timings} == {"p": 1.2, "z": 2.0}
    assert [table.device(name) for name in ("Q (Proxy)", "q", "R ADP", "p", "P adp", "t")] == ["p", "p", "p", "p", "p", "z"]
    assert table.boards["p"] == Board("p", "P ADP", ("P ADP", "Q (Proxy)", "R ADP"), "P1", "v73")
    assert table.boards["z"].proxy
    assert any("P ADP ran the jobs that are shown as Q (Proxy), R ADP" in note for note in table.notes)
    assert any("Z stands in for other chips" in note for note in table.notes)
    with pytest.raises(UnknownNameError):
        table.device("nothing")


def test_without_a_table_of_boards_the_column_joins_the_names(tmp_path: Path) -> None:
    rows = [row("2025-01-01", "m", "P ADP", 1.0), row("2025-02-01", "m", "P ADP", 1.2, device="Q (Proxy)")]
    table = read_table(write(tmp_path / "p.csv.gz", rows), ["m"])
    assert table.device("Q (Proxy)") == "p"
    assert len(table.timings) == 1


def test_each_compiled_size_is_a_network_of_its_own(tmp_path: Path) -> None:
    b = GraphBuilder("n")
    graph = b.build(b.conv(b.input((1, 3, 224, 224)), 8, 3))
    rows = [
        row("2025-01-01", "n", "X", 1.0),
        row("2025-02-01", "n", "X", 4.0, input="3x380x380"),
        row("2025-01-01", "m", "X", 2.0, input=""),
    ]
    table = table_of(jobs(tmp_path, rows), ["n", "m"])
    assert {(t.network, t.input): t.latency_ms for t in table.timings} == {
        ("n", (1, 3, 224, 224)): 1.0,
        ("n", (1, 3, 380, 380)): 4.0,
        ("m", None): 2.0,
    }
    assert any("n was compiled at several sizes" in note and "3x224x224 until 2025-01-01" in note for note in table.notes)
    joined = samples_of(table, {"n": graph, "m": graph}, {"n": "f", "m": "f"})
    assert {s.name: s.latency_ms for s in joined} == {"n": 1.0, "m": 2.0}


def test_a_recompiled_graph_is_not_taken_for_a_speed_state(tmp_path: Path) -> None:
    def history(*days: tuple[int, float, int]) -> list[dict[str, str]]:
        return [row(f"2025-0{m}-01", "n", "X", ms, layers=layers, layers_npu=layers) for m, ms, layers in days]

    old = [(1, 2.0, 86), (2, 2.0, 86), (3, 2.0, 86)]
    slower = table_of(jobs(tmp_path, history(*old, (4, 9.0, 92), (5, 9.0, 92), (6, 9.1, 92))), ["n"])
    assert [(t.latency_ms, t.layers) for t in slower.timings] == [(9.1, 92)]
    assert slower.timings[0].repeats_within_pct == pytest.approx(100 * (9.1 / 9.0 - 1))
    assert not slower.slow_months
    once = table_of(jobs(tmp_path, history(*old, (4, 9.0, 92))), ["n"])
    assert [(t.latency_ms, t.layers) for t in once.timings] == [(2.0, 86)]


def test_old_timings_and_other_graphs_are_trusted_less(tmp_path: Path) -> None:
    rows = [row("2024-01-01", "n", "Old", 1.0), row("2025-01-01", "n", "New", 1.0), row("2025-01-01", "v", "New", 1.0)]
    rows += [row("2024-12-01", "v", "Other", 1.0, layers=25, layers_npu=25)]
    trust = {(t.network, t.device): t.trust for t in table_of(jobs(tmp_path, rows), ["n", "v"]).timings}
    assert trust == {("n", "old"): 0.5, ("n", "new"): 1.0, ("v", "new"): 1.0, ("v", "other"): 0.5}


def test_parts_of_a_model_are_networks_of_their_own(tmp_path: Path) -> None:
    rows = [row("2025-01-01", "face", "X", ms, component=part) for part, ms in (("FaceDetector", 1.0), ("FaceLandmark", 9.0))]
    rows += [row("2025-02-01", "face", "X", ms, component=part) for part, ms in (("face_detector", 1.1), ("face_landmark", 9.9))]
    rows += [row("2025-01-01", "net", "X", ms, component=part) for part, ms in (("Net", 2.0), ("NetQuantized", 2.2))]
    table = table_of(jobs(tmp_path, rows), ["face", "net"])
    assert {t.network: t.latency_ms for t in table.timings} == {"face/detector": 1.1, "face/landmark": 9.9, "net": 2.1}


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="column"):
        read_table(tmp_path / "p.csv", ["a"])
    with pytest.raises(DataError, match="column"):
        read_boards(tmp_path / "p.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "none.csv", ["a"])
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(b"a" * 10_000)[:-12])
    with pytest.raises(DataError, match="cannot be read"):
        read_jobs(tmp_path / "p.csv.gz")
    with pytest.raises(UsageError, match="runtime"):
        read_table(tmp_path / "p.csv", ["a"], "cuda")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("ms", v) for v in ("x", "0", "-1", "nan", "inf", "")),
        *(("date", v) for v in ("x", "2025-13-01", "")),
        *(("input", v) for v in ("3x", "3x0x224", "x")),
        *(("layers", v) for v in ("-1", "1.5", "")),
        ("peak_memory_mb", "nan"),
    ],
)
def test_a_field_that_is_no_value_of_its_column_is_refused(tmp_path: Path, column: str, value: str) -> None:
    with pytest.raises(DataError, match=rf"line 3: not a value of the column '{column}', got '{value}'"):
        jobs(tmp_path, [row("2025-01-01", "n", "X", 1.0), row("2025-01-01", "n", "X", 1.0) | {column: value}])


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("P,P | Q,s,v73,no,,,,,,\nR,Q,s,v73,no,,,,,,\n", "one name under two boards, got 'Q' for P and R"),
        ("P,P,s,v73,maybe,,,,,,\n", "proxy of P: got 'maybe'"),
        ("P,P\n", "proxy of P: got ''"),
        ("", "column"),
    ],
)
def test_a_bad_table_of_boards_is_refused(tmp_path: Path, lines: str, match: str) -> None:
    (tmp_path / BOARDS_FILE).write_text(BOARDS + lines)
    with pytest.raises(DataError, match=match):
        read_boards(tmp_path / BOARDS_FILE)


@pytest.mark.parametrize(
    ("name", "committed"), [("efficientnet_b4", "efficientnet_b4@384"), ("mobilenetv4_conv_medium", "mobilenetv4_conv_medium@320")]
)
def test_a_resized_graph_is_the_one_that_was_traced_at_that_size(name: str, committed: str) -> None:
    at = workloads.load(committed)
    graph = resized(workloads.load(name), at.inputs[0].shape)
    assert graph is not None
    assert graph.key == at.key


def test_a_graph_that_fixes_its_size_is_not_resized() -> None:
    assert resized(workloads.load("vit_base_patch16_224"), (1, 3, 256, 256)) is None


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


def test_a_normalising_graph_differs_by_what_its_image_costs_alone() -> None:
    graph = super_resolution.load("quicksrnetlarge")
    plain, normalising = (quantities_of(g, normalise).total for g in (graph, with_normalisation(graph)))
    differs = np.flatnonzero(plain != normalising)
    assert [QUANTITIES[i] for i in differs] == ["image"]
    assert plain[differs[0]] == 0
    assert normalising[differs[0]] == pytest.approx(graph.inputs[0].elements / 1e6)
    assert with_normalisation(graph).cost.macs == graph.cost.macs
    assert with_normalisation(graph).cost.params == graph.cost.params


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


def test_a_lineage_is_left_out_as_a_whole() -> None:
    lineages = {"n0": "a", "n1": "b", "n2": "a", "n3": "b", "n4": "b"}
    splits = {s.label: s for s in splits_of(samples(), "d0", ["n0", "n1", "n5", "n6"], "lineage", lineages=lineages)}
    assert {label: [s.name for s in split.tested] for label, split in splits.items()} == {
        "a": ["n0"],
        "b": ["n1"],
        "n5": ["n5"],
        "n6": ["n6"],
    }
    assert {s.name for s in splits["a"].fitted} == {"n1", "n3", "n4", "n5", "n6", "n7"}
    assert not {"n1", "n3", "n4"} & {s.name for s in splits["b"].fitted}


def test_what_came_later_is_predicted_from_what_was_known() -> None:
    names = [f"n{i}" for i in range(8)]
    before = [replace(s, latency_ms=2 * s.latency_ms) for s in samples() if s.name < "n5"]
    copy = [replace(s, name="copy", graph=before[0].graph) for s in samples() if s.name == "n7"]
    (split,) = splits_of([*samples(), *copy], "d0", [*names, "copy"], "release:2026-02", known=before)
    assert [s.name for s in split.tested] == ["n5", "n6", "n7"]  # the copy is n0 under another name
    assert split.fitted == tuple(before)
    with pytest.raises(UsageError, match="no network was first timed from 2026-02 on"):
        list(splits_of(before, "d0", names, "release:2026-02", known=before))
    with pytest.raises(UsageError, match="known before 2026-02 are missing"):
        list(splits_of(before, "d0", names, "release:2026-02"))


def test_every_network_of_the_table_has_a_lineage_with_a_reason(tmp_path: Path) -> None:
    lineages = read_lineages()
    assert {lineages[n] for n in ("resnet18", "resnext101", "fcn_resnet50", "detr_resnet50")} == {"resnet"}
    assert {lineages[n] for n in ("mobilenet_v2", "mobilenet_v4", "mnasnet05", "efficientnet_b4")} == {"inverted residual"}
    assert {lineages[n] for n in ("vit", "beit")} == {"vit"}
    assert lineage_of("sam2/decoder", lineages) == lineages["sam2"]
    assert lineage_of("mine", lineages) == "mine"
    (tmp_path / "l.csv").write_text("network,lineage,reason\na,x,\n")
    with pytest.raises(DataError, match="a field is empty, got 'a'"):
        read_lineages(tmp_path / "l.csv")


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
    assert found["above_upper_pct"] == 0
    grouped = score(
        [Prediction(n, 1.0, 1.0 + e, 0.5, 3.0) for n, e in (("a", 0.0), ("b", 0.0), ("c", 0.3))], groups={"a": "x", "b": "x", "c": "y"}
    )
    assert (grouped.lineages_tested, grouped.networks_tested) == (2, 3)
    assert grouped.mean_error_interval_pct == pytest.approx([0, 30])


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "aihub_perf.csv.gz").is_file(), reason="the shared data are not here")
def test_the_real_table_names_its_duplicates() -> None:
    models = read_models(DATA / "aihub_models.csv")
    graphs, families, missing = graphs_of(models)
    table = read_table(DATA / "aihub_perf.csv.gz", graphs)
    assert table.device("QCS8275 (Proxy)") == table.device("SA7255P ADP")
    assert table.device("QCS9075 (Proxy)") == table.device("SA8255P ADP") == table.device("SA8775P ADP") == "sa8775p"
    assert table.device("SA8775 (Proxy)") != "sa8775p"
    assert table.boards[table.device("SA8775 (Proxy)")].proxy
    assert len(table.boards) == 17
    timed = {t.network for t in table.timings if t.device == "sa8295p" and t.precision == "fp16"}
    assert len(timed & set(classifiers(models))) >= 18
    assert families["resnet50"] == families["resnext101"]
    assert graphs["fcn_resnet50"].inputs[0].shape == workloads.describe("fcn_resnet50").input == (1, 3, 520, 520)
    assert "efficientnet_b4" not in missing
    samples = {(s.name, s.device, s.precision): s for s in samples_of(table, graphs, families)}
    sizes = {t.input: t.latency_ms for t in table.timings if (t.network, t.device, t.precision) == ("efficientnet_b4", "sa8295p", "fp16")}
    sample = samples["efficientnet_b4", "sa8295p", "fp16"]
    assert sample.graph.inputs[0].shape == (1, 3, 380, 380)
    assert sample.latency_ms == sizes[1, 3, 380, 380] > 1.5 * sizes[1, 3, 224, 224]
    # the README of the data names the states: SA8775P from October 2025 to March 2026, SA7255P up to June 2025, none elsewhere
    assert table.slow_months.keys() == {"sa7255p", "sa8775p"}
    assert set(table.slow_months["sa8775p"]) <= {"2025-10", "2025-11", "2025-12", "2026-01", "2026-02", "2026-03"}
    assert max(table.slow_months["sa7255p"]) == "2025-06"


def test_every_rebuilt_network_is_a_committed_graph_at_its_compiled_size() -> None:
    known = rebuilt()
    assert len(known) > 50
    lineages = read_lineages()
    for name, found in known.items():
        assert workloads.describe(found.workload).input == found.input, name
        assert lineage_of(name, lineages) != name or name.partition("/")[0] in lineages


def test_a_graph_fits_the_releases_that_compiled_it() -> None:
    graph = workloads.load("detr_resnet50")
    since = rebuilt()["detr_resnet50"].since
    timing = Timing("detr_resnet50", None, "d", "fp16", 1.0, "2025-01-08", "", 1, None, 1.0)
    assert since > timing.measured_on
    assert not fits(timing, graph)
    assert fits(replace(timing, measured_on=since), graph)
    assert not fits(replace(timing, measured_on=since, input=(1, 3, 480, 480)), graph)
