"""What a run says while it runs: immutable events, and a bus that hands them to whoever listens.

The engine emits; ``nas.report`` renders. Nothing in the engine prints.
"""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; each kind of work defines its own."""


@dataclass(frozen=True, slots=True)
class PhaseStarted(Event):
    """A phase of a run has begun.

    Attributes:
        phase: ``train``, ``search``, ``race``, ``finetune``, ``export`` or ``verify``.
        total: Number of steps, None where unknown.
        done: Steps that an earlier session had finished.
        detail: One line for people.
        unit: Of the steps, in the plural, where it is not the phase's usual one.
        part: Of the next step that an earlier session had done, 0 to 1.
    """

    phase: str
    total: int | None = None
    done: int = 0
    detail: str = ""
    unit: str = ""
    part: float = 0.0


@dataclass(frozen=True, slots=True)
class PhaseAdvanced(Event):
    """A phase has made a step, or a part of one; `numbers` are shown as they are named.

    Attributes:
        phase: Its name.
        done: Whole steps, those of earlier sessions included.
        numbers: By name.
        part: Of the next step, 0 to 1.
    """

    phase: str
    done: int
    numbers: dict[str, float] = field(default_factory=dict)
    part: float = 0.0


@dataclass(frozen=True, slots=True)
class PhaseFinished(Event):
    """A phase is over."""

    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something that a person should know: a mixer left out, a budget that would have allowed more, a broken picture."""

    text: str


Listener = Callable[[Event], None]


@dataclass
class EventBus:
    """Hands events to listeners, in order."""

    listeners: list[Listener] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Hand `event` to every listener."""
        for listener in self.listeners:
            listener(event)
