"""The JSON files of a run directory: what `nas show` prints of them, and what `nas resume` reads first. The first line names the file."""

import json
import tempfile
from pathlib import Path

from nas.errors import UsageError
from nas.report.results import result_text
from nas.results import Fronts, Result
from nas.runs.choice import Decision
from nas.runs.delivery import Delivery, Verifications
from nas.runs.directory import FORMAT, RunDirectory, StatusFile
from nas.runs.lifecycle import request_of, show

ENDING = ".run"
WORDS = (
    b"null",
    b"true",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"{}",
    b"[]",
    b'"\\ud800"',
    b"[" * 50,
    b"\x00",
    b"9" * 5000,
    b'"request"',
    b'"facts"',
)
KINDS = {"front.json": Fronts, "zoo.json": Fronts, "decision.json": Decision, "export.json": Delivery, "verified.json": Verifications}


def read(path: Path) -> object:
    name, _, body = path.read_bytes().partition(b"\n")
    if name.decode("latin-1") not in {*_FILES}:
        raise UsageError("not a file of a run")
    with tempfile.TemporaryDirectory() as folder:
        for own, data in _FILES.items():
            (Path(folder) / own).write_text(json.dumps(data))
        (Path(folder) / "results.json").unlink()
        (Path(folder) / name.decode()).write_bytes(body)
        run = RunDirectory.open(Path(folder))
        request_of(run)
        for own, kind in KINDS.items():
            run.load(own, kind)
        StatusFile(run).save()
        shown = show(Path(folder))
        return [result_text(shown), json.dumps(shown.dump(), allow_nan=False), run.storage, run.manifest.facts]


def _point() -> dict[str, object]:
    latency = {"latency_ms": 1.0, "lower_ms": 0.9, "upper_ms": 1.1}
    device = {**latency, "basis": "estimated", "precision": "fp16", "extrapolated": False, "budget_ms": 5.0, "margin_ms": 3.9}
    genes = {"space": "hybrid-s", "version": 1, "genes": [1, "a", 2]}
    return {
        "key": "0123456789abcdef",
        "architecture": genes,
        "devices": {"sa8295p": device},
        **latency,
        "precision": "fp16",
        "resolution": 224,
    } | {
        "accuracy_pct": 80.0,
        "supernet_accuracy_pct": 70.0,
        "macs": 1000,
        "params": 100,
        "trial": 3,
    }


_FILES: dict[str, dict[str, object]] = {
    "manifest.json": {
        "format": FORMAT, "nas": "0.1.0", "python": "3.11", "packages": {"torch": "2.9"}, "argv": ["nas"],
        "request": {"devices": ["sa8295p"], "budgets": ["5ms"], "space": "hybrid-s"}, "facts": {"the space": "hybrid-s version 1"},
    },
    "status.json": {
        "phase": "search", "total": 10, "done": 6, "first": 4, "detail": "hybrid-s", "numbers": {"proposals": 9.0}, "elapsed_s": 3.0,
        "seconds": {"train": 5.0}, "search": {"evaluations": 6, "proposals": 9.0, "front_size": 1.0, "hypervolume": 0.5}, "notices": ["mind"],
    },
    "front.json": {"front": [_point()]},
    "zoo.json": {"front": [_point()]},
    "results.json": Result(
        run_dir="r", status="finished", chosen=_point(), front=(_point(),), zoo=(), seconds={"train": 1.0}, notices=("a",), evaluations=3,
        objectives=("accuracy_pct", "latency_ms/sa8295p"), knee="0123456789abcdef", hypervolume_history=(0.1, 0.2), sensitivity_db={"s": 1.0},
    ).dump(),
    "export.json": Delivery(accuracy_pct=1.0, sha256="00").dump(),
    "verified.json": {"networks": [{"key": "k", "line": "verify"}]},
}  # fmt: skip


def seeds() -> list[bytes]:
    return [name.encode() + b"\n" + json.dumps(data).encode() for name, data in _FILES.items()]
