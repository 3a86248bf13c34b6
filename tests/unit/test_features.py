"""The maps of a classifier that detectors and segmenters take."""

import pytest

from nas import api
from nas.errors import UsageError
from nas.graphs.features import STRIDES, backbone, resized
from nas.graphs.workloads import load

CHANNELS = {
    "resnet50": (256, 512, 1024, 2048),
    "mobilenetv2_100": (24, 32, 96, 320),
    "efficientnet_b0": (24, 40, 112, 320),
    "convnext_tiny": (96, 192, 384, 768),
    "regnety_008": (64, 128, 320, 768),
}
"""What timm's ``feature_info`` says of the maps at strides 4, 8, 16 and 32 (timm 1.0.31)."""


@pytest.mark.parametrize("name", CHANNELS)
def test_each_stage_hands_on_the_map_that_timm_names(name: str) -> None:
    whole = load(name)
    part = backbone(whole)
    side = whole.inputs[0].shape[2]
    assert part.outputs == tuple(f"stride{stride}" for stride in STRIDES)
    assert [part.values[name].shape for name in part.outputs] == [
        (1, channels, side // stride, side // stride) for channels, stride in zip(CHANNELS[name], STRIDES, strict=True)
    ]
    assert part.cost.params < whole.cost.params
    assert resized(part, (side, side)) == part
    larger = resized(part, (512, 640))
    assert larger.values["stride32"].shape[2:] == (16, 20)
    assert larger.cost.params == part.cost.params
    assert larger.cost.macs == pytest.approx(part.cost.macs * 512 * 640 / side**2, rel=0.02)


def test_what_has_no_pyramid_or_a_size_of_its_own_says_so() -> None:
    with pytest.raises(UsageError, match="no map of stride 4, 8, 32"):
        backbone(load("deit_tiny_patch16_224"))
    padded = backbone(load("hgnetv2_b1"))
    assert resized(padded, (512, 512)).values["stride4"].shape[2:] == (128, 128)


def test_a_networks_own_size_needs_no_resizing_and_wrong_words_are_refused() -> None:
    assert api.predict("fasternet_t0", "sa8295p", task="features", resolution=224).latency_ms > 0
    with pytest.raises(UsageError, match="task: unknown"):
        api.predict("resnet50", "sa8295p", task="feature")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="resolution: cannot be read"):
        api.predict("resnet50", "sa8295p", task="features", resolution=0)
