"""Arguments that several commands share; not a command itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import typer

if TYPE_CHECKING:
    from nas.events import EventBus
    from nas.graphs.operators import Shape


def device_names(incomplete: str) -> list[str]:
    """Return what a shell may complete the name of a device to."""
    from nas.devices.names import profile_files

    return sorted(name for name in profile_files() if name.startswith(incomplete.lower()))


def network_names(incomplete: str) -> list[str]:
    """Return what a shell may complete the name of a network to."""
    from nas.graphs.workloads import names

    return [name for name in names() if name.startswith(incomplete)]


def known_devices(devices: list[str]) -> list[str]:
    """Return the devices; a name that none has stops a command before anything heavy is loaded.

    Raises:
        UnknownNameError: No such device, or several.
    """
    import os

    from nas.devices.names import find_profile

    return [device if device.endswith(".toml") or os.sep in device else find_profile(device).stem for device in devices]


def known_network(network: str) -> None:
    """Stop a command before anything heavy is loaded where a name is that of no network; files are looked at later.

    Raises:
        UnknownNameError: No such network, or several.
    """
    from nas.errors import UnknownNameError
    from nas.graphs.workloads import find, is_name
    from nas.spaces.outline import is_reference

    try:
        if is_name(network):
            find(network)
    except UnknownNameError:
        if not is_reference(network):
            raise


Format = Annotated[Literal["table", "json"], typer.Option("--format", help="How the result is printed.")]
Devices = Annotated[
    list[str],
    typer.Option(
        "--device",
        "--profile",
        help="Device name or the path of a profile; may be given several times.",
        metavar="D",
        autocompletion=device_names,
    ),
]
Device = Annotated[
    str, typer.Option("--device", "--profile", help="Device name or the path of a profile.", metavar="D", autocompletion=device_names)
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, fp16, w8a16 or w8a8 (int8), for operators whose precision the file does not state; default: the device's own.",
        metavar="P",
    ),
]
Base = Annotated[
    str,
    typer.Option(
        "--base",
        help="A related device, whose estimates fill in what the timings do not say; for a CPU or GPU one of nas devices list ncnn.",
        metavar="D",
    ),
]
Confidence = Annotated[float, typer.Option("--confidence", help="Share of timings that the interval should hold, between 0.5 and 0.99.")]
InputRange = Annotated[
    Literal["normalised", "unit", "bytes"],
    typer.Option(
        "--input",
        help="Values that the file expects: normalised (minus the mean, divided by the standard deviation), unit (RGB in 0…1) or bytes (RGB in 0…255).",
    ),
]
StudyName = Annotated[str, typer.Option("--study", help="Name of the search in the storage; one storage holds many.", metavar="NAME")]
StorageTimeout = Annotated[
    float,
    typer.Option(
        "--storage-timeout", min=0, help="Seconds that the storage may be unreachable or locked before the process gives up.", metavar="S"
    ),
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        help="Shape of a model file's input, where the file leaves it open; may be given several times.",
        metavar="NAME:1x3x320x320",
    ),
]
Dims = Annotated[
    list[str] | None,
    typer.Option("--dim", help="Value of a symbolic size in a model file, such as batch=1; may be given several times.", metavar="NAME=N"),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of all randomness.")]


def write(result: Any, form: str, render: Callable[[Any], None]) -> None:
    """Print a result to stdout: as JSON (a record's dump, or plain data), or as `render` shows it."""
    if form == "json":
        data = [plain(row) for row in result] if isinstance(result, list | tuple) else plain(result)
        unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
        sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=not unicode, allow_nan=False) + "\n")
    else:
        render(result)


def plain(result: Any) -> Any:
    """Return a record's dump; other data as they are."""
    return result.dump() if hasattr(result, "dump") else result


class InputSizes(TypedDict):
    """Sizes of a model file's input as `nas.api` takes them."""

    input_shapes: dict[str, Shape]
    dims: dict[str, int]


def sizes(input_shape: list[str] | None, dim: list[str] | None) -> InputSizes:
    """Return ``input_shapes`` and ``dims`` as the interface takes them.

    Raises:
        UsageError: One cannot be read, or a name is given twice.
    """
    from nas.errors import UsageError
    from nas.units import parse_dim, parse_input_shape

    shapes, dims = [parse_input_shape(text) for text in input_shape or ()], [parse_dim(text) for text in dim or ()]
    for option, pairs in (("input-shape", shapes), ("dim", dims)):
        names = [name for name, _ in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"--{option}: given twice, got {twice[0]!r}. Do this: give each name once.")
    return {"input_shapes": dict(shapes), "dims": dict(dims)}


@contextmanager
def progress() -> Iterator[EventBus]:
    """Show what is going on while a command works: a bus that reports to stderr."""
    from nas.events import EventBus
    from nas.report.progress import ProgressReport

    report = ProgressReport()
    try:
        yield EventBus([report])
    finally:
        report.close()
