"""Newer timings that a vendor published, put into the profiles of its devices: what was timed again is replaced, the rest follows.

Shipped profiles are never changed: an updated one stands in the user's folder of updates and goes before the shipped one of its name.
Everything is read and checked before anything is written.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from nas.devices.aihub_graphs import part_of, rebuilt
from nas.devices.aihub_perf import Published, Timed, read_published
from nas.devices.device_folder import write_whole
from nas.devices.drift import FEWEST, drift_of
from nas.devices.names import find_profile, profile_files, updates_home
from nas.devices.new_device import profile_toml
from nas.devices.profile import PrecisionProfile, Profile, SdkDrift, load_profile
from nas.errors import DataError, UsageError, one_line
from nas.results.listings import NetworkMoved, PrecisionMoved, Updated

SOURCE = "Qualcomm AI Hub"
"""How the origin of a profile begins that such tables can update."""

_OTHER_UNIT = 5.0
"""No release of an SDK moved all networks of a board so far."""

_SDK_NOTE = "SDK versions of the newest timings:"

_Latencies = Mapping[str, tuple[float, str]]
"""Network -> latency in ms and SDK."""


def update_profiles(source: Path, devices: Collection[str] = (), to: Path | None = None) -> Updated:
    """Put the timings of a wheel or folder into profiles; see `nas.api.update_devices`."""
    published = read_published(source)
    profiles = _profiles()
    asked = {load_profile(find_profile(name)).name for name in devices} or set(profiles)
    if other := sorted(asked - set(profiles)):
        raise UsageError(
            f"device {other[0]}: its timings are of another source, got {load_profile(other[0]).origin.title!r}. Expected {SOURCE}."
        )
    tables, strangers, unknown = _by_profile(published, profiles)
    moved: list[PrecisionMoved] = []
    files: dict[str, str] = {}
    older: list[str] = []
    for name in sorted(asked & set(tables)):
        profile, by_precision = profiles[name], tables[name]
        changed: dict[str, tuple[PrecisionProfile, PrecisionMoved]] = {}
        try:
            for precision, latencies in sorted(by_precision.items()):
                if (found := _moved(profile, precision, latencies)) is not None:
                    _check_unit(name, published, found[1])
                    changed[precision] = found
            updated = _updated(profile, {p: at for p, (at, _) in changed.items()}, published)
            Profile.model_validate(updated.model_dump())  # what is written must be readable
        except ValidationError as error:
            raise DataError(f"timings {published.name}: those of {name} cannot be true ({one_line(error.errors()[0]['msg'])}).") from None
        if not changed:
            older.append(name)
            continue
        moved += [record for _, record in changed.values()]
        files[name] = profile_toml(updated)
    if not moved:
        why = (
            f"all of its timings are older than the profiles of {', '.join(older)}"
            if older
            else "no timing is of a device and a network that are known here"
        )
        raise DataError(f"timings {published.name}: nothing to update, {why}. Profiles stay as they are.")
    room = to or updates_home()
    write_whole(room, {f"{name}.toml": text.encode() for name, text in files.items()})
    return Updated(
        source=published.name,
        release=published.release,
        moved=tuple(moved),
        paths={name: str(room / f"{name}.toml") for name in files},
        older=tuple(older),
        unknown_devices=tuple(sorted(strangers)),
        unknown_networks=tuple(sorted(unknown)),
    )


def _check_unit(name: str, published: Published, moved: PrecisionMoved) -> None:
    """Refuse a table in which all latencies of a device are several times what they were: another unit, or another board.

    Raises:
        DataError: They are.
    """
    ratios = [network.ms / network.before_ms for network in moved.networks if network.before_ms]
    if len(ratios) >= FEWEST and not 1 / _OTHER_UNIT <= median(ratios) <= _OTHER_UNIT:
        raise DataError(
            f"timings {published.name}: those of {name} at {moved.precision} are {median(ratios):.3g} times what they were, in the middle of {len(ratios)}. "
            "Expected milliseconds of the same board."
        )


def _profiles() -> dict[str, Profile]:
    """Return the profiles that such tables can update."""
    found = {}
    for name, file in sorted(profile_files().items()):
        if SOURCE in file.read_text(encoding="utf-8", errors="replace"):
            profile = load_profile(name)
            if profile.origin.title.startswith(SOURCE):
                found[name] = profile
    return found


def _by_profile(published: Published, profiles: Mapping[str, Profile]) -> tuple[dict[str, dict[str, _Latencies]], set[str], set[str]]:
    """Return latencies by profile, precision and network, device names that no profile has, and networks without a graph."""
    owner: dict[tuple[str, str], str] = {}
    for profile in profiles.values():
        # the names of a board stand in the profile of its first runtime
        first = profiles.get(profile.name.removesuffix(f"-{profile.runtime}"), profile)
        titles = {first.title, *first.aliases, profile.title.removesuffix(f" ({profile.runtime})")}
        owner |= {(title, profile.runtime): profile.name for title in titles}
    jobs: dict[tuple[str, str, str], dict[str, Timed]] = defaultdict(dict)
    strangers, unknown = set(), set()
    several = _of_several_parts(published.timings)
    for timed in published.timings:
        name = owner.get((timed.title, timed.runtime))
        network = _network_of(timed, several)
        if name is None:
            strangers.add(timed.title)
        if network is None:
            unknown.add(timed.network)
        if name is not None and network is not None and timed.wholly_on_npu:
            jobs[name, timed.precision, network][timed.job or timed.title] = timed
    tables: dict[str, dict[str, dict[str, tuple[float, str]]]] = defaultdict(lambda: defaultdict(dict))
    for (name, precision, network), found in jobs.items():
        newest = max((t.sdk for t in found.values()), key=version_of)
        tables[name][precision][network] = median(t.latency_ms for t in found.values() if t.sdk == newest), newest
    shown = {title for title, _ in owner}
    return {name: dict(held) for name, held in tables.items()}, strangers - shown, unknown


def _of_several_parts(timings: Sequence[Timed]) -> set[str]:
    parts: dict[str, set[str]] = defaultdict(set)
    for timed in timings:
        parts[timed.network].add(part_of(timed.network, timed.component))
    return {network for network, found in parts.items() if len(found) > 1}


def _network_of(timed: Timed, several: Collection[str]) -> str | None:
    """Return the published name of a network; None where it has no graph here."""
    name = f"{timed.network}/{part_of(timed.network, timed.component)}" if timed.network in several else timed.network
    found = rebuilt().get(name)
    return found.workload if found else None


def version_of(text: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared: of ``QAIRT 2.50.0`` (2, 50, 0); none for a text without digits."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", text))


def _moved(profile: Profile, precision: str, latencies: _Latencies) -> tuple[PrecisionProfile, PrecisionMoved] | None:
    """Return what a profile has at a precision with newer timings, and what moved; None where the table is older, or has another precision."""
    at = profile.precisions.get(precision)  # type: ignore[call-overload]
    if at is None:
        return None
    newer = {name: ms for name, (ms, sdk) in latencies.items() if version_of(sdk) >= version_of(at.runtime_version)}
    if not newer:
        return None
    after = max((sdk for name, (_, sdk) in latencies.items() if name in newer), key=version_of)
    both = sorted(set(newer) & set(at.timings_ms))
    same = version_of(after) == version_of(at.runtime_version)
    drift = None if same else drift_of([at.timings_ms[n] for n in both], [newer[n] for n in both], at.runtime_version)
    kept = {name: ms for name, ms in at.timings_ms.items() if name not in newer}
    former = {name: ms for name, ms in at.former_timings_ms.items() if name not in newer}
    if drift is not None and at.drift is not None:  # timings of an SDK still older than the one before
        former = {name: at.drift.moved(ms) for name, ms in former.items()}
        drift = _after(at.drift, drift)
    version = "QAIRT " + after if after else at.runtime_version
    notes = [note for note in at.notes if not note.startswith(_SDK_NOTE)]
    if drift is None and not same and kept:
        notes.append(f"{_SDK_NOTE} {version}, {len(kept)} of {at.runtime_version}: fewer than {FEWEST} networks were timed on both")
    # without drift nothing is known of the others: they stay what they were
    timings = {**({} if drift else kept), **newer}
    found = at.model_copy(
        update={
            "runtime_version": version,
            "timings_ms": dict(sorted(timings.items())),
            "former_timings_ms": dict(sorted({**former, **(kept if drift else {})}.items())),
            "drift": drift or at.drift,
            "notes": tuple(notes),
        }
    )
    rows = [
        NetworkMoved(
            network=name,
            before_ms=at.timings_ms.get(name),
            ms=ms,
            change_pct=100 * (ms / at.timings_ms[name] - 1) if name in at.timings_ms else None,
        )
        for name, ms in sorted(newer.items())
    ]
    return found, PrecisionMoved(
        device=profile.name,
        precision=precision,
        before=at.runtime_version,
        after=version,
        networks=tuple(rows),
        n=len(both),
        factor=drift.factor if drift else 1.0,
        start_ms=drift.start_ms if drift else 0.0,
        halfwidth_pct=drift.halfwidth_pct if drift else None,
        carried=len(kept) + len(former) if drift else 0,
    )


def _after(first: SdkDrift, second: SdkDrift) -> SdkDrift:
    """Return two changes of the SDK, one after the other, as one: what a fit to the first SDK needs."""
    return SdkDrift(
        factor=first.factor * second.factor,
        start_ms=second.factor * first.start_ms + second.start_ms,
        networks=min(first.networks, second.networks),
        halfwidth_pct=min(100.0, (first.halfwidth_pct**2 + second.halfwidth_pct**2) ** 0.5),
        since=first.since,
    )


def _updated(profile: Profile, changed: Mapping[str, PrecisionProfile], published: Published) -> Profile:
    precisions = {name: changed.get(name, at) for name, at in profile.precisions.items()}
    release = f" {published.release}" if published.release else ""
    until = max(profile.origin.retrieved, max((timed.built for timed in published.timings), default=""))
    origin = profile.origin.model_copy(
        update={"retrieved": until, "command": f"{profile.origin.command}; nas devices update --from {published.name}"[:400]}
    )
    notes = [note for note in profile.notes if not note.startswith("updated from ")]
    return profile.model_copy(
        update={
            "precisions": precisions,
            "origin": origin,
            "notes": (*notes, f"updated from {published.name}{release}: nas devices update"),
        }
    )
