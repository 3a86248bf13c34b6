"""NNI's random tuner."""

from typing import Any

from nas.searching.searcher import searchers
from nas.searching.searchers._nni import NNISearcher
from nas.spaces.architecture import Gene


@searchers.register("nni-random")
class NNIRandom(NNISearcher):
    """Uniform draws, by NNI."""

    def tuner(self) -> Any:
        """Return a new tuner."""
        from nni.algorithms.hpo.random_tuner import RandomTuner

        return RandomTuner(seed=0)

    def receive(self, number: int, params: dict[str, Gene], reward: float) -> None:
        """It learns nothing."""
