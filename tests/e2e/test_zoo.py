"""The first answer: which published network fits?"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.graphs import workloads
from nas.spaces.naming import get_space
from search_spaces.zoo import published
from tests.e2e.conftest import Result


def test_every_row_has_a_graph_at_its_resolution() -> None:
    for row in published().values():
        assert workloads.describe(row.workload).input == (1, 3, row.resolution, row.resolution)
        assert 0 < row.top1_pct < 100


def test_it_is_large_and_small() -> None:
    rows = published().values()
    assert len({row.network for row in rows}) >= 400
    assert len(rows) == (Path(workloads.folder()).parents[1] / "search_spaces" / "zoo.csv").read_text().count("\n") - 1
    size = sum(path.stat().st_size for path in workloads.folder().iterdir())
    assert size + (Path(workloads.folder()).parents[1] / "search_spaces" / "zoo.csv").stat().st_size <= 3e6


def test_systems_that_timm_lacks_are_members() -> None:
    from nas.spaces import reference

    rows, variants = published(), reference.variants()
    for gene in (
        "rmt_s@in1k",
        "cswin_t@in1k",
        "biformer_t@in1k",
        "unireplknet_a@in1k",
        "spartan_t@in1k",
        "hornet_tiny_gf@in1k",
        "affnet@in1k",
    ):
        row, variant = rows[gene], variants[gene.partition("@")[0]]
        assert (row.resolution, row.resolution) == variant.resolution
        assert row.top1_pct == variant.top1_pct
        assert row.source.startswith("its authors: ")
        assert workloads.load(row.workload).cost.macs == variant.macs
        assert workloads.describe(row.workload).params == variant.params
    assert rows["lsnet_t@dist_in1k"].distilled
    assert not rows["lsnet_t@in1k"].distilled
    assert rows["spectformer_h_s@token_label_in1k"].distilled
    assert workloads.describe("lowformer_b0").library == "timm"
    stated = {name for name, v in variants.items() if v.top1_pct is not None and v.params <= 250e6}
    unfolding = {"tnt_s_patch16_224", "tnt_b_patch16_224"}  # windows are unfolded, an operator that no graph here has
    permuted = {"sret_s", "sret_t"}  # slices are permuted by plain tensors, which a trace on the meta device does not move
    assert stated - {row.network for row in rows.values()} == unfolding | permuted


def test_a_choice_whose_weights_nobody_gives_says_so(
    nas: Callable[..., Result], refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search_spaces.zoo as module

    few = {gene: row for gene, row in published().items() if gene in ("rmt_t@in1k", "lsnet_t@in1k")}
    monkeypatch.setattr(module, "published", lambda: few)
    words = ["search", "--device", "sa8295p", "--budget", "50ms", "--space", "zoo", "--out", tmp_path / "run", "--format", "json"]
    found = json.loads(nas(*words).out)
    assert found["chosen"]["network"] == "rmt_t"
    assert found["model"] is None
    assert "take the weights of rmt_t from its authors" in found["model_reason"]
    assert "take the weights of rmt_t from its authors" in refused("export", tmp_path / "run", "--to", tmp_path / "m.onnx")


def test_pretraining_stays_visible() -> None:
    rows = published()
    assert rows["convnext_tiny@fb_in22k_ft_in1k"].pretraining == "ImageNet-22k"
    assert rows["convnext_tiny@fb_in1k"].pretraining == "ImageNet-1k"
    assert rows["levit_128s@fb_dist_in1k"].distilled
    assert not rows["resnet50@tv_in1k"].distilled
    alone = get_space("zoo-in1k")
    assert {alone.facts(a)["pretraining"] for a in alone.enumerate()} == {"ImageNet-1k"}
    assert 0 < alone.size() < get_space("zoo").size() == len(rows)


@pytest.mark.slow
def test_sa8295p_within_5_ms(nas: Callable[..., Result], tmp_path: Path) -> None:
    result = nas("search", "--device", "sa8295p", "--budget", "5ms", "--space", "zoo", "--out", tmp_path / "run", "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["chosen"]["accuracy_pct"] >= 81.5
    assert found["chosen"]["precision"] == "fp16"
    assert all(point["upper_ms"] <= 5 for point in found["front"])
    assert {point["devices"]["sa8295p"]["basis"] for point in found["front"]} <= {"measured", "estimated"}
    assert found["zoo"] == found["front"]
    latencies = [point["latency_ms"] for point in sorted(found["front"], key=lambda p: p["accuracy_pct"])]
    assert latencies == sorted(latencies)
    assert found["why_not_more"]["accuracy_pct"] > found["chosen"]["accuracy_pct"]


def test_a_resolution_keeps_what_was_published_at_it(nas: Callable[..., Result], refused: Callable[..., str], tmp_path: Path) -> None:
    words = ["search", "--device", "sa8295p", "--budget", "5ms", "--space", "zoo", "--resolution"]
    assert "no published accuracy" in refused(*words, "100")
    space = get_space("zoo", resolution=(256, 256))
    assert {space.row(a).resolution for a in space.enumerate()} == {256}  # type: ignore[attr-defined]


def test_a_timed_network_is_measured_and_another_estimated(nas: Callable[..., Result]) -> None:
    for network, basis in {"resnet50": "measured", "resnet34": "estimated"}.items():
        result = nas("predict", network, "--device", "sa8295p", "--format", "json")
        assert result.code == 0, result.err
        assert json.loads(result.out)["basis"] == basis
