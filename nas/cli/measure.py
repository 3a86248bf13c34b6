"""``nas measure``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas.cli._options import Format, write


def command(
    subject: Annotated[str, typer.Argument(help="ARCH.json, MODEL.onnx or the name of a published network.")],
    device: Annotated[str, typer.Option("--device", help="local-cpu or local-cuda.", metavar="D")] = "local-cpu",
    runner: Annotated[str, typer.Option(help="A command that times {onnx} and prints milliseconds (adb, ssh, trtexec, …).")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime, each bound to a processor.")] = 1,
    resolution: Annotated[str | None, typer.Option(help="Input of an architecture, 224 or 192x256.")] = None,
    form: Format = "table",
) -> None:
    """Time a network on this machine, or on any device that a command can reach; weights are random unless a file brings them."""
    from pathlib import Path
    from typing import cast

    from nas.devices.measure import LocalDevice, Measurement, measure_graph, measure_onnx, measure_with_runner
    from nas.errors import ArtifactError, UsageError
    from nas.spaces.network import load_network
    from nas.units import parse_resolution

    if not runner and device not in ("local-cpu", "local-cuda"):
        raise UsageError(
            f"device: cannot be measured from here, got {device!r}. Expected local-cpu or local-cuda, or do this: --runner 'CMD {{onnx}}'."
        )

    def measure(path: Path) -> Measurement:
        return measure_with_runner(path, runner) if runner else measure_onnx(path, cast(LocalDevice, device), threads=threads)

    if subject.endswith(".onnx"):
        if not Path(subject).is_file():
            raise ArtifactError(f"measure: no such file, got {subject!r}.")
        found = measure(Path(subject))
    else:
        found = measure_graph(load_network(subject, parse_resolution(resolution) if resolution else None).graph, measure)
    write(found.to_json() | {"network": subject}, form, _render)


def _render(result: dict[str, Any]) -> None:
    from rich.console import Console

    threads = f", {result['threads']} thread{'s' * (result['threads'] > 1)}" if result["threads"] else ""
    line = f"{result['median_ms']:.3f} ms measured (median of {len(result['samples_ms'])}, IQR {result['iqr_ms']:.3f} ms)"
    Console().print(f"{result['network']} on {result['device']}: {line}, {result['runtime']}{threads}", highlight=False)
