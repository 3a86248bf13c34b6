"""What a search is for: devices at their precisions, and the goal that their budgets make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.devices.latency_table import LatencyTable, read_latency_table
from nas.devices.names import find_profile
from nas.devices.predictor import load_predictor
from nas.devices.profile import Origin, PrecisionProfile, Profile, load_profile
from nas.errors import UnknownNameError, UsageError
from nas.runs.budgets import read_budgets
from nas.searching.judge import Target
from nas.searching.objective import COSTS, Goal, Objective
from nas.spaces.precision import PrecisionSpace
from nas.spaces.space import SearchSpace
from nas.units import Precision

if TYPE_CHECKING:
    from nas.spaces.elastic import ElasticSpace


def choose_by_part(space: ElasticSpace, targets: Sequence[Target]) -> tuple[SearchSpace, list[Target]]:
    """Return a space whose members choose a precision for each part, and one target a device.

    Raises:
        UsageError: The devices have no precision in common, or a latency model that prices one precision at a time.
    """
    devices = list(dict.fromkeys(target.profile.name for target in targets))
    common = [p for p in Precision if all((d, p) in {(t.profile.name, t.precision) for t in targets} for d in devices)]
    if not common:
        raise UsageError(f"--precision any: {' and '.join(devices)} have no precision in common. Do this: leave --precision out.")
    chosen = [next(t for t in targets if t.profile.name == device and t.precision == common[0]) for device in devices]
    if len(common) == 1:
        return space, chosen
    for target in chosen:
        models = {id(t.predictor) for t in targets if t.profile.name == target.profile.name}
        if target.predictor is None or not target.predictor.prices_mixed or len(models) > 1:
            known = ", ".join(common)
            raise UsageError(
                f"--precision any: the latency model of {target.profile.name} prices one precision at a time. Do this: --precision with one of {known}."
            )
    return PrecisionSpace(space, common), chosen


def load_targets(devices: Sequence[str], precision: str | None = None, tables: Sequence[str] = (), space: str = "") -> list[Target]:
    """Return the targets that a user means by device names and a precision (``any``: all that each device has a model for).

    Args:
        devices: Names or paths of profiles, or columns of latency tables.
        precision: One of `nas.units.Precision`, ``any``, or None for each device's default.
        tables: Files of published latencies, one column a device.
        space: Of the tables' rows.

    Raises:
        UsageError: An unknown device, a device given twice, a precision that a device lacks or has no latency model for.
        DataError: A file that is no latency table.
    """
    columns = {device: table for table in (read_latency_table(Path(path), space) for path in tables) for device in table.ms}
    targets: list[Target] = []
    for device in devices:
        if device in columns:
            targets.append(_tabled(device, columns[device], precision))
            continue
        profile, folder = load_profile(device), find_profile(device).parent
        if profile.name in {target.profile.name for target in targets}:
            raise UsageError(f"device {profile.name}: given twice.")
        if precision == "any":
            names: list[str] = [name for name in Precision if name in profile.precisions and profile.at(name).predictor]
        else:
            names = [precision or profile.default_precision]
        targets += [Target(profile, name, load_predictor(profile, name, folder)) for name in names or [profile.default_precision]]
    return targets


def _tabled(device: str, table: LatencyTable, precision: str | None) -> Target:
    """Return a device whose latencies are a table's; isomorphic networks have the mean of their rows."""
    if precision is not None:
        raise UsageError(
            f"--precision: the latencies of {device} are a table's, at the one precision that was timed. Do this: leave it out."
        )
    groups: dict[str, list[float]] = {}
    for architecture, ms in zip(table.architectures, table.column(device).tolist(), strict=True):
        groups.setdefault(table.space.identity(architecture), []).append(ms)
    name = re.sub(r"[^a-z0-9.-]+", "-", device.lower()).strip("-.") or "table"
    origin = Origin(title=f"column {device} of {table.path.name}")
    profile = Profile(
        name=name,
        title=device,
        kind="asic",
        runtime="table",
        default_precision=Precision.FP32,
        precisions={Precision.FP32: PrecisionProfile()},
        origin=origin,
    )
    return Target(profile, "fp32", None, {identity: sum(group) / len(group) for identity, group in groups.items()})


def make_goal(targets: Sequence[Target], budgets: Sequence[str], *, batch: int | None = None, minimize: Sequence[str] = ()) -> Goal:
    """Return the goal of a search: accuracy against each device's latency or other costs, within budgets as a user writes them.

    Args:
        targets: The devices.
        budgets: ``5ms``, ``20MB``, ``2.5MB-ram`` or ``device:8ms``. One without a device bounds every device that has none of its own.
        batch: Images a run, where the user gave it.
        minimize: Words of `COSTS`; none for ``latency``.

    Raises:
        UsageError: A cost that is none, or given twice; a budget that cannot be read, of a device that is not searched for, given twice, or in milliseconds
            for a device whose profile states throughput.
    """
    profiles = {target.profile.name: target.profile for target in targets}
    objectives = [Objective("accuracy_pct", "maximize")]
    for word in minimize or ("latency",):
        if word not in COSTS:
            raise UnknownNameError("cost to minimize", word, COSTS)
        names = [f"{COSTS[word]}/{name}" for name in profiles] if word == "latency" else [COSTS[word]]
        objectives += [Objective(name, "minimize") for name in names]
    if len({objective.name for objective in objectives}) < len(objectives):
        raise UsageError(f"minimize: a cost given twice, got {list(minimize)!r}.")
    return Goal(tuple(objectives), read_budgets(profiles, budgets, batch=batch))
