"""An evaluator: the one of the house under a key of its own."""

from nas.training.evaluator import evaluators

Quantised = evaluators.get("quantised")


class Careful(Quantised):
    """Scores as the quantised evaluator does, and says so under its own key."""

    @property
    def key(self):
        return f"careful-{super().key}"
