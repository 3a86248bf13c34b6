"""``nas spaces show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import ChoiceOverview, SpaceOverview


def command(
    space: Annotated[str, typer.Argument(help="Name of a space, with its preset: hybrid-s.", metavar="S")], form: Format = "table"
) -> None:
    """Show the choices of a space."""
    from nas.results.listings import ChoiceOverview, SpaceOverview
    from nas.spaces.naming import get_space

    chosen = get_space(space)
    result = SpaceOverview(
        name=chosen.name,
        version=chosen.version,
        size=str(chosen.size()),
        choices=tuple(ChoiceOverview(name=choice.name, values=choice.values, ordered=choice.ordered) for choice in chosen.choices),
        about=" ".join((type(chosen).__doc__ or "").partition("\n\n")[0].split()),
    )
    write(result, form, _render)


def _render(result: SpaceOverview) -> None:
    from nas.report.tables import print_lines, print_table

    def values(choice: ChoiceOverview) -> str:
        shown = " ".join(map(str, choice.values[:14]))
        return shown if len(choice.values) <= 14 else f"{shown} … ({len(choice.values)} in all)"

    print_lines([f"{result.name} version {result.version}: {result.about}", f"{float(result.size):.3g} encodings"])
    body = [[choice.name, "ordered" if choice.ordered else "", values(choice)] for choice in result.choices]
    print_table("", ["choice", "", "values"], body)
