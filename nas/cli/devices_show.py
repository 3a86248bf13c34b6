"""``nas devices show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas.devices.profile import Profile


def command(
    device: Annotated[str, typer.Argument(help="Device name or the path of a profile.", metavar="D")], form: Format = "table"
) -> None:
    """Show everything that is known of one device, with sources and errors."""
    from nas.devices.profile import load_profile
    from nas.devices.twins import remarks
    from nas.results.listings import DeviceOverview

    profile = load_profile(device)
    grades = {str(name): at.grade for name, at in profile.precisions.items()}
    beside = remarks(profile)
    answer = DeviceOverview(**profile.model_dump(mode="json"), hash=profile.hash, grades=grades, remarks=beside)
    write(answer, form, lambda _: _render(profile, beside))


def _render(profile: Profile, beside: Sequence[str]) -> None:
    from nas.devices.new_device import calibrate_command
    from nas.devices.trust import MEANING
    from nas.report.tables import Column, print_lines, print_table

    facts = [
        "title",
        "kind",
        "family",
        "generation",
        "runtime",
        "quantity",
        "batch",
        "threads",
        "on_chip_memory_mb",
        "default_precision",
        "hash",
    ]
    print_lines([profile.name])
    print_lines(f"  {key:20} {getattr(profile, key)}" for key in facts if getattr(profile, key) not in (None, ""))
    print_lines(f"  {'source: ' + key:20} {value}" for key, value in profile.origin.model_dump(mode="json").items() if value)
    print_lines([f"  {'also called':20} {', '.join(profile.aliases)}"] if profile.aliases else [])
    print_lines([f"  {'stands in for':20} {profile.proxy}"] if profile.proxy else [])
    print_lines(f"  note: {note}" for note in (*beside, *profile.notes))
    rows = []
    for name, precision_facts in profile.precisions.items():
        shown = [getattr(precision_facts.held_out, key, None) for key in ("networks", "mean_error_pct", "within_25_pct", "coverage_pct")]
        facts_of = [precision_facts.peak_gmacs, precision_facts.bandwidth_gb_s, precision_facts.launch_us]
        numbers = ["" if value is None else f"{round(value, 2):g}" for value in (*facts_of, *shown)]
        rows.append(
            [
                name,
                precision_facts.grade,
                precision_facts.predictor or "none fitted",
                precision_facts.runtime_version,
                *numbers,
                str(len(precision_facts.timings_ms)),
            ]
        )
    columns = [
        *(
            Column("precision"),
            Column("grade", 1),
            Column("predictor", 1),
            Column("runtime version", 6),
            Column("peak GMACs/s", 7),
            Column("GB/s", 8),
        ),
        *(Column("launch µs", 9), Column("networks", 4), Column("mean error %", 1), Column("within 25 %", 3), Column("coverage %", 2)),
        Column("timed networks", 5),
    ]
    print_table("", columns, rows)
    print_lines(f"  grade {grade}: {MEANING[grade]}" for grade in sorted({at.grade for at in profile.precisions.values()}))
    for name, precision_facts in profile.precisions.items():
        if precision_facts.held_out and (error := precision_facts.model_error):
            print_lines([f"  {name}: {error.line}", f"  {name}: errors by {precision_facts.held_out.protocol}"])
        if precision_facts.drift:
            count = len(set(precision_facts.former_timings_ms) - set(precision_facts.timings_ms))
            print_lines([f"  {name}: {precision_facts.carried_over}; {count} networks carried over"])
        if precision_facts.grade == "D":
            print_lines([f"  {name}: grade D. Do this: {calibrate_command(profile)}"])
        if precision_facts.unsupported_ops:
            print_lines([f"  {name}: cannot run {', '.join(precision_facts.unsupported_ops)}"])
        print_lines(f"  {name}: {note}" for note in precision_facts.notes)
