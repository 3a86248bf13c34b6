"""The interval around a device's own timing, asked of the repeats that AI Hub published."""

from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from nas.bench.aihub import table_of
from nas.bench.aihub_jobs import BOARDS_FILE, Job, read_boards, read_jobs
from nas.bench.latency_models import stub_profile
from nas.devices.predictor import measured
from nas.devices.profile import PrecisionProfile, Profile, load_profile
from nas.errors import UnknownNameError

TABLE = Path(__file__).parents[3] / "shared" / "data" / "aihub_perf.csv.gz"


def device(**facts: object) -> Profile:
    """A device of one precision."""
    return stub_profile("d", "fp16").model_copy(update={"precisions": {"fp16": PrecisionProfile.model_validate(facts)}})


@pytest.fixture(scope="module")
def published() -> list[Job]:
    return read_jobs(TABLE)


@pytest.fixture(scope="module", params=["qnn", "tflite"])
def repeats(published: list[Job], request: pytest.FixtureRequest) -> dict[tuple[str, str], list[float]]:
    """Of each device and precision, by how many percent its networks' repeats differ."""
    table = table_of(published, {job.network for job in published}, request.param, read_boards(TABLE.with_name(BOARDS_FILE)))
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for t in table.timings:
        if t.repeats_within_pct is not None:
            found[t.device, t.precision].append(t.repeats_within_pct)
    return found


@pytest.mark.skipif(not TABLE.exists(), reason="needs ../shared/data/aihub_perf.csv.gz")
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95])
def test_another_measurement_lies_within(repeats: dict[tuple[str, str], list[float]], confidence: float) -> None:
    held = []
    for found in repeats.values():
        if len(found) >= 10:
            timing = measured(device(repeats_within_pct=median(found), timings_ms={"n": 2.0}), "fp16", "n", confidence)
            assert timing is not None
            held += [2.0 * (1 + pct / 100) <= timing.upper_ms for pct in found]
    assert len(held) > 1000
    assert np.mean(held) == pytest.approx(confidence, abs=0.06)


def test_only_what_was_timed_is_measured() -> None:
    plain = device(timings_ms={"resnet18": 1.0})
    assert measured(plain, "fp16", "resnet34") is None
    assert measured(plain, "fp16", "") is None
    known = measured(device(repeats_within_pct=0.5, timings_ms={"resnet18": 1.0}), "fp16", "resnet18")
    unknown = measured(plain, "fp16", "resnet18")
    assert known is not None
    assert unknown is not None
    assert known.basis == unknown.basis == "measured"
    stand_in = measured(plain.model_copy(update={"proxy": "SA8255 (Proxy)"}), "fp16", "resnet18")
    assert stand_in is not None
    assert (stand_in.basis, stand_in.latency_ms) == ("proxy", 1.0)
    assert unknown.lower_ms < known.lower_ms < 1.0 < known.upper_ms < unknown.upper_ms


def test_a_device_is_known_under_its_other_names() -> None:
    assert load_profile("SA8775P ADP").name == load_profile("qcs9075").name == "sa8775p"
    with pytest.raises(UnknownNameError, match="sa8775"):
        load_profile("sa8775x")
