"""The directory of a run: what was asked, what it has done, and what came out.

========================  =====================================================================================
``manifest.json``         request, versions, hashes of profiles and data; written once
``status.json``           phase and progress, replaced after every step; `nas show` reads it
``lock``                  held (by the system) while a process works on the run
``owner``                 the process that worked on it last
``study.journal``         the search
``contest.json``          where kinds of search share the time: how they stand, and which the run has become
``results.json``          the result, as ``--format json`` prints it; written when the run ends
========================  =====================================================================================

Files are replaced in one step, so a reader never sees half of one, and a kill leaves the old one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import nas
from nas.errors import ArtifactError, UsageError
from nas.events import Event, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Record, Result
from nas.searching.address import words_without_passwords
from nas.searching.locks import FileLock
from nas.searching.worker import Worker, this_worker

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=Record)

LOOK_S, WAIT_S = 0.2, 2.0
"""How long a lock is tried for: by who only looks, and by who is to work and may meet one that looks, or one that is just ending.
Set by hand."""

JOURNAL = "study.journal"

CONTEST_FILE = "contest.json"
"""In a run that shares its time among kinds of search: how they stand, and which it has become; see `nas.runs.contest`."""

FORMAT = 1
"""Version of the directory's layout; raised when an older run cannot be continued."""

MAX_BYTES = 256 * 2**20
"""No file of a run that is read as JSON comes near this size. Set by hand."""

_PACKAGES = ("torch", "optuna", "onnx", "onnxruntime", "numpy", "pillow")

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Manifest(BaseModel):
    """What ``manifest.json`` has to hold."""

    model_config = ConfigDict(extra="allow")

    nas: str = "unknown"
    python: str = "unknown"
    packages: dict[str, str] = Field(default_factory=dict)
    request: dict[str, Any]
    facts: dict[str, str]


class Status(BaseModel):
    """What ``status.json`` may hold."""

    model_config = ConfigDict(extra="allow")

    phase: str = "start"
    total: Count | None = None
    done: Count = 0
    first: Number = 0.0
    part: Number = 0.0
    detail: str = ""
    elapsed_s: Number = 0.0
    seconds: dict[str, Number] = Field(default_factory=dict)
    search: dict[str, Number] = Field(default_factory=dict)
    numbers: dict[str, Number] = Field(default_factory=dict)
    notices: list[str] = Field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class RunDirectory:
    """A run on disk. Use `RunDirectory.create` or `RunDirectory.open`."""

    path: Path

    @classmethod
    def create(cls, path: Path | None, label: str, request: Mapping[str, Any], facts: Mapping[str, Any]) -> RunDirectory:
        """Make a new directory; nothing is ever overwritten.

        Args:
            path: Where; None for ``runs/<time>-<label>``.
            label: Part of the default name.
            request: What the user asked for; enough to do it again.
            facts: Hashes of what the run believes (profiles, data).

        Raises:
            UsageError: The path exists.
            ArtifactError: It cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        target = path or _unused(Path("runs") / f"{stamp}-{label}")
        try:
            target.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            raise cls.taken(target) from None
        except OSError as error:
            raise ArtifactError(f"--out {target}: cannot be made ({error.strerror}).") from None
        run = cls(target)
        run.write(
            "manifest.json",
            {
                "format": FORMAT,
                "nas": nas.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "argv": words_without_passwords(sys.argv),
                "python": sys.version.split()[0],
                "packages": _versions(),
                "request": dict(request),
                "facts": dict(facts),
            },
        )
        return run

    @classmethod
    def taken(cls, path: Path) -> UsageError:
        """Return the error that a path exists, with what to do."""
        resumable = f"nas resume {path}, or " if (path / "manifest.json").is_file() else ""
        return UsageError(f"--out {path}: exists already. Do this: {resumable}give another --out.")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            ArtifactError: No run, a damaged one, or one of another version.
        """
        run = cls(path)
        try:
            manifest = run.read("manifest.json")
        except OSError as error:
            raise ArtifactError(f"run {path}: cannot be read ({error.strerror}).") from None
        if manifest is None:
            raise ArtifactError(f"run {path}: not a run directory, it has no manifest.json. Expected what nas search has made.")
        if manifest.get("format") != FORMAT:
            writer = manifest.get("nas", "unknown")
            raise ArtifactError(
                f"run {path}: of another version, got format {manifest.get('format')!r} (nas {writer}). Expected {FORMAT} (nas {nas.__version__})."
            )
        run.load("manifest.json", Manifest)
        return run

    @property
    def manifest(self) -> Manifest:
        """What was asked, and with which versions.

        Raises:
            ArtifactError: It is damaged, or gone.
        """
        manifest = self.load("manifest.json", Manifest)
        if manifest is None:
            raise ArtifactError(f"run {self.path}: its manifest.json is gone. Do this: start a new run.")
        return manifest

    @property
    def results(self) -> Result | None:
        """The result of a finished run, with its files where they are now."""
        result = self.load("results.json", Result)
        if result is None:
            return None
        model = str(self.path / Path(result.model).name) if result.model else None
        return result.model_copy(update={"run_dir": str(self.path), "model": model})

    @property
    def status(self) -> Status:
        """Phase and progress, as last written."""
        return self.load("status.json", Status) or Status()

    @property
    def storage(self) -> str:
        """Where the search keeps its trials."""
        return str(self.manifest.request.get("storage") or self.path / JOURNAL)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a JSON file of the run; None where it is absent.

        Raises:
            ArtifactError: It is damaged.
        """
        file = self.path / name
        try:
            if file.stat().st_size > MAX_BYTES:
                raise ArtifactError(f"run {self.path}: {name} is damaged, got {file.stat().st_size} bytes. Expected at most {MAX_BYTES}.")
            data = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError) as error:  # JSON's own errors are of the first kind
            raise ArtifactError(f"run {self.path}: {name} is damaged ({error}).") from None
        except OSError as error:
            raise ArtifactError(f"run {self.path}: {name} cannot be read ({error.strerror}).") from None
        if not isinstance(data, dict):
            raise ArtifactError(f"run {self.path}: {name} is damaged, got {type(data).__name__}. Expected an object.")
        return data

    def load(self, name: str, kind: type[M]) -> M | None:
        """Return a JSON file of the run as what it is; None where it is absent.

        Raises:
            ArtifactError: It is damaged, or holds something else.
        """
        data = self.read(name)
        return None if data is None else self._validated(name, kind, data)

    def _validated(self, name: str, kind: type[M], data: Mapping[str, Any]) -> M:
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or name
            raise ArtifactError(f"run {self.path}: {name} is damaged ({where}: {fault['msg'].lower()}).") from None
        except RecursionError:
            raise ArtifactError(f"run {self.path}: {name} is damaged (nested too deeply).") from None

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Replace a JSON file of the run in one step.

        Raises:
            ArtifactError: The file cannot be written; the run can be resumed when it can.
        """
        self.write_text(name, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replace a text file of the run in one step.

        Raises:
            ArtifactError: The file cannot be written; the run can be resumed when it can.
        """
        part = self.path / f".{name}.part"
        try:
            part.unlink(missing_ok=True)  # of a session that was killed here; or a link that a stranger's run holds
            with part.open("x", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            os.replace(part, self.path / name)
        except OSError as error:
            raise ArtifactError(
                f"run {self.path}: {name} cannot be written ({error.strerror}). Do this: make room, then nas resume {self.path}."
            ) from None

    def discard(self) -> None:
        """Remove a run that has found out nothing, so that its name can be used again; one that holds anything else stays."""
        papers = {"manifest.json", "status.json", "clock.json", "lock", "owner"}
        if {path.name for path in self.path.iterdir()} <= papers:
            for name in papers:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def living(self) -> bool:
        """Return whether a process is at work on this run."""
        lock = FileLock(self.path / "lock")
        if not lock.path.is_file():
            return False
        try:
            free = lock.acquire(LOOK_S)
        except OSError:  # a run of another user's, which can be read and not locked
            return bool(Worker.from_json(self.read("owner")).alive)
        if free:
            lock.release()
        return not free

    @contextmanager
    def work(self) -> Iterator[None]:
        """Hold the run; the system lets go of it whenever this process ends, killed or not.

        Raises:
            ArtifactError: A living process holds it.
        """
        lock = FileLock(self.path / "lock")
        if not lock.acquire(WAIT_S):
            owner = Worker.from_json(self.read("owner"))
            raise ArtifactError(
                f"run {self.path}: in use by a living process, got pid {owner.pid} on {owner.host or 'another machine'}. Do this: nas show {self.path}."
            )
        try:
            self.write("owner", this_worker().to_json())
            yield
        finally:
            lock.release()


def remembered(run: RunDirectory, name: str, kind: type[R], make: Callable[[], R]) -> R:
    """Return what a file of the run holds, making it first where it is absent."""
    record = run.load(name, kind)
    if record is None:
        record = make()
        run.write(name, record.dump())
    return record


class StatusFile:
    """A listener that keeps a run's ``status.json`` up to date, so that another terminal can follow it.

    Args:
        run: Whose status.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        before = run.status
        self.seconds, self.notices, self.search = dict(before.seconds), list(before.notices), dict(before.search)
        self._state = Status(phase=before.phase)
        self._began_s = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if isinstance(event, PhaseStarted):
            self._began_s = time.monotonic()
            self._state = Status(
                phase=event.phase, total=event.total, done=event.done, first=event.done + event.part, part=event.part, detail=event.detail
            )
        elif isinstance(event, PhaseAdvanced):
            numbers = {**self._state.numbers, **event.numbers}
            self._state = self._state.model_copy(update={"done": event.done, "part": event.part, "numbers": numbers})
            if event.phase == "search":
                self.search = {"evaluations": event.done, **event.numbers}
        elif isinstance(event, PhaseFinished):
            self.seconds[event.phase] = self.seconds.get(event.phase, 0.0) + event.seconds
        elif isinstance(event, Notice) and event.text not in self.notices:
            self.notices.append(event.text)
        self.save()

    def fail(self, message: str) -> None:
        """Note why the run stopped; resuming clears it."""
        from contextlib import suppress

        self._state = self._state.model_copy(update={"error": message})
        with suppress(ArtifactError):  # the disk may be what failed; the first error is the one to tell
            self.save()

    def save(self) -> None:
        """Write the file."""
        elapsed_s = time.monotonic() - self._began_s
        totals = {"seconds": self.seconds, "search": self.search, "notices": self.notices}
        self.run.write("status.json", self._state.model_copy(update={"elapsed_s": round(elapsed_s, 3), **totals}).model_dump())


def eta_s(status: Status) -> float | None:
    """Return the seconds that the present phase still takes at its pace so far; None where nothing is known yet."""
    done = status.done + status.part
    if not status.total or done <= status.first:
        return None
    return status.elapsed_s / (done - status.first) * (status.total - done)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _unused(path: Path) -> Path:
    names = [path, *(path.with_name(f"{path.name}-{i}") for i in range(2, 1000))]
    return next(name for name in names if not name.exists())


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
