"""Tables of boards: spellings of networks, what a row is, and fits that leave whole families out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latency_predictors.boards import COLUMNS, HOST, Boards, Table, fit_prices, quantities
from nas.bench.board_tables import read_iphone, read_rdk, read_renesas, read_stm32, yolo_of
from nas.devices.predictor import Sample, measured
from nas.devices.profile import load_profile
from nas.graphs import workloads


def test_yolos_by_any_spelling() -> None:
    assert yolo_of("YOLO11n Seg", 640) == "yolo11n-seg"
    assert yolo_of("YOLOv5s_v7.0", 640) == "yolov5s"
    assert yolo_of("YOLOv5mu Detect", 640) == "yolov5mu"
    assert yolo_of("YOLOv8x-CLS", 224) == "yolov8x-cls"
    assert yolo_of("YOLOv7", 640) is None  # AI Hub's graph of that name is the tiny one
    assert yolo_of("YOLOv5s", 640) is None
    assert yolo_of("YOLO11n", 320) is None


def test_rows_say_what_they_are(tmp_path: Path) -> None:
    head = "device,task,model,family,timm_name,torchvision_name,input_size,latency_ms_1thread\n"
    (tmp_path / "rdk.csv").write_text(
        f"{head}RDK X5,classification,ResNet18,resnet,resnet18,,3x224x224,2.5\nRDK X5,detection,Nobody,x,,,3x1x1,1\n"
    )
    (row,) = read_rdk(tmp_path / "rdk.csv")
    assert (row.device, row.network, row.precision, row.ms, row.family) == ("rdk-x5", "resnet18", "w8a8", 2.5, "resnet")
    head = "device,model,family,timm_name,torchvision_name,input_size,drpai_ms\n"
    (tmp_path / "rz.csv").write_text(f"{head}RZ/V2H,DenseNet-121,senet,densenet121,,3x224x224,27\nRZ/V2L,X,x,resnet18,,3x224x224,\n")
    (row,) = read_renesas(tmp_path / "rz.csv")
    assert (row.device, row.precision, row.family) == ("rz-v2h", "w8a8", "densenet")
    head = "board,model,input,dataset,family,timm_name,torchvision_name,inference_ms,external_ram_kib,tool_version\n"
    text = "STM32N6570-DK,dla46c_pt_224,3x224x224,ImageNet,dla,dla46_c,,184.2,6272,STEdgeAI 3.0.0\n"
    (tmp_path / "stm32.csv").write_text(
        f"{head}{text}STM32N6570-DK,fdmobilenet_a025_pt_224,3x224x224,ImageNet,fd,,,1.88,0,STEdgeAI 3.0.0\n"
    )
    spilled, inside = read_stm32(tmp_path / "stm32.csv")
    assert spilled.note == "6272 KiB of external RAM"
    assert (inside.network, inside.note) == ("fdmobilenet_wd4", "")
    (tmp_path / "i.csv").write_text("model,family,timm_name,input_size,latency_ms\nRepViT-M1.0,repvit,repvit_m1_0,3x224x224,1.0\n")
    assert next(read_iphone(tmp_path / "i.csv")).precision == "fp16"


NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "mobilenetv2_100",
    "mobilenetv2_140",
    "regnetx_002",
    "regnetx_008",
    "vgg16",
    "densenet121",
    "repvit_m1_0",
)


def made_ms(name: str) -> float:
    row = dict(zip(COLUMNS, quantities(workloads.load(name)), strict=True))
    return 0.002 * row["macs"] + 0.05 * row["elements"] + 0.01 * row["operators"]


def test_a_family_is_predicted_without_its_timings() -> None:
    samples = [Sample(workloads.load(n), "w8a8", made_ms(n), n, "board", n.partition("_")[0][:6]) for n in NETWORKS]
    model = Boards().fit(samples)
    rows = model.held_out("board", "w8a8")
    assert [row[0] for row in rows] == list(NETWORKS)
    assert np.median([abs(guess / ms - 1) for _, ms, guess, *_ in rows]) < 0.15
    twisted = [s if s.family != "resnet" else Sample(s.graph, s.precision, 9 * s.latency_ms, s.name, s.device, s.family) for s in samples]
    again = {name: guess for name, _, guess, *_ in Boards().fit(twisted).held_out("board", "w8a8")}
    before = {name: guess for name, _, guess, *_ in rows}
    assert again["resnet18"] == pytest.approx(before["resnet18"])  # nothing of its family was seen
    assert again["vgg16"] != pytest.approx(before["vgg16"])


def test_host_work_is_a_sort_of_its_own_and_a_coarse_timing_an_interval() -> None:
    graph = workloads.load("regnetx_002")
    apart, whole = (dict(zip(COLUMNS, quantities(graph, host), strict=True)) for host in (frozenset(HOST), frozenset()))
    assert apart["host elements"] > 0 == whole["host elements"]
    assert apart["host elements"] + apart["elements"] == pytest.approx(whole["elements"])
    x = np.array([quantities(workloads.load(n)) for n in NETWORKS])
    stated = np.full(len(x), 10.0)
    assert (x @ fit_prices(x, stated, NETWORKS, Table(grain_ms=9.9))).sum() < (x @ fit_prices(x, stated, NETWORKS, Table())).sum()


def test_few_prices_are_learnt_and_kept_in_a_file(tmp_path: Path) -> None:
    table = Table(0.5, frozenset(HOST), few=True)
    graphs = {n: workloads.load(n) for n in NETWORKS}
    counted = {n: dict(zip(COLUMNS, quantities(g, table.host), strict=True)) for n, g in graphs.items()}
    assert counted["resnet18"]["n/host"] == 0
    assert counted["regnetx_002"]["n/host"] == counted["regnetx_002"]["n/grouped"] > 0
    assert {row["n/stem"] for row in counted.values()} == {1.0}
    ms = {n: 1.0 + 0.002 * row["macs"] + 0.5 * row["n/host"] for n, row in counted.items()}
    model = Boards(tables={"board": table}).fit([Sample(graphs[n], "w8a8", ms[n], n, "board", n[:6]) for n in NETWORKS])
    prices = model.devices["board", "w8a8"].prices_ms
    assert not prices[~table.priced].any()
    assert prices[COLUMNS.index("n/host")] + prices[COLUMNS.index("n/grouped")] == pytest.approx(0.5, rel=0.4)
    model.save(tmp_path / "fit.npz")
    assert Boards.load(tmp_path / "fit.npz").tables == {"board": table}


def test_a_whole_millisecond_is_half_a_millisecond_to_either_side() -> None:
    """RZ/V2H states 1 ms for MobileNetV2: another timing may be anything from .5 to 1.5 ms, and a little more by repeats."""
    found = measured(load_profile("rz-v2h"), None, "mobilenet_v2")
    assert found is not None
    assert found.latency_ms == 1.0
    assert 0.35 < found.lower_ms < 0.5
    assert 1.5 < found.upper_ms < 2.0
