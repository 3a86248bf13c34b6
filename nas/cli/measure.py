"""``nas measure``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli._options import Dims, Format, InputShapes, sizes, write

if TYPE_CHECKING:
    from nas.results import Measurement


def command(
    subject: Annotated[str, typer.Argument(help="ARCH.json, MODEL.onnx or the name of a published network.")],
    device: Annotated[
        str | None, typer.Option("--device", help="local-cpu or local-cuda; default: local-cpu. Not beside --runner.", metavar="D")
    ] = None,
    runner: Annotated[
        str,
        typer.Option(
            help="A built-in runner: adb, litert, onnxruntime, openvino, qai-hub, rknn, ssh, stedgeai or trtexec, with options after a colon "
            "(ssh:host=pi@board,threads=4). Or a command that times the file {onnx} and prints milliseconds, one time a line: 3.4, 3.4 ms or latency_ms: 3.4. "
            "Default: none; --device is used."
        ),
    ] = "",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of ONNX Runtime, each bound to a processor; default: 1. Not beside --runner.")
    ] = None,
    resolution: Annotated[str | None, typer.Option(help="Size of an architecture's input, 224 or HEIGHTxWIDTH; default: its own.")] = None,
    input_shape: InputShapes = None,
    dim: Dims = None,
    form: Format = "table",
) -> None:
    """Time a network on this machine, or on any device that a command can reach. Weights are random unless a file brings them."""
    from nas import api

    write(api.measure(subject, device, runner=runner, threads=threads, resolution=resolution, **sizes(input_shape, dim)), form, _print)


def _print(result: Measurement) -> None:
    from nas.report.tables import print_lines

    threads = f", {result.threads} thread{'s' * (result.threads > 1)}" if result.threads else ""
    line = f"{result.median_ms:.3f} ms measured (median of {len(result.samples_ms)}, IQR {result.iqr_ms:.3f} ms)"
    print_lines([f"{result.network} on {result.device}: {line}, {result.runtime}{threads}"])
