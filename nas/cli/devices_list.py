"""``nas devices list``."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nas.cli._options import Format, device_names, write

if TYPE_CHECKING:
    from pathlib import Path

    from nas.results.listings import DeviceRow

# a table of timings is most of a profile's text; the list needs only its length
_TIMINGS = re.compile(r"^\[precisions\.([\w\"'-]+)\.timings_ms\][^\n]*\n((?:(?!\[).*\n?)*)", re.MULTILINE)


def command(
    text: Annotated[
        str | None,
        typer.Argument(
            help="Part of a name, title, family or runtime; default: every device.", metavar="[FILTER]", autocompletion=device_names
        ),
    ] = None,
    vendor: Annotated[
        str | None, typer.Option("--vendor", help="Only devices of this maker, such as qualcomm, nvidia or hailo.", metavar="V")
    ] = None,
    grade: Annotated[
        Literal["A", "B", "C", "D"] | None,
        typer.Option(
            "--grade",
            help="Only devices of this grade or better. A: mean error at most 10 % on families of networks left out; B: 20 %; C: 35 %; D: more, or no model.",
        ),
    ] = None,
    form: Format = "table",
) -> None:
    """List the devices: precisions, runtime, and how far to trust their estimates."""
    from nas.devices.names import clash_text, clashes, profile_files
    from nas.errors import UnknownNameError, UsageError
    from nas.results.listings import DeviceRow

    twice = clashes()
    rows = [
        DeviceRow(name=name, error=clash_text(name, twice[name])) if name in twice else _summary(name, path)
        for name, path in sorted(profile_files().items())
    ]
    shown = rows
    if vendor is not None:
        known = sorted({row.vendor for row in rows if row.vendor})
        if vendor.lower() not in {name.lower() for name in known}:
            raise UnknownNameError("vendor", vendor, known)
        shown = [row for row in shown if row.vendor.lower() == vendor.lower()]
    if grade is not None:
        shown = [row for row in shown if row.grade <= grade]
    if text is not None:
        shown = [row for row in shown if _plain(text) in _plain(" ".join(str(getattr(row, key)) for key in _SEARCHED))]
    if not shown and rows:
        query = " ".join(word for word in (text, vendor and f"--vendor {vendor}", grade and f"--grade {grade}") if word)
        raise UsageError(f"devices: none of {len(rows)} is like that, got {query!r}. Do this: nas devices list, or nas devices add.")
    write(shown, form, _render)


_SEARCHED = ("name", "title", "family", "generation", "runtime", "kind", "aliases")


def _plain(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def _summary(name: str, path: Path) -> DeviceRow:
    """Read what the list shows, unvalidated: `nas devices show` validates."""
    from nas.results.listings import DeviceRow

    try:
        text = path.read_text(encoding="utf-8")
        timed = {match[1].strip("\"'"): match[2].count("=") for match in _TIMINGS.finditer(text)}
        return _row(name, tomllib.loads(_TIMINGS.sub("", text)), timed)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return DeviceRow(name=name, error=f"cannot be read ({error})")
    except (AttributeError, TypeError, ValueError):  # a value of another type than its field's
        return DeviceRow(name=name, error=f"is not a valid profile. Do this: nas devices show {name}, which says why.")


def _row(name: str, data: dict[str, Any], timed: dict[str, int]) -> DeviceRow:
    from nas.devices.trust import grade_of
    from nas.devices.vendors import vendor_of
    from nas.results.listings import DeviceRow

    precisions = data.get("precisions", {})
    default = data.get("default_precision", "")
    held_out, later = (precisions.get(default, {}).get(key, {}) for key in ("held_out", "held_out_later"))
    return DeviceRow(
        name=name,
        title=data.get("title", ""),
        aliases=tuple(data.get("aliases", ())),
        vendor=vendor_of(name, str(data.get("title", "")), str(data.get("family", ""))),
        grade=grade_of(
            fitted=bool(precisions.get(default, {}).get("predictor")),
            mean_error_pct=held_out.get("mean_error_pct"),
            families=held_out.get("families"),
            coverage_pct=held_out.get("coverage_pct"),
        ),
        kind=data.get("kind", ""),
        family=data.get("family", ""),
        generation=data.get("generation", ""),
        runtime=data.get("runtime", ""),
        quantity=data.get("quantity", "latency"),
        batch=data.get("batch", 1),
        precisions=tuple(sorted(precisions, key=lambda p: (p != default, p))),
        fitted=tuple(sorted(p for p, facts in precisions.items() if facts.get("predictor"))),
        networks=held_out.get("networks", 0) or max(timed.values(), default=0),
        timed_networks=timed,
        families=held_out.get("families"),
        mean_error_pct=held_out.get("mean_error_pct"),
        mean_error_interval_pct=held_out.get("mean_error_interval_pct"),
        later_networks=later.get("networks"),
        later_mean_error_pct=later.get("mean_error_pct"),
        above_upper_pct=held_out.get("above_upper_pct"),
        coverage_pct=held_out.get("coverage_pct"),
    )


def _render(rows: list[DeviceRow]) -> None:
    from nas.devices.names import superseded_text, superseded_updates
    from nas.report.tables import Column, print_lines, print_table

    def cells(row: DeviceRow) -> list[str]:
        precisions = " ".join(p if p in row.fitted else f"({p})" for p in row.precisions)
        error, coverage = row.mean_error_pct, row.coverage_pct
        shown = "" if error is None else f"{error:.1f}{'' if row.families else ' *'}"
        later = "" if row.later_mean_error_pct is None else f"{row.later_mean_error_pct:.1f} ({row.later_networks})"
        networks = f"{row.networks} of {row.families}" if row.families else str(row.networks or "")
        numbers = [shown, later, "" if coverage is None else f"{coverage:.0f}", networks]
        quantity = "throughput" if row.quantity == "reciprocal_throughput" else row.quantity
        return [row.name, row.grade, *numbers, precisions, row.kind, row.runtime, quantity, str(row.batch), row.title]

    columns = [
        *(Column("device"), Column("grade", 1), Column("error %", 2), Column("error % later (n)", 4), Column("coverage %", 3)),
        Column("networks (of lineages)", 6),
        *(Column("precisions", 4), Column("kind", 5), Column("runtime", 7), Column("quantity", 8), Column("batch", 9), Column("title", 10)),
    ]
    print_table("", columns, (cells(row) for row in rows if not row.error))
    print_lines(f"{row.name}: {row.error}" for row in rows if row.error)
    print_lines(superseded_text(name, update) for name, update in superseded_updates().items())
    print_lines(
        [
            f"{len(rows)} devices. The default precision comes first; one in brackets has no fitted latency model. nas devices show D",
            "Errors: lineages left out (*: networks, flatters); later: timed after the fit.",
            "Grades by mean error on families left out: A 10 %, B 20 %, C 35 % or fewer than five families, D more or no model.",
        ]
    )
