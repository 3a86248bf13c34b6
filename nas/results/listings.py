"""What commands that list, show and sample answer; see `nas.results`."""

from __future__ import annotations

from nas.results import Genotype, Record, Scores


class ChoiceOverview(Record):
    """One gene of a space.

    Attributes:
        name: Of the choice.
        values: What it can be.
        ordered: Whether neighbours are alike.
    """

    name: str
    values: tuple[int | str, ...]
    ordered: bool


class SpaceOverview(Record):
    """A search space (``spaces show``).

    Attributes:
        name: With preset and options.
        version: Of its encoding.
        size: Number of encodings, in digits.
        choices: The genes.
        about: What it is.
    """

    name: str
    version: int
    size: str
    choices: tuple[ChoiceOverview, ...]
    about: str


class Sample(Record):
    """A member of a space, drawn at random (``spaces sample``).

    Attributes:
        architecture: As `nas predict` and `nas export` take it.
        key: Of the architecture.
        macs: At batch 1.
        params: Of the deploy form.
        resolution: Height x width in pixels.
    """

    architecture: Genotype
    key: str
    macs: int
    params: int
    resolution: str


class AddedDevice(Record):
    """A device that is known from now on (``devices add``).

    Attributes:
        name: Of the device.
        path: Of its profile.
        artifacts: Files of fitted coefficients beside it.
    """

    name: str
    path: str
    artifacts: tuple[str, ...]


class ModelScores(Scores):
    """How good a latency model is on networks that it never saw (``bench latency-models``).

    Attributes:
        protocol: What was left out.
        device: Name in the table.
        precision: In question.
        runtime: In question.
        predictor: Under test.
        seed: Of draws.
        baselines: Errors of plain models on the same networks, and how many they answered.
        repeats_within_pct: Median difference of two measurements: no model can be better.
        without_graph: Networks of the table that have no graph here.
        notes: What is wrong with the table.
    """

    protocol: str
    device: str
    precision: str
    runtime: str
    predictor: str
    seed: int
    baselines: dict[str, dict[str, float]]
    repeats_within_pct: float | None
    without_graph: tuple[str, ...]
    notes: tuple[str, ...]


COMMANDS = {"bench-latency-models": "ModelScores", "spaces-show": "SpaceOverview", "spaces-sample": "Sample", "devices-add": "AddedDevice"}
"""The record that each of these commands prints; ``spaces sample`` of one architecture as JSON prints a `Genotype`."""


def schemas() -> dict[str, type[Record]]:
    """Return every record of this file by its name."""
    return {
        name: kind
        for name, kind in globals().items()
        if isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == __name__
    }
