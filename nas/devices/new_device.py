"""A user's own device: from a few timings and the devices that are known already to a profile with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from nas.devices.device_folder import checked_name, write_whole
from nas.devices.names import config_home, find_profile, profile_files
from nas.devices.predictor import Predictor, Sample, load_predictor, predictors
from nas.devices.profile import FitQuality, Origin, PrecisionProfile, Profile, read_profile
from nas.devices.scores import Prediction, score
from nas.devices.timings import UserTiming, read_timings
from nas.errors import UsageError
from nas.results import Calibrated
from nas.spaces.network import Network, load_network
from nas.units import Precision

MIN_NETWORKS = 3
"""Timings of fewer networks say nothing about the next one. Set by hand."""

# Source of these: set by hand, as limits of what a careful person would believe.
_BROKEN_LOG = 0.7  # a timing off by a factor 2 is left out as broken …
_BROKEN_MADS = 5.0  # … if that is also so many median absolute deviations
_MOST_BROKEN = 0.3  # share of broken timings above which all are doubted
_REFUSED_MEDIAN_PCT = 40.0  # held-out error above which no profile is made
_LOOSENESS = (1.0, 3.0)  # how far the new device may stray from its family: the better of both, by networks left out
_OTHER_UNIT = 100.0
"""A device this much faster or slower than a related one was timed in another unit."""

_OF_THE_USER = "timings by the user"


@dataclass(frozen=True)
class Calibration:
    """What calibration made.

    Attributes:
        profile: Of the new device; its artifact is ``NAME.npz``, next to it.
        predictor: To be saved there.
        predictions: By precision: each timed network predicted from the fit without it.
        broken: Timings that were left out, with the reason.
    """

    profile: Profile
    predictor: Predictor
    predictions: Mapping[str, Sequence[Prediction]]
    broken: tuple[str, ...]


def calibrate(name: str, timings: Sequence[UserTiming], base: Profile, predictor: Predictor, source: str, folder: Path) -> Calibration:
    """Fit a new device to a user's timings, with all devices that `predictor` knows as the prior.

    Single timings that no fit agrees with are left out and named. How far the device may stray from the known ones is decided by which
    choice predicts its own left-out timings better.

    Args:
        name: Of the new device.
        timings: What `read_timings` gave.
        base: A related device, whose facts the profile starts from.
        predictor: Fitted; as `base` names it.
        source: The file, for the profile's origin.
        folder: Where relative paths of networks start.

    Raises:
        UsageError: Too few timings, too many broken ones, latencies in another unit, or a device that the prior does not fit at all.
    """
    networks = {t.subject: _load(t.subject, folder) for t in timings}
    _check_unit(name, timings, networks, base, predictor)
    broken: list[str] = []
    predictions: dict[str, Sequence[Prediction]] = {}
    precisions: dict[Any, PrecisionProfile] = {}
    for precision in [p for p in Precision if any(t.precision == p for t in timings)]:
        samples = [_sample(name, t, networks[t.subject]) for t in timings if t.precision == precision]
        _check_count(name, precision, len(samples), "")
        first = predictor.extended(samples)
        bad = _contradicting(_broken(first.held_out(name, precision)), samples, first, base, precision)
        broken += [f"{n} at {precision}: measured {ms:g} ms, expected about {expected:.3g} ms" for n, ms, expected in bad]
        consistent = [s for s in samples if s.name not in {n for n, _, _ in bad}]
        if len(bad) > _MOST_BROKEN * len(samples):
            raise UsageError(
                f"calibrate {name}: the timings contradict each other at {precision}: {'; '.join(broken)}. Do this: time them again."
            )
        _check_count(name, precision, len(consistent), f" after leaving out {'; '.join(broken)}" if bad else "")
        fits = [predictor.extended(consistent, looseness) if bad or looseness != 1.0 else first for looseness in _LOOSENESS]
        scored = [[Prediction(*row) for row in fit.held_out(name, precision)] for fit in fits]
        best = min(range(len(fits)), key=lambda i: score(scored[i]).mean_error_pct)
        predictor, predictions[precision] = fits[best], scored[best]
        quality = score(scored[best])
        if quality.median_error_pct > _REFUSED_MEDIAN_PCT:
            raise UsageError(
                f"calibrate {name}: the timings do not fit a device like {base.name}: held-out median error "
                f"{quality.median_error_pct:.0f} % at {precision}. Do this: name another --base, or time more networks."
            )
        precisions[precision] = PrecisionProfile(
            predictor=base.at(base.default_precision).predictor,
            artifact=f"{name}.npz",
            held_out=FitQuality(
                protocol="leave one network out, its timings on all devices, with those of its family where the fit knows families enough",
                networks=len(consistent),
                **{
                    k: getattr(quality, k)
                    for k in ("mean_error_pct", "median_error_pct", "within_10_pct", "within_25_pct", "coverage_pct", "spearman")
                },
            ),
            timings_ms={
                networks[t.subject].timed_as: t.latency_ms for t in timings if t.precision == precision and networks[t.subject].timed_as
            },
            notes=tuple(f"left out as broken: {line}" for line in broken),
        )
    profile = Profile(
        name=name,
        title=name,
        kind=base.kind,
        family=base.family,
        quantity=base.quantity,
        batch=base.batch,
        runtime=base.runtime,
        operators=base.operators,
        compiled=base.compiled,
        default_precision=base.default_precision if base.default_precision in precisions else next(iter(precisions)),
        precisions=precisions,
        origin=Origin(title=_OF_THE_USER, reference=source, command=f"nas devices calibrate {name} --from {source} --base {base.name}"),
    )
    return Calibration(profile, predictor, predictions, tuple(broken))


def _contradicting(
    rows: Sequence[tuple[str, float, float]], samples: Sequence[Sample], fit: Predictor, base: Profile, precision: str
) -> list[tuple[str, float, float]]:
    """Return those of `_broken` that a fit which knows them cannot explain either; the others are only unlike all other networks."""
    if precision not in base.precisions:
        return list(rows)
    graphs = {s.name: s.graph for s in samples}
    profile = base.model_copy(update={"name": samples[0].device, "aliases": ()})
    explained = {name: fit.estimate(graphs[name], profile, precision).latency_ms for name, _, _ in rows}
    return [(name, ms, expected) for name, ms, expected in rows if abs(math.log(ms / explained[name])) > _BROKEN_LOG]


def can_be_base(profile: Profile, precision: str | None = None) -> bool:
    """Return whether another device's timings can be added to what is fitted to a device at a precision, by default its own; not where its model is unknown here."""
    model = profile.at(precision).predictor
    return model in predictors.names() and predictors.get(model).extended is not Predictor.extended


def calibrate_command(profile: Profile) -> str:
    """Return the command that adds a device from timings; the base is `profile` unless that lends no prior or is a user's own device."""
    lends = can_be_base(profile) and profile.origin.title != _OF_THE_USER
    return "nas devices calibrate NAME --from timings.csv" + (f" --base {profile.name}" if lends else "")


def check_base(profile: Profile, precision: str | None) -> None:
    """Refuse a related device that lends no prior.

    Raises:
        UnknownNameError: Its model is of a plug-in that is not installed here.
        UsageError: The model that is fitted to it cannot take up another device.
    """
    if model := profile.at(precision).predictor:
        predictors.get(model)
    if not can_be_base(profile, precision):
        able = sorted(name for name in predictors.names() if predictors.get(name).extended is not Predictor.extended)
        raise UsageError(
            f"base: the latency model of this device ({profile.at(precision).predictor or 'none'}) knows nothing of another one, got "
            f"{profile.name!r}. Expected a device whose model is {' or '.join(able)}. Do this: --base sa8295p for an NPU, or a CPU or GPU of "
            "nas devices list ncnn."
        )


def make_profile(name: str, timings: Path, *, base: str, precision: str | None, to: Path | None) -> Calibrated:
    """Calibrate a device and write its profile and its fit; see `nas.api.calibrate`."""
    checked_name(name)
    room = to or config_home() / "devices"
    taken = profile_files().get(name)
    if (room / f"{name}.toml").exists() or taken is not None:
        raise UsageError(
            f"device: the name is taken, got {name!r} ({taken or room / f'{name}.toml'}). Do this: choose another or remove it."
        )
    file = find_profile(base)
    related = read_profile(file)
    chosen = precision or related.default_precision
    check_base(related, chosen if chosen in related.precisions else None)
    predictor = load_predictor(related, chosen if chosen in related.precisions else None, file.parent)
    calibration = calibrate(name, read_timings(timings, chosen), related, predictor, timings.name, timings.parent)
    with TemporaryDirectory() as folder:
        calibration.predictor.save(Path(folder) / f"{name}.npz")
        fit = (Path(folder) / f"{name}.npz").read_bytes()
    write_whole(room, {f"{name}.npz": fit, f"{name}.toml": profile_toml(calibration.profile).encode()})
    scores = {at: score(predictions) for at, predictions in calibration.predictions.items()}
    path, quantity = str(room / f"{name}.toml"), calibration.profile.quantity
    return Calibrated(name=name, path=path, base=base, quantity=quantity, precisions=scores, broken=calibration.broken)


def _load(subject: str, folder: Path) -> Network:
    beside = folder / subject
    return load_network(str(beside) if subject.endswith((".onnx", ".json")) and beside.is_file() else subject)


def _sample(device: str, timing: UserTiming, network: Network) -> Sample:
    return Sample(network.graph, timing.precision, timing.latency_ms, network.timed_as or timing.subject, device)


def _check_unit(name: str, timings: Sequence[UserTiming], networks: Mapping[str, Network], base: Profile, predictor: Predictor) -> None:
    """Refuse latencies that cannot be milliseconds: in the middle a hundred times off what the related device needs."""
    ratios = []
    for timing in timings:
        precision = timing.precision if timing.precision in base.precisions else base.default_precision
        expected = predictor.estimate(networks[timing.subject].graph, base, precision).latency_ms
        ratios.append((timing.latency_ms / expected, timing, expected))
    ratios.sort(key=lambda row: row[0])
    ratio, timing, expected = ratios[len(ratios) // 2]
    if not 1 / _OTHER_UNIT <= ratio <= _OTHER_UNIT:
        unit = "seconds" if ratio < 1 else "microseconds"
        raise UsageError(
            f"calibrate {name}: the latencies look like {unit}, got {timing.latency_ms:g} for {timing.subject}, where {base.name} needs about "
            f"{expected:.3g} ms. Expected milliseconds. Do this: convert them, or name a --base that is nearer."
        )


def _check_count(name: str, precision: str, count: int, why: str) -> None:
    if count < MIN_NETWORKS:
        raise UsageError(
            f"calibrate {name}: too few timings at {precision}, got {count} networks{why}. Expected at least {MIN_NETWORKS}, better 10. "
            f"Do this: nas devices suggest {name} --count 10."
        )


def _broken(held_out: Sequence[tuple[str, float, float, float, float]]) -> list[tuple[str, float, float]]:
    """Return (network, measured, expected) of timings far from what all others say, beyond the spread of the rest."""
    residuals = [math.log(measured / predicted) for _, measured, predicted, _, _ in held_out]
    middle = median(residuals)
    spread = median(abs(r - middle) for r in residuals)
    limit = max(_BROKEN_LOG, _BROKEN_MADS * spread)
    return [
        (name, measured, predicted * math.exp(middle))
        for (name, measured, predicted, _, _), r in zip(held_out, residuals, strict=True)
        if abs(r - middle) > limit
    ]


def profile_toml(profile: Profile) -> str:
    """Return a profile as the text of its file; what has its default value is left out."""
    import json

    data = profile.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    lines: list[str] = []

    def key_of(key: str) -> str:
        return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)

    def value_of(value: Any) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(value_of, value)) + "]"
        if isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        return str(value).lower() if isinstance(value, bool) else repr(value)

    def table(path: str, content: Mapping[str, Any]) -> None:
        plain = {k: v for k, v in content.items() if not isinstance(v, Mapping)}
        if path and (plain or not content):
            lines.extend(["", f"[{path}]"])
        lines.extend(f"{key_of(k)} = {value_of(v)}" for k, v in plain.items() if v is not None)
        for k, v in content.items():
            if isinstance(v, Mapping):
                table(f"{path}.{key_of(k)}" if path else key_of(k), v)

    table("", data)
    return "\n".join(lines).strip() + "\n"
