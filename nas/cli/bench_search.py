"""``nas bench search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import SearcherComparison


def command(
    table: Annotated[Path, typer.Option("--table", help="Latencies: an .npz with arch and ms/<device>.")],
    accuracy: Annotated[Path, typer.Option("--accuracy", help="Accuracies: an .npz with arch, columns and accuracy.")],
    column: Annotated[str, typer.Option("--column", help="Column of the accuracies.")],
    device: Annotated[list[str], typer.Option("--device", help="Column of the latencies; may be given several times.", metavar="D")],
    budget_quantile: Annotated[
        list[float] | None, typer.Option("--budget-quantile", help="Share of the space within the budget; several are averaged.")
    ] = None,
    searcher: Annotated[
        list[str] | None, typer.Option("--searcher", help="A searcher, a peer (optuna:tpe, pymoo:nsga2, …), or all.", metavar="S")
    ] = None,
    evals: Annotated[int, typer.Option("--evals", min=1, help="Accuracies a run.")] = 200,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Seeds for each device and budget.")] = 30,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The first of the seeds.")] = 0,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Keep every finished run here, and take up from there.", metavar="FILE.jsonl")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Keep isomorphic networks apart, as published numbers do.")] = False,
    space: Annotated[str, typer.Option("--space", help="Space whose cells the tables list.")] = "nasbench201",
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 2,
    form: Format = "table",
) -> None:
    """Compare searchers on real accuracies and latencies, where the best answer is known."""
    import sys

    from nas.bench.search import Runs, Table, compare, contestants
    from nas.errors import UsageError
    from nas.results.listings import SearcherComparison

    quantiles = budget_quantile or [0.4]
    if bad := [quantile for quantile in quantiles if not 0 < quantile <= 1]:
        raise UsageError(f"budget-quantile: out of range, got {bad[0]}. Expected above 0 and at most 1.")
    names = [name for given in searcher or ["all"] for name in contestants(given)]
    truth = Table.load(table, accuracy, column, device, space=space, raw=raw)
    tasks = [truth.task(name, quantile) for name in device for quantile in quantiles]

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    seeds = range(first_seed, first_seed + repeats)
    found = compare(truth, names, tasks, evals=evals, seeds=seeds, workers=workers, runs=Runs(runs), report=say)
    protocol: dict[str, object] = {"space": space, "column": column, "devices": device, "budget_quantiles": quantiles}
    protocol |= {
        "evals": evals,
        "repeats": repeats,
        "first_seed": first_seed,
        "isomorphic": "apart" if raw else "one",
        "hypervolume_reference": "0 %, the budget",
    }
    write(SearcherComparison.model_validate({"protocol": protocol, "searchers": found}), form, _render)


def _render(result: SearcherComparison) -> None:
    from nas.report.tables import print_table

    keys = list(next(iter(result.searchers.values())).figures)
    body = [[name, *(f"{row.figures[key]:.3f} ± {row.standard_error[key]:.3f}" for key in keys)] for name, row in result.searchers.items()]
    print_table("", ["searcher", *keys], body)
