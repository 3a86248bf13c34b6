"""Progress on stderr: a bar where a person watches; where a file does, a line now and then from long phases only."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.events import Event, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_EVERY_S = 10.0


class ProgressReport:
    """A listener that shows what a run does.

    Args:
        console: Where to; stderr by default.
        clock: Seconds; only for tests.
    """

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 200)
        self.clock = clock
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total: int | None = None
        self._last_s = 0.0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, PhaseStarted):
            self._start(event)
        elif isinstance(event, PhaseAdvanced):
            self._advance(event)
        elif isinstance(event, PhaseFinished):
            self._stop()
            if self.console.is_terminal or event.seconds >= _EVERY_S:
                self._line(f"{event.phase}: done in {event.seconds:.1f} s")
        elif isinstance(event, Notice):
            self._line(event.text)

    def close(self) -> None:
        """Stop drawing, whatever has happened."""
        self._stop()

    def _start(self, event: PhaseStarted) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._stop()
        self._total, self._last_s = event.total, self.clock()
        if self.console.is_terminal:
            self._line(
                f"{event.phase}: {event.detail or 'started'}" + (f", {event.done} of {event.total} done before" if event.done else "")
            )
        if self.console.is_terminal and event.total:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[numbers]}"), console=self.console, transient=True)
            self._task = self._bar.add_task(event.phase, total=event.total, completed=event.done, numbers="")
            self._bar.start()

    def _advance(self, event: PhaseAdvanced) -> None:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in event.numbers.items())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=event.done, numbers=numbers)
        elif self.clock() - self._last_s >= _EVERY_S:
            self._last_s = self.clock()
            self._line(f"{event.phase}: {event.done}" + (f"/{self._total}" if self._total else "") + f"  {numbers}")

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
