"""Progress on stderr: a bar where a person watches; where a file does, a line now and then from long phases only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.events import Event, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.report.tables import print_lines, width_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_EVERY_S = 10.0  # between lines of a log; by hand

PHASES = {
    "train": ("training the supernet", "epochs"),
    "fit": ("fitting classifiers and stitches", "steps"),
    "search": ("search", "networks"),
    "race": ("fine-tuning one against the other", "turns"),
    "teach": ("asking a teacher", "networks"),
    "finetune": ("fine-tuning the choice", "epochs"),
    "export": ("export", "test pictures"),
    "verify": ("measuring", "networks"),
    "rank": ("training networks alone", "networks"),
}
"""What a phase is called, and what its steps are."""

NUMBERS = {
    "accuracy_pct": ("accuracy", "%"),
    "alone_accuracy_pct": ("alone", "%"),
    "best_accuracy_pct": ("best", "%"),
    "classifier_pct": ("classifier", "%"),
    "evaluations_per_s": ("", "networks/s"),
    "front_size": ("front of", ""),
    "learning_rate": ("learning rate", ""),
    "measured_ms": ("", "ms"),
    "seconds": ("", "s"),
    "shared_accuracy_pct": ("shared", "%"),
    "validation_accuracy_pct": ("validation", "%"),
}
"""How a number of an event is read: its name and its unit; any other is shown as it is called."""


def number_text(name: str, value: float) -> str:
    """Return a number of an event with its name and unit: ``best 71.3 %``."""
    label, unit = NUMBERS.get(name, (name.removesuffix("_pct").removesuffix("_ms").replace("_", " "), ""))
    unit = unit or ("%" if name.endswith("_pct") else "ms" if name.endswith("_ms") else "")
    return " ".join(part for part in (label, f"{value:.4g}", unit) if part)


class ProgressReport:
    """A listener that shows what a run does.

    Args:
        console: Where to; stderr by default.
        clock: Seconds; only for tests.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True, highlight=False, width=width_of(sys.stderr))
        self.clock = clock
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total: int | None = None
        self._unit = ""
        self._before = 0.0
        self._began_s = self._last_s = 0.0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, PhaseStarted):
            self._start(event)
        elif isinstance(event, PhaseAdvanced):
            self._advance(event)
        elif isinstance(event, PhaseFinished):
            self._stop()
            if self.console.is_terminal or event.seconds >= _EVERY_S:
                self._line(f"{PHASES.get(event.phase, (event.phase, ''))[0]}: done in {_duration(event.seconds)}")
        elif isinstance(event, Notice):
            self._line(event.text)

    def close(self) -> None:
        """Stop drawing, whatever has happened."""
        self._stop()

    def _start(self, event: PhaseStarted) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._stop()
        self._total, self._before, self._began_s, self._last_s = event.total, event.done + event.part, self.clock(), self.clock()
        name, unit = PHASES.get(event.phase, (event.phase, ""))
        self._unit = unit = event.unit or unit
        if self.console.is_terminal and event.total:
            text = f"{name}: {event.detail}" if event.detail else name
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[state]}"), console=self.console, transient=True
            )
            self._bar.start()
            self._line(text + (f", {event.done} of {event.total} {unit} done before" if event.done else ""))
            self._task = self._bar.add_task(name, total=event.total, completed=event.done, state=f"{event.done}/{event.total} {unit}")
        elif self.console.is_terminal:
            self._line(f"{name}: {event.detail or 'started'}")

    def _advance(self, event: PhaseAdvanced) -> None:
        name, done = PHASES.get(event.phase, (event.phase, ""))[0], event.done + event.part
        shown = f"{done:.1f}" if event.part else f"{event.done}"
        steps = shown + (f"/{self._total}" if self._total else "") + f" {self._unit}".rstrip()
        numbers = [number_text(*entry) for entry in event.numbers.items()]
        parts = [steps, *self._remaining(done), *numbers]
        if self._bar is not None and self._task is not None:
            room = self.console.width - len(name) - 24
            while len(parts) > 1 and len("  ".join(parts)) > room:  # a line that does not fit loses its last number
                parts.pop()
            self._bar.update(self._task, completed=done, state="  ".join(parts))
        elif self.clock() - self._last_s >= _EVERY_S:
            self._last_s = self.clock()
            self._line(f"{name}: {', '.join(parts)}")

    def _remaining(self, done: float) -> list[str]:
        """Return how long a phase still takes at its pace so far; nothing where that is not known yet."""
        fresh, left = done - self._before, (self._total or 0) - done
        if fresh <= 0 or left <= 0:
            return []
        return [f"{_duration((self.clock() - self._began_s) / fresh * left)} to go"]

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def _line(self, text: str) -> None:
        print_lines([text], self.console)


def _duration(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
