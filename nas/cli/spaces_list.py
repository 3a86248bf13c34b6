"""``nas spaces list``."""

from __future__ import annotations

from typing import Any

from nas.cli._options import Format, write


def command(form: Format = "table") -> None:
    """List the search spaces, each with its number of choices and its size."""
    import math

    from nas.errors import NasError
    from nas.spaces.naming import get_space
    from nas.spaces.space import spaces

    rows: list[dict[str, Any]] = []
    for family, kind in spaces.items():
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        for preset in kind.presets or ("",):
            name = f"{family}-{preset}" if preset else family
            row: dict[str, Any] = {"name": name, "summary": summary, "choices": None, "log10_size": None, "needs": None}
            try:
                space = get_space(name)
                row |= {"choices": len(space.choices), "log10_size": round(math.log10(space.size()), 3)}
            except NasError as error:
                row["needs"] = str(error)
            rows.append(row)
    write(rows, form, _render)


def _render(rows: list[dict[str, Any]]) -> None:
    from nas.report.tables import print_table

    def size(row: dict[str, Any]) -> str:
        if row["log10_size"] is None:
            return ""
        return f"{10 ** row['log10_size']:,.0f}" if row["log10_size"] < 6 else f"10^{row['log10_size']:.0f}"

    body = [[row["name"], str(row["choices"] or ""), size(row), row["needs"] or row["summary"]] for row in rows]
    print_table("", ["space", "choices", "size", "what"], body)
