"""Evaluations on a Ray cluster: the search stays here, one actor a slot of the cluster scores candidates.

The actors get the weights through Ray; the data must lie at the same path on every node, or have a name that is known there. An actor that is lost
with its node is replaced, and its candidate evaluated again; a candidate that cannot be evaluated is a failed trial, as anywhere.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.errors import ArtifactError, NasError, UsageError
from nas.events import EventBus, Notice
from nas.runs.elsewhere import evaluator_elsewhere
from nas.runs.problem import make_problem
from nas.runs.request import Request
from nas.searching.backend import one_line
from nas.searching.searcher import Prescreen
from nas.searching.study import Study
from nas.spaces.architecture import Architecture
from nas.training.evaluator import Evaluator, Metrics

SCHEME = "ray://"
MOST_SLOTS = 64  # by hand: candidates in flight at once
LOSSES = 3
"""How many actors may be lost over one candidate. Set by hand."""


def check_workers(request: Request) -> None:
    """Refuse what is no address of a cluster, before anything is begun.

    Raises:
        UsageError: It is none.
    """
    if request.workers and not request.workers.startswith(SCHEME):
        raise UsageError(f"--workers: not the address of a cluster, got {request.workers!r}. Expected ray://HOST:10001.")


class Member:
    """What runs on the cluster: the search's evaluator in a process of its own."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None

    def prepare(self, request: str, facts: Mapping[str, str], weights: bytes | None) -> str:
        """Make the evaluator; return why it cannot be made, or the empty string."""
        try:
            local_request = Request.model_validate_json(request).model_copy(update={"storage": None, "workers": ""})
            with tempfile.TemporaryDirectory() as folder:
                if weights is not None:
                    path = Path(folder) / "supernet.safetensors"
                    path.write_bytes(weights)
                    local_request = local_request.model_copy(update={"supernet": str(path)})
                self._evaluator = evaluator_elsewhere(make_problem(local_request), facts)
        except (NasError, OSError) as error:
            return str(error)
        return ""

    def evaluate(self, architecture: str) -> tuple[float, str, dict[str, float]]:
        """Score one architecture."""
        assert self._evaluator is not None
        metrics = self._evaluator.evaluate(Architecture.from_json(architecture))
        return metrics.accuracy_pct, metrics.split, dict(metrics.extra)


class ClusterEvaluator(Evaluator):
    """Sends each architecture to a free actor, and waits for its score. Threads may share it.

    Args:
        key: Of the evaluator that the actors have.
        start: Returns a new actor that is ready.
        slots: How many to have.
    """

    def __init__(self, key: str, start: Callable[[], Any], slots: int) -> None:
        self._key, self._start = key, start
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for actor in [start() for _ in range(slots)]:
            self._free.put(actor)

    @property
    def key(self) -> str:
        """The local evaluator's."""
        return self._key

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Score one architecture on the cluster.

        Raises:
            NasError: The architecture cannot be scored, or several actors in a row were lost over it.
        """
        import ray

        for _ in range(LOSSES):
            actor = self._free.get()
            try:
                accuracy_pct, split, extra = ray.get(actor.evaluate.remote(architecture.to_json()))
            except ray.exceptions.RayTaskError as error:
                raise NasError(f"cluster: {one_line(error.cause)}") from None
            except ray.exceptions.RayError:
                actor = self._start()
                continue
            else:
                return Metrics(accuracy_pct, split, extra)
            finally:
                self._free.put(actor)
        raise NasError(f"cluster: {LOSSES} processes in a row were lost over one candidate.")


def search_on_cluster(
    request: Request,
    facts: Mapping[str, str],
    weights: Path | None,
    key: str,
    study: Study,
    open_study: Callable[[], Study],
    search: Callable[[Study, Evaluator, EventBus], None],
    bus: EventBus,
) -> None:
    """Search with as many evaluations at a time as the cluster has slots: GPUs where it has some, else cores.

    Args:
        request: Names the cluster.
        facts: Hashes of weights and data, and the request for the actors.
        weights: File of the trained weights, where there are some.
        key: Of the local evaluator.
        study: The search's.
        open_study: Opens it for one more session of this process.
        search: Runs one session.
        bus: Told of the progress.

    Raises:
        ArtifactError: The cluster cannot be reached, or lacks the data.
    """
    try:
        import ray
    except ImportError:
        raise ArtifactError("--workers: Ray is not installed. Do this: pip install 'hardware-aware-nas[ray]'.") from None
    try:
        ray.init(address=request.workers, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ArtifactError(f"--workers: {request.workers} cannot be reached ({one_line(error)}).") from None
    try:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        slots = max(1, min(gpus or int(resources.get("CPU", 1)), MOST_SLOTS))
        bus.emit(Notice(f"search: {slots} evaluations at a time on {request.workers}, one a {'GPU' if gpus else 'core'}."))
        stored_weights = ray.put(weights.read_bytes()) if weights else None
        kind = ray.remote(num_gpus=1)(Member) if gpus else ray.remote(num_cpus=1)(Member)

        def start() -> Any:
            actor = kind.remote()
            try:
                lacking = ray.get(actor.prepare.remote(facts["request"], dict(facts), stored_weights))
            except ray.exceptions.RayError as error:
                raise ArtifactError(f"cluster: nas does not run there ({one_line(error)}). Do this: install it on every node.") from None
            if lacking:
                raise ArtifactError(f"cluster: {lacking}")
            return actor

        evaluator = ClusterEvaluator(key, start, slots)
        _side_by_side([study, *(open_study() for _ in range(slots - 1))], search, evaluator, bus)
    finally:
        ray.shutdown()


class OneAtATime(Prescreen):
    """A judge that several threads share.

    Args:
        judge: The one.
    """

    def __init__(self, judge: Prescreen) -> None:
        self._judge, self._lock = judge, threading.Lock()

    def judge(self, architectures: Sequence[Architecture]) -> Any:
        """Ask it when nobody else does."""
        with self._lock:
            return self._judge.judge(list(architectures))


def _side_by_side(
    studies: Sequence[Study], search: Callable[[Study, Evaluator, EventBus], None], evaluator: Evaluator, bus: EventBus
) -> None:
    """Run one session a slot, each in a thread; the first one reports."""
    faults: list[BaseException] = []

    def session(study: Study, where: EventBus) -> None:
        try:
            search(study, evaluator, where)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            faults.append(error)

    buses = [bus, *(EventBus() for _ in studies[1:])]
    threads = [threading.Thread(target=session, args=pair, daemon=True) for pair in zip(studies, buses, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
