"""Networks that the package `ultralytics` builds from its configurations, with the post-processing that AI Hub compiles behind them.

`ultralytics` is under the AGPL: a tool of development, never a dependency; a graph is a fact about a published network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from networks import Network


def corners(boxes: Tensor) -> Tensor:
    """Turn (…, 4) centre and size into corners."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w * 0.5, cy - h * 0.5, cx + w * 0.5, cy + h * 0.5), -1)


def likeliest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Reduce (…, anchors, classes) to score and class, 5,000 anchors at a time, as AI Hub does for large heads."""
    best = [part.max(-1) for part in scores.split(5000, dim=-2)]
    return torch.cat([b[0] for b in best], -1), torch.cat([b[1].to(torch.int32) for b in best], -1)


class Detector(nn.Module):
    """An ultralytics network: the layers one by one, then its head's branches, boxes apart from scores."""

    def __init__(self, config: str, classes: int = 80, *, chunks: bool = False, one_to_one: bool = False):
        super().__init__()
        from ultralytics.nn import tasks

        kind = (
            "SegmentationModel"
            if "-seg" in config
            else "PoseModel"
            if "-pose" in config
            else "OBBModel"
            if "-obb" in config
            else "DetectionModel"
        )
        whole = getattr(tasks, kind)(config, nc=classes, verbose=False)
        self.layers, self.save, self.chunks = whole.model, whole.save, chunks
        head = self.layers[-1]
        head.stride = [float(stride) for stride in head.stride]
        self.branches = head.one2one if one_to_one else head.one2many
        unused = "one2many" if one_to_one else "one2one"
        if unused == "one2one" and getattr(head, "one2one_cv2", None) is not None:
            for name in [n for n, _ in head.named_children() if n.startswith("one2one")]:
                setattr(head, name, None)
        elif one_to_one:
            for name in ("cv2", "cv3", "cv4", "cv5", "cv4_kpts", "cv4_sigma"):
                if hasattr(head, f"one2one_{name}"):
                    setattr(head, name, None)
        self.one_to_one = one_to_one

    def features(self, x: Tensor) -> list[Tensor]:
        kept: list[Any] = []
        for layer in self.layers[:-1]:
            if layer.f != -1:
                x = kept[layer.f] if isinstance(layer.f, int) else [x if j == -1 else kept[j] for j in layer.f]  # type: ignore[assignment]
            x = layer(x)
            kept.append(x if layer.i in self.save else None)
        return [kept[j] for j in self.layers[-1].f]

    def forward(self, image: Tensor) -> Any:
        head, x = self.layers[-1], self.features(image)
        made = head.forward_head(list(x), **self.branches)
        boxes = head._get_decode_boxes(made)
        scores = made["scores"].sigmoid()
        boxes, scores = boxes.permute(0, 2, 1), scores.permute(0, 2, 1)
        kept, classes = likeliest(scores) if self.chunks else scores.max(-1)
        extra: list[Tensor] = []
        if "mask_coefficient" in made:
            proto = head.proto(x if type(head).__name__ == "Segment26" else x[0])
            extra = [made["mask_coefficient"].permute(0, 2, 1), proto]
        if "kpts" in made:
            extra = [head.kpts_decode(made["kpts"]).permute(0, 2, 1)]
        if "angle" in made:
            extra = [made["angle"].permute(0, 2, 1)]
            return boxes, kept, classes.to(torch.uint8), *extra
        return corners(boxes), kept, classes.to(torch.uint8), *extra


def _yolo(config: str, family: str, size: int = 640, note: str = "", **options: Any) -> Network:
    return Network(
        lambda: Detector(f"{config}.yaml", **options), (1, 3, size, size), "ultralytics", config, family, normalises=False, note=note
    )


NETWORKS = {
    "yolov3": _yolo("yolov3-tinyu", "yolov3"),
    "yolov5": _yolo(
        "yolov5mu", "yolov5", note="AI Hub states the parameters of the anchor-based YOLOv5m; layers are those of yolov5mu, which it loads"
    ),
    "yolov8_det": _yolo("yolov8n", "yolov8"),
    "yolov8_seg": _yolo("yolov8n-seg", "yolov8", chunks=True),
    "yolov8_obb": _yolo("yolov8n-obb", "yolov8", classes=15),
    "yolov9_det": _yolo("yolov9t", "yolov9"),
    "yolov10_det": _yolo("yolov10n", "yolov10"),
    "yolov11_det": _yolo("yolo11n", "yolo11"),
    "yolov11_seg": _yolo("yolo11n-seg", "yolo11", chunks=True),
    "yolov11_pose": _yolo("yolo11n-pose", "yolo11", classes=1),
    "yolo26_det": _yolo("yolo26n", "yolo26", one_to_one=True),
    "yolo26_seg": _yolo("yolo26n-seg", "yolo26", one_to_one=True, chunks=True),
    "yolo26_pose": _yolo("yolo26n-pose", "yolo26", one_to_one=True, classes=1),
    "fastsam_s": _yolo("yolov8s-seg", "yolov8", classes=1),
    "fastsam_x": _yolo("yolov8x-seg", "yolov8", classes=1),
}
