"""pymoo's NSGA-II by the recipe of its documentation for integer variables."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nas.bench.peer import Peer, Run, peers


@peers.register("pymoo")
class Pymoo(Peer):
    """40 draws, simulated binary crossover and polynomial mutation with rounding, duplicates eliminated."""

    package: ClassVar[str] = "pymoo"
    algorithms: ClassVar[tuple[str, ...]] = ("nsga2",)

    def run(self, algorithm: str, search: Run) -> None:  # noqa: ARG002
        """See `Peer.run`."""
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.core.termination import NoTermination
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.problems.static import StaticProblem

        space, goal = search.space, search.goal
        sizes = np.array([len(choice.values) for choice in space.choices])
        problem = Problem(n_var=len(sizes), n_obj=len(goal.objectives), n_ieq_constr=len(goal.budgets), xl=0, xu=sizes - 1, vtype=int)
        method = NSGA2(
            pop_size=40,
            sampling=IntegerRandomSampling(),
            crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
            mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=RoundingRepair()),
            eliminate_duplicates=True,
        )
        method.setup(problem, termination=NoTermination(), seed=search.seed, verbose=False)
        while True:
            population = method.ask()
            if population is None or len(population) == 0:
                return
            trials = [search.measure(space.decode(codes)) for codes in population.get("X").astype(int)]
            losses = [[o.sign * t.values.get(o.name, 0.0) for o in goal.objectives] for t in trials]
            static = StaticProblem(problem, F=np.array(losses), G=np.array([list(t.violations.values()) for t in trials]))
            method.evaluator.eval(static, population)
            method.tell(infills=population)
