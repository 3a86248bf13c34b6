"""Build the networks that boards and microcontrollers were timed with and that the other scripts lack, and check their parameters.

Detectors are built up to the convolutions of their heads, as Horizon's and Hailo's compilers get them: decoding runs on the host. They come from
the configurations of `ultralytics` 8.4, the networks of ST's model zoo from `pytorchcv` 0.0.74 (MIT, the package that ST names), and other sizes of
known networks from timm 1.0.31 and torchvision 0.28. All are tools of development; no weight is loaded:

    python experiments/001_workloads/boards.py [--only PREFIX …] [--check]

Graphs go to ``hardware_profiles/workloads`` as in `run.py`. ``results/boards.csv`` says what each network has and what its publisher states.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from aihub import without_weight_work
from run import build, family_of, kept, stored, write
from torch import Tensor, nn

from nas.errors import GraphError
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.passes import normalise
from nas.graphs.workloads import describe, folder, names, pack
from nas.spaces.pretrained.libraries import declare_torchvision_operators


@dataclass(frozen=True)
class Board:
    """One network.

    Attributes:
        build: Makes it in deploy form; with False as it is written.
        shape: Of its input, batch first.
        library: Which builds it.
        model: Its name there.
        family: The file of graphs that holds it; empty for the library's own file.
        params_m: 10⁶ parameters as published, None where nobody states them.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    library: str
    model: str
    family: str = ""
    params_m: float | None = None


class Branches(nn.Module):
    """An ultralytics network up to the convolutions of its head; of YOLOv5 v7.0 one convolution a scale, with three anchors."""

    def __init__(self, config: str, *, anchors: bool = False):
        super().__init__()
        from ultralytics.nn import tasks

        kinds = {"-seg": "SegmentationModel", "-pose": "PoseModel", "-obb": "OBBModel"}
        kind = next((kind for mark, kind in kinds.items() if mark in config), "DetectionModel")
        whole = getattr(tasks, kind)(f"{config}.yaml", nc=15 if "-obb" in config else 1 if "-pose" in config else 80, verbose=False)
        self.layers, self.save = whole.model, whole.save
        for module in self.layers.modules():
            if hasattr(module, "fuse_convs"):
                module.fuse_convs()
                module.forward = module.forward_fuse
            elif type(module).__name__ == "RepVGGDW":
                module.fuse()
                module.forward = module.forward_fuse
        head = self.layers[-1]
        self.heads = nn.ModuleList([nn.Conv2d(branch[0].conv.in_channels, 255, 1) for branch in head.cv2] if anchors else [])
        if anchors:
            self.layers[-1] = nn.Identity()
            self.layers[-1].f = head.f
        for name in [n for n, _ in head.named_children() if n.startswith("one2one")]:
            setattr(head, name, None)

    def forward(self, image: Tensor) -> Any:
        x, saved = image, []
        for layer in self.layers[:-1]:
            if layer.f != -1:
                x = saved[layer.f] if isinstance(layer.f, int) else [x if j == -1 else saved[j] for j in layer.f]
            x = layer(x)
            saved.append(x if layer.i in self.save else None)
        head = self.layers[-1]
        features = [x if j == -1 else saved[j] for j in head.f]
        if len(self.heads):
            return tuple(conv(x) for conv, x in zip(self.heads, features, strict=True))
        made = [branch(x) for part in (head.cv2, head.cv3) for branch, x in zip(part, features, strict=True)]
        if getattr(head, "cv4", None) is not None:
            extra = [branch(x) for branch, x in zip(head.cv4, features, strict=True)]
            made += [conv(x) for conv, x in zip(head.cv4_kpts, extra, strict=True)] if hasattr(head, "cv4_kpts") else extra
        if hasattr(head, "proto"):
            proto = head.proto(features) if type(head).__name__ == "Segment26" else head.proto(features[0])
            made += [proto[0] if isinstance(proto, tuple) else proto]
        return tuple(made)


def yolo(config: str, family: str, params_m: float | None = None, *, size: int = 640, anchors: bool = False) -> Board:
    """Return an ultralytics network; classifiers are built whole."""

    def made() -> nn.Module:
        if "-cls" not in config:
            return Branches(config, anchors=anchors)
        from ultralytics.nn import tasks

        whole = tasks.ClassificationModel(f"{config}.yaml", nc=1000, verbose=False)
        head = whole.model[-1]
        return nn.Sequential(*whole.model[:-1], head.conv, head.pool, nn.Flatten(1), head.linear)

    return Board(made, (1, 3, size, size), "ultralytics", config, family, params_m)


def pytorchcv(model: str, family: str, params_m: float, size: int = 224) -> Board:
    """Return a network of pytorchcv."""

    def made() -> nn.Module:
        from pytorchcv.model_provider import get_model

        net: nn.Module = get_model(model)
        return net

    return Board(made, (1, 3, size, size), "pytorchcv", model, family, params_m)


def library(model: str, size: int, source: str = "timm", params_m: float | None = None) -> Board:
    """Return a network of timm or torchvision at another size than its own."""
    return Board(lambda: build(model, source, size), (1, 3, size, size), source, model, "", params_m)


def boards() -> dict[str, Board]:
    """Return every network by the name of its graph."""
    found: dict[str, Board] = {}
    published = {"n": 1.9, "s": 7.2, "m": 21.2, "l": 46.5, "x": 86.7}
    for scale, params in published.items():
        found[f"yolov5{scale}"] = yolo(f"yolov5{scale}", "yolov5", params, anchors=True)
        found[f"yolov5{scale}u"] = yolo(f"yolov5{scale}", "yolov5")
    stated = {
        "yolov8": {"": (3.2, 11.2, 25.9, 43.7, 68.2), "-seg": (3.4, 11.8, 27.3, 46.0, 71.8), "-pose": (3.3, 11.6, 26.4, 44.4, 69.4)},
        "yolo11": {"": (2.6, 9.4, 20.1, 25.3, 56.9), "-seg": (2.9, 10.1, 22.4, 27.6, 62.1), "-pose": (2.9, 9.9, 20.9, 26.2, 58.8)},
    }
    classes = {"yolov8": (2.7, 6.4, 17.0, 37.5, 57.4), "yolo11": (2.8, 6.7, 11.6, 14.1, 29.6)}
    for series, tasks in stated.items():
        for task, sizes in tasks.items():
            for scale, params in zip("nsmlx", sizes, strict=True):
                found[f"{series}{scale}{task}"] = yolo(f"{series}{scale}{task}", series, params)
        for scale, params in zip("nsmlx", classes[series], strict=True):
            found[f"{series}{scale}-cls"] = yolo(f"{series}{scale}-cls", series, params, size=224)
    for task in ("", "-seg", "-pose", "-obb", "-cls"):
        for scale in "nsmlx":
            found[f"yolo26{scale}{task}"] = yolo(f"yolo26{scale}{task}", "yolo26", size=224 if task == "-cls" else 640)
    for scale, params in (("t", 2.0), ("s", 7.2), ("m", 20.1), ("c", 25.5), ("e", 58.1), ("c-seg", 27.9), ("e-seg", 60.5)):
        found[f"yolov9{scale}"] = yolo(f"yolov9{scale}", "yolov9", params)
    for scale, params in (("n", 2.3), ("s", 7.2), ("m", 15.4), ("b", 19.1), ("l", 24.4), ("x", 29.5)):
        found[f"yolov10{scale}"] = yolo(f"yolov10{scale}", "yolov10", params)
    for model, family, millions in (
        *(
            ("fdmobilenet_wd4", "fd_mobilenet", 0.383),
            ("fdmobilenet_wd2", "fd_mobilenet", 0.994),
            ("fdmobilenet_w3d4", "fd_mobilenet", 1.833),
        ),
        *(("mobilenetv2_wd4", "mobilenetv2_pytorchcv", 1.516), ("mobilenetv2b_wd4", "mobilenetv2_pytorchcv", 1.516)),
        *(("mobilenetv2b_wd2", "mobilenetv2_pytorchcv", 1.964), ("mobilenetv2b_w3d4", "mobilenetv2_pytorchcv", 2.627)),
        *(("mobilenetv2b_w1", "mobilenetv2_pytorchcv", 3.505), ("shufflenetv2b_wd2", "shufflenetv2b", 1.367)),
        *(("shufflenetv2b_w1", "shufflenetv2b", 2.279), ("hardnet39ds", "hardnet", 3.489), ("hardnet68", "hardnet", 17.566)),
        *(("peleenet", "peleenet", 2.802), ("resnet18_wd4", "resnet_narrow", 3.937), ("proxylessnas_mobile", "proxylessnas", 4.08)),
        ("resnext26_32x4d", "resnext26", 15.389),
    ):
        found[model] = pytorchcv(model, family, millions)
    for model, size in (
        *(("efficientnet_b1", 224), ("efficientnet_b2", 224), ("efficientnet_b3", 224), ("efficientnet_b4", 224), ("resnet50", 299)),
        *(("fastvit_t8", 224), ("fastvit_t12", 224), ("fastvit_s12", 224), ("fastvit_sa12", 224), ("mobilenetv2_035", 128)),
        *(("tf_efficientnetv2_b1", 240), ("tf_efficientnetv2_b2", 260), ("tf_efficientnetv2_s", 384), ("mobilenetv4_conv_aa_large", 384)),
        *(("mobilenetv4_conv_large", 384), ("tf_efficientnetv2_b2", 224)),
    ):
        found[f"{model}@{size}"] = library(model, size)
    found |= {"vgg16": library("vgg16", 224, params_m=138.36), "vgg19": library("vgg19", 224, params_m=143.67)}
    found["mobilenet_v2"] = library("mobilenet_v2", 224, "torchvision", 3.505)
    return found


def native(name: str) -> bool:
    """Return whether the committed graphs hold a network at that size under its plain name."""
    import timm

    model, _, size = name.partition("@")
    cfg = timm.models.get_pretrained_cfg(model) if size else None
    return cfg is not None and cfg.input_size[-1] == int(size)


def trace(only: list[str], room: Path, wanted: dict[str, Board]) -> None:
    """Trace what is missing of those wanted, as written and in deploy form, and file it family by family."""
    lines, index = kept(room)
    written = stored(room / "as_written")
    todo = {name: board for name, board in wanted.items() if name not in index and not native(name)}
    touched: set[str] = set()
    for i, (name, board) in enumerate(todo.items()):
        if only and not name.startswith(tuple(only)):
            continue
        try:
            with torch.device("meta"):
                module = board.build().eval()
        except (RuntimeError, NotImplementedError):
            module = board.build().eval()
        try:
            raw = trace_module(module, board.shape, name, weight_work=True)
        except GraphError as error:
            print("failed", name, error, flush=True)
            continue
        deployed = normalise(without_weight_work(raw))
        family = board.family or family_of(module)
        index[name] = [board.model, board.library, family, list(board.shape), raw.cost.params, deployed.cost.macs]
        lines.setdefault(family, {})[name] = pack(deployed)
        written.setdefault(family, {})[name] = pack(raw)
        touched.add(family)
        unknown = {op.op for op in deployed.operators if op.category == "unknown"}
        print(name, raw.cost.params, board.params_m, deployed.cost.macs, *unknown, flush=True)
        if i % 8 == 7 or i == len(todo) - 1:
            file(lines, written, index, touched, room)
    file(lines, written, index, touched, room)


def file(
    lines: dict[str, dict[str, str]], written: dict[str, dict[str, str]], index: dict[str, Any], families: set[str], room: Path
) -> None:
    """Write the graphs of some families, and the index."""
    write({family: lines[family] for family in families}, room)
    write({family: written[family] for family in families}, room / "as_written")
    text = ",\n".join(f'"{n}": {json.dumps(index[n], separators=(",", ":"))}' for n in sorted(index))
    (room / "index.json").write_text("{\n" + text + "\n}\n")
    families.clear()


def check(out: Path, wanted: dict[str, Board]) -> None:
    """Write what each network has beside what its publisher states."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["workload", "library", "model", "input", "params", "params_stated_m", "ratio", "macs"])
        for name, board in sorted(wanted.items()):
            if name not in names():
                continue
            known = describe(name)
            ratio = "" if board.params_m is None else f"{known.params / 1e6 / board.params_m:.3f}"
            size = "x".join(map(str, board.shape[1:]))
            writer.writerow([name, board.library, board.model, size, known.params, board.params_m or "", ratio, known.macs])


def main() -> None:
    """Trace what is wanted, then write the check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of names to trace; default all")
    parser.add_argument("--check", action="store_true", help="write the check alone")
    args = parser.parse_args()
    declare_torchvision_operators()
    if not args.check:
        trace(args.only, folder(), boards())
    check(Path(__file__).parent / "results" / "boards.csv", boards())


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
