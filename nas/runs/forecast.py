"""What a search that trains from nothing will take, said within the first seconds of its training."""

from __future__ import annotations

import time

from nas.events import Event, EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.runs.clock import Clock
from nas.runs.pace import SEARCHED, TRAINED
from nas.units import write_duration

_WORTH_S = 60.0
"""A forecast below this is not said. Set by hand."""

_TIMED_S = 5.0
"""Of training, from its first report on, after which a forecast is made: the first steps compile kernels and are slower than the rest.
Set by hand."""

_LONG_S = 1800.0  # by hand: from half an hour on a search says how to take less


class TrainingForecast:
    """A listener that says once what training and scoring will take on this machine.

    Args:
        bus: Where it says it.
        score_by_epoch: Time of one score, as a share of that of an epoch.
        scores: Number of accuracies that will be computed.
        clock: Of the run: keeps the forecast beside what the run took; its limit, where there is one, is what is said.
    """

    def __init__(self, bus: EventBus, score_by_epoch: float, scores: int, clock: Clock) -> None:
        self._bus, self._score_by_epoch, self._scores, self._clock = bus, score_by_epoch, scores, clock
        self._first, self._epochs, self._said = 0.0, 0, False
        self._since: tuple[float, float] | None = None

    def __call__(self, event: Event) -> None:
        """Time the training; say what is left of it once that is known."""
        if isinstance(event, PhaseStarted) and event.phase == "train":
            self._first, self._epochs = float(event.done), event.total or 0
            if self._clock.limit_s is not None and event.total:
                self._said = True
                self._say_limit(self._clock.limit_s)
        elif isinstance(event, PhaseAdvanced) and event.phase == "train" and not self._said:
            done, now_s = event.done + event.part, time.monotonic()
            if self._since is None:
                self._since = done, now_s
            elif now_s - self._since[1] >= _TIMED_S and done > self._since[0]:
                self._said = True
                self._say((now_s - self._since[1]) / (done - self._since[0]), self._epochs - self._first)
        elif isinstance(event, PhaseFinished) and event.phase == "train":
            self._said = True

    def _say_limit(self, limit_s: float) -> None:
        left_s = max(self._clock.left_s, 0.0)
        training_s = min(max(TRAINED * limit_s - self._clock.spent_s, 0.0), left_s)
        search_s = min((SEARCHED - TRAINED) * limit_s, left_s - training_s)
        rest_s = left_s - training_s - search_s
        self._clock.say({"train": training_s, "search": search_s, "finetune": rest_s})
        self._bus.emit(
            Notice(
                f"forecast: {write_duration(left_s)} from here, by the time limit: {write_duration(training_s)} to train shared weights, "
                f"{write_duration(search_s)} for {self._scores} scores at most, {write_duration(rest_s)} to fine-tune, export and test the choice."
            )
        )

    def _say(self, epoch_s: float, epochs: float) -> None:
        training_s, search_s = epoch_s * epochs, epoch_s * self._score_by_epoch * self._scores
        if training_s + search_s < _WORTH_S:
            return
        shorter = " Do this for less: a smaller --epochs, --proxy-resolution or --evals." if training_s + search_s > _LONG_S else ""
        self._bus.emit(
            Notice(
                f"forecast: {write_duration(training_s + search_s)} on this machine until a network is chosen: {write_duration(training_s)} to train "
                f"{epochs:g} epochs of shared weights, {write_duration(search_s)} for {self._scores} scores. "
                f"Its fine-tuning, export and test come on top.{shorter}"
            )
        )
