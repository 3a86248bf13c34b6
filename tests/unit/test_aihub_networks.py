import csv
from pathlib import Path

import numpy as np
import pytest

import nas
from nas.bench.aihub_networks import lineages, rebuilt
from nas.graphs import workloads
from nas.graphs.onnx_writer import write_onnx


def test_every_row_names_a_graph_of_its_input():
    rows = rebuilt()
    assert len({(row.model, row.component, row.since) for row in rows}) == len(rows)
    for row in rows:
        assert workloads.describe(row.workload).input == row.input


def test_every_network_has_a_lineage_with_a_reason():
    known = lineages()
    assert {row.model for row in rebuilt()} <= known.keys()
    with (workloads.folder() / "lineages.csv").open(newline="") as file:
        assert all(row["reason"] for row in csv.DictReader(file))
    assert {known[name] for name in ("resnet50", "resnext101", "fcn_resnet50", "detr_resnet50")} == {"resnet"}
    assert {known[name] for name in ("mobilenet_v2", "mnasnet05", "efficientnet_b4")} == {"inverted residual"}
    assert {known[name] for name in ("vit", "beit")} == {"vit"}


def test_parameters_agree_with_those_stated():
    with (workloads.folder() / "aihub.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["params_ratio"] and not row["note"]:
                assert 0.93 < float(row["params_ratio"]) < 1.07, row["model"]


def test_a_row_of_the_table_is_covered_by_model_component_and_date():
    row = next(r for r in rebuilt() if r.model == "detr_resnet50")
    assert row.covers({"model": "detr_resnet50", "component": "DETR-ResNet50", "date": "2026-10-06"})
    assert not row.covers({"model": "detr_resnet50", "component": "DETR-ResNet50", "date": "2025-01-08"})
    assert not row.covers({"model": "detr_resnet101", "component": "DETR-ResNet101", "date": "2026-10-06"})


def test_detectors_and_segmenters_are_priced_by_name_and_by_file(tmp_path: Path) -> None:
    for name in ("detr_resnet50", "fcn_resnet50", "unet_segmentation"):
        assert nas.predict(name, "sa8295p").latency_ms > 1
    detector = workloads.load("face_det_lite")
    write_onnx(detector, tmp_path / "detector.onnx", np.random.default_rng(0))
    by_file = nas.predict(tmp_path / "detector.onnx", "sa8295p")
    assert by_file.latency_ms == pytest.approx(nas.predict(detector, "sa8295p").latency_ms, rel=0.1)
