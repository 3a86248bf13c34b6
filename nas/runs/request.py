"""What a user asked a search for."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """What a user asked a search for; kept in the run directory, enough to do it again.

    Attributes:
        devices: Names or paths of profiles, or columns of `tables`; the first decides where one has to.
        budgets: As written: ``5ms``, ``device:8ms``, ``20MB``.
        minimize: Costs to weigh against accuracy, words of `nas.searching.objective.COSTS`; none for latency.
        precision: None for each device's default, ``any`` to choose it for each part among what all devices have.
        space: Name of the space.
        anchors: Trained networks to start from, as a user names them.
        weights_dir: Folder of files of weights, named like networks.
        pairs: Where one trained network may go on in another: a policy of the space, ``similar``, or pairs by name; none for the usual ones.
        edits: What may be done to the blocks of trained networks; none for the usual ones.
        importance: By which inner channels of theirs are put in order; None for the usual one.
        mixers: Operator families that the space may choose from, by name, or ``green`` for all that NPUs run well; none for the preset's.
        knobs: Knobs of operator families that are searched beside the first, as ``family.knob``.
        evaluator: Who scores; None for the space's own, or ``table`` where a table of accuracies is given.
        tables: ``.npz`` files of known accuracies and latencies.
        column: Of the accuracies.
        data: Name or path of the data set; None for ``digits`` where the evaluator needs one.
        resolution: Deployment resolution as written; None leaves it to the search, or to the published network.
        proxy_resolution: Side at which the supernet trains, in pixels.
        epochs: Of the supernet's training; None for what data and machine allow.
        finetune_epochs: Of the choice; None likewise.
        time_limit: For everything until the exported file is tested, as written: ``30min``; None for what data and machine allow.
        searcher: None for the default.
        evals: Accuracies to compute; None for the default.
        confidence: Nominal coverage of the intervals.
        supernet: Trained weights to start from.
        seed: All randomness.
        storage: URL of a shared study; None for a journal in the run directory.
        study: Name of the study in the storage, which may hold many.
        storage_timeout: How long the storage may be away, in seconds.
        workers: ``ray://ADDRESS`` of a cluster that evaluates; empty for this process alone.
        verify: How many finalists are measured before the choice.
        quantisation: Methods by which candidates are scored and the choice is written at 8 bits, in order; none for the usual ones.
        exporter: Format of the model file.
        takes: What the exported file takes, a key of `nas.exporting.exporter.PEAKS`.
        runner: Command that times ``{onnx}`` on the device for `verify`; empty for this machine's own devices.
        batch: Images a run, for profiles that state throughput.
        from_scratch: Whether a space that is decided, not named, is one without published weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[str, ...]
    budgets: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    precision: str | None = None
    space: str = "hybrid"
    anchors: tuple[str, ...] = ()
    weights_dir: str | None = None
    pairs: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    importance: str | None = None
    mixers: tuple[str, ...] = ()
    knobs: tuple[str, ...] = ()
    evaluator: str | None = None
    tables: tuple[str, ...] = ()
    column: str | None = None
    data: str | None = None
    resolution: str | None = None
    proxy_resolution: int | None = None
    epochs: int | None = None
    finetune_epochs: int | None = None
    time_limit: str | None = None
    searcher: str | None = None
    evals: int | None = None
    confidence: float = 0.9
    supernet: str | None = None
    seed: int = 0
    storage: str | None = None
    study: str = "nas"
    storage_timeout: float = 60.0
    workers: str = ""
    verify: int = 0
    quantisation: tuple[str, ...] = ()
    exporter: str = "onnx"
    takes: str = "normalised"
    runner: str = ""
    batch: int | None = None
    from_scratch: bool = False

    def located(self) -> Request:
        """Return the same request with absolute paths, so that it means the same from any folder."""
        changes: dict[str, str] = {}
        if self.data and Path(self.data).exists():
            changes["data"] = str(Path(self.data).absolute())
        if self.weights_dir:
            changes["weights_dir"] = str(Path(self.weights_dir).absolute())
        if self.storage:
            changes["storage"] = located_storage(self.storage)
        return self.model_copy(update=changes)


def located_storage(url: str) -> str:
    """Return a storage's name with an absolute path where it is a file."""
    scheme, mark, path = url.partition(":///")
    if "://" not in url:
        return str(Path(url).absolute())
    if mark and scheme.startswith("sqlite") and path and not path.startswith(("/", ":")):
        return f"{scheme}:///{Path(path).absolute()}"
    return url
