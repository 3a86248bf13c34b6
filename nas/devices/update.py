"""Newer timings that a vendor published, put into the profiles of its devices: what was timed again is replaced, the rest follows.

Shipped profiles are never changed: an updated one stands in the user's folder of updates and goes before the shipped one of its name.
Everything is read and checked before anything is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from nas.devices.aihub_graphs import part_of, rebuilt
from nas.devices.aihub_perf import Published, Timed, read_published
from nas.devices.device_folder import finish_cut_off, write_whole
from nas.devices.drift import FEWEST, drift_of
from nas.devices.names import find_profile, profile_files, updates_home, version_of
from nas.devices.new_device import profile_toml
from nas.devices.profile import PrecisionProfile, Profile, load_profile
from nas.errors import DataError, UsageError, one_line
from nas.results.listings import NetworkMoved, PrecisionMoved, Updated

SOURCE = "Qualcomm AI Hub"
"""How the origin of a profile begins that such tables can update."""

_MADE = ": nas devices update"
"""How the note ends that an update leaves in a profile."""

_OTHER_UNIT = 5.0
"""No release of an SDK moved all networks of a board so far. Set by hand."""

_Latencies = Mapping[str, tuple[float, str, str]]
"""Network -> latency in ms, SDK, and date of its build."""


def update_profiles(source: Path, devices: Collection[str] = (), to: Path | None = None) -> Updated:
    """Put the timings of a wheel or folder into profiles; see `nas.api.update_devices`."""
    published = read_published(source)
    for room in {updates_home(), to or updates_home()}:
        finish_cut_off(room)
    profiles = _profiles()
    wanted = {load_profile(find_profile(name)).name for name in devices} or set(profiles)
    if other := sorted(wanted - set(profiles)):
        raise UsageError(
            f"device {other[0]}: its timings are of another source, got {load_profile(other[0]).origin.title!r}. Expected {SOURCE}."
        )
    tables, strangers, unknown = _by_profile(published, profiles)
    moved: list[PrecisionMoved] = []
    files: dict[str, str] = {}
    older: list[str] = []
    for name in sorted(wanted & set(tables)):
        profile, by_precision = profiles[name], tables[name]
        changed: dict[str, tuple[PrecisionProfile, PrecisionMoved]] = {}
        try:
            for precision, latencies in sorted(by_precision.items()):
                _check_unit(profile, precision, latencies, published.name)
                if (change := _moved(profile, precision, latencies)) is not None:
                    changed[precision] = change
            updated = _updated(profile, {p: at for p, (at, _) in changed.items()}, published)
            Profile.model_validate(updated.model_dump())  # what is written must be readable
        except ValidationError as error:
            raise DataError(f"timings {published.name}: those of {name} cannot be true ({one_line(error.errors()[0]['msg'])}).") from None
        except ValueError as error:
            raise DataError(f"timings {published.name}: those of {name}: {error}") from None
        if not changed:
            older.append(name)
            continue
        moved += [record for _, record in changed.values()]
        files[name] = profile_toml(updated)
    if not moved:
        why = (
            f"its timings are older than the profiles of {', '.join(older)}, or the same"
            if older
            else "no timing is of a device and a network that are known here"
        )
        raise DataError(f"timings {published.name}: nothing to update, {why}. Profiles stay as they are.")
    room = to or updates_home()
    _check_room(room, files)
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


def _check_room(room: Path, names: Collection[str]) -> None:
    """Refuse to write over a file that no update made.

    Raises:
        UsageError: One is there, or the folder is a file.
    """
    if room.exists() and not room.is_dir():
        raise UsageError(f"updates: not a folder, got {one_line(room)}. Do this: name a folder for the profiles.")
    for name in sorted(names):
        file = room / f"{name}.toml"
        if file.exists() and not (file.is_file() and _MADE in file.read_text(encoding="utf-8", errors="replace")):
            raise UsageError(f"updates: no update made the file {one_line(file)}. Do this: move it away, or name another --to.")


def _check_unit(profile: Profile, precision: str, latencies: _Latencies, source: str) -> None:
    """Refuse a table in which all latencies of a device are several times what they were: another unit, or another board.

    Raises:
        DataError: They are.
    """
    at = profile.precisions.get(precision)  # type: ignore[call-overload]
    if at is None:
        return
    newer = {name: ms for name, (ms, sdk, _) in latencies.items() if version_of(sdk) >= version_of(at.runtime_version)}
    ratios = [ms / before_ms for name, ms in newer.items() if (before_ms := _before(at, name))]
    if len(ratios) >= FEWEST and not 1 / _OTHER_UNIT <= median(ratios) <= _OTHER_UNIT:
        raise DataError(
            f"timings {source}: those of {profile.name} at {precision} are {median(ratios):.3g} times what they were, in the middle of {len(ratios)}. "
            "Expected milliseconds of the same board."
        )


def _profiles() -> dict[str, Profile]:
    """Return the profiles that such tables can update."""
    profiles = {}
    for name, file in sorted(profile_files().items()):
        if SOURCE in file.read_text(encoding="utf-8", errors="replace"):
            profile = load_profile(name)
            if profile.origin.title.startswith(SOURCE):
                profiles[name] = profile
    return profiles


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
    tables: dict[str, dict[str, dict[str, tuple[float, str, str]]]] = defaultdict(lambda: defaultdict(dict))
    for (name, precision, network), timings in jobs.items():
        newest = max(((t.sdk, t.built) for t in timings.values()), key=lambda key: (version_of(key[0]), key[1]))
        tables[name][precision][network] = median(t.latency_ms for t in timings.values() if (t.sdk, t.built) == newest), *newest
    shown = {title for title, _ in owner}
    return {name: dict(by_precision) for name, by_precision in tables.items()}, strangers - shown, unknown


def _of_several_parts(timings: Sequence[Timed]) -> set[str]:
    parts: dict[str, set[str]] = defaultdict(set)
    for timed in timings:
        parts[timed.network].add(part_of(timed.network, timed.component))
    return {network for network, own_parts in parts.items() if len(own_parts) > 1}


def _network_of(timed: Timed, several: Collection[str]) -> str | None:
    """Return the published name of a network; None where it has no graph here."""
    name = f"{timed.network}/{part_of(timed.network, timed.component)}" if timed.network in several else timed.network
    reference = rebuilt().get(name)
    return reference.workload if reference else None


def _moved(profile: Profile, precision: str, latencies: _Latencies) -> tuple[PrecisionProfile, PrecisionMoved] | None:
    """Return what a profile has at a precision with newer timings, and what moved; None where the table has nothing newer, or another precision."""
    first = at = profile.precisions.get(precision)  # type: ignore[call-overload]
    if at is None:
        return None
    rows: dict[str, float] = {}
    for sdk, built in sorted({(sdk, built) for _, sdk, built in latencies.values()}, key=lambda key: (version_of(key[0]), key[1])):
        newer = {name: ms for name, (ms, *key) in latencies.items() if key == [sdk, built] and ms != at.timings_ms.get(name)}
        ours, theirs = (version_of(at.runtime_version), at.runtime_built), (version_of(sdk), built or at.runtime_built)
        if theirs >= ours and (newer or theirs[0] > ours[0]):
            at = _timed_again(
                at,
                "QAIRT " + sdk if sdk else at.runtime_version,
                theirs[1],
                {n: m for n, (m, *key) in latencies.items() if key == [sdk, built]},
            )
            rows |= {name: latencies[name][0] for name in at.timings_ms if name in latencies and latencies[name][1:] == (sdk, built)}
    if at is first:
        return None
    drift = at.drift
    return at, PrecisionMoved(
        device=profile.name,
        precision=precision,
        before=first.runtime_version,
        after=at.runtime_version,
        networks=tuple(_network_moved(name, _before(first, name), ms) for name, ms in sorted(rows.items())),
        n=drift.networks if drift else len(set(rows) & set(first.timings_ms)),
        factor=drift.factor if drift else 1.0,
        start_ms=drift.start_ms if drift else 0.0,
        halfwidth_pct=drift.halfwidth_pct if drift else None,
        carried=len(set(at.former_timings_ms) - set(at.timings_ms)),
    )


def _before(at: PrecisionProfile, name: str) -> float | None:
    """Return the latency of a network as a profile has it, its own or carried over."""
    former_ms = at.former_timings_ms.get(name)
    return at.timings_ms.get(name, at.drift.moved(former_ms) if at.drift and former_ms is not None else None)


def _network_moved(name: str, before_ms: float | None, ms: float) -> NetworkMoved:
    change_pct = None if before_ms is None else 100 * (ms / before_ms - 1)
    return NetworkMoved(network=name, before_ms=before_ms, ms=ms, change_pct=change_pct)


def _timed_again(at: PrecisionProfile, version: str, built: str, latencies: Mapping[str, float]) -> PrecisionProfile:
    """Return a precision with timings of one build of an SDK, the same as its own or newer.

    Former timings stay, those of networks that are timed again too: what the SDK changed is fitted to all of these pairs, at every update anew.
    A network that was first timed under an SDK between is taken back by its change, carried on, and no pair of a fit.
    """
    former, since, between = dict(at.former_timings_ms), at.runtime_version, dict(at.drift.between if at.drift else {})
    if version_of(version) == version_of(at.runtime_version):
        timings = {**at.timings_ms, **latencies}
        since = at.drift.since if at.drift else ""
    else:
        timings = dict(latencies)
        if at.drift is None:
            former = dict(at.timings_ms)
        else:
            since = at.drift.since
            left = {name: ms for name, ms in at.timings_ms.items() if name not in former}
            former |= {name: at.drift.before(ms) for name, ms in left.items()}
            between |= dict.fromkeys(left, at.runtime_version)
    both = sorted((set(timings) & set(former)) - set(between))
    drift = (
        drift_of([former[n] for n in both], [timings[n] for n in both], since).model_copy(update={"between": between}) if former else None
    )
    return at.model_copy(
        update={
            "runtime_version": version,
            "runtime_built": built,
            "timings_ms": dict(sorted(timings.items())),
            "former_timings_ms": dict(sorted(former.items())),
            "drift": drift,
        }
    )


def _updated(profile: Profile, changed: Mapping[str, PrecisionProfile], published: Published) -> Profile:
    precisions = {name: changed.get(name, at) for name, at in profile.precisions.items()}
    release = f" {published.release}" if published.release else ""
    today = date.today().isoformat()
    built = max((timed.built for timed in published.timings if timed.built <= today), default="")
    # the date is of the whole profile: where a precision has no newer timing, it stays
    until = max(profile.origin.retrieved, built) if set(changed) == set(profile.precisions) else profile.origin.retrieved
    origin = profile.origin.model_copy(
        update={"retrieved": until, "command": f"{profile.origin.command}; nas devices update --from {published.name}"[:400]}
    )
    notes = [note for note in profile.notes if not note.startswith("updated from ")]
    return profile.model_copy(
        update={
            "precisions": precisions,
            "origin": origin,
            "notes": (*notes, f"updated from {published.name}{release}{_MADE}"),
        }
    )
