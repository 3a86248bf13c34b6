"""What a search wants: objectives to optimise and budgets that must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nas.units import Limit

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True, slots=True)
class Objective:
    """A number to optimise.

    Attributes:
        name: Key of a trial's values (``accuracy_pct``, ``latency_ms/sa8295p``, ``macs``).
        direction: Which way is better.
    """

    name: str
    direction: Direction

    @property
    def sign(self) -> int:
        """Factor that turns the value into a loss."""
        return -1 if self.direction == "maximize" else 1

    @property
    def title(self) -> str:
        """What a chart calls it, with its unit: ``top-1 %``, ``ms on sa8295p``, ``multiply-adds``."""
        quantity, _, device = self.name.partition("/")
        return _TITLES.get(quantity, quantity) + (f" on {device}" if device else "")


_TITLES = {
    "accuracy_pct": "top-1 %",
    "latency_ms": "ms",
    "macs": "multiply-adds",
    "params": "parameters",
    "size_bytes": "bytes of the file",
    "memory_bytes": "bytes of activations at the peak",
}

COSTS = {"latency": "latency_ms", "macs": "macs", "params": "params", "size": "size_bytes", "memory": "memory_bytes"}
"""What can be minimised beside accuracy, by the word that a user writes: the name of its values. Latency is one a device."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound that must hold; latency is judged by the interval's upper end.

    Attributes:
        name: Key of a trial's violations (``latency/sa8295p``, ``size``).
        limit: The bound; an upper one, except for throughput.
        device: Profile name for latency and throughput, empty otherwise.
    """

    name: str
    limit: Limit
    device: str = ""

    def violation(self, value: float) -> float:
        """Return by how much `value` breaks the bound, relative to it: ≤ 0 where it holds."""
        excess = (value - self.limit.value) / self.limit.value
        return -excess if self.limit.quantity == "throughput" else excess


@dataclass(frozen=True, slots=True)
class Goal:
    """Objectives and budgets of one search, in a fixed order.

    Attributes:
        objectives: The first decides between points of a front.
        budgets: All of them hard.
    """

    objectives: tuple[Objective, ...]
    budgets: tuple[Budget, ...] = ()

    def losses(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return the values as losses, in the order of the objectives."""
        return tuple(objective.sign * values[objective.name] for objective in self.objectives)
