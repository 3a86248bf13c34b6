"""Every registered latency predictor, on a device that uses it or, where none does, on one made here, against the contract suite."""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from nas.bench.latency_models import stub_profile
from nas.devices.artifact import write_artifact
from nas.devices.names import profile_files
from nas.devices.predictor import Predictor, Sample, load_predictor, predictors
from nas.devices.profile import Profile, load_profile
from nas.errors import ArtifactError, UsageError
from nas.testing import monotonicity
from nas.testing import predictors as suite

GRAPH_CHECKS: list[Callable[[Predictor, Profile, str], None]] = [
    suite.check_estimate_is_an_interval,
    suite.check_computing_operators_have_prices,
    suite.check_unknown_operator_is_named,
    suite.check_what_the_device_lacks_is_named,
    suite.check_more_work_takes_longer,
    suite.check_more_work_never_takes_less,
    suite.check_batch_equals_single,
    suite.check_batch_members_are_independent,
    suite.check_far_away_is_extrapolated,
]


@cache
def fitted(name: str) -> tuple[Predictor, Profile, str]:
    for device in ["sa8295p", *sorted(profile_files())]:
        profile = load_profile(device)
        for precision, found in profile.precisions.items():
            if found.predictor == name:
                return load_predictor(profile, precision), profile, precision
    profile = stub_profile("made-here", "fp32")
    graphs = [suite.many_operators(c, s) for c in (32, 64, 96) for s in (7, 14)]
    graphs += [suite.block(c, s, kernel=k) for c in (32, 64, 128) for s in (14, 28) for k in (3, 5, 7)]
    samples = [Sample(g, "fp32", 0.05 + 0.01 * len(g.operators) + g.cost.macs / 1e8, g.name + g.key, profile.name) for g in graphs]
    return predictors.get(name)().fit(samples, [profile]), profile, "fp32"


@pytest.mark.parametrize("check", GRAPH_CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", predictors.names())
def test_predictor(name: str, check: Callable[[Predictor, Profile, str], None]) -> None:
    check(*fitted(name))


DEVICES = (
    "sa8295p",
    "samsung-galaxy-s24-tflite",
    "snapdragon-x-elite-crd",
    "hailo-8",
    "i9-10940x",
    "rtx-4090",
    "ncnn-raspberry-pi-4-model-b-broadcom-bcm2711b0-cortex-a72-4t",
    "ncnn-nvidia-jetson-orin-nano-gpu",
)


@pytest.mark.slow
def test_more_work_never_takes_less_on_eight_devices() -> None:
    devices = [(load_predictor(profile), profile) for profile in map(load_profile, DEVICES)]
    drawn = monotonicity.cases(2000, seed=1)
    while chunk := list(itertools.islice(drawn, 100)):
        for predictor, profile in devices:
            found = monotonicity.falls(predictor, profile, profile.default_precision, chunk)
            assert not found, f"{profile.name}: " + "; ".join(f"{case.change}: {ratio - 1:+.1%}" for case, ratio in found[:8])


@pytest.mark.parametrize("name", predictors.names())
def test_predictor_survives_saving(name: str, tmp_path: Path) -> None:
    suite.check_saved_equals_loaded(*fitted(name), tmp_path)


@pytest.mark.parametrize("name", predictors.names())
def test_damaged_artifact_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"not an artifact")
    with pytest.raises(ArtifactError, match="damaged"):
        predictors.get(name).load(tmp_path / "a")
    with pytest.raises(ArtifactError, match="no such file"):
        predictors.get(name).load(tmp_path / "b")


@pytest.mark.parametrize("name", predictors.names())
def test_an_artifact_of_another_version_or_predictor_is_refused(name: str, tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", name, 99, {}, {})
    with pytest.raises(ArtifactError, match=f"of another version, got '{name} 99'"):
        predictors.get(name).load(tmp_path / "a")
    write_artifact(tmp_path / "b", "else", 1, {}, {})
    with pytest.raises(ArtifactError, match="of another version, got 'else 1'"):
        predictors.get(name).load(tmp_path / "b")


@pytest.mark.parametrize("name", predictors.names())
def test_no_timings_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        predictors.get(name)().fit([], [])
