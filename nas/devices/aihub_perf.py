"""Timings that Qualcomm AI Hub publishes: the ``perf.yaml`` of each network, in a wheel of ``qai-hub-models`` or a folder.

Anyone may have made such a file: it is bounded before memory is taken, and what is wrong is one line.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from nas.errors import MALFORMED, DataError, UsageError, one_line
from nas.units import Precision

PRECISIONS: Mapping[str, str] = {"float": Precision.FP16, "w8a8": Precision.W8A8, "w8a16": Precision.W8A16}
"""AI Hub's word for a precision -> ours; its ``float`` runs as fp16 on the NPU."""

RUNTIMES: Mapping[str, str] = {"qnn_dlc": "qnn", "qnn": "qnn", "tflite": "tflite"}
"""AI Hub's word for a runtime -> a profile's."""

# Limits that stop hostile archives. By hand: AI Hub's own files stay far below them.
_LARGEST_BYTES = 4_000_000
_MOST_BYTES = 500_000_000
_MOST_FILES = 5_000
_MEMBER = re.compile(r"(?:.*/)?models/([^/]+)/perf\.yaml")


@dataclass(frozen=True, slots=True)
class Timed:
    """One published timing.

    Attributes:
        network: AI Hub's model name.
        component: Part of the model.
        precision: One of `nas.units.Precision`.
        runtime: A profile's word.
        title: Device name under which it is shown.
        job: AI Hub's identifier.
        latency_ms: Positive.
        sdk: QAIRT version, such as ``2.50.0``; empty where not stated.
        built: ISO date of the SDK's build: no timing by it is older; empty where not stated.
        wholly_on_npu: Whether every layer ran on the NPU.
    """

    network: str
    component: str
    precision: str
    runtime: str
    title: str
    job: str
    latency_ms: float
    sdk: str
    built: str
    wholly_on_npu: bool


@dataclass(frozen=True)
class Published:
    """What a wheel or a folder holds.

    Attributes:
        name: Of the file or folder.
        release: Version of the distribution; empty where not stated.
        timings: Of all networks, devices and runtimes that profiles have.
    """

    name: str
    release: str
    timings: tuple[Timed, ...]


def read_published(source: Path) -> Published:
    """Read every ``models/NETWORK/perf.yaml`` of a wheel, or of a folder at any depth.

    Raises:
        UsageError: No such file or folder.
        DataError: Not a wheel, damaged, or without tables.
    """
    where = one_line(source)
    if not source.exists():
        raise UsageError(
            f"timings {where}: no such file or folder. Expected a wheel of qai-hub-models, or a folder of its perf.yaml files."
        )
    texts: dict[str, bytes] = {}
    for network, text in _in_folder(source) if source.is_dir() else _in_wheel(source):
        if network in texts:
            raise DataError(
                f"timings {where}: two tables of {one_line(network, 60)}: more than one release? Do this: give each by itself, the older first."
            )
        texts[network] = text
    if not texts:
        raise DataError(
            f"timings {where}: holds no table of AI Hub, got no models/NETWORK/perf.yaml. Do this: give a wheel of qai-hub-models."
        )
    timings = [timing for network, text in sorted(texts.items()) for timing in _timings_of(network, text, where)]
    if not timings:
        raise DataError(f"timings {where}: its {len(texts)} tables hold no timing of a runtime that profiles have (QNN, TFLite).")
    return Published(one_line(source.name), _release_of(source), tuple(timings))


def _in_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    total = 0
    for i, path in enumerate(sorted(folder.rglob("perf.yaml"))):
        try:
            if not path.is_file():
                continue
            size = path.stat().st_size
            total += size
            _check_size(folder, str(path.relative_to(folder)), size, total, i)
            yield path.parent.name, path.read_bytes()
        except OSError as error:
            raise DataError(f"timings {one_line(path)}: cannot be read ({error.strerror}).") from None


def _in_wheel(file: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(file) as archive:
            total = count = 0
            for info in archive.infolist():
                if match := _MEMBER.fullmatch(info.filename):
                    total, count = total + info.file_size, count + 1
                    _check_size(file, info.filename, info.file_size, total, count)
                    yield match[1], archive.read(info)
    except MALFORMED as error:
        raise DataError(f"timings {one_line(file)}: no wheel, or damaged ({one_line(error) or type(error).__name__}).") from None


def _check_size(source: Path, name: str, size: int, total: int, count: int) -> None:
    if size > _LARGEST_BYTES or total > _MOST_BYTES or count > _MOST_FILES:
        raise DataError(f"timings {one_line(source)}: too large for tables of timings, got {total / 1e6:.0f} MB up to {one_line(name)}.")


def _release_of(source: Path) -> str:
    if source.is_dir():
        infos = [path.name for path in source.glob("*.dist-info")]
        match = re.search(r"-([0-9][^-]*)\.dist-info$", infos[0]) if infos else None
    else:
        match = re.match(r"[^-]+-([0-9][^-]*)-", source.name)
        if match is None:
            with zipfile.ZipFile(source) as archive:
                match = next((m for name in archive.namelist() if (m := re.match(r"[^/]+-([0-9][^-/]*)\.dist-info/", name))), None)
    return one_line(match[1], 40) if match else ""


@lru_cache(maxsize=1)
def _loader() -> Any:
    """Return a loader of safe YAML whose numbers are decimal: ``1:30`` is no number."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float"))]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789"))
    floats = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|nan)$"
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(floats), list("-+.0123456789"))
    return Loader


def _timings_of(network: str, text: bytes, where: str) -> list[Timed]:
    import yaml

    try:
        # an alias has an anchor: a few bytes of nested ones would stand for millions of rows
        if b"&" in text and any(getattr(event, "anchor", None) for event in yaml.parse(text, Loader=_loader())):
            raise ValueError("anchors and aliases are refused")
        data = yaml.load(text, Loader=_loader())
        return [timing for row in _rows_of(data) if (timing := _timing(network, *row)) is not None]
    except (yaml.YAMLError, RecursionError, *MALFORMED) as error:
        raise DataError(f"timings {where}: the table of {one_line(network, 60)} is damaged ({one_line(error, 120)}).") from None


def _rows_of(data: Any) -> Iterator[tuple[str, str, str, str, Mapping[str, Any]]]:
    """Yield precision, component, device, runtime and figures of every job."""
    for precision, tables in data["precisions"].items():
        for component, measured in tables["components"].items():
            for device, runtimes in (measured.get("performance_metrics") or {}).items():
                for runtime, figures in runtimes.items():
                    yield str(precision), one_line(component, 120), one_line(device, 120), str(runtime), figures


def _timing(network: str, precision: str, component: str, device: str, runtime: str, figures: Mapping[str, Any]) -> Timed | None:
    """Return a row; None where profiles have no such runtime or precision, or the job did not pass."""
    if precision not in PRECISIONS or runtime not in RUNTIMES or "inference_time_milliseconds" not in figures:
        return None
    stated = figures["inference_time_milliseconds"]
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise ValueError(f"a latency must be a number of ms, got {stated!r} on {device}")
    latency_ms = float(stated)
    if not 0 < latency_ms < math.inf:
        raise ValueError(f"a latency must be positive, got {latency_ms} ms on {device}")
    layers = figures.get("layer_counts") or {}
    sdk = re.match(
        r"([0-9]+\.[0-9]+\.[0-9]+)(?:\.([0-9]{2})(0[1-9]|1[0-2])(0[1-9]|[12][0-9])[0-9]*)?",
        str((figures.get("tool_versions") or {}).get("qairt", "")),
    )
    return Timed(
        one_line(network, 120),
        component,
        PRECISIONS[precision],
        RUNTIMES[runtime],
        device,
        one_line(figures.get("job_id", ""), 60),
        latency_ms,
        sdk[1] if sdk else "",
        f"20{sdk[2]}-{sdk[3]}-{sdk[4]}" if sdk and sdk[2] else "",
        figures.get("primary_compute_unit") == "NPU" and 0 < int(layers.get("total", 0)) == int(layers.get("npu", 0)),
    )
