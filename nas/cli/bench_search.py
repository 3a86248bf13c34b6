"""``nas bench search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import SearcherComparison


def command(
    table: Annotated[Path, typer.Option("--table", help="Latency table: an .npz file with the arrays arch and ms/DEVICE.")],
    accuracy: Annotated[Path, typer.Option("--accuracy", help="Accuracy table: an .npz file with the arrays arch, columns and accuracy.")],
    column: Annotated[str, typer.Option("--column", help="Column of the accuracies.")],
    device: Annotated[list[str], typer.Option("--device", help="Device of the latency table; may be given several times.", metavar="D")],
    budget_quantile: Annotated[
        list[float] | None,
        typer.Option("--budget-quantile", help="Share of the space that is within the budget; several are averaged; default 0.4."),
    ] = None,
    searcher: Annotated[
        list[str] | None,
        typer.Option(
            "--searcher", help="A searcher, one of another library (optuna:tpe, pymoo:nsga2, …), or all; default all.", metavar="S"
        ),
    ] = None,
    evals: Annotated[int, typer.Option("--evals", min=1, help="Evaluations in one run.")] = 200,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs with different seeds for each device and budget.")] = 30,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="First seed.")] = 0,
    runs: Annotated[
        Path | None,
        typer.Option("--runs", help="File that keeps finished runs, so that a second call continues; default: none.", metavar="FILE.jsonl"),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Treat isomorphic networks as different, as the published numbers do.")] = False,
    space: Annotated[str, typer.Option("--space", help="Search space of the tables.")] = "nasbench201",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of processes.")] = 2,
    form: Format = "table",
) -> None:
    """Compare searchers on tables of real accuracies and latencies, where the best answer is known."""
    import sys

    from nas.bench.search import Runs, Table, compare, contestants
    from nas.errors import UsageError
    from nas.results.listings import SearcherComparison

    quantiles = budget_quantile or [0.4]
    if bad := [quantile for quantile in quantiles if not 0 < quantile <= 1]:
        raise UsageError(f"budget-quantile: out of range, got {bad[0]}. Expected above 0 and at most 1.")
    names = [name for option in searcher or ["all"] for name in contestants(option)]
    truth = Table.load(table, accuracy, column, device, space=space, raw=raw)
    tasks = [truth.task(name, quantile) for name in device for quantile in quantiles]

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    seeds = range(first_seed, first_seed + repeats)
    figures = compare(truth, names, tasks, evals=evals, seeds=seeds, workers=workers, runs=Runs(runs), report=say)
    protocol: dict[str, object] = {"space": space, "column": column, "devices": device, "budget_quantiles": quantiles}
    protocol |= {
        "evals": evals,
        "repeats": repeats,
        "first_seed": first_seed,
        "isomorphic": "apart" if raw else "one",
        "hypervolume_reference": "0 %, the budget",
    }
    write(SearcherComparison.model_validate({"protocol": protocol, "searchers": figures}), form, _render)


def _render(result: SearcherComparison) -> None:
    from nas.report.tables import print_table

    keys = list(next(iter(result.searchers.values())).figures)
    body = [[name, *(f"{row.figures[key]:.3f} ± {row.standard_error[key]:.3f}" for key in keys)] for name, row in result.searchers.items()]
    print_table("", ["searcher", *keys], body)
