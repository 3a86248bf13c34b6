"""What can go wrong, and the exit code that goes with it.

Every message has one form: ``<where>: <what is wrong>, got <value!r>. Expected … / Did you mean …? / Do this: …``.
The command line prints the message as one line and exits with `exit_code`; a traceback is shown only with ``--debug``.
"""

import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from difflib import get_close_matches

DISTRIBUTION = "hardware-aware-nas"

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {ord(space): " " for space in "\t\n\v\f\r\x85"}


class NasError(Exception):
    """A stated failure: the request was understood and cannot be met.

    Args:
        message: The error, made one line: line ends and control characters of names and reasons are escaped.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(message.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode())


class UsageError(NasError):
    """The request itself is wrong: an unknown name, a malformed value, a contradiction."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that no registry entry has.

    Args:
        kind: Kind of what was looked up, in the singular ("device", "space", …).
        name: The name that was given.
        known: The names that exist.
        remedy: Where to create a new one.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], remedy: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        super().__init__(f"{kind}: unknown name, got {name!r}.{did_you_mean(name, self.known)}{remedy and ' ' + remedy}")


class MissingExtraError(NasError):
    """Something needs a package that the base of the distribution leaves out.

    Args:
        module: Module that could not be imported.
        extra: Extra that installs it.
    """

    def __init__(self, module: str, extra: str) -> None:
        self.module, self.extra = module, extra
        super().__init__(
            f"installation: {module} is not installed, which this needs, got the base without the extra [{extra}]. "
            f"Do this: pip install '{DISTRIBUTION}[{extra}]'."
        )


class GraphError(NasError):
    """A graph that breaks the specification of its operators, or a file that no graph can be read from."""


class InfeasibleError(NasError):
    """No candidate can meet the budget; the message names the nearest miss."""


class ArtifactError(NasError):
    """A file (weights, run directory, exported model) that is missing, damaged, foreign or of another version."""


class DataError(NasError):
    """A data set that cannot be used as it is."""


class TrainingError(NasError):
    """Training that diverged, collapsed or cannot fit into memory."""


class MeasurementError(NasError):
    """A device or a runner that gave no usable timing."""


MALFORMED: tuple[type[Exception], ...] = (
    *(
        OSError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        MemoryError,
        NotImplementedError,
        RuntimeError,
    ),
    *(SyntaxError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
)
"""What readers of archives, arrays and JSON raise for a file that was cut, mixed up or made up."""


def run_script(main: Callable[[], None]) -> None:
    """Run the main function of a script: a stated failure, and a file that is not there, are one line and an exit code instead of a traceback.

    Args:
        main: Reads its options from `sys.argv`.

    Raises:
        SystemExit: With 1, or 2 where the request itself is wrong.
    """
    from pathlib import Path
    from subprocess import CalledProcessError

    try:
        main()
    except NasError as error:
        code, message = error.exit_code, str(error)
    except CalledProcessError as error:  # a command that has said what is wrong
        raise SystemExit(error.returncode) from None
    except OSError as error:
        if error.filename is None:
            raise
        code, message = (
            1,
            f"{error.filename}: {error.strerror}. Do this: give its place; --help and the README beside the script name the data.",
        )
    else:
        return
    sys.stderr.write(f"{Path(sys.argv[0]).as_posix()}: {message}\n")
    raise SystemExit(code)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or the list of known names where none is close.

    Returns:
        A sentence with a leading blank, or the empty string where nothing is known.
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(n) for n in close)}?"
    if not names:
        return ""
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return f" Expected one of: {shown}."


def one_line(words: object, most: int = 200) -> str:
    """Return what a library or a file said as part of one line: no control characters, at most so many characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(words)).split())
    return text if len(text) <= most else text[: most - 1] + "…"
