"""Networks that Hugging Face's `transformers` builds from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from networks import Network


class Outputs(nn.Module):
    """A model of `transformers` that returns the named outputs alone."""

    def __init__(self, model: nn.Module, *names: str, then: Callable[..., Any] | None = None):
        super().__init__()
        self.model, self.names, self.then = model, names, then

    def forward(self, x: Tensor) -> Any:
        made = self.model(pixel_values=x)
        out = tuple(getattr(made, name) for name in self.names)
        return self.then(*out) if self.then else out


def _segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return Outputs(SegformerForSemanticSegmentation(SegformerConfig(num_labels=150)), "logits")


def _depth_anything() -> nn.Module:
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    trunk = Dinov2Config(
        image_size=518,
        hidden_size=384,
        num_attention_heads=6,
        out_indices=[9, 10, 11, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
        patch_size=14,
    )
    model = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(backbone_config=trunk, neck_hidden_sizes=[48, 96, 192, 384], fusion_hidden_size=64, reassemble_hidden_size=384)
    )
    return Outputs(model, "predicted_depth")


def _boxes(logits: Tensor, boxes: Tensor) -> Any:
    """Corners in pixels and the most likely class but the last, "no object"."""
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    cx, cy, w, h = boxes.unbind(-1)
    corners = torch.stack((cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h), -1)
    return corners * 640.0, scores, labels


def _detr(trunk: str, *, dilation: bool = False) -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection

    config = DetrConfig(
        use_timm_backbone=True, use_pretrained_backbone=False, backbone=trunk, num_labels=91, dilation=dilation, backbone_config=None
    )
    return Outputs(DetrForObjectDetection(config), "logits", "pred_boxes", then=_boxes)


def _conditional_detr() -> nn.Module:
    from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection

    config = ConditionalDetrConfig(use_timm_backbone=True, use_pretrained_backbone=False, backbone="resnet50", num_labels=91)
    return Outputs(ConditionalDetrForObjectDetection(config), "logits", "pred_boxes", then=_boxes)


def _video_mae() -> nn.Module:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    class Frames(nn.Module):
        """(n, c, t, h, w) -> class scores."""

        def __init__(self) -> None:
            super().__init__()
            self.model = VideoMAEForVideoClassification(VideoMAEConfig(num_labels=400, use_mean_pooling=True))

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x.transpose(1, 2)).logits

    return Frames()


NETWORKS = {
    "segformer_base": Network(_segformer, (1, 3, 512, 512), "transformers", "nvidia/segformer-b0-finetuned-ade-512-512", "segformer"),
    "depth_anything": Network(_depth_anything, (1, 3, 518, 518), "transformers", "LiheYoung/depth-anything-small-hf", "depth_anything"),
    "depth_anything_v2": Network(
        _depth_anything, (1, 3, 518, 518), "transformers", "depth-anything/Depth-Anything-V2-Small-hf", "depth_anything"
    ),
    "detr_resnet50": Network(
        lambda: _detr("resnet50"), (1, 3, 640, 640), "transformers", "facebook/detr-resnet-50", "detr", since="2025-04-02"
    ),
    "detr_resnet101": Network(
        lambda: _detr("resnet101"), (1, 3, 640, 640), "transformers", "facebook/detr-resnet-101", "detr", since="2025-04-02"
    ),
    "detr_resnet50_dc5": Network(
        lambda: _detr("resnet50", dilation=True),
        (1, 3, 640, 640),
        "transformers",
        "facebook/detr-resnet-50-dc5",
        "detr",
        since="2025-04-02",
    ),
    "detr_resnet101_dc5": Network(
        lambda: _detr("resnet101", dilation=True),
        (1, 3, 640, 640),
        "transformers",
        "facebook/detr-resnet-101-dc5",
        "detr",
        since="2025-04-02",
    ),
    "conditional_detr_resnet50": Network(
        _conditional_detr, (1, 3, 640, 640), "transformers", "microsoft/conditional-detr-resnet-50", "conditional_detr", since="2025-04-02"
    ),
    "video_mae": Network(_video_mae, (1, 3, 16, 224, 224), "transformers", "MCG-NJU/videomae-base-finetuned-kinetics", "videomae"),
}
