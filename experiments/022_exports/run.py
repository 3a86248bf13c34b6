"""Every format of model file, float and 8 bits, of a run and of three published networks: compared, scored, timed, read back.

    pip install 'hardware-aware-nas[openvino,tflite]'
    nas search --device sa8295p --budget 5ms --space hybrid-s --resolution 64 --evals 24 --epochs 20 --finetune-epochs 8 --out RUN
    python experiments/022_exports/run.py --run RUN [--formats onnx,pt2,openvino,tflite]

The published networks have seeded random weights, since their authors' are not at hand without a network: what is compared is the conversion, not
the accuracy. SQNR is that of the scores, in dB, against the float network in PyTorch, over the pictures that are named.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from nas.errors import NasError
from nas.exporting.exporter import ExportOrder, exporters
from nas.runs.export import _subject  # the network of a run with what it knows of it
from nas.spaces.operator_family import fuse
from nas.spaces.reference import build, lower

HERE = Path(__file__).parent
PUBLISHED = ("repvgg_a0", "mobileone_s0", "pvt_v2_b0")
FORMATS = ("onnx", "pt2", "openvino", "tflite")
PRECISIONS = ("fp32", "w8a8")
PICTURES = 32
RUNS = 30


def sqnr_db(exact: np.ndarray, found: np.ndarray) -> float:
    """Return the ratio of the power of exact scores to that of the error, in dB."""
    noise = float(np.sum((found - exact) ** 2))
    return float("inf") if noise == 0 else 10 * float(np.log10(np.sum(exact**2) / noise))


def milliseconds(scores, picture: np.ndarray) -> float:
    """Return the median time of a picture in this process, in ms; for an order of size alone."""
    for _ in range(3):
        scores(picture)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        scores(picture)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def row_of(module, graph, form: str, precision: str, order: ExportOrder, pictures: np.ndarray, labels, facts) -> dict[str, object]:
    """Return what one format says of one network at one precision."""
    kind = exporters.get(form)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{kind.suffix}"
        began = time.monotonic()
        try:
            artifact = kind.make(order).export(module, graph, path, metadata=facts)
        except NasError as error:
            return {"format": form, "precision": precision, "refused": str(error)}
        seconds = time.monotonic() - began
        scores, read = kind.reload(path), kind.read_metadata(path) or {}
        with torch.no_grad():
            deployed = fuse(module).eval()
            exact = np.concatenate([deployed(torch.from_numpy(p[None])).numpy() for p in pictures])
        found = np.concatenate([scores(p[None]) for p in pictures])
        row: dict[str, object] = {
            "format": form,
            "precision": precision,
            "size_bytes": artifact.size_bytes,
            "export_s": round(seconds, 1),
            "largest_difference": float(np.abs(found - exact).max()),
            "largest_relative_difference": float(np.abs(found - exact).max() / max(1.0, np.abs(exact).max())),
            "sqnr_db": None if np.array_equal(exact, found) else round(sqnr_db(exact, found), 2),
            "same_class_pct": 100 * float(np.mean(found.argmax(1) == exact.argmax(1))),
            "metadata_read_back": {key: read.get(key) for key in facts} == dict(facts) and read.get("precision") == precision,
            "ms_here": round(milliseconds(scores, pictures[:1]), 3),
        }
        if labels is not None:
            row["top1_pct"] = round(100 * float(np.mean(found.argmax(1) == labels)), 2)
            row["float_top1_pct"] = round(100 * float(np.mean(exact.argmax(1) == labels)), 2)
        return row


def of_run(folder: Path, formats) -> dict[str, object]:
    """Return the rows of a run's choice, scored on its test pictures."""
    from nas.exporting.trained import Trained
    from nas.training.supernet.batches import prepare

    subject = _subject(folder, None, None, None)
    graph = subject.space.lower(subject.architecture, subject.resolution)
    size = graph.inputs[0].shape[-2:]
    dataset = subject.dataset
    trained = Trained(subject.space, subject.architecture, subject.module, size, dataset, subject.recipe)
    pixels = dataset.pixels("test", size)
    pictures = np.concatenate([prepare(dataset, pixels[i : i + 1], size, None).numpy() for i in range(len(pixels))]).astype(np.float32)
    labels = np.asarray(dataset.labels("test"))
    rows = []
    for form in formats:
        for precision in PRECISIONS:
            rows.append(
                row_of(
                    subject.module,
                    graph,
                    form,
                    precision,
                    ExportOrder(precision, trained.calibration),
                    pictures,
                    labels,
                    subject.facts,
                )
            )
            print("digits run", rows[-1], flush=True)
    return {"pictures": len(pictures), "rows": rows}


def of_published(name: str, formats) -> dict[str, object]:
    """Return the rows of a published network with seeded weights, on seeded pictures of unit variance."""
    torch.manual_seed(0)
    module, graph = build(name).eval(), lower(name)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(PICTURES, *graph.inputs[0].shape[1:], generator=generator)
    rows = []
    for form in formats:
        for precision in PRECISIONS:
            order = ExportOrder(precision, lambda: list(pictures.split(8)))
            rows.append(row_of(module, graph, form, precision, order, pictures.numpy(), None, {"network": name, "weights": "random"}))
            print(name, rows[-1], flush=True)
    return {"pictures": PICTURES, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path)
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--networks", default=",".join(PUBLISHED))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "results" / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    formats = asked.formats.split(",")
    found = {"digits run": of_run(asked.run, formats)} if asked.run else {}
    found |= {name: of_published(name, formats) for name in asked.networks.split(",") if name}
    for name, entry in found.items():
        kept = [row for row in results.get(name, {}).get("rows", []) if row["format"] not in formats]
        results[name] = {"pictures": entry["pictures"], "rows": kept + entry["rows"]}
    packages = {}
    for package in ("torch", "onnxruntime", "openvino", "litert-torch", "ai-edge-quantizer", "ai-edge-litert"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    results["machine"] = {"platform": platform.platform(), "packages": packages, "threads": 1}
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
