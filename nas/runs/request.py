"""What a user asked a search for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """What a user asked a search for; kept in the run directory, enough to do it again.

    Attributes:
        devices: Names or paths of profiles; the first decides where one has to.
        budgets: As written: ``5ms``, ``device:8ms``, ``20MB``.
        minimize: Costs to weigh against accuracy, words of `nas.searching.objective.COSTS`; none for latency.
        precision: None for each device's default, ``any`` to choose it for each part among what all devices have.
        space: Name of the space.
        data: Name or path of the data set.
        resolution: Deployment resolution as written; None leaves it to the search, or to the published network.
        proxy_resolution: Side at which the supernet trains, in pixels.
        searcher: None for the space's own.
        evals: Accuracies to compute; None for the default.
        confidence: Nominal coverage of the intervals.
        supernet: Trained weights to start from.
        seed: All randomness.
        storage: URL of a shared study; None for a journal in the run directory.
        verify: How many of the front's best are measured at the end.
        takes: What the exported file takes, a key of `nas.exporting.exporter.PEAKS`.
        runner: Command that times ``{onnx}`` on the device for `verify`; empty for this machine's own devices.
        batch: Images a run, for profiles that state throughput.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[str, ...]
    budgets: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    precision: str | None = None
    space: str
    data: str = "digits"
    resolution: str | None = None
    proxy_resolution: int | None = None
    searcher: str | None = None
    evals: int | None = None
    confidence: float = 0.9
    supernet: str | None = None
    seed: int = 0
    storage: str | None = None
    verify: int = 0
    takes: str = "normalised"
    runner: str = ""
    batch: int | None = None
