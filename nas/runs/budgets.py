"""Budgets as a user writes them, and how one network stands to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from nas.devices.names import slug
from nas.devices.peak_memory import peak_bytes, peak_memory
from nas.devices.profile import DeviceMemory
from nas.errors import UsageError
from nas.quantisation.risk import predicted_drop
from nas.results import BudgetCheck, Estimate
from nas.searching.objective import Budget
from nas.units import DEVICE_QUANTITIES, UNIT_OF, Limit, Quantity, parse_limit

if TYPE_CHECKING:
    from nas.devices.profile import Profile
    from nas.graphs.graph import Graph

Judged = Literal["upper", "point"]
"""What of an estimate a budget is held against: the upper end of its interval, or its central value."""


def read_budgets(profiles: Mapping[str, Profile], texts: Sequence[str], *, batch: int | None = None) -> tuple[Budget, ...]:
    """Return budgets by device and quantity.

    Args:
        profiles: Devices by name.
        texts: ``5ms``, ``20MB``, ``2.5MB-ram`` or ``device:8ms``. One without a device bounds every device that has none of its own.
        batch: Images a run, where the user gave it.

    Raises:
        UsageError: A budget that cannot be read, of a device that is not asked for, given twice, or in milliseconds for a device whose profile
            states throughput.
    """
    also = {slug(alias): name for name, profile in profiles.items() for alias in (name, *profile.aliases)}
    read: dict[str, Budget] = {}
    general: dict[str, Limit] = {}
    for text in texts:
        device, colon, rest = text.rpartition(":")
        device = device if device in profiles else also.get(slug(device), device)
        limit = parse_limit(rest if colon else text)
        if colon and device not in profiles:
            raise UsageError(
                f"budget: {text!r} is for a device that is not asked for, got {device!r}. Expected one of: {', '.join(profiles)}."
            )
        if colon and limit.quantity not in DEVICE_QUANTITIES:
            raise UsageError(f"budget: a budget of {limit.quantity} belongs to no device, got {text!r}. Do this: --budget {limit.text}.")
        name = f"{limit.quantity}/{device}" if colon else limit.quantity
        if name in read or name in general:
            raise UsageError(f"budget: two budgets of one kind, got {text!r}. Do this: keep one of them.")
        if colon:
            read[name] = Budget(name, limit, device)
        else:
            general[name] = limit
    for name, limit in general.items():
        if limit.quantity in DEVICE_QUANTITIES:
            own = {b.device for b in read.values() if b.limit.quantity == limit.quantity}
            read |= {f"{name}/{device}": Budget(f"{name}/{device}", limit, device) for device in profiles if device not in own}
        else:
            read[name] = Budget(name, limit)
    for budget in read.values():
        profile = profiles.get(budget.device)
        if profile is None or profile.quantity == "latency" or budget.limit.quantity != "latency" or batch:
            continue
        if f"throughput/{budget.device}" not in read:
            remedy = "Do this: give a budget such as 200fps, or in a search --batch N for the time of N images at full load."
            raise UsageError(f"budget: {budget.device} states throughput, not latency, got {budget.limit.text!r}. {remedy}")
    return tuple(sorted(read.values(), key=lambda budget: budget.name))


def check_budgets(
    budgets: Sequence[Budget], estimate: Estimate, graph: Graph, profile: Profile, precision: str, on: Judged
) -> tuple[BudgetCheck, ...]:
    """Return how a network stands to the budgets that concern the device of its estimate.

    An estimate that leaves an operator out is of a network that the device cannot run, so it breaks every budget.

    Args:
        budgets: Of all devices.
        estimate: Of the network on one device.
        graph: Of the network.
        profile: Of the device.
        precision: At which what the graph leaves open runs.
        on: What of the estimate is held against a budget.
    """
    checks = []
    for budget in budgets:
        if budget.device not in ("", estimate.device):
            continue
        quantity = budget.limit.quantity
        value = _value(quantity, estimate, graph, profile, precision, on)
        violation = budget.violation(value)
        unit, factor = UNIT_OF[quantity]
        checks.append(
            BudgetCheck(
                budget=budget.limit.text,
                quantity=quantity,
                unit=unit,
                limit=budget.limit.value / factor,
                value=value / factor,
                judged=_judged(quantity, graph, profile, precision, on),
                holds=violation <= 0 and not estimate.unsupported,
                over_pct=100 * violation,
            )
        )
    return tuple(checks)


def _judged(quantity: Quantity, graph: Graph, profile: Profile, precision: str, on: Judged) -> Literal["upper", "point", "count"]:
    """Return what of a network is held against a budget: an end of an interval, a central value, or what is counted."""
    if quantity == "drop":
        return "point"
    predicted = quantity == "memory" and peak_memory(profile.name, graph, precision) is not None
    return on if quantity in ("latency", "throughput") or predicted else "count"


def _value(quantity: Quantity, estimate: Estimate, graph: Graph, profile: Profile, precision: str, on: Judged) -> float:
    """Return a quantity of a network in the engine's unit."""
    ms = estimate.upper_ms if on == "upper" else estimate.latency_ms
    pictures = 1 if estimate.quantity == "reciprocal_throughput" else estimate.batch
    match quantity:
        case "latency":
            return ms
        case "throughput":
            return 1e3 * pictures / max(ms, 1e-9)
        case "ram" | "flash":
            plan = profile.memory or DeviceMemory(source="lifetimes of the activations")
            return plan.ram_bytes(graph, precision) if quantity == "ram" else plan.flash_bytes(graph, precision)
        case "size":
            return graph.size_bytes(precision)
        case "memory":
            return peak_bytes(profile.name, graph, precision, upper=on == "upper")
        case "drop":
            return predicted_drop(graph, profile.runtime).drop_pct if precision == "w8a8" else 0.0
        case "macs":
            return float(graph.cost.macs)
        case "params":
            return float(graph.cost.params)
