"""Which space a search takes where the user names none, and which others share its time: what data, time limit and weights at hand make worth trying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from nas.errors import ArtifactError, GraphError, UsageError
from nas.results import Record
from nas.runs.options import useless
from nas.runs.problem import Problem
from nas.runs.request import Request
from nas.spaces.naming import family_of
from nas.spaces.space import spaces
from nas.training.evaluator import evaluators
from nas.units import parse_duration, parse_resolution, write_duration

Space = Literal["zoo", "chain", "residual-s", "hybrid", "vit-t"]
PUBLISHED: Space = "zoo"
STITCHED: Space = "chain"
ALONE: Space = "residual-s"
FROM_NOTHING: Space = "hybrid"
TRANSFORMER: Space = "vit-t"

SHARE = 0.25
"""Of a time limit that a kind has, at most, before it is compared with another; see `nas.runs.contest.TRIED`. Set by hand."""

SEEN_PER_S = {False: 520_000 / 900, True: 26_000_000 / 900}
"""Training pictures a second that shared weights see at 32 pixels, without and with a GPU: `nas.training.supernet.train.default_recipe` counts on them."""

WORTH: Mapping[Space, tuple[int, int]] = {FROM_NOTHING: (50_000, 30), TRANSFORMER: (100_000, 100)}
"""Training pictures, and how often each is seen in a trial, from which training from nothing is tried beside what comes first. On 10,000 pictures it ends some
20 points below published weights (``experiments/011_cifar10``, ``experiments/021_own_pictures``); transformers are known to need more pictures than convolutions
(Dosovitskiy et al., arXiv 2010.11929, section 4.3). The limits themselves are set by hand."""

_LEAST_STITCHED_S = 300.0
"""A trial in which stitches are fitted, members scored and one fine-tuned takes so long at least. Set by hand."""


class Kind(Record):
    """A space that a run may take.

    Attributes:
        space: Its name.
        tried: Whether it is worth the time.
        why: In a line.
        anchors: Trained networks that it starts from, where it takes any.
    """

    space: Space
    tried: bool
    why: str
    anchors: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """What a person is told of it."""
        return f"kind {self.space}: {'tried' if self.tried else 'not tried'}, since {self.why}."


def decide_space(request: Request) -> tuple[Space, str]:
    """Return the name of a space and why, in one line; without the user's pictures nothing has to be said.

    Networks with published weights come first (``experiments/021_own_pictures``). From nothing is trained where no weights are here, or where an option
    speaks of that: a plain network alone, which has all the time, rather than shared weights, unless the option is of the latter.

    Raises:
        UsageError: No such folder of weights, or one beside ``--from-scratch``.
        ArtifactError: There are none in it, nor elsewhere on this machine.
    """
    if not request.data or PUBLISHED not in spaces.names():
        return FROM_NOTHING, ""
    if request.from_scratch:
        given = [f"--weights-dir {request.weights_dir}"] if request.weights_dir else [f"--anchor {name}" for name in request.anchors]
        if given:
            raise UsageError(f"search: --from-scratch forbids published weights, got {given[0]}. Do this: leave one of them out.")
        alone = _from_nothing_alone(request)
        return alone, f"space: {alone}, trained from nothing, since --from-scratch forbids published weights."
    family = spaces.get(PUBLISHED)
    kind = evaluators.get(request.evaluator or family.evaluator_with_data)
    if not kind.transfers or useless(request.model_copy(update={"space": PUBLISHED}), kind, family):
        return FROM_NOTHING, f"space: {FROM_NOTHING}, trained from nothing, since an option speaks of that."
    try:
        space = family.make("", num_classes=2, weights_dir=request.weights_dir)
    except ArtifactError:
        if request.weights_dir:  # the user means to start from weights
            raise
        alone = _from_nothing_alone(request)
        return alone, (
            f"space: {alone}, trained from nothing, since no published weights are on this machine. With them a search ends higher and sooner. "
            "Do this: pip install 'hardware-aware-nas[anchors]', or --weights-dir DIR."
        )
    names = [str(name) for name in space.choices[0].values]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return PUBLISHED, f"space: {PUBLISHED}, since published weights of {shown} are here. To train from nothing: --from-scratch."


def _from_nothing_alone(request: Request) -> Space:
    """Return the space whose choice is trained alone; where an option speaks of another one, that whose members share weights."""
    if ALONE.partition("-")[0] not in spaces.names() or _useless_options(request.model_copy(update={"from_scratch": False}), ALONE):
        return FROM_NOTHING
    return ALONE


def kinds_beside(problem: Problem) -> list[Kind]:
    """Return the spaces that may share the time of a search whose user named none, each with why it is tried or not.

    Args:
        problem: As `decide_space` has it; its own space is not among them.
    """
    request = problem.request
    if not request.data or problem.dataset is None:
        return []
    others: list[Space] = [*([STITCHED] if request.space == PUBLISHED else []), *(name for name in WORTH if name != request.space)]
    others = [name for name in others if _family(name) in spaces.names()]
    if request.time_limit is None:
        return [Kind(space=name, tried=False, why="there is no --time-limit to share") for name in others]
    share_s = SHARE * parse_duration(request.time_limit)
    return [_stitched(problem, share_s) if name == STITCHED else _from_nothing(problem, name, share_s) for name in others]


def _family(space: str) -> str:
    return family_of(space) or space


def _from_nothing(problem: Problem, space: Space, share_s: float) -> Kind:
    import torch

    if fault := _useless_options(problem.request, space):
        return Kind(space=space, tried=False, why=fault)
    assert problem.dataset is not None
    pictures, (least, often) = problem.dataset.count("train"), WORTH[space]
    seen = SEEN_PER_S[torch.cuda.is_available()] * share_s / pictures
    tried = pictures >= least and seen >= often
    bar = f"it is worth trying from {least:,} that are seen {often} times each"
    return Kind(
        space=space,
        tried=tried,
        why=f"a trial of {write_duration(share_s)} shows it {pictures:,} training pictures about {seen:.2g} times; {bar}",
    )


def _stitched(problem: Problem, share_s: float) -> Kind:
    """Say whether networks between two published ones are worth trying: where the budget lies between what they take."""
    networks = [str(name) for name in problem.space.choices[0].values]
    no = Kind(space=STITCHED, tried=False, why="")
    if fault := _useless_options(problem.request, STITCHED):
        return no.model_copy(update={"why": fault})
    if len(networks) < 2:
        return no.model_copy(update={"why": f"it takes weights of two networks, and those of {len(networks)} are here"})
    if share_s < _LEAST_STITCHED_S:
        return no.model_copy(update={"why": f"a trial of {write_duration(share_s)} is too short to fit stitches and score members"})
    priced = sorted(_whole(problem, networks))
    inside, outside = ([name for _, fits, name in priced if fits is wanted] for wanted in (True, False))
    if not outside:
        size = f"{problem.request.resolution} px" if problem.request.resolution else "its own size"
        return no.model_copy(update={"why": f"every network with weights here is within the budgets whole, at {size}"})
    pair = (inside[-1], outside[0]) if inside else tuple(outside[:2])
    if len(pair) < 2:
        return no.model_copy(update={"why": "fewer than two networks with weights here can be priced"})
    why = f"the budget lies between {pair[0]} and {pair[1]}" if inside else f"neither {pair[0]} nor {pair[1]} is within the budget whole"
    return Kind(space=STITCHED, tried=True, why=why, anchors=pair)


def _whole(problem: Problem, networks: list[str]) -> Iterator[tuple[float, bool, str]]:
    """Yield (multiply-adds, whether it is within the budgets, name) of each network at the size that is asked for, else at its own, as far as it can be priced."""
    fixed = parse_resolution(problem.request.resolution) if problem.request.resolution else None
    for name in networks:
        member = problem.space.member(name, fixed or problem.space.own_size(name))  # type: ignore[attr-defined]
        try:
            verdict = problem.judge.verdicts([member])[0]
        except (GraphError, UsageError):  # it does not run at that size, or takes no other classes
            continue
        yield verdict.values["macs"], verdict.feasible, name


def _useless_options(request: Request, space: str) -> str:
    """Return why a space is no answer to the options that were given; empty where it is."""
    family = spaces.get(_family(space))
    kind = evaluators.get(request.evaluator or family.evaluator_with_data or family.evaluator)
    return "; ".join(useless(request.model_copy(update={"space": space}), kind, family))
