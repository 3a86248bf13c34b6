"""Libraries of published networks, where the user has them: timm, torchvision, and our own references."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ArtifactError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

_DECLARED: list[object] = []
"""Keeps declarations alive."""

_ALIGN = "Tensor grad, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward({_ALIGN}, int batch_size, int channels, int height, int width, int sampling_ratio, bool aligned) -> Tensor",
)


def declare_torchvision_operators() -> None:
    """Let torchvision be imported beside a PyTorch that it was not compiled for.

    torchvision on PyPI is compiled for PyTorch's CUDA build: beside a CPU build its compiled operators cannot load, and its import stops at the
    first shape function that it registers for one. Declared, they need not exist: no classifier calls them. Where they load, nothing is done.
    """
    spec = find_spec("torchvision")
    if spec is None or not spec.origin or _DECLARED:
        return
    import torch

    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        with suppress(OSError):
            torch.ops.load_library(compiled)
    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    _DECLARED.append(library)
    for schema in _SCHEMAS:
        library.define(schema)


@cache
def timm_library() -> Any | None:
    """Return timm, or None where it is not installed or cannot be imported."""
    return _library("timm")


@cache
def torchvision_library() -> Any | None:
    """Return torchvision, or None where it is not installed or cannot be imported."""
    return _library("torchvision")


def _library(name: str) -> Any | None:
    if find_spec(name) is None:
        return None
    try:
        declare_torchvision_operators()
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        log.warning("%s is installed, yet cannot be imported: %s", name, error)
        return None


def library_of(name: str) -> str:
    """Return which library builds a published network: ``timm``, ``torchvision`` or ``references``.

    Raises:
        UnknownNameError: None does.
    """
    from nas.spaces.reference import variants

    plain = name.partition(".")[0]
    timm, vision = timm_library(), torchvision_library()
    if timm is not None and timm.is_model(plain):
        return "timm"
    if vision is not None and plain in vision.models.list_models(module=vision.models):
        return "torchvision"
    if plain in variants():
        return "references"
    known = {*variants(), *(timm.list_models() if timm else ()), *(vision.models.list_models(module=vision.models) if vision else ())}
    remedy = "" if timm and vision else "timm and torchvision know more: pip install 'hardware-aware-nas[anchors]'."
    raise UnknownNameError("network", name, known, remedy)


def build_published(name: str, num_classes: int = 1000, resolution: tuple[int, int] | None = None) -> nn.Module:
    """Return a published network with fresh weights that do not touch the global generator: (n, 3, h, w) -> (n, num_classes).

    Args:
        name: With or without a tag.
        num_classes: Of its head.
        resolution: For which networks of one fixed size (learned positions) are built, see `sized`; others take any.

    Raises:
        UnknownNameError: No installed library builds it.
        UsageError: It cannot be built for that size.
    """
    import torch

    from nas.spaces.reference import build

    library, plain = library_of(name), name.partition(".")[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "timm":
            at = sized(name, resolution)
            try:
                module = timm_library().create_model(plain, pretrained=False, num_classes=num_classes, **at)  # type: ignore[union-attr]
            except (AssertionError, RuntimeError, ValueError, TypeError) as error:
                if not at:
                    raise
                reason, size = " ".join(str(error).split())[:200], "x".join(map(str, at["img_size"]))
                raise UsageError(f"network {name}: timm cannot build it for {size} ({reason}). Do this: another --resolution.") from None
        elif library == "torchvision":
            options = {"aux_logits": False, "init_weights": True} if plain in ("googlenet", "inception_v3") else {}
            module = torchvision_library().models.get_model(plain, weights=None, num_classes=num_classes, **options)  # type: ignore[union-attr]
        else:
            module = build(plain, num_classes)
    return module  # type: ignore[no-any-return]


def sized(name: str, resolution: tuple[int, int] | None) -> Mapping[str, tuple[int, int]]:
    """Return the options with which timm builds a network for a size of picture: those that run at one size alone need to be told another than their own."""
    facts = timm_library().get_pretrained_cfg(name, allow_unregistered=True)  # type: ignore[union-attr]
    if resolution is None or facts is None or not facts.fixed_input_size or resolution == resolution_of(name):
        return {}
    return {"img_size": resolution}


def resampled(module: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a network of another size of picture as this one takes them: timm knows how learned positions change with the size.

    Raises:
        ArtifactError: They are not this network's.
    """
    change = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    try:
        return change(dict(tensors), module) if change else tensors
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"weights: their positions cannot be resampled ({' '.join(str(error).split())[:200]}).") from None


def deploy_form(module: nn.Module) -> nn.Module:
    """Return a network in evaluation mode whose parallel branches are folded into one layer, as published networks are deployed.

    Batch norms after single convolutions stay: their statistics can be taken anew.
    """
    import copy

    from nas.spaces.operator_family import fuse

    if type(module).__module__.startswith("timm."):
        folded = copy.deepcopy(module).eval()
        for part in folded.modules():
            if callable(reparameterize := getattr(part, "reparameterize", None)):
                reparameterize()
        return folded
    return module.eval() if type(module).__module__.startswith("torchvision.") else fuse(module)


def resolution_of(name: str) -> tuple[int, int]:
    """Return the (height, width) at which a published network is used."""
    from nas.graphs import workloads
    from nas.spaces.reference import variants

    library, plain = library_of(name), name.partition(".")[0]
    if library == "timm":
        facts = timm_library().get_pretrained_cfg(name, allow_unregistered=True)  # type: ignore[union-attr]
        return (facts.input_size[-2], facts.input_size[-1]) if facts is not None else (224, 224)
    if library == "references":
        return variants()[plain].resolution
    if plain in workloads.names():
        height, width = workloads.describe(plain).input[-2:]
        return height, width
    return 224, 224


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation by channel, in 0…1, that most published networks expect. Source: torchvision's and timm's defaults."""


def normalisation_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation by channel, in 0…1, with which a published network was trained: timm's where timm builds it, else ImageNet's."""
    if library_of(name) != "timm":
        return IMAGENET
    facts = timm_library().get_pretrained_cfg(name, allow_unregistered=True)  # type: ignore[union-attr]
    return IMAGENET if facts is None else (tuple(facts.mean), tuple(facts.std))
