"""A user's own device: timings in, profile out; what cannot be trusted is refused by name."""

from pathlib import Path

import pytest

from nas.devices.new_device import calibrate, profile_toml, read_timings
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile, read_profile
from nas.errors import UsageError

BASE = "snapdragon-x-elite-crd"
TIMED = (
    "squeezenet1_1",
    "resnet50",
    "mobilenetv2_100",
    "swin_tiny_patch4_window7_224",
    "efficientformer_l1",
    "regnetx_032",
    "convnext_tiny",
)


def write(path: Path, factor: float = 1.5, *, extra: str = "", count: int = 7) -> Path:
    known = load_profile(BASE).at("fp16").timings_ms
    path.write_text("network,latency_ms\n" + "".join(f"{n},{known[n] * factor}\n" for n in TIMED[:count]) + extra)
    return path


def test_a_scaled_device_is_learned_and_its_file_can_be_read(tmp_path: Path) -> None:
    base = load_profile(BASE)
    made = calibrate("mine", read_timings(write(tmp_path / "t.csv"), "fp16"), base, load_predictor(base), "t.csv", tmp_path)
    assert not made.broken
    made.predictor.save(tmp_path / "mine.npz")
    (tmp_path / "mine.toml").write_text(profile_toml(made.profile))
    profile = read_profile(tmp_path / "mine.toml")
    assert profile == made.profile
    predictor = load_predictor(profile, "fp16", tmp_path)
    from nas.graphs import workloads

    truth = 1.5 * base.at("fp16").timings_ms["resnet101"]
    estimate = predictor.estimate(workloads.load("resnet101"), profile, "fp16")
    assert estimate.latency_ms == pytest.approx(truth, rel=0.25)
    assert estimate.lower_ms < truth < estimate.upper_ms


def test_a_broken_timing_is_named_and_left_out(tmp_path: Path) -> None:
    base = load_profile(BASE)
    timings = read_timings(write(tmp_path / "t.csv", extra="vit_base_patch16_224,900\n"), "fp16")
    made = calibrate("mine", timings, base, load_predictor(base), "t.csv", tmp_path)
    assert len(made.broken) == 1
    assert "vit_base_patch16_224" in made.broken[0]


def test_too_few_timings_are_refused(tmp_path: Path) -> None:
    base = load_profile(BASE)
    with pytest.raises(UsageError, match="too few"):
        calibrate("mine", read_timings(write(tmp_path / "t.csv", count=2), "fp16"), base, load_predictor(base), "t.csv", tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("resnet50,fast\n", "no positive latency"),
        ("resnet50,-3\n", "no positive latency"),
        ("resnet50,nan\n", "no positive latency"),
        ("resnet50,3\nresnet50,9\n", "contradict each other"),
        (",3\n", "names no network"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text("network,latency_ms\n" + lines)
    with pytest.raises(UsageError, match=message):
        read_timings(path, "fp16")


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,ms\nresnet50,3\n")
    with pytest.raises(UsageError, match="columns are missing"):
        read_timings(tmp_path / "t.csv", "fp16")


def test_suggested_networks_differ_and_are_known() -> None:
    from nas.graphs import workloads

    profile = load_profile(BASE)
    names = ["resnet18", "resnet50", "resnet101", "swin_tiny_patch4_window7_224", "mobilenetv2_100", "convnext_tiny", "squeezenet1_1"]
    chosen = load_predictor(profile).choose_informative({n: workloads.load(n) for n in names}, profile, "fp16", 4)
    assert len(set(chosen)) == 4
    assert not {"resnet50", "resnet101"} <= set(chosen)
