"""Syne Tune's schedulers with one fidelity, through its interface of asking and telling."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from nas.bench.peer import Peer, Run, peers


@peers.register("syne-tune")
class SyneTune(Peer):
    """Its defaults: kernel densities (its TPE) and regularised evolution.

    The former seeks one objective, the first of several; evolution takes its own form for several. Neither knows a constraint: what breaks a budget is told
    as a network that is always wrong. Its conformal quantile regression needs XGBoost, which no other part of this package does, and is left out.
    """

    package: ClassVar[str] = "syne_tune"
    algorithms: ClassVar[tuple[str, ...]] = ("tpe", "evolution")

    def run(self, algorithm: str, search: Run) -> None:
        """See `Peer.run`."""
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler

        space = search.space
        names = [objective.name for objective in search.goal.objectives]
        configurations = {c.name: choice([str(i) for i in range(len(c.values))]) for c in space.choices}
        with _seeded(search.seed):
            scheduler = AskTellScheduler(_scheduler(algorithm, configurations, names, search.seed))
            while True:
                trial = scheduler.ask()
                measured = search.measure(space.decode([int(trial.config[c.name]) for c in space.choices]))
                scheduler.tell(trial, dict(zip(names, search.losses(measured), strict=True)))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of the process, from which it draws beside its own, and leave them as they were."""
    before, plain = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        random.setstate(plain)


def _scheduler(algorithm: str, configurations: dict[str, Any], names: list[str], seed: int) -> Any:
    from syne_tune.optimizer import baselines

    if algorithm == "evolution" and len(names) > 1:
        from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
        from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

        searcher = MultiObjectiveRegularizedEvolution(configurations, random_seed=seed)
        return SingleFidelityScheduler(configurations, metrics=names, searcher=searcher, random_seed=seed)
    kind = {"tpe": baselines.TPE, "evolution": baselines.REA}[algorithm]
    return kind(configurations, metric=names[0], random_seed=seed)
