"""Optuna's samplers as they come: their defaults, categorical parameters, constraints set on each trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from nas.bench.peer import Peer, Run, peers

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@peers.register("optuna")
class Optuna(Peer):
    """Version 5's `tpe` draws all genes together for one objective and each for itself for several, and counts what runs as lost (constant liar).

    `tpe-multivariate` and `tpe-independent` draw one way whatever is sought, `tpe-no-liar` leaves the liar out; trials come one after the other here, so
    that it has nothing to lie about but the trial in hand.
    """

    package: ClassVar[str] = "optuna"
    algorithms: ClassVar[tuple[str, ...]] = (
        "random",
        "tpe",
        "tpe-multivariate",
        "tpe-independent",
        "tpe-no-liar",
        "nsga2",
        "nsga3",
        "gp",
    )
    left_out: ClassVar[frozenset[str]] = frozenset({"gp", "tpe-multivariate", "tpe-independent", "tpe-no-liar"})

    def run(self, algorithm: str, search: Run) -> None:
        """See `Peer.run`."""
        import optuna

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._run(_sampler(algorithm, search.seed), search)
        finally:
            optuna.logging.set_verbosity(before)

    @staticmethod
    def _run(sampler: BaseSampler, search: Run) -> None:
        import optuna

        space, objectives = search.space, search.goal.objectives
        study = optuna.create_study(directions=[o.direction for o in objectives], sampler=sampler)
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            c.name: optuna.distributions.CategoricalDistribution(c.values) for c in space.choices
        }
        while True:
            trial = study.ask(distributions)
            measured = search.measure(space.architecture([trial.params[c.name] for c in space.choices]))
            for key, violation in measured.violations.items():
                trial.set_constraint(key, violation)
            study.tell(trial, [measured.values.get(o.name, 0.0) for o in objectives])


def _sampler(algorithm: str, seed: int) -> BaseSampler:
    import warnings

    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    kinds: dict[str, Callable[[], BaseSampler]] = {
        "random": lambda: samplers.RandomSampler(seed=seed),
        "tpe": lambda: samplers.TPESampler(seed=seed),
        "tpe-multivariate": lambda: samplers.TPESampler(seed=seed, multivariate=True),
        "tpe-independent": lambda: samplers.TPESampler(seed=seed, multivariate=False),
        "tpe-no-liar": lambda: samplers.TPESampler(seed=seed, constant_liar=False),
        "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
        "nsga3": lambda: samplers.NSGAIIISampler(seed=seed),
        "gp": lambda: samplers.GPSampler(seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return kinds[algorithm]()
