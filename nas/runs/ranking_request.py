"""What a user asks of ``nas rank``, and the contest that it comes to: of a space, or of what a run has scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import UsageError
from nas.events import EventBus, Notice
from nas.results import Point
from nas.runs.directory import RunDirectory
from nas.runs.problem import Problem
from nas.runs.ranking import FEWEST, RANKED, Contest
from nas.runs.targets import load_targets
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import family_of, get_elastic_space, get_space
from nas.spaces.space import SearchSpace, spaces
from nas.training.calibration import FEWEST_KNOWN
from nas.training.dataset import Dataset, load_dataset
from nas.units import parse_resolution

if TYPE_CHECKING:
    from nas.training.supernet.weights import Supernet

SPACE = "hybrid-s"
"""Whose members are ranked where neither a space nor a run is named."""


@dataclass(frozen=True)
class RankingRequest:
    """What a user asks; see `nas.api.rank` for each field."""

    run: Path | None
    space: str | None
    supernet: Path | None
    data: str | None
    images: int | None
    resolution: str | None
    epochs: int | None
    ceiling: int
    known: int
    table: Path | None
    column: str | None
    devices: tuple[str, ...]
    precision: str | None
    count: int
    seed: int
    folder: Path | None

    def check(self) -> None:
        """Refuse options that would have no effect, and numbers of networks that make no ranking.

        Raises:
            UsageError: One is there.
        """
        if self.count < FEWEST:
            raise UsageError(f"rank: too few networks, got {self.count}. Expected at least {FEWEST}.")
        if self.ceiling and not FEWEST <= self.ceiling <= self.count:
            raise UsageError(f"--ceiling: got {self.ceiling} networks. Expected {FEWEST} to {self.count}, which are trained.")
        if self.known and not FEWEST_KNOWN <= self.known <= self.count - FEWEST:
            expected = (
                f"{FEWEST_KNOWN} to {self.count - FEWEST}, so that {FEWEST} are left"
                if self.count - FEWEST >= FEWEST_KNOWN
                else "more networks (-n)"
            )
            raise UsageError(f"--known: got {self.known} of {self.count} networks. Expected {expected}.")
        if self.run:
            self._check_beside_run()
            return
        known = "a table knows the accuracies, nothing is trained" if self.table else ""
        unread = "" if self.data or self.supernet or not self.table else "no pictures are read without --data"
        reasons = (
            ("--epochs", self.epochs, known),
            ("--ceiling", self.ceiling, known),
            ("--column", self.column, "" if self.table else "no table of accuracies is read"),
            ("--precision", self.precision, "" if self.devices else "no latency is estimated without --device"),
            ("--resolution", self.resolution, "the supernet has its own" if self.supernet else known),
            ("--images", self.images, unread),
        )
        for option, present, reason in reasons:
            if present and reason:
                raise UsageError(f"{option} has no effect: {reason}. Do this: leave it out.")

    def _check_beside_run(self) -> None:
        given = {name: getattr(self, name) for name in ("space", "supernet", "images", "resolution", "table", "column", "precision")}
        given |= {"device": self.devices, "out": self.folder}
        if useless := [f"--{name}" for name, value in given.items() if value]:
            raise UsageError(f"rank: {', '.join(useless)} has no effect, since the run says it. Do this: leave it out.")

    def contest_of(self, problem: Problem, run: RunDirectory, front: Sequence[Point], bus: EventBus) -> Contest:
        """Return the contest of what a run has scored, among members within its budgets; accuracies of its front are predicted.

        Raises:
            UsageError: Its networks are not scored before they are trained, or there are no pictures to train them on.
            ArtifactError: Its shared weights cannot be read.
        """
        from nas.runs.trained_search import SUPERNET_FILE
        from nas.training.supernet.train import default_resolution, load_supernet, member_recipe

        dataset, space = problem.dataset, problem.space
        if dataset is None or not isinstance(space, ElasticSpace):
            raise UsageError(
                f"rank: run {run.path.name} trained no network of its space {space.name}. Do this: nas rank --space S --data DIR."
            )
        shared = "supernet" in problem.evaluator.needs
        supernet = load_supernet(Path(problem.request.supernet or run.path / SUPERNET_FILE), space.plain, dataset) if shared else None
        recipe = member_recipe(dataset)
        return Contest(
            space=space.plain,
            n=self.count,
            folder=run.path / RANKED,
            seed=self.seed,
            dataset=dataset,
            recipe=replace(recipe, epochs=self.epochs or recipe.epochs),
            resolution=supernet.resolution if supernet else default_resolution(dataset, space.plain.least_proxy),
            supernet=supernet,
            targets=problem.targets,
            twice=self.ceiling,
            known=self.known,
            candidates={point.key: _plain(space, point) for point in front if point.architecture.space == space.name},
            judge=replace(problem.judge, space=space.plain) if space is not space.plain else problem.judge,
            bus=bus,
        )

    def contest(self, bus: EventBus) -> Contest:
        """Read what is named, and return the contest.

        Raises:
            NasError: Something that cannot be used; the message says what.
        """
        from nas.training.supernet.train import default_resolution, member_recipe

        self.check()
        name = self.space or SPACE
        family = family_of(name)
        (get_elastic_space if self.supernet else get_space)(name)  # refused before pictures are read
        dataset = None
        if self.data or self.supernet or not self.table:
            dataset = load_dataset(self.data or "digits", seed=self.seed, images=self.images)
            for text in dataset.notices:
                bus.emit(Notice(text))
        space = get_space(name, **_options(family, dataset))
        supernet = self._supernet(space, dataset)
        resolution = supernet.resolution if supernet else None
        if dataset is not None and supernet is None and not self.table:
            resolution = parse_resolution(self.resolution) if self.resolution else default_resolution(dataset)
        recipe = member_recipe(dataset) if dataset is not None and not self.table else None
        return Contest(
            space=space,
            n=self.count,
            folder=self.folder or Path(RANKED),
            seed=self.seed,
            dataset=dataset,
            recipe=replace(recipe, epochs=self.epochs or recipe.epochs) if recipe else None,
            resolution=resolution,
            table=self.table,
            column=self.column,
            supernet=supernet,
            targets=load_targets(self.devices, self.precision),
            twice=self.ceiling,
            known=self.known,
            bus=bus,
        )

    def _supernet(self, space: SearchSpace, dataset: Dataset | None) -> Supernet | None:
        from nas.training.supernet.train import load_supernet

        if self.supernet is None:
            return None
        assert isinstance(space, ElasticSpace)
        assert dataset is not None
        return load_supernet(self.supernet, space, dataset)


def _plain(space: ElasticSpace, point: Point) -> Architecture:
    return space.without_precisions(space.architecture(point.architecture.genes))


def _options(family: str | None, dataset: Dataset | None) -> dict[str, object]:
    """Return the classes of the data as an option of the space, where it has one."""
    if dataset is None or family is None or "num_classes" not in spaces.get(family).options:
        return {}
    return {"num_classes": dataset.num_classes}
