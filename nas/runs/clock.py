"""What a run has cost so far, over all its sessions, and what is left of its time limit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas.events import Event, EventBus, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Ledger, PhaseCost
from nas.runs.directory import RunDirectory

CLOCK_FILE = "clock.json"

_EVERY_S = 5.0  # by hand: what a kill may lose of the count

_ENERGY = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
"""The Linux kernel's counter of the processor package, in microjoules; it starts again at ``max_energy_range_uj``."""


def moment() -> tuple[float, float]:
    """Return seconds and processor seconds of this process, from which a clock may count."""
    return time.monotonic(), time.process_time()


class Clock:
    """A listener that counts seconds, processor seconds and energy of a run; they outlast the process.

    Args:
        run: Whose cost.
        limit_s: Of the whole run; None for none.
        began: The `moment` from which it counts; None for now.
    """

    def __init__(self, run: RunDirectory, limit_s: float | None, began: tuple[float, float] | None = None) -> None:
        self.run, self.limit_s = run, limit_s
        before = run.load(CLOCK_FILE, Ledger) or Ledger(seconds=0.0, processor_s=0.0)
        self._before, (self._began_s, self._began_cpu_s) = before, began or moment()
        self._began_j, self._saved_s = _energy_j(), time.monotonic()
        self._phases: dict[str, float] = {cost.phase: cost.seconds for cost in before.phases}
        self.forecast: dict[str, float] = {c.phase: c.forecast_s for c in before.phases if c.forecast_s is not None}
        self._forecast_s = before.forecast_s
        self._phase, self._phase_began_s = "", 0.0

    def __call__(self, event: Event) -> None:
        """Count the time of a phase; write it down now and then."""
        if isinstance(event, PhaseStarted):
            self._phase, self._phase_began_s = event.phase, time.monotonic()
        elif isinstance(event, PhaseFinished) and event.phase == self._phase:
            self._count()
            self._phase = ""
            self.save()
        elif isinstance(event, PhaseAdvanced) and time.monotonic() - self._saved_s >= _EVERY_S:
            self.save()

    def _count(self) -> None:
        if self._phase:
            now_s = time.monotonic()
            self._phases[self._phase] = self._phases.get(self._phase, 0.0) + now_s - self._phase_began_s
            self._phase_began_s = now_s

    @property
    def spent_s(self) -> float:
        """Seconds that the run has taken."""
        return self._before.seconds + time.monotonic() - self._began_s

    @property
    def left_s(self) -> float:
        """Seconds until the limit; infinite where there is none."""
        return float("inf") if self.limit_s is None else self.limit_s - self.spent_s

    def say(self, phases: dict[str, float]) -> None:
        """Note what the rest will take by phase, before it begins; what an earlier session said stays."""
        if self._forecast_s is None:
            self.forecast = dict(phases)
            self._forecast_s = self.spent_s + sum(phases.values())
            self.save()

    @property
    def ledger(self) -> Ledger:
        """What the run has cost until now."""
        self._count()
        energy_j = _energy_j()
        spent_j = None if energy_j is None or self._began_j is None or energy_j < self._began_j else energy_j - self._began_j
        before_j = self._before.energy_j or 0.0
        names = dict.fromkeys([*self._phases, *self.forecast])
        return Ledger(
            limit_s=self.limit_s,
            forecast_s=self._forecast_s,
            seconds=self.spent_s,
            processor_s=self._before.processor_s + time.process_time() - self._began_cpu_s,
            energy_j=None if spent_j is None else before_j + spent_j,
            phases=tuple(PhaseCost(phase=n, forecast_s=self.forecast.get(n), seconds=self._phases.get(n, 0.0)) for n in names),
        )

    def save(self) -> None:
        """Write the file."""
        self._saved_s = time.monotonic()
        self.run.write(CLOCK_FILE, self.ledger.dump())


@contextmanager
def clocked(run: RunDirectory, limit_s: float | None, bus: EventBus) -> Iterator[Clock]:
    """Give a clock that hears of everything within, and write down at the end what it cost, however that ends."""
    clock = Clock(run, limit_s)
    bus.listeners.append(clock)
    try:
        yield clock
    finally:
        clock.save()
        bus.listeners.remove(clock)


def _energy_j() -> float | None:
    try:
        return int(_ENERGY.read_text()) / 1e6
    except (OSError, ValueError):
        return None
