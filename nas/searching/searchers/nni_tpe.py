"""NNI's tree-structured Parzen estimator."""

from typing import Any

from nas.searching.searcher import searchers
from nas.searching.searchers._nni import NNISearcher
from nas.spaces.architecture import Gene


@searchers.register("nni-tpe")
class NNITPE(NNISearcher):
    """Genes as if independent, the good quarter of √n against the rest, by NNI."""

    def tuner(self) -> Any:
        """Return a new tuner."""
        from nni.algorithms.hpo.tpe_tuner import TpeTuner

        return TpeTuner(optimize_mode="maximize", seed=0)

    def receive(self, number: int, params: dict[str, Gene], reward: float) -> None:
        """Enter the parameters as running first: the tuner knows only those."""
        from nni.common.hpo_utils import format_parameters

        self._tuner._running_params[number] = format_parameters(params, self._tuner.space)
        self._tuner.receive_trial_result(number, params, reward)
