"""A user's own device: timings in, profile out; what cannot be trusted is refused by name."""

from pathlib import Path

import pytest

from nas.devices.new_device import calibrate, calibrate_command, check_base, profile_toml
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile, read_profile
from nas.devices.timings import read_timings
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


SMALL = "hailo-8"
"""Its pool is small: a fit takes a tenth of the time."""

SMALL_TIMED = ("squeezenet1_1", "resnet50", "mobilenetv2_100", "regnetx_008", "repvgg_a1", "tf_efficientnet_lite0", "googlenet")


def write(path: Path, factor: float = 1.5, *, extra: str = "", count: int = 7, base: str = BASE, timed: tuple[str, ...] = TIMED) -> Path:
    profile = load_profile(base)
    known = profile.at(profile.default_precision).timings_ms
    path.write_text("network,latency_ms\n" + "".join(f"{n},{known[n] * factor}\n" for n in timed[:count]) + extra)
    return path


def test_a_scaled_device_is_learned_and_its_file_can_be_read(tmp_path: Path) -> None:
    """On a small pool; the large one is that of `tests/e2e/test_examples.py`."""
    base = load_profile(SMALL)
    timings = read_timings(write(tmp_path / "t.csv", base=SMALL, timed=SMALL_TIMED), "w8a8")
    made = calibrate("mine", timings, base, load_predictor(base), "t.csv", tmp_path)
    assert not made.broken
    made.predictor.save(tmp_path / "mine.npz")
    (tmp_path / "mine.toml").write_text(profile_toml(made.profile))
    profile = read_profile(tmp_path / "mine.toml")
    assert profile == made.profile
    predictor = load_predictor(profile, "w8a8", tmp_path)
    from nas.graphs import workloads

    truth = 1.5 * base.at("w8a8").timings_ms["resnet34"]
    estimate = predictor.estimate(workloads.load("resnet34"), profile, "w8a8")
    assert estimate.latency_ms == pytest.approx(truth, rel=0.25)
    assert estimate.lower_ms < truth < estimate.upper_ms


def test_a_broken_timing_is_named_and_left_out(tmp_path: Path) -> None:
    base = load_profile(SMALL)
    timings = read_timings(write(tmp_path / "t.csv", extra="vgg16,9000\n", base=SMALL, timed=SMALL_TIMED), "w8a8")
    made = calibrate("mine", timings, base, load_predictor(base), "t.csv", tmp_path)
    assert len(made.broken) == 1
    assert "vgg16" in made.broken[0]


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
    (tmp_path / "t.csv").write_text("net,ms\nresnet50,3\n")
    with pytest.raises(UsageError, match="column network is missing"):
        read_timings(tmp_path / "t.csv", "fp16")


def test_suggested_networks_differ_and_are_known() -> None:
    from nas.graphs import workloads

    profile = load_profile(BASE)
    names = ["resnet18", "resnet50", "resnet101", "swin_tiny_patch4_window7_224", "mobilenetv2_100", "convnext_tiny", "squeezenet1_1"]
    chosen = load_predictor(profile).choose_informative({n: workloads.load(n) for n in names}, profile, "fp16", 4)
    assert len(set(chosen)) == 4
    assert not {"resnet50", "resnet101"} <= set(chosen)


BODY = "resnet18,1.9\nresnet50,4.1\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(("network,latency_ms\n" + BODY).encode("utf-8-sig"), id="byte-order mark"),
        pytest.param(("network,latency_ms\n" + BODY).encode("utf-16"), id="utf-16"),
        pytest.param(("network;latency_ms\n" + BODY.replace(",", ";").replace(".", ",")).encode(), id="semicolons, decimal commas"),
        pytest.param(("network\tlatency_ms\n" + BODY.replace(",", "\t")).encode(), id="tabs"),
        pytest.param(("network, latency_ms\n" + BODY.replace(",", ", ")).encode(), id="blanks"),
        pytest.param(("network,latency_ms\n" + BODY).replace("\n", "\r\n").encode(), id="crlf"),
        pytest.param(('"Network","Latency (ms)"\n' + BODY).encode(), id="quoted header"),
        pytest.param((b'network,latency_ms\nresnet18,"1,9"\nresnet50,"4,1"\n'), id="quoted decimal commas"),
        pytest.param(("network,latency_ms\n" + BODY.replace("\n", " ms\n")).encode(), id="units"),
        pytest.param(("# my board\n\nnetwork,latency_ms\n\n" + BODY + "\n").encode(), id="comments and blank lines"),
        pytest.param(("network,latency_ms,note\n" + BODY.replace("\n", ",größer\n")).encode("cp1252"), id="another column"),
        pytest.param(("network,latency_ms,precision\n" + BODY.replace("\n", ",float16\n")).encode(), id="another name of a precision"),
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    found = read_timings(tmp_path / "t.csv", "fp16")
    assert [(t.subject, t.precision, t.latency_ms) for t in found] == [("resnet18", "fp16", 1.9), ("resnet50", "fp16", 4.1)]


@pytest.mark.parametrize("cell", ['"1,234"', "1.2.3", "1_000", "١", "0x10", "inf", "1e999", "1 2"])
def test_what_is_no_clear_number_is_refused(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.csv").write_text(f"network,latency_ms\nresnet50,{cell}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no positive latency in ms"):
        read_timings(tmp_path / "t.csv", "fp16")


@pytest.mark.parametrize(("factor", "unit"), [(1.5e-3, "seconds"), (1.5e3, "microseconds")])
def test_latencies_in_another_unit_are_refused(tmp_path: Path, factor: float, unit: str) -> None:
    base = load_profile(BASE)
    with pytest.raises(UsageError, match=f"look like {unit}"):
        calibrate("mine", read_timings(write(tmp_path / "t.csv", factor), "fp16"), base, load_predictor(base), "t.csv", tmp_path)


def test_a_board_leans_on_the_boards_that_were_timed(tmp_path: Path) -> None:
    """Eight timings of a board that is 1.3 times as slow as a known one; the others follow, and its file says the same."""
    base = load_profile("rpi5")
    known = base.at("fp16").timings_ms
    given = ("resnet18", "resnet50", "mobilenetv2_100", "squeezenet1_1", "shufflenet_v2_x1_0", "googlenet", "vgg16", "vit_base_patch32_384")
    timings = read_timings(write(tmp_path / "t.csv", 1.3, count=8, base="rpi5", timed=given), "fp16")
    made = calibrate("mine", timings, base, load_predictor(base), "t.csv", tmp_path)
    assert [p.name for p in made.predictions["fp16"]] == list(given)  # the only transformer is unlike the others, and no broken timing
    assert made.profile.at("fp16").grade in "BC"
    assert calibrate_command(made.profile).endswith("--from timings.csv")
    made.predictor.save(tmp_path / "mine.npz")
    (tmp_path / "mine.toml").write_text(profile_toml(made.profile))
    predictor = load_predictor(read_profile(tmp_path / "mine.toml"), "fp16", tmp_path)
    from nas.graphs import workloads

    errors = []
    for name in ("efficientnet_b0", "mnasnet1_0", "mobilenet_v3_large", "regnet_y_400mf"):
        graph, truth = workloads.load(name), 1.3 * known[name]
        estimate = predictor.estimate(graph, made.profile, "fp16")
        assert estimate == made.predictor.estimate(graph, made.profile, "fp16")
        assert estimate.lower_ms < truth < estimate.upper_ms
        errors.append(abs(estimate.latency_ms / truth - 1))
    assert sum(errors) / len(errors) < 0.25
    wrong = read_timings(write(tmp_path / "t.csv", 1.3, count=8, base="rpi5", timed=given, extra="mnasnet1_0,300\n"), "fp16")
    (line,) = calibrate("mine", wrong, base, load_predictor(base), "t.csv", tmp_path).broken
    assert line.startswith("mnasnet1_0 at fp16: measured 300 ms")
    chosen = predictor.choose_informative({name: workloads.load(name) for name in given}, made.profile, "fp16", 5)
    assert len(set(chosen)) == 5


def test_only_a_device_that_can_lend_a_prior_is_a_base() -> None:
    assert calibrate_command(load_profile("rpi5")).endswith("--base ncnn-raspberry-pi-5-broadcom-bcm2712-cortex-a76-4t")
    assert calibrate_command(load_profile("coral-usb")).endswith("--from timings.csv")
    check_base(load_profile("sa8295p"), "w8a8")
    for device in ("coral-usb", "rtx-4090", "jetson-agx-orin"):
        with pytest.raises(UsageError, match=r"Expected a device whose model is additive or physical. Do this: --base sa8295p"):
            check_base(load_profile(device), None)
