"""``nas devices calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli._options import Format, Precision, write


def command(
    name: Annotated[str, typer.Argument(help="Name of the new device.", metavar="NAME")],
    timings: Annotated[
        Path, typer.Option("--from", help="CSV: network,latency_ms[,precision]; a published name, .onnx or architecture file a line.")
    ],
    base: Annotated[str, typer.Option(help="A related device that is known: its family is the prior.", metavar="D")] = "sa8295p",
    precision: Precision = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the profile; default: the user's device folder.", metavar="DIR")] = None,
    form: Format = "table",
) -> None:
    """Make a profile of your own device from a few timings, and say how wrong it is on networks that it has not seen."""
    import re

    from nas.devices.new_device import calibrate, profile_toml, read_timings
    from nas.devices.predictor import load_predictor
    from nas.devices.profile import config_home, find_profile, profile_files, read_profile
    from nas.devices.scores import score
    from nas.errors import ArtifactError, UsageError

    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise UsageError(f"device: not a name, got {name!r}. Expected lower-case letters, digits, dots and hyphens.")
    room = to or config_home() / "devices"
    taken = profile_files().get(name)
    if (room / f"{name}.toml").exists() or taken is not None:
        raise UsageError(
            f"device: the name is taken, got {name!r} ({taken or room / f'{name}.toml'}). Do this: choose another or remove it."
        )
    file = find_profile(base)
    related = read_profile(file)
    chosen = precision or related.default_precision
    predictor = load_predictor(related, chosen if chosen in related.precisions else None, file.parent)
    made = calibrate(name, read_timings(timings, chosen), related, predictor, timings.name, timings.parent)
    try:
        room.mkdir(parents=True, exist_ok=True)
        made.predictor.save(room / f"{name}.npz")
        (room / f"{name}.toml").write_text(profile_toml(made.profile), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"calibrate {name}: cannot write to {room} ({error.strerror}).") from None
    result = {
        "name": name,
        "path": str(room / f"{name}.toml"),
        "base": base,
        "precisions": {p: score(found) for p, found in made.predictions.items()},
        "broken": list(made.broken),
    }
    write(result, form, _render)


def _render(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines, print_table

    for precision, found in result["precisions"].items():
        rows = [
            [n["name"], f"{n['measured_ms']:.3f}", f"{n['latency_ms']:.3f}", f"{n['lower_ms']:.3f} … {n['upper_ms']:.3f}"]
            for n in found["networks"]
        ]
        print_table(
            f"{precision}, each network predicted without its own timing", ["network", "measured ms", "predicted ms", "90 % interval"], rows
        )
        print_lines(
            [
                f"held out: mean error {found['mean_error_pct']:.1f} %, median {found['median_error_pct']:.1f} %, "
                f"{found['coverage_pct']:.0f} % inside the 90 % interval, over {found['networks_tested']} networks"
            ]
        )
    print_lines([*(f"left out as broken: {line}" for line in result["broken"]), f"{result['name']} is known now: {result['path']}"])
