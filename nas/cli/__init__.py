"""The command line: one file per command, found by its name.

``predict.py`` is ``nas predict``; ``devices_list.py`` is ``nas devices list``. Each file defines a function ``command``
whose signature is the interface and whose docstring is the help; heavy imports belong inside it. Arguments that
several commands share are in ``_options.py``.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from typing import TYPE_CHECKING

from nas.cli._overview import light_answer

if TYPE_CHECKING:
    from typer.core import TyperGroup

_EVERYWHERE = ("--debug", "--wide")
"""Options of every command."""

COLLECTED = (50_000, 10, 10)
"""Objects made between two searches for garbage. Python's default is made for small programs: beside PyTorch's objects, half the time of reading and
pricing a graph went into such searches, which found nothing."""

_INTERRUPTED = 130
"""What typer returns instead of raising KeyboardInterrupt."""


def build_app() -> TyperGroup:
    """Return the application; the file of a command is imported when the command is asked for."""
    from nas.cli._application import Commands

    return Commands(None)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a stated failure, 2 wrong usage; a traceback only with ``--debug``."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    _ready_streams()
    gc.set_threshold(*COLLECTED)
    if "--wide" in words:
        from nas.report.tables import show_whole_tables

        show_whole_tables()
    words = [word for word in words if word not in _EVERYWHERE]
    try:
        if (answer := light_answer(words)) is not None:
            sys.stdout.write(f"{answer}\n")
            code = 0
        else:
            code = build_app()(words, prog_name="nas", standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        if debug and not isinstance(error, KeyboardInterrupt):
            raise
        raise SystemExit(_report(error)) from None
    if code == _INTERRUPTED:
        code = _report(KeyboardInterrupt())
    raise SystemExit(_flushed() or code or 0)


class _Closed(io.TextIOBase):
    """A stream in place of one that was closed before the program began; writing says so."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, text: str) -> int:
        if self.name == "stdout":
            raise OSError(errno.EBADF, "it is closed, so the result was not printed", self.name)
        return len(text)  # nobody listens to what is said of the progress


def _ready_streams() -> None:
    """Let no character and no closed stream stop a command: what the terminal cannot show is written as an escape."""
    sys.stdout, sys.stderr = (stream or _Closed(name) for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushed() -> int:
    """Write out what was printed; return the exit code where that fails: a disk is full, or the reader has gone."""
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _report(error if isinstance(error, BrokenPipeError) else OSError(error.errno, error.strerror, "stdout"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains of it once more at its end
        return code
    return 0


def _report(error: BaseException) -> int:
    """Write the one line that says what is wrong; return the exit code."""
    from nas.errors import NasError

    error = _with_extra(error)
    if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    code = 1
    if isinstance(error, NasError):
        code, message = error.exit_code, str(error)
    elif isinstance(error, KeyboardInterrupt):
        goes_on = "devices" not in sys.argv  # what these write is there whole or not at all
        message = (
            "interrupted; what was done is kept. A search goes on with nas resume DIR."
            if goes_on
            else "interrupted; no file is half written."
        )
    elif hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument
        code, message = error.exit_code, error.format_message()  # type: ignore[attr-defined]
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{message}\n")
            return int(code)
        message = f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} Do this: nas {_command_of(error)}--help."
    elif isinstance(error, OSError):
        message = f"{error.filename or 'file system'}: {error.strerror or error}."
    else:
        message = f"internal error: {type(error).__name__}: {error}. Do this: run it again with --debug and report the traceback."
    sys.stderr.write(f"nas: {' '.join(message.split())}\n")
    return int(code)


def _with_extra(error: BaseException) -> BaseException:
    """Return what is said of a package that the base of the distribution leaves out; any other error as it is."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        from nas.cli._extras import extra_of
        from nas.errors import MissingExtraError

        if (extra := extra_of(error.name)) is not None:
            return MissingExtraError(error.name.partition(".")[0], extra)
    return error


def _command_of(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    words = context.command_path.split()[1:] if context is not None else []
    return "".join(f"{word} " for word in words)
