"""Published timings of car chips, boards and microcontrollers, matched to networks that can be rebuilt.

Beside latencies the tables hold what a budget may ask of a microcontroller, and what a network loses in 8 bits. A row whose network cannot be rebuilt
is named by `unmatched` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nas.bench.public_tables import PublicTiming, named, read_rows, slug
from nas.graphs import workloads
from nas.units import Precision

_PYTORCHCV: Mapping[str, str] = {
    "fdmobilenet_a025_pt": "fdmobilenet_wd4",
    "fdmobilenet_a050_pt": "fdmobilenet_wd2",
    "fdmobilenet_a075_pt": "fdmobilenet_w3d4",
    "hardnet39ds_pt": "hardnet39ds",
    "mnasnet_d050_pt": "mnasnet_050",
    "mobilenetv2_a025_pt": "mobilenetv2_wd4",
    "mobilenetv2b_a025_pt": "mobilenetv2b_wd4",
    "mobilenetv2b_a050_pt": "mobilenetv2b_wd2",
    "mobilenetv2b_a075_pt": "mobilenetv2b_w3d4",
    "mobilenetv2b_a100_pt": "mobilenetv2b_w1",
    "peleenet_pt": "peleenet",
    "proxylessnas_pt": "proxylessnas_mobile",
    "resnet18wd4_pt": "resnet18_wd4",
    "shufflenetv2_x050_pt": "shufflenet_v2_x0_5",
    "shufflenetv2_x100_pt": "shufflenet_v2_x1_0",
    "shufflenetv2b_x050_pt": "shufflenetv2b_wd2",
    "shufflenetv2b_x100_pt": "shufflenetv2b_w1",
    "squeezenetv10_pt": "squeezenet1_0",
}
"""ST's names of networks of pytorchcv; the other names are timm's."""

_YOLO = re.compile(r"yolo(v?)(\d+)([a-z]*)(_v7\.0)?[ -]?(detect|seg|pose|obb|cls)?", re.IGNORECASE)


def _size(text: str) -> int:
    """Return the side of a square image of a text such as ``3x224x224``; 0 for another."""
    sizes = text.split("x")
    return int(sizes[2]) if len(sizes) == 3 and sizes[1] == sizes[2] else 0


def network_of(row: Mapping[str, str], size: int) -> str | None:
    """Return the reference network of a row that names timm's, torchvision's or ultralytics' network."""
    for column in ("timm_name", "torchvision_name"):
        if row.get(column) and (name := named(row[column], size)):
            return name
    return yolo_of(row["model"], size)


def yolo_of(model: str, size: int) -> str | None:
    """Return the reference network of a YOLO by any of its spellings: ``YOLO11n Seg``, ``YOLOv5s_v7.0``, ``YOLOv8x-CLS``."""
    match = _YOLO.fullmatch(model.strip())
    if match is None:
        return None
    _, version, scale, seventh, task = match.groups()
    if version == "5" and not (seventh or scale.endswith("u")):
        return None  # which of the three YOLOv5 is not stated
    task = "" if not task or task.lower() == "detect" else f"-{task.lower()}"
    series = f"yolo{'' if int(version) > 10 else 'v'}{version}"
    name = named(f"{series}{scale.lower()}{task}", size)
    return name if name and workloads.describe(name).model == name.removesuffix("u") else None  # AI Hub's yolov7 is another


def _family(row: Mapping[str, str]) -> str:
    """Return the family that is left out together: all YOLOs are one; DenseNet stands under SENet in Renesas' table."""
    name = row["model"].lower()
    return "yolo" if name.startswith("yolo") else "densenet" if name.startswith("densenet") else row["family"]


def read_rdk(path: Path) -> Iterator[PublicTiming]:
    """Yield Horizon's boards: milliseconds of the BPU for one frame with one thread, int8."""
    for row in read_rows(path):
        name = network_of(row, _size(row["input_size"]))
        if name and row["latency_ms_1thread"]:
            ms = float(row["latency_ms_1thread"])
            yield PublicTiming(
                slug(row["device"]), row["device"], name, Precision.W8A8, ms, "latency", 1, "horizon-bpu", "npu", None, _family(row)
            )


def read_renesas(path: Path) -> Iterator[PublicTiming]:
    """Yield Renesas RZ/V: whole milliseconds of processor and DRP-AI; int8 on V2H, fp16 elsewhere."""
    for row in read_rows(path):
        name = network_of(row, _size(row["input_size"]))
        if name and row["drpai_ms"] and float(row["drpai_ms"]) > 0:
            precision = Precision.W8A8 if row["device"] == "RZ/V2H" else Precision.FP16
            device, runtime = slug(row["device"].replace("/", "-")), "drp-ai-tvm"
            yield PublicTiming(
                device,
                f"Renesas {row['device']}",
                name,
                precision,
                float(row["drpai_ms"]),
                "latency",
                1,
                runtime,
                "npu",
                None,
                _family(row),
            )


def read_rcar(path: Path) -> Iterator[PublicTiming]:
    """Yield Renesas R-Car X5H: int8 on one NPU core; a card that states no input had the network's own."""
    for row in read_rows(path):
        size = _size(row["input_size"])
        names = [named(row[c], s) for c in ("timm_name", "torchvision_name") if row[c] for s in ([size] if size else [224, 240, 299, 380])]
        name = next((n for n in names if n), None)
        if name and row["cores"] == "1":
            ms, title = float(row["latency_ms"]), "Renesas R-Car X5H, one NPU core at 850 MHz"
            yield PublicTiming("r-car-x5h", title, name, Precision.W8A8, ms, "latency", 1, "r-car-npu", "npu", None, row["family"])


def stm32_network(row: Mapping[str, str]) -> str | None:
    """Return the reference network of a row of ST's model zoo."""
    size = _size(row["input"])
    model = re.sub(r"_(224|128|240|260|384)(_fft)?(_person)?$", "", row["model"])
    return named(_PYTORCHCV[model], size) if model in _PYTORCHCV else network_of(row, size)


def read_stm32(path: Path) -> Iterator[PublicTiming]:
    """Yield STM32N6 and H747: ImageNet networks of the newest tools, int8; what a 1000-class head costs is in them."""
    chosen = {
        "STM32N6570-DK": ("stm32n6", "STM32N6570-DK", "STEdgeAI 3.0.0"),
        "STM32H747I-DISCO": ("stm32h747", "STM32H747I-DISCO", "Cube.AI 10.0.0"),
    }
    for row in read_rows(path):
        device, title, newest = chosen.get(row["board"], ("", "", ""))
        older = row["tool_version"] != newest
        if device and row["dataset"] == "ImageNet" and (name := stm32_network(row)) and not (older and device == "stm32h747"):
            ms, kind = float(row["inference_ms"]), "npu" if device == "stm32n6" else "cpu"
            external = float(row["external_ram_kib"] or 0)
            note = f"{external:g} KiB of external RAM" if external else ""
            yield PublicTiming(
                *(device, title, name, Precision.W8A8, ms, "latency", 1, "stedgeai"),
                "npu" if kind == "npu" else "cpu",
                None,
                row["family"],
                note,
            )


def read_axelera(path: Path) -> Iterator[PublicTiming]:
    """Yield Axelera Metis: milliseconds a frame at full load, host included, on the PCIe card and on M.2."""
    for row in read_rows(path):
        name = network_of(row, _size(row["input_size"]))
        for column, card in (("fps_pcie", "PCIe"), ("fps_m2", "M.2")):
            if name and row[column]:
                ms, device = 1e3 / float(row[column]), f"axelera-metis-{slug(card).replace('-', '')}"
                title = f"Axelera Metis, {card}, end to end"
                yield PublicTiming(
                    device, title, name, Precision.W8A8, ms, "reciprocal_throughput", 1, "voyager-sdk", "npu", None, row["family"]
                )


def read_coral(path: Path) -> Iterator[PublicTiming]:
    """Yield Coral's Edge TPU: latency over USB beside a desktop, and on the Dev Board."""
    for row in read_rows(path):
        name = network_of(row, _size(row["input_size"]))
        for column, device, title in (
            ("usb_edgetpu_ms", "coral-usb", "Coral USB Accelerator (Edge TPU) at a desktop"),
            ("devboard_edgetpu_ms", "coral-dev-board", "Coral Dev Board (Edge TPU)"),
        ):
            if name and row[column]:
                yield PublicTiming(
                    device, title, name, Precision.W8A8, float(row[column]), "latency", 1, "edgetpu", "tpu", None, row["family"]
                )


def read_iphone(path: Path) -> Iterator[PublicTiming]:
    """Yield the iPhone 12's networks as their papers time them: tenths of a millisecond, three tools."""
    for row in read_rows(path):
        if name := network_of(row, _size(row["input_size"])):
            ms = float(row["latency_ms"])
            yield PublicTiming("iphone-12", "Apple iPhone 12", name, Precision.FP16, ms, "latency", 1, "coreml", "npu", None, row["family"])


READERS: Mapping[str, Callable[[Path], Iterator[PublicTiming]]] = {
    "rdk": read_rdk,
    "renesas_rzv": read_renesas,
    "rcar_x5h": read_rcar,
    "stm32": read_stm32,
    "axelera": read_axelera,
    "coral": read_coral,
    "iphone": read_iphone,
}
"""By the name of the file."""
