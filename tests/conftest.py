"""Lets timm import beside a CPU build of PyTorch."""

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

LIBRARIES: list[object] = []
"""Keeps the declarations alive."""


def pytest_configure() -> None:
    # torchvision has no wheel for a CPU build of PyTorch: its compiled operators cannot load there, and its import stops at the first shape
    # function that it registers for one. Declared, they need not exist: no network that the tests compare with calls them. Where they do
    # load, they must not be declared twice.
    found = find_spec("torchvision")
    if found is None or not found.origin:
        return
    import torch

    for compiled in Path(found.origin).parent.glob("_C*.so"):
        with suppress(OSError):
            torch.ops.load_library(compiled)
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    LIBRARIES.append(library)
    align = "Tensor grad, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio, bool aligned)"
        " -> Tensor",
        f"_roi_align_backward({align}, int batch_size, int channels, int height, int width, int sampling_ratio, bool aligned) -> Tensor",
    ):
        library.define(schema)
