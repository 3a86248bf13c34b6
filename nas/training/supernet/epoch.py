"""A training inside an epoch: how far it has come, reported each second and written down twice a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.events import EventBus, PhaseAdvanced, PhaseStarted
from nas.training.recipe import Pictures
from nas.training.supernet.checkpoint import Checkpoint, write_checkpoint

REPORT_S, CHECKPOINT_S = 1.0, 30.0
"""Seconds between two events inside an epoch, and between two checkpoints: what a kill loses at most, and a step. Set by hand."""


@dataclass
class Begun:
    """How far an epoch has come.

    Attributes:
        step: Steps of it that are done.
        sums: Over those: loss of the largest member, of the smallest, how often the largest was right, pictures.
        classes: That the largest gave.
    """

    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    classes: set[int] = field(default_factory=set)

    @property
    def progress(self) -> dict[str, Any]:
        """What a checkpoint says of it; nothing where no step is done."""
        return {"step": self.step, "sums": self.sums, "classes": sorted(self.classes)} if self.step else {}

    @classmethod
    def of(cls, progress: Mapping[str, Any]) -> Begun:
        """Take up what a checkpoint says."""
        return cls(int(progress.get("step", 0)), list(progress.get("sums", [0.0] * 4)), set(progress.get("classes", [])))


@dataclass
class Length:
    """How many steps a training has: all of its schedule, or as many as fit into the time that is left.

    Attributes:
        steps: Of the schedule, by what is known.
        left_s: Returns the seconds that are left; None where there is no limit.
        pictures: Whose sizes decide how long a step takes.
        done: Steps that are done.
        share: Of the schedule, that is done.
    """

    steps: int
    left_s: Callable[[], float] | None = None
    pictures: Pictures = field(default_factory=Pictures)
    done: int = 0
    share: float = 0.0
    _most: int = field(init=False)
    _first: tuple[float, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._most = self.steps

    @property
    def over(self) -> bool:
        """Whether the time allows no further step."""
        return self.left_s is not None and self.done >= self.steps

    @property
    def progress(self) -> dict[str, float]:
        """What a checkpoint says of it; nothing where there is no limit."""
        return {} if self.left_s is None else {"share": self.share}

    def percent(self, share: float) -> tuple[int, float]:
        """Return how much of the time is over when a share of the steps is done: whole percents, and the share of the next."""
        whole, part = divmod(round(100 * self.pictures.time_at(share), 6), 1)
        return int(whole), part

    def go_on(self, progress: Mapping[str, Any], step: int) -> None:
        """Take up what a checkpoint says, before a step of that number."""
        self.share = float(progress.get("share", step / max(self._most, 1)))
        if self.left_s is not None and self.share > 0:
            self._cut(step, self.share)

    def fit(self, step: int) -> None:
        """Cut the schedule, before a step of that number, to what is left; one step is done in any case.

        The share of the time of this session that is over decides which share of the steps should be done: small pictures take less.
        """
        if self.left_s is None:
            return
        now_s = time.monotonic()
        if self._first is None:
            self._first = now_s, self.pictures.time_at(self.share)
        elif (spent_s := now_s - self._first[0]) > 0:
            before, left_s = self._first[1], max(0.0, self.left_s())
            share = self.pictures.progress_at(before + (1 - before) * spent_s / (spent_s + left_s))
            self._cut(step, share)
        self.share = step / self.steps

    def _cut(self, step: int, share: float) -> None:
        """Let so many steps be the share of the schedule that is done."""
        self.steps = min(self._most, max(step, int(step / share + 1e-9)))  # a whole number of steps is not one less by rounding


class Shown:
    """Says how far a training has come: in epochs, or in percent where the time decides how many there are.

    Args:
        phase: Its name.
        bus: Told.
        epochs: Of the schedule.
        length: Of the training.
    """

    def __init__(self, phase: str, bus: EventBus, epochs: int, length: Length) -> None:
        self.phase, self.bus, self.epochs, self.length = phase, bus, epochs, length

    def start(self, epoch: int, part: float, detail: str) -> None:
        """Say that the training begins, or goes on, when a share of an epoch is done."""
        if self.length.left_s is None:
            self.bus.emit(PhaseStarted(self.phase, self.epochs, epoch, detail, part=part))
        else:
            done, part = self.length.percent(self.length.share)
            self.bus.emit(PhaseStarted(self.phase, 100, done, detail, "%", part))

    def advance(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Say that so many epochs are done."""
        done, part = (epoch, 0.0) if self.length.left_s is None else self.length.percent(self.length.done / self.length.steps)
        self.bus.emit(PhaseAdvanced(self.phase, done, dict(numbers), part))

    def within(self, epoch: int, part: float, step: int) -> None:
        """Say that a share of an epoch is done, after a step of the whole."""
        if self.length.left_s is None:
            self.bus.emit(PhaseAdvanced(self.phase, epoch, part=part))
        else:
            done, part = self.length.percent(step / self.length.steps)
            self.bus.emit(PhaseAdvanced(self.phase, done, part=part))


class Keeper:
    """Writes a supernet's training down, and says how far it has come.

    Args:
        path: The checkpoint.
        identity: See `nas.training.supernet.train.identity_of`.
        epochs: Of the whole training.
        weights: By name; written as they are at the time.
        state: Returns the optimiser's state, which a finished training does without.
        shown: Told of the progress.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        epochs: int,
        weights: Mapping[str, Tensor],
        state: Callable[[], Mapping[str, Tensor]],
        shown: Shown,
    ) -> None:
        self.path, self.identity, self.epochs, self.weights, self.state, self.shown = path, identity, epochs, weights, state, shown
        self._saved_s = self._told_s = time.monotonic()

    def save(self, epoch: int, history: Sequence[Mapping[str, float]], begun: Begun) -> None:
        """Write the checkpoint."""
        tensors = dict(self.weights) | (dict(self.state()) if epoch < self.epochs else {})
        progress = {"epoch": epoch, "epochs": self.epochs, "history": list(history), **begun.progress, **self.shown.length.progress}
        write_checkpoint(self.path, Checkpoint("supernet", self.identity, progress, tensors))
        self._saved_s = time.monotonic()

    def within(self, epoch: int, history: Sequence[Mapping[str, float]], steps: int) -> Callable[[Begun], None]:
        """Return what is to be told of every step of an epoch of so many steps."""

        def watch(begun: Begun) -> None:
            if begun.step == steps:  # the epoch's end is reported and written as such
                return
            if time.monotonic() - self._told_s >= REPORT_S:
                self.shown.within(epoch, begun.step / steps, epoch * steps + begun.step)
                self._told_s = time.monotonic()
            if time.monotonic() - self._saved_s >= CHECKPOINT_S:
                self.save(epoch, history, begun)

        return watch
