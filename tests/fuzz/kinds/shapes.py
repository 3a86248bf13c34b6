"""Sizes as a user writes them: ``NAME:1x3x224x224`` and ``NAME=1``, one a line."""

from pathlib import Path

from nas.errors import UsageError
from nas.units import parse_dim, parse_input_shape

ENDING = ".txt"
WORDS = (b"=", b":", b"x", b"\xc3\x97", b"\xd9\xa3", b"--", b"\n")


def read(path: Path) -> list[object]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UsageError("a command line is text") from None
    return [parse_dim(line) if "=" in line else parse_input_shape(line) for line in lines]


def absurd(result: list[object]) -> str:
    sizes = [size for _, given in result for size in (given if isinstance(given, tuple) else (given,))]
    return "" if all(0 < size < 2**31 for size in sizes) else f"a size of {sizes}"


def seeds() -> list[bytes]:
    return [b"images:1x3x640x640\nbatch=1\n", b"input:0:1x3x8x8\n", b"1x3x224x224\n", b"N=4\nheight=320"]
