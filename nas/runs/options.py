"""Options that a search cannot use are refused: an option has an effect, or an error says why it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nas.devices.runner import named_runner
from nas.errors import UsageError
from nas.exporting.exporter import exporters
from nas.runs.request import Request
from nas.searching.judge import Target
from nas.spaces.naming import SpaceName
from nas.spaces.space import SearchSpace
from nas.training.accuracy_table import holds_accuracies
from nas.training.evaluator import Evaluator, evaluators
from nas.units import QUANTISED

Check = Callable[[Request, type[Evaluator], type[SearchSpace]], str]
"""Says why an option has no effect; the empty string where it has one."""


def _always(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    return ""


def _not_in_a_survey(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    if kind.transfers:
        return "networks with trained weights are compared, none is proposed"
    return "every member of the space is judged, nothing is drawn or proposed" if kind.surveys else ""


def _seed(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    return "" if kind.transfers else _not_in_a_survey(request, kind, family)


def _with_data(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    if "data" in kind.needs:
        return ""
    return (
        "nothing is trained without --data" if family.evaluator_with_data and not request.data else "its accuracies are known without data"
    )


def _evaluator(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    scored = kind.surveys or kind.transfers or kind.needs & {"table", "supernet"}  # the last is refused for what it needs
    return "" if scored or not evaluators.get(family.evaluator).surveys else "its networks have known accuracies and are not scored afresh"


def _time_limit(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    if request.storage or request.workers:
        return "other processes go by the number of scores (--evals)"
    return "" if kind.transfers or kind.fresh else _with_supernet(request, kind, family)


def _with_supernet(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    return "" if "supernet" in kind.needs else "no shared weights are trained"


def _quantisation(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    return "" if kind.transfers or kind.fresh else _with_supernet(request, kind, family)


def _with_training(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    if request.supernet:
        return "the supernet of --supernet is trained already"
    return _with_supernet(request, kind, family)


def _with_delivery(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    return "" if "data" in kind.needs or kind.module is not Evaluator.module else "no model file is written"


def _from_scratch(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    if request.data:
        return "the space that is named says already whether it starts from published weights"
    return "no published weights are taken without --data"


def _weights_dir(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    if request.data and "supernet" in kind.needs:
        return ""  # the best network of the folder may teach the choice: `nas.runs.teaching`
    return _of_space("weights_dir")(request, kind, family)


def _of_space(option: str) -> Check:
    def check(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
        return "" if option in family.options else f"space {request.space} has no such choice"

    return check


def _pairs(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    named = [name for name in SpaceName.parse(request.space).plain.partition("-")[2].split("+") if name]
    several = len(request.anchors) + len(named) > 1
    return _of_space("pairs")(request, kind, family) or ("" if several else "there is one network to start from")


def _importance(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    return _of_space("importance")(request, kind, family) or _with_training(request, kind, family)


def _resolution(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    if "resolution" not in family.options and request.tables:
        return "a table's figures are those of one resolution"
    return ""


def _tables(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    if "table" in kind.needs or not any(holds_accuracies(Path(path)) for path in request.tables):
        return ""
    return "the evaluator reads no table of accuracies"


def _column(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    return "" if "table" in kind.needs else "no table of accuracies is read"


def _shared(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:
    return _not_in_a_survey(request, kind, family) or ("" if request.storage else "a run's own journal holds one study")


def _runner(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> str:  # noqa: ARG001
    return "" if request.verify else "nothing is measured without --verify"


CHECKS: Mapping[str, tuple[str, Check]] = {
    "devices": ("--device", _always),
    "budgets": ("--budget", _always),
    "minimize": ("--minimize", _always),
    "precision": ("--precision", _always),
    "space": ("--space", _always),
    "anchors": ("--anchor", _of_space("anchors")),
    "weights_dir": ("--weights-dir", _weights_dir),
    "pairs": ("--pairs", _pairs),
    "edits": ("--edits", _of_space("edits")),
    "importance": ("--importance", _importance),
    "mixers": ("--mixers", _of_space("mixers")),
    "knobs": ("--knobs", _of_space("knobs")),
    "evaluator": ("--evaluator", _evaluator),
    "tables": ("--table", _tables),
    "column": ("--column", _column),
    "data": ("--data", _with_data),
    "resolution": ("--resolution", _resolution),
    "proxy_resolution": ("--proxy-resolution", _with_training),
    "epochs": ("--epochs", _with_training),
    "finetune_epochs": ("--finetune-epochs", _with_data),
    "time_limit": ("--time-limit", _time_limit),
    "searcher": ("--searcher", _not_in_a_survey),
    "evals": ("--evals", _not_in_a_survey),
    "confidence": ("--confidence", _always),
    "supernet": ("--supernet", _with_supernet),
    "seed": ("--seed", _seed),
    "storage": ("--storage", _not_in_a_survey),
    "study": ("--study", _shared),
    "storage_timeout": ("--storage-timeout", _not_in_a_survey),
    "workers": ("--workers", _not_in_a_survey),
    "verify": ("--verify", _always),
    "quantisation": ("--quantisation", _quantisation),
    "exporter": ("--exporter", _with_delivery),
    "takes": ("--input", _with_data),
    "runner": ("--runner", _runner),
    "batch": ("--batch", _always),
    "from_scratch": ("--from-scratch", _from_scratch),
}
"""Each option's flag and its check; `check_for_devices` looks again once the devices are known."""


def useless(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> list[str]:
    """Return what was asked in vain, each as ``--flag has no effect with --space NAME: why``.

    Args:
        request: Its `model_fields_set` says what was asked.
        kind: The evaluator.
        family: Of the space.
    """
    found = []
    for name, (flag, check) in CHECKS.items():
        given = name in request.model_fields_set and getattr(request, name) != Request.model_fields[name].default
        if given and (why := check(request, kind, family)):
            found.append(f"{flag} has no effect with --space {request.space}: {why}")
    return found


def check_options(request: Request, kind: type[Evaluator], family: type[SearchSpace]) -> None:
    """Refuse the options that were given and have no effect, all in one line.

    Raises:
        UsageError: There are such; see `useless`.
    """
    if faults := useless(request, kind, family):
        raise UsageError(f"search: {'; '.join(faults)}. Do this: leave {'it' if len(faults) == 1 else 'them'} out.")


def check_for_devices(request: Request, targets: Sequence[Target]) -> None:
    """Refuse options that mean nothing on the devices asked for.

    Raises:
        UsageError: ``--batch`` where every device states latency, ``--quantisation`` where nothing runs quantised or the format quantises itself,
            ``--verify`` where the first device may run quantised: what is timed is a float file. A command of the user's own is believed to quantise it
            for a device whose profile has integers alone; the built-in runners do not.
    """
    if request.batch and all(target.profile.quantity == "latency" for target in targets):
        raise UsageError("search: --batch has no effect: every device states the latency of one picture. Do this: leave it out.")
    if request.quantisation and not any(target.precision in QUANTISED for target in targets):
        raise UsageError("search: --quantisation has no effect: nothing runs quantised. Do this: --precision w8a8, or leave it out.")
    if request.quantisation and exporters.get(request.exporter).own_quantisation:
        raise UsageError(
            f"search: --quantisation has no effect on a file of {request.exporter}, which its own tool quantises. Do this: leave it out."
        )
    first, by_part = targets[0].profile, SpaceName.parse(request.space).precisions.split("+")
    precisions = {str(target.precision) for target in targets if target.profile.name == first.name}.union(by_part) & QUANTISED
    quantising = QUANTISED.issuperset(first.precisions) and request.runner and named_runner(request.runner) is None
    if request.verify and precisions and not quantising:
        raise UsageError(
            f"--verify: times float files, which says nothing of {' or '.join(sorted(precisions))} on {first.name}. "
            "Do this: leave it out and time the file that the search writes: nas measure FILE --runner CMD."
        )


def table_of_accuracies(request: Request) -> Path | None:
    """Return the file of known accuracies among a request's tables.

    Raises:
        DataError: A file that is no table.
        UsageError: Two of them hold accuracies.
    """
    paths = [Path(path) for path in request.tables if holds_accuracies(Path(path))]
    if len(paths) > 1:
        raise UsageError(f"--table: two tables hold accuracies, got {paths[0]} and {paths[1]}. Do this: leave one out.")
    return paths[0] if paths else None
