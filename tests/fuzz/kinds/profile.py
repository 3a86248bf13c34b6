"""Profiles of devices: TOML, down to the precision that is asked of them."""

from pathlib import Path

from nas.devices.names import profile_files
from nas.devices.profile import Profile, read_profile

ENDING = ".toml"
WORDS = (b"[precisions.fp16]", b"[[", b'"""', b"nan", b"inf", b"1979-05-27", b"= {", b'operators = "qnn"', b"timings_ms", b"batch = ")


def read(path: Path) -> Profile:
    renamed = path.parent / "device.toml"
    path.replace(renamed)
    profile = read_profile(renamed)
    for precision in profile.precisions:
        profile.at(precision)
    _ = profile.at(None), profile.hash
    return profile


def absurd(profile: Profile) -> str:
    """Facts that no device has: of numbers there is a largest that anyone could mean."""
    for at in profile.precisions.values():
        facts = (at.peak_gmacs, at.bandwidth_gb_s, at.launch_us, *at.timings_ms.values())
        if any(fact is not None and not 0 < fact <= 1e9 for fact in facts):
            return f"facts {facts[:3]}"
    said = (profile.title, profile.runtime, *(name for at in profile.precisions.values() for name in at.timings_ms))
    if not profile.title or not all(text.isprintable() for text in said):
        return "text that cannot be printed"
    return "" if profile.batch <= 65_536 else f"a batch of {profile.batch}"


def seeds() -> list[bytes]:
    files = profile_files()
    names = ("sa8295p", "hailo-8", "rtx-4090", "rk3562", "ncnn-raspberry-pi-zero-2-w-broadcom-bcm2710a1-cortex-a53-4t")
    facts = b"on_chip_memory_mb = 8.0\nthreads = 4\nbatch = 2\nnotes = ['made up']\n"
    more = b"peak_gmacs = 13000.0\nbandwidth_gb_s = 40.0\nlaunch_us = 20.0\nunsupported_ops = ['LSTM']\n"
    short = files["hailo-8"].read_bytes().partition(b"[precisions.w8a8.timings_ms]")[0]
    whole = facts + short.replace(b"[precisions.w8a8]\n", b"[precisions.w8a8]\n" + more)
    return [whole, *(files[name].read_bytes()[:4000].rpartition(b"\n\n")[0] for name in names)]
