"""``nas devices list``."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from pathlib import Path

# a table of timings is most of a profile's text; the list needs only its length
_TIMINGS = re.compile(r"^\[precisions\.([\w\"'-]+)\.timings_ms\][^\n]*\n((?:(?!\[).*\n?)*)", re.MULTILINE)


def command(form: Format = "table") -> None:
    """List the devices: what their numbers are, and how far to trust them."""
    from nas.devices.profile import clash_text, clashes, profile_files

    rows = [_summary(name, path) for name, path in sorted(profile_files().items())]
    rows = [
        {"name": row["name"], "error": clash_text(row["name"], twice)} if (twice := clashes().get(row["name"])) else row for row in rows
    ]
    write(rows, form, _render)


def _summary(name: str, path: Path) -> dict[str, Any]:
    """Read what the list shows, unvalidated: `nas devices show` validates."""
    from nas.devices.trust import grade_of

    try:
        text = path.read_text(encoding="utf-8")
        timed = {match[1].strip("\"'"): match[2].count("=") for match in _TIMINGS.finditer(text)}
        data = tomllib.loads(_TIMINGS.sub("", text))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {"name": name, "error": f"cannot be read ({error})"}
    precisions = data.get("precisions", {})
    default = data.get("default_precision", "")
    held_out = precisions.get(default, {}).get("held_out", {})
    return {
        "name": name,
        "title": data.get("title", ""),
        "kind": data.get("kind", ""),
        "runtime": data.get("runtime", ""),
        "quantity": data.get("quantity", "latency"),
        "batch": data.get("batch", 1),
        "precisions": sorted(precisions, key=lambda p: (p != default, p)),
        "fitted": sorted(p for p, found in precisions.items() if found.get("predictor")),
        "networks": held_out.get("networks", 0) or max(timed.values(), default=0),
        "timed_networks": timed,
        "families": held_out.get("families"),
        "mean_error_pct": held_out.get("mean_error_pct"),
        "coverage_pct": held_out.get("coverage_pct"),
        "grade": grade_of(
            fitted=bool(precisions.get(default, {}).get("predictor")),
            mean_error_pct=held_out.get("mean_error_pct"),
            families=held_out.get("families"),
            coverage_pct=held_out.get("coverage_pct"),
        ),
        "aliases": data.get("aliases", []),
    }


def _render(rows: list[dict[str, Any]]) -> None:
    from nas.devices.trust import MEANING
    from nas.report.tables import print_lines, print_table

    def cells(row: dict[str, Any]) -> list[str]:
        if "error" in row:
            return [row["name"], row["error"], *[""] * 9]
        precisions = " ".join(p if p in row["fitted"] else f"({p})" for p in row["precisions"])
        error, coverage = row["mean_error_pct"], row["coverage_pct"]
        numbers = [str(row["networks"] or ""), "" if error is None else f"{error:.1f}", "" if coverage is None else f"{coverage:.0f}"]
        return [
            row["name"],
            row["grade"],
            row["title"],
            row["kind"],
            row["runtime"],
            row["quantity"],
            str(row["batch"]),
            precisions,
            *numbers,
        ]

    columns = [
        "device",
        "grade",
        "title",
        "kind",
        "runtime",
        "quantity",
        "batch",
        "precisions",
        "networks",
        "held-out error %",
        "coverage %",
    ]
    print_table("", columns, map(cells, rows))
    print_lines(
        [
            f"{len(rows)} devices. The default precision comes first; one in brackets has no fitted latency model. nas devices show D",
            *(f"grade {letter}: {meaning}" for letter, meaning in MEANING.items()),
        ]
    )
