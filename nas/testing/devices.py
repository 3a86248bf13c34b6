"""What every device must satisfy; each check takes a profile and the folder of its file."""

from __future__ import annotations

import math
from pathlib import Path

from nas.devices.predictor import load_predictor, measured
from nas.devices.profile import Profile, read_profile
from nas.testing.predictors import block


def check_profile(profile: Profile, path: Path) -> None:
    """The file is named as the device, reads back to the same, and says where its facts come from."""
    assert path.stem == profile.name
    assert read_profile(path) == profile
    assert read_profile(path).hash == profile.hash
    assert profile.origin.title
    assert profile.default_precision in profile.precisions
    assert profile.name not in profile.aliases


def check_timings(profile: Profile) -> None:
    """Timings are positive; a measured latency lies inside its interval."""
    for precision, at in profile.precisions.items():
        for network, latency_ms in at.timings_ms.items():
            timing = measured(profile, precision, network)
            assert timing is not None
            assert 0 < timing.lower_ms < latency_ms < timing.upper_ms < math.inf


def check_estimates(profile: Profile, folder: Path) -> None:
    """Each precision that names a predictor prices a plain block, with an interval."""
    for precision, at in profile.precisions.items():
        if at.predictor:
            estimate = load_predictor(profile, precision, folder).estimate(block(32), profile, precision)
            assert 0 < estimate.lower_ms < estimate.latency_ms < estimate.upper_ms < math.inf
            assert not estimate.unsupported
