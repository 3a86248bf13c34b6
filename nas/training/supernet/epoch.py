"""A training inside an epoch: how far it has come, reported each second and written down twice a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.events import EventBus, PhaseAdvanced
from nas.training.supernet.checkpoint import Checkpoint, write_checkpoint

REPORT_S, CHECKPOINT_S = 1.0, 30.0
"""Seconds between two events inside an epoch, and between two checkpoints: what a kill loses at most, and a step."""


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


class Keeper:
    """Writes a supernet's training down, and says how far it has come.

    Args:
        path: The checkpoint.
        identity: See `nas.training.supernet.train.identity_of`.
        epochs: Of the whole training.
        weights: By name; written as they are at the time.
        state: Returns the optimiser's state, which a finished training does without.
        bus: Told of the progress.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        epochs: int,
        weights: Mapping[str, Tensor],
        state: Callable[[], Mapping[str, Tensor]],
        bus: EventBus,
    ) -> None:
        self.path, self.identity, self.epochs, self.weights, self.state, self.bus = path, identity, epochs, weights, state, bus
        self._saved_s = self._told_s = time.monotonic()

    def save(self, epoch: int, history: Sequence[Mapping[str, float]], begun: Begun) -> None:
        """Write the checkpoint."""
        tensors = dict(self.weights) | (dict(self.state()) if epoch < self.epochs else {})
        progress = {"epoch": epoch, "epochs": self.epochs, "history": list(history), **begun.progress}
        write_checkpoint(self.path, Checkpoint("supernet", self.identity, progress, tensors))
        self._saved_s = time.monotonic()

    def within(self, epoch: int, history: Sequence[Mapping[str, float]], steps: int) -> Callable[[Begun], None]:
        """Return what is to be told of every step of an epoch of so many steps."""

        def watch(begun: Begun) -> None:
            if begun.step == steps:  # the epoch's end is reported and written as such
                return
            if time.monotonic() - self._told_s >= REPORT_S:
                self.bus.emit(PhaseAdvanced("train", epoch, part=begun.step / steps))
                self._told_s = time.monotonic()
            if time.monotonic() - self._saved_s >= CHECKPOINT_S:
                self.save(epoch, history, begun)

        return watch
