"""NNI's naive evolution."""

from typing import Any

import numpy as np

from nas.searching.searcher import searchers
from nas.searching.searchers._nni import NNISearcher, chance
from nas.spaces.architecture import Gene


@searchers.register("nni-evolution")
class NNIEvolution(NNISearcher):
    """A population of 32 in which the worse of a random pair gives way to a mutation of the better, by NNI."""

    def tuner(self) -> Any:
        """Return a new tuner."""
        from nni.algorithms.hpo.evolution_tuner import EvolutionTuner

        return EvolutionTuner(optimize_mode="maximize", population_size=32)

    def _reseed(self, tuner: Any, rng: np.random.Generator, *, first: bool = False) -> None:
        from nni.algorithms.hpo import evolution_tuner

        super()._reseed(tuner, rng, first=first)
        # the module draws from the global generator: it gets one of this trial's instead, and never touches the global one
        evolution_tuner.random, tuner.random_state = chance(rng)
        if first:
            tuner.population.clear()
            for _ in range(tuner.population_size):
                tuner._random_generate_individual()

    def receive(self, number: int, params: dict[str, Gene], reward: float) -> None:
        """Let the tuner propose as it would have, then put what was really evaluated in the proposal's place."""
        self._tuner.generate_parameters(number)
        values = {name: choice.values for name, choice in zip(params, self.space.choices, strict=True)}
        config = {name: {"_index": values[name].index(gene), "_value": gene} for name, gene in params.items()}
        self._tuner.running_trials[number].config = config
        self._tuner.receive_trial_result(number, params, reward)
