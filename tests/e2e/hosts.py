"""Hosts of our own for tests: a network namespace and a host name each, on one bridge; and a PostgreSQL that can be restarted."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NETWORK = f"10.213.{os.getpid() % 250}"
"""Of this process: tests that run side by side have their own."""


def postgresql_folder() -> Path | None:
    """Where Debian's package, or the path, has PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return found[-1]
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@dataclass
class Server:
    """A PostgreSQL of our own.

    Attributes:
        folder: Of its data.
        port: Where it listens.
        address: Where it is reached.
    """

    folder: Path
    port: int
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"postgresql://nas@{self.address}:{self.port}/postgres"

    def program(self, *words: str) -> None:
        """Run one of its programs; the server refuses to run as root."""
        who = {}
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            who = {"user": user.pw_uid, "group": user.pw_gid}
        folder = postgresql_folder()
        assert folder is not None
        command = [str(folder / words[0]), "-D", str(self.folder / "data"), *words[1:]]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=self.folder, **who)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        listen = f"-c listen_addresses=* -c unix_socket_directories={self.folder} -c max_connections=100"
        self.program("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", f"-p {self.port} {listen}", "start")

    def stop(self) -> None:
        self.program("pg_ctl", "-m", "immediate", "stop")

    def restart(self) -> None:
        """Pull the plug and start again."""
        self.stop()
        self.start()


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """A fresh server; skipped with a reason where there is none."""
    pytest.importorskip("psycopg", reason="needs psycopg")
    if postgresql_folder() is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="nas-postgresql-"))  # pytest's own folders are closed to other users
    if os.getuid() == 0:
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("needs the user postgres to start PostgreSQL from root")
        os.chown(folder, user.pw_uid, user.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(folder, port)
    server.program("initdb", "-U", "nas", "-A", "trust")
    with (folder / "data" / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {NETWORK}.0/24 trust\n")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@dataclass
class Hosts:
    """Network namespaces on one bridge, each with a host name; the machine itself is ``NETWORK.1``.

    Attributes:
        names: Of the hosts.
    """

    names: list[str]
    prefix: str = field(default_factory=lambda: f"n{os.getpid() % 10000}")

    def space(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def link(self, name: str, state: str) -> None:
        """Cut or mend the cable of a host."""
        ip("link", "set", f"{self.prefix}v{self.names.index(name)}", state)

    def command(self, name: str, words: list[str]) -> list[str]:
        """Return a command line as it runs on a host."""
        return ["ip", "netns", "exec", self.space(name), "unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name, *words]


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def network_hosts(*names: str) -> Iterator[Hosts]:
    """Hosts on a bridge; skipped with a reason where namespaces are refused."""
    for program in ("ip", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}: apt-get install iproute2 util-linux")
    hosts = Hosts(list(names))
    bridge = f"{hosts.prefix}br"
    try:
        try:
            ip("link", "add", bridge, "type", "bridge")
            ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge)
            ip("link", "set", bridge, "up")
            for i, name in enumerate(names):
                space, here, there = hosts.space(name), f"{hosts.prefix}v{i}", f"{hosts.prefix}w{i}"
                ip("netns", "add", space)
                ip("link", "add", here, "type", "veth", "peer", "name", there)
                ip("link", "set", there, "netns", space)
                ip("link", "set", here, "master", bridge)
                ip("link", "set", here, "up")
                ip("-n", space, "addr", "add", f"{NETWORK}.{10 + i}/24", "dev", there)
                ip("-n", space, "link", "set", there, "up")
                ip("-n", space, "link", "set", "lo", "up")
        except OSError as error:
            pytest.skip(f"network namespaces are refused here ({error})")
        if subprocess.run(hosts.command(names[0], ["true"]), capture_output=True, check=False).returncode:
            pytest.skip("host names of our own (UTS namespaces) are refused here")
        yield hosts
    finally:
        for i, name in enumerate(names):
            subprocess.run(["ip", "link", "del", f"{hosts.prefix}v{i}"], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", hosts.space(name)], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def pause(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Stop a process for a while, as a hypervisor or a batch system does."""
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)
