"""Mutants that are well formed on the outside: what JSON, TOML and arrays hold is changed, and written again as their libraries write it."""

from __future__ import annotations

import io
import json
import random
import tomllib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 31, 2**31, 2**53 + 1, -(2**63), 10**40),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", " ", "x", "0", "nan", "fp16", "w8a8", "../../etc/passwd", "a\nb", "\x1b[31m", "\ud800", "é" * 300, "[bold]"),
    *([], {}, [[]], [0], {"x": 0}, [None], ["x"] * 100),
)


def restructured(rng: random.Random, data: bytes, ending: str) -> bytes | None:
    """Return a mutant of a valid input by what it holds, None where the format has no values that are changed here."""
    change = _CHANGES.get(ending)
    try:
        return change(rng, data) if change else None
    except (ValueError, TypeError, OverflowError, UnicodeEncodeError, zipfile.BadZipFile):
        return None


def _tree(rng: random.Random, value: Any) -> Any:
    """Return a nested value after one change: something dropped, doubled, renamed, replaced, or moved."""
    inside = isinstance(value, (dict, list)) and value
    if not inside or rng.random() < 0.08:
        return _scalar(rng, value)
    if isinstance(value, dict):
        made, key = dict(value), rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                del made[key]
            case 1:
                made[rng.choice([key + "x", key.upper(), "", "version", "name"])] = made.pop(key)
            case 2:
                made[rng.choice([*value, "new"])] = value[rng.choice(list(value))]
            case _:
                made[key] = _tree(rng, value[key])
        return made
    items, at = list(value), rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            del items[at]
        case 1:
            items[at:at] = [items[at]] * rng.choice((1, 1, 50))
        case 2:
            items[at], items[0] = items[0], items[at]
        case _:
            items[at] = _tree(rng, items[at])
    return items


def _scalar(rng: random.Random, value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and rng.random() < 0.5:
        return rng.choice((-value, value + 1, value - 1, value * 1000, value / 1000, float(value), str(value), [value]))
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return rng.choice(
            (value[:at], value[:at] + rng.choice("|~+-#0,{é ") + value[at + 1 :], value * 2, value.upper(), value + " ", [value])
        )
    return rng.choice(_ODD)


def _json(rng: random.Random, data: bytes) -> bytes:
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _tree(rng, value)
    return json.dumps(value).encode()


def _toml(rng: random.Random, data: bytes) -> bytes:
    value = tomllib.loads(data.decode())
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _tree(rng, value)
    if not isinstance(value, dict):
        raise TypeError
    return "\n".join(f"{json.dumps(key)} = {_inline(each)}" for key, each in value.items() if each is not None).encode()


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(each) for each in value if each is not None) + "]"
    if isinstance(value, float):
        return repr(value)  # nan and inf are words of TOML
    return json.dumps(value)


def _arrays(rng: random.Random, data: bytes) -> bytes:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for _ in range(rng.choice((1, 1, 2))):
        name = rng.choice(list(arrays))
        match rng.randrange(8):
            case 0 if len(arrays) > 1:
                del arrays[name]
            case 1:
                arrays[rng.choice([*arrays, name + "x", "x/0/y", "new"])] = arrays[name]
            case _:
                arrays[name] = _array(rng, arrays[name])
    out = io.BytesIO()
    np.savez(out, allow_pickle=True, **arrays)
    return out.getvalue()


def _array(rng: random.Random, array: Any) -> Any:
    text = array.dtype.kind == "U" and not array.ndim
    if (text or array.dtype == np.uint8) and rng.random() < 0.8 and (head := _head(array)) is not None:
        changed = json.dumps(_tree(rng, head))
        return np.array(changed) if text else np.frombuffer(changed.encode(), np.uint8)
    flat = array.reshape(-1)
    with np.errstate(all="ignore"):
        match rng.randrange(9):
            case 0:
                return flat[: rng.randrange(len(flat) + 1)]
            case 1:
                return array[..., None]
            case 2:
                return array.T[:-1] if array.ndim else flat
            case 3:
                return array.astype(rng.choice(("f4", "i2", "U8", "?", "c16", "O", "S4", "M8[s]")))
            case 4:
                return np.concatenate([array, array]) if array.ndim else flat
            case 5:
                return np.zeros(rng.choice(((), (0,), (1,), (1, 1, 1), (0, 3))), array.dtype)
            case 6 if array.dtype.kind == "U" and len(flat):
                made = flat.astype(object)
                at = rng.randrange(len(flat))
                made[at] = _scalar(rng, str(made[at]))
                return made.astype(str).reshape(array.shape)
            case _ if array.dtype.kind in "fiu" and len(flat):
                made = flat.astype(float)
                made[rng.randrange(len(flat)) if rng.random() < 0.7 else slice(None)] = rng.choice(
                    (0.0, -1.0, 1.0, 1e-320, 1e30, 1e308, -1e300, float("nan"), float("inf"))
                )
                return made.astype(array.dtype if rng.random() < 0.8 else float).reshape(array.shape)
            case _:
                return flat


def _head(array: Any) -> Any:
    try:
        return json.loads(str(array) if not array.ndim else array.tobytes())
    except ValueError:
        return None


def _members(rng: random.Random, data: bytes) -> bytes:
    """Change one member of an archive, with its checksum: as a tree where it is JSON, by a few bytes where not."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        held = {entry.filename: file.read(entry) for entry in file.infolist()}
    name = rng.choice([n for n in held if n.endswith(".json")] or list(held)) if rng.random() < 0.8 else rng.choice(list(held))
    try:
        held[name] = _json(rng, held[name])
    except ValueError:
        made = bytearray(held[name])
        for _ in range(rng.choice((1, 2, 8))):
            if made:
                made[rng.randrange(len(made))] = rng.randrange(256)
        held[name] = bytes(made)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for each, body in held.items():
            file.writestr(each, body)
    return out.getvalue()


def _npz(rng: random.Random, data: bytes) -> bytes:
    if data[:2] != b"PK":  # some predictors keep JSON
        return _json(rng, data)
    return _arrays(rng, data) if rng.random() < 0.85 else _members(rng, data)


_CHANGES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": _json,
    ".toml": _toml,
    ".npz": _npz,
    ".pt2": _members,
}
