"""Fitted coefficients (npz and JSON), down to an estimate."""

import math
import tempfile
from functools import cache
from pathlib import Path

import latency_predictors
from nas.bench.latency_models import stub_profile
from nas.devices.predictor import Estimate, Sample, predictors
from nas.devices.profile import Profile, load_profile
from nas.testing import predictors as suite

ENDING = ".npz"
WORDS = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x93NUMPY",
    b"'shape': (",
    b"'descr': '<f8'",
    b'"version"',
    b'"devices"',
    b"NaN",
    b"Infinity",
    b"[[",
)
_ARTIFACTS = Path(latency_predictors.__file__).parent / "artifacts"

_SHIPPED = (
    ("physical", "hailo-8", "hailo.npz"),
    ("boards", "axelera-metis-pcie", "axelera.npz"),
    ("roofline", "core-ultra-7-165h-npu", "roofline.npz"),
)


@cache
def _made() -> dict[str, tuple[bytes, Profile]]:
    """Return a small artifact of each predictor with a profile that it was fitted for."""
    graphs = [suite.block(c, s, kernel=k) for c in (32, 64) for s in (14, 28) for k in (3, 5, 7)]
    profile = stub_profile("made-here", "fp32")
    samples = [Sample(g, "fp32", 0.05 + g.cost.macs / 1e8, g.name + g.key, "made-here") for g in graphs]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("additive", "kernels", "lookup", "transfer"):
            predictors.get(name)().fit(samples, [profile]).save(Path(folder) / name)
            found[name] = (Path(folder) / name).read_bytes(), profile
    for name, device, file in _SHIPPED:
        found[name] = (_ARTIFACTS / file).read_bytes(), load_profile(device)
    return found


def read(path: Path) -> list[Estimate]:
    from nas.errors import NasError

    answers, refused = [], None

    for name, (_, profile) in _made().items():
        try:
            fitted = predictors.get(name).load(path)
            answers.append(fitted.estimate(suite.block(64), profile, profile.default_precision))
        except NasError as error:
            refused = error
            if "\n" in str(error):
                raise
    if not answers and refused is not None:
        raise refused
    return answers


def absurd(result: list[Estimate]) -> str:
    """Estimates that no network has: of a block of 64 channels."""
    for each in result:
        if not (math.isfinite(each.upper_ms) and 0 <= each.lower_ms <= each.latency_ms <= each.upper_ms and 0 < each.latency_ms < 1e9):
            return f"an estimate of {each.lower_ms} to {each.latency_ms} to {each.upper_ms} ms"
    return ""


def seeds() -> list[bytes]:
    return [data for data, _ in _made().values()]
