"""Published timings of boards, phones, GPUs and accelerators, matched to networks that can be rebuilt.

Each reader says what its numbers are: a latency at batch 1, or milliseconds a frame at full load. A row counts only where the network
that was timed is known to be one of the reference networks: by name and input, and by parameters where the table has them.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nas.errors import DataError
from nas.graphs import workloads
from nas.results import StatedQuantity
from nas.units import Precision


@dataclass(frozen=True, slots=True)
class PublicTiming:
    """One timing.

    Attributes:
        device: Name fit for a profile.
        title: As the table writes it.
        network: Name of a reference network.
        precision: One of `nas.units.Precision`.
        ms: Milliseconds a frame.
        quantity: What the number is.
        batch: Images a run.
        runtime: What executed the network.
        kind: What computes.
        threads: CPU threads, None elsewhere.
        family: As the table names it; empty where it does not, and the stored graph's family holds.
        note: What the number depends on.
    """

    device: str
    title: str
    network: str
    precision: Precision
    ms: float
    quantity: StatedQuantity
    batch: int
    runtime: str
    kind: Literal["npu", "gpu", "cpu", "tpu"]
    threads: int | None = None
    family: str = ""
    note: str = ""


_NCNN: Mapping[str, tuple[str, int, str]] = {
    "alexnet": ("alexnet_bvlc", 227, "alexnet"),
    "blazeface": ("blazeface", 128, "blazeface"),
    "efficientnet_b0": ("efficientnet_b0", 224, "efficientnet"),
    "efficientnetv2_b0": ("tf_efficientnetv2_b0", 224, "efficientnet"),
    "fastestdet": ("fastestdet", 352, "shufflenetv2"),
    "googlenet": ("googlenet", 224, "inception"),
    "mnasnet": ("mnasnet1_0", 224, "mnasnet"),
    "mobilenet": ("mobilenetv1_100", 224, "mobilenetv1"),
    "mobilenet_ssd": ("mobilenet_ssd", 300, "mobilenetv1"),
    "mobilenet_v2": ("mobilenetv2_100", 224, "mobilenetv2"),
    "mobilenet_v3": ("mobilenet_v3_large", 224, "mobilenetv3"),
    "mobilenet_yolo": ("mobilenet_yolo", 416, "mobilenetv1"),
    "mobilenetv2_yolov3": ("mobilenetv2_yolov3", 352, "mobilenetv2"),
    "nanodet_m": ("nanodet_m", 320, "shufflenetv2"),
    "proxylessnasnet": ("proxylessnas_mobile", 224, "proxylessnas"),
    "regnety_400m": ("regnet_y_400mf", 224, "regnet"),
    "resnet18": ("resnet18", 224, "resnet"),
    "resnet50": ("resnet50", 224, "resnet"),
    "shufflenet": ("shufflenet_g3", 224, "shufflenet"),
    "shufflenet_v2": ("shufflenet_v2_x1_0", 224, "shufflenetv2"),
    "squeezenet": ("squeezenet1_1", 224, "squeezenet"),
    "squeezenet_ssd": ("squeezenet_ssd", 300, "squeezenet"),
    "vgg16": ("vgg16", 224, "vgg"),
    "vision_transformer": ("vit_base_patch32_384", 384, "vit"),
    "yolo-fastest-1.1": ("yolo_fastest_1_1", 320, "yolo_fastest"),
    "yolo-fastestv2": ("yolo_fastestv2", 352, "shufflenetv2"),
    "yolov4-tiny": ("yolov4_tiny", 416, "yolo"),
}
"""Its networks' graphs, inputs and families: a detector belongs to the network whose blocks it repeats."""
_HAILO: Mapping[str, str] = {
    "cas_vit_m": "cas_vit_m",
    "cas_vit_s": "cas_vit_s",
    "cas_vit_t": "cas_vit_t",
    "deit_base": "deit_base_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "deit_tiny": "deit_tiny_patch16_224",
    "efficientformer_l1": "efficientformer_l1",
    "efficientnet_l": "tf_efficientnet_el",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "efficientnet_lite3": "tf_efficientnet_lite3",
    "efficientnet_lite4": "tf_efficientnet_lite4",
    "efficientnet_m": "tf_efficientnet_em",
    "efficientnet_s": "tf_efficientnet_es",
    "inception_v1": "googlenet",
    "mobilenet_v1": "mobilenetv1_100",
    "mobilenet_v2_1.0": "mobilenetv2_100",
    "mobilenet_v2_1.4": "mobilenetv2_140",
    "mobilenet_v3": "mobilenet_v3_large",
    "regnetx_1.6gf": "regnetx_016",
    "regnetx_800mf": "regnetx_008",
    "repghost_1_0x": "repghostnet_100",
    "repghost_2_0x": "repghostnet_200",
    "repvgg_a1": "repvgg_a1",
    "repvgg_a2": "repvgg_a2",
    "resnet_v1_18": "resnet18",
    "resnet_v1_34": "resnet34",
    "resnet_v1_50": "resnet50",
    "resnext50_32x4d": "resnext50_32x4d",
    "squeezenet_v1.1": "squeezenet1_1",
    "swin_small": "swin_small_patch4_window7_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "vit_base": "vit_base_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_tiny": "vit_tiny_patch16_224",
}
_RKNN: Mapping[str, str] = {"mobilenetv2-12": "mobilenetv2_100", "resnet50-v2-7": "resnet50"}


def slug(text: str) -> str:
    """Return a name fit for a profile."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].rstrip("-")


def named(model: str, size: int) -> str | None:
    """Return the reference network of a model at a resolution."""
    for name in (model, f"{model}@{size}"):
        if name in workloads.names() and workloads.describe(name).input[-2:] == (size, size):
            return name
    return None


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, gzipped or not.

    Raises:
        DataError: It cannot be read.
    """
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode()
        return list(csv.DictReader(text.splitlines()))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"table: cannot be read, got {str(path)!r} ({error}).") from None


def read_timm(path: Path, device: str, title: str, kind: Literal["gpu", "cpu"], runtime: str) -> Iterator[PublicTiming]:
    """Yield timm's inference benchmark: milliseconds a frame, at the batch the table used; batch 1 is a latency."""
    for row in read_rows(path):
        batch, name = int(row["infer_batch_size"]), named(row["model"], int(row["infer_img_size"]))
        if name is None or abs(float(row["param_count"]) * 1e6 / workloads.describe(name).params - 1) > 0.01:
            continue
        quantity: StatedQuantity = "latency" if kind == "cpu" and batch == 1 else "reciprocal_throughput"
        precision = Precision.FP32 if kind == "cpu" else Precision.FP16
        ms = float(row["infer_step_time"]) / batch
        yield PublicTiming(device, title, name, precision, ms, quantity, 1 if kind == "cpu" else batch, runtime, kind, None)


def read_ncnn(path: Path) -> Iterator[PublicTiming]:
    """Yield ncnn's benchmark at fp32/fp16 storage (its default), least of its loops: CPU threads by device, or a GPU through Vulkan."""
    for row in read_rows(path):
        model, size, family = _NCNN.get(row["model"].lower(), ("", 0, ""))
        name = named(model, size) if model else None
        try:
            ms, threads, gpu = float(row["min"]), int(float(row["threads"])), float(row["gpu"])
        except ValueError:
            continue
        if name is None or ms <= 0:
            continue
        part = "gpu" if gpu >= 0 else f"{threads}t"
        kind: Literal["gpu", "cpu"] = "gpu" if gpu >= 0 else "cpu"
        runtime = "ncnn-vulkan" if gpu >= 0 else "ncnn"
        title = f"{row['device']}, {'GPU' if gpu >= 0 else f'{threads} threads'}"
        yield PublicTiming(
            f"ncnn-{slug(row['device'].split('(')[0])}-{part}",
            title,
            name,
            Precision.FP16,
            ms,
            "latency",
            1,
            runtime,
            kind,
            None if gpu >= 0 else threads,
            family,
        )


def read_hailo(path: Path) -> Iterator[PublicTiming]:
    """Yield Hailo's model zoo: frames a second at batch 1, so milliseconds a frame at full load.

    A network that the compiler keeps on the chip at once runs equally fast at any batch; one that it loads part by part runs faster in
    batches. These are two devices to a price list, and the table's two batches tell them apart: the second is called ``-streamed``.
    """
    for row in read_rows(path):
        model, size = hailo_network(row)
        name = named(model, size) if model else None
        if name is None or not row["fps_b1"] or abs(float(row["params_m"]) * 1e6 / workloads.describe(name).params - 1) > 0.05:
            continue
        streamed = bool(row["fps_b8"]) and float(row["fps_b8"]) > 1.01 * float(row["fps_b1"])
        title = f"Hailo-{row['device'].removeprefix('HAILO')}" + (", networks loaded part by part" if streamed else "")
        device = slug(f"hailo-{row['device'].removeprefix('HAILO')}") + ("-streamed" if streamed else "")
        yield PublicTiming(device, title, name, Precision.W8A8, 1e3 / float(row["fps_b1"]), "reciprocal_throughput", 1, "hailort", "npu")


def hailo_inputs(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the networks of Hailo's model zoo that can be rebuilt, with their resolution."""
    for row in read_rows(path):
        model, size = hailo_network(row)
        if model:
            yield model, size


def hailo_network(row: Mapping[str, str]) -> tuple[str, int]:
    """Return the reference network's model and resolution, empty where there is none; names may carry marks (``resnet_v1_50 |rocket|``)."""
    size = re.match(r"(\d+)x(\d+)x", row["res"])
    model = _HAILO.get(row["model"].partition(" |")[0], "")
    return (model, int(size[1])) if size and size[1] == size[2] else ("", 0)


def read_rknn(path: Path) -> Iterator[PublicTiming]:
    """Yield Rockchip's model zoo: frames a second at batch 1."""
    for row in read_rows(path):
        name = named(_RKNN.get(row["model"], ""), 224) if row["model"] in _RKNN else None
        if name is None or not row["fps"]:
            continue
        yield PublicTiming(
            slug(row["device"]), row["device"], name, Precision.W8A8, 1e3 / float(row["fps"]), "reciprocal_throughput", 1, "rknn", "npu"
        )  # fmt: skip
