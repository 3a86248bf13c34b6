"""Who works on a trial: a process named so that no other one on any machine has the same name, and whether it lives."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """A process at work on a study.

    Attributes:
        host: Name of its machine; for people only, since it may be given twice or change.
        boot: The kernel's name of the machine's present boot; empty where the system has none.
        processes: The kernel's name of the space in which `pid` counts (containers have their own); empty likewise.
        pid: Process number.
        started: When the process started, in the kernel's ticks.
        nonce: Random; tells two sessions of one process apart, and a process from a later one in a restored machine.
    """

    host: str = ""
    boot: str = ""
    processes: str = ""
    pid: int = 0
    started: str = ""
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "an unknown process"

    @property
    def on_this_machine(self) -> bool:
        """Whether it ran under the kernel that runs this process, be it in another container."""
        return bool(self.boot) and self.boot == _boot()

    @property
    def alive(self) -> bool | None:
        """Whether it lives; None where that cannot be known from here (another machine, another container, another session of this process)."""
        if not (self.boot and self.processes and (self.boot, self.processes) == (_boot(), _processes())):
            return None
        if not self.started or _start_time(self.pid) != self.started:
            return False
        return None if self.pid == os.getpid() else True

    def to_json(self) -> dict[str, str | int]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Worker:
        """Read what `to_json` gave; anything else is a worker of which nothing is known."""
        if not isinstance(data, Mapping):
            return cls(nonce="")
        known = {f.name: data[f.name] for f in fields(cls) if isinstance(data.get(f.name), int if f.name == "pid" else str)}
        return cls(**{"nonce": "", **known})


def this_worker() -> Worker:
    """Return this process under a name of its own."""
    pid = os.getpid()
    return Worker(socket.gethostname(), _boot(), _processes(), pid, _start_time(pid))


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _processes() -> str:
    """Return the process namespace; empty where ``/proc`` shows that of another one."""
    if sys.platform != "linux":
        return ""
    try:
        return os.readlink("/proc/self/ns/pid") if os.readlink("/proc/self") == str(os.getpid()) else ""
    except OSError:
        return ""


def _start_time(pid: int) -> str:
    """Return when a process started; empty where there is none, or one that is dead and not yet buried by its parent."""
    try:
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else facts[18]
