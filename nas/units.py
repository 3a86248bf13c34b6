"""Quantities with their units: what a user writes (``5ms``, ``20MB``, ``1.2GMACs``) and what the engine counts in.

Internally every quantity has one unit, and the name of every variable says it: milliseconds, bytes, MACs, parameters,
frames a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from nas.errors import UsageError, did_you_mean, one_line

Quantity = Literal["latency", "throughput", "size", "macs", "params", "memory", "ram", "flash", "drop"]

# unit as written (lower case) -> (quantity, factor to the engine's unit)
_UNITS: dict[str, tuple[Quantity, float]] = {
    "us": ("latency", 1e-3),
    "µs": ("latency", 1e-3),
    "ms": ("latency", 1.0),
    "s": ("latency", 1e3),
    "fps": ("throughput", 1.0),
    "b": ("size", 1.0),
    "kb": ("size", 1e3),
    "mb": ("size", 1e6),
    "gb": ("size", 1e9),
    "kib": ("size", 2.0**10),
    "mib": ("size", 2.0**20),
    "gib": ("size", 2.0**30),
    "kmacs": ("macs", 1e3),
    "mmacs": ("macs", 1e6),
    "gmacs": ("macs", 1e9),
    "macs": ("macs", 1.0),
    "params": ("params", 1.0),
    "kparams": ("params", 1e3),
    "mparams": ("params", 1e6),
    "mb-peak": ("memory", 1e6),
    "mib-peak": ("memory", 2.0**20),
    "kb-ram": ("ram", 1e3),
    "mb-ram": ("ram", 1e6),
    "kib-ram": ("ram", 2.0**10),
    "mib-ram": ("ram", 2.0**20),
    "kb-flash": ("flash", 1e3),
    "mb-flash": ("flash", 1e6),
    "kib-flash": ("flash", 2.0**10),
    "mib-flash": ("flash", 2.0**20),
    "pct-drop": ("drop", 1.0),
}
DEVICE_QUANTITIES: tuple[Quantity, ...] = ("latency", "throughput", "memory", "ram", "flash", "drop")
"""What a budget bounds on each device by itself."""
_SHOWN = "5ms, 800us, 200fps, 20MB, 1.2GMACs, 5Mparams, 64MB-peak, 2.5MB-ram, 6MB-flash"
UNIT_OF: dict[Quantity, tuple[str, float]] = {
    "latency": ("ms", 1.0),
    "throughput": ("fps", 1.0),
    "size": ("MB", 1e6),
    "macs": ("MMACs", 1e6),
    "params": ("Mparams", 1e6),
    "memory": ("MB-peak", 1e6),
    "ram": ("MB-ram", 1e6),
    "flash": ("MB-flash", 1e6),
    "drop": ("points", 1.0),
}
"""The unit in which a person reads a quantity, and its factor to the engine's unit."""

_NUMBER = re.compile(r"\s*([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ-]*)\s*")


@dataclass(frozen=True, slots=True)
class Limit:
    """An upper bound on a quantity (a lower bound for throughput), in the engine's unit.

    Attributes:
        quantity: What is bounded.
        value: In ms, fps, bytes, MACs or parameters.
        text: As the user wrote it.
    """

    quantity: Quantity
    value: float
    text: str


def parse_limit(text: str) -> Limit:
    """Read a budget such as ``5ms`` or ``20MB``.

    Raises:
        UsageError: No number, no known unit, or a value that is not positive and finite.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UsageError(f"budget: cannot be read, got {text!r}. Expected a number with a unit: {_SHOWN}.")
    number, unit = float(match[1]), match[2].lower()
    if unit not in _UNITS:
        hint = did_you_mean(unit, _UNITS) if unit else ""
        raise UsageError(f"budget: unknown unit {match[2]!r}, got {text!r}.{hint} Expected a number with a unit: {_SHOWN}.")
    if not math.isfinite(number) or number <= 0:
        raise UsageError(f"budget: must be positive and finite, got {text!r}.")
    quantity, factor = _UNITS[unit]
    return Limit(quantity, number * factor, text.strip())


def _is_size(text: str, most: int) -> bool:
    """Whether a text is a whole number from one up to `most`; int() itself fails on a text of thousands of digits."""
    digits = text.strip()
    return digits.isdecimal() and len(digits) <= 20 and 0 < int(digits) <= most


def parse_resolution(text: str) -> tuple[int, int]:
    """Read ``224`` or ``192x256`` as (height, width) in pixels.

    Raises:
        UsageError: Not one or two positive integers, or more than 65,536 pixels a side.
    """
    parts = re.split("[x×X]", text.strip())
    if len(parts) not in (1, 2) or not all(_is_size(part, 65_536) for part in parts):
        actual = one_line(repr(text), 60)
        raise UsageError(f"resolution: cannot be read, got {actual}. Expected 224 or 192x256 (height x width, up to 65,536).")
    height = int(parts[0])
    return height, int(parts[-1])


def write_resolution(size: Sequence[int]) -> int | str:
    """Return a resolution (height, width) as `parse_resolution` reads it: 224, or ``192x256``."""
    height, width = size
    return height if height == width else f"{height}x{width}"


_SECONDS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Read ``90s``, ``30min`` or ``1.5h`` as seconds.

    Raises:
        UsageError: No positive number with such a unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|m|h)\s*", text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not seconds > 0:
        raise UsageError(f"time: cannot be read, got {text!r}. Expected 90s, 30min or 2h.")
    return seconds


def write_duration(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``25 min``, ``2.1 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``NAME:1x3x320x320`` as (name of an input, its sizes); without a name, of a file's only input, the name is empty.

    Raises:
        UsageError: No positive integers joined by ``x`` stand behind the last colon.
    """
    name, _, sizes = text.strip().rpartition(":")
    parts = re.split("[x×X,]", sizes)
    if not all(_is_size(part, 2**31 - 1) for part in parts):
        raise UsageError(
            f"input shape: cannot be read, got {one_line(repr(text), 60)}. Expected NAME:1x3x320x320, positive sizes joined by x."
        )
    return name, tuple(map(int, parts))


def parse_dim(text: str) -> tuple[str, int]:
    """Read ``batch=1`` as (name of a symbolic size, its value).

    Raises:
        UsageError: No name, or no positive integer behind the equals sign.
    """
    name, equals, size = text.strip().rpartition("=")
    if not (equals and name.strip() and _is_size(size, 2**31 - 1)):
        raise UsageError(f"dim: cannot be read, got {one_line(repr(text), 60)}. Expected NAME=SIZE such as batch=1.")
    return name.strip(), int(size)


def checked_confidence(value: float) -> float:
    """Return `value`.

    Raises:
        UsageError: It is no sensible coverage.
    """
    if not 0.5 <= value <= 0.99:
        raise UsageError(f"confidence: out of range, got {value}. Expected 0.5 to 0.99.")
    return value


class Precision(StrEnum):
    """Number formats at which a network runs, most precise first; ``wXaY`` has X-bit weights and Y-bit activations.

    A member is the word that files and options use, so that either can stand for the other.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    W8A16 = "w8a16"
    W8A8 = "w8a8"

    def __repr__(self) -> str:
        return repr(self.value)

    @property
    def weight_bits(self) -> int:
        """Bits a weight in the exported file."""
        return _BITS[self][0]

    @property
    def activation_bits(self) -> int:
        """Bits an element of an activation in memory."""
        return _BITS[self][1]

    @property
    def weight_bytes(self) -> float:
        """Bytes a weight in the exported file."""
        return self.weight_bits / 8

    @property
    def activation_bytes(self) -> float:
        """Bytes an element of an activation in memory."""
        return self.activation_bits / 8

    @property
    def quantised(self) -> bool:
        """Whether numbers are integers with a scale."""
        return self.value.startswith("w")

    @classmethod
    def least(cls, words: Iterable[str]) -> Precision:
        """Return the least precise of some."""
        return max(map(cls, words), key=list(cls).index)


_BITS = {Precision.FP32: (32, 32), Precision.FP16: (16, 16), Precision.W8A16: (8, 16), Precision.W8A8: (8, 8)}

QUANTISED: frozenset[str] = frozenset(precision for precision in Precision if precision.quantised)
"""Precisions whose numbers are integers."""

_PRECISIONS_ELSEWHERE = {
    **dict.fromkeys(("float32", "float", "f32", "single"), "fp32"),
    **dict.fromkeys(("float16", "half", "f16"), "fp16"),
    **dict.fromkeys(("int8", "uint8", "i8", "a8w8", "w8", "8bit"), "w8a8"),
    **dict.fromkeys(("int16", "i16", "a16w8", "w8a16"), "w8a16"),
}
"""What other tools call them. TensorFlow Lite's ``16x8`` and QNN's ``a16w8`` have weights of 8 bits."""


def canonical_precision(text: str | None) -> str | None:
    """Return a precision as it is called here: ``INT8`` is ``w8a8``; what is none is returned as it is, for the device to refuse."""
    if text is None:
        return None
    plain = text.strip().lower().replace("-", "").replace("_", "")
    return _PRECISIONS_ELSEWHERE.get(plain, plain if plain in (*Precision, "any", "mixed", "all") else text)
