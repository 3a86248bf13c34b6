"""SMAC3's facade for hyperparameters: a random forest, expected improvement, a Sobol design first."""

from __future__ import annotations

import logging
from tempfile import TemporaryDirectory
from typing import ClassVar

from nas.bench.peer import Peer, Run, peers


@peers.register("smac")
class Smac(Peer):
    """Version 2's defaults for one objective, and ParEGO for several, as its documentation has it.

    It knows no constraint: what breaks a budget is told as a network that is always wrong.
    """

    package: ClassVar[str] = "smac"
    algorithms: ClassVar[tuple[str, ...]] = ("hpo",)
    left_out: ClassVar[frozenset[str]] = frozenset({"hpo"})

    def run(self, algorithm: str, search: Run) -> None:  # noqa: ARG002
        """See `Peer.run`."""
        from ConfigSpace import CategoricalHyperparameter, ConfigurationSpace
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario
        from smac.multi_objective.parego import ParEGO
        from smac.runhistory.dataclasses import TrialValue

        logging.getLogger("smac").setLevel(logging.ERROR)
        space, several = search.space, len(search.goal.objectives) > 1
        configurations = ConfigurationSpace(seed=search.seed)
        configurations.add([CategoricalHyperparameter(c.name, [str(i) for i in range(len(c.values))]) for c in space.choices])
        names = [objective.name for objective in search.goal.objectives]
        with TemporaryDirectory() as folder:
            scenario = Scenario(
                configurations,
                objectives=names if several else names[0],
                deterministic=True,
                n_trials=search.evals,
                seed=search.seed,
                output_directory=folder,
            )
            method = ParEGO(scenario) if several else None
            facade = Facade(scenario, _unused, multi_objective_algorithm=method, overwrite=True, logging_level=logging.ERROR)
            while True:
                try:
                    info = facade.ask()
                except StopIteration:  # the space has been seen
                    return
                losses = search.losses(search.measure(space.decode([int(info.config[c.name]) for c in space.choices])))
                facade.tell(info, TrialValue(cost=losses if several else losses[0]), save=False)


def _unused(config: object, seed: int = 0) -> float:  # noqa: ARG001 - SMAC3 looks for these names, and calls nothing where it is asked and told
    return 0.0
