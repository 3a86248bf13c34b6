"""A hundred model files that this project did not write, read and predicted.

    python experiments/016_model_files/run.py --out /tmp/files [--packages DIR] [--count 40] [--seed 16]

Sources: `--count` networks of timm and torchvision with random weights, drawn by the seed, exported in turn by PyTorch's TorchScript exporter
at opsets 11, 13, 17 and 20 and by its dynamo exporter at 18 and 20. Forms: of each source one in turn of ONNX Runtime's static quantiser (QDQ
or QOperator), its fp16 converter, and its optimiser. ``--packages`` names a folder of files that packages on PyPI ship (see README.md).
Every file is predicted on a device; MACs are compared with PyTorch's counter on the module, a form's estimate with its source's. Rows are
appended as they are made, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gc
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.devices.names import find_profile
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.errors import NasError
from nas.graphs import workloads
from nas.graphs.graph import Graph
from nas.spaces.network import load_network
from nas.units import parse_dim, parse_input_shape

HERE = Path(__file__).parent
EXPORTERS = (("legacy", 11), ("dynamo", 18), ("legacy", 13), ("legacy", 17), ("dynamo", 20), ("legacy", 20))
SIZES = {"ch_PP-OCRv4_rec_infer.onnx": "x:1x3x48x320"}
"""Of shipped files that were made for one size and do not say so."""
FORMS = ("qdq", "fp16", "optimised", "qoperator")
COLUMNS = (
    "file",
    "exporter",
    "form",
    "status",
    "macs",
    "torch_macs",
    "macs_pct",
    "params",
    "torch_params",
    "params_pct",
    "latency_ms",
    "source_ms",
    "latency_pct",
    "unknown",
    "notices",
)


def networks(count: int, seed: int, most_macs: float) -> list[str]:
    """Draw reference networks of timm and torchvision, at most one of a family, that are small enough to export in seconds."""
    rng = np.random.default_rng(seed)
    small = [
        n
        for n in workloads.names()
        if (w := workloads.describe(n)).library in ("timm", "torchvision") and w.macs < most_macs and w.params < 12e6 and "@" not in n
    ]
    families: dict[str, list[str]] = {}
    for name in small:
        families.setdefault(workloads.describe(name).family, []).append(name)
    order = rng.permutation(sorted(families))
    chosen = [str(rng.choice(families[f])) for f in order][:count]
    rest = [n for n in small if n not in chosen]
    return chosen + [str(n) for n in rng.choice(rest, max(0, count - len(chosen)), replace=False)]


def build(name: str) -> nn.Module:
    """Build a network as its library does, in deploy form where it has one."""
    facts = workloads.describe(name)
    if facts.library == "torchvision":
        import torchvision

        extra = {"aux_logits": False, "init_weights": False} if facts.model in ("googlenet", "inception_v3") else {}
        return getattr(torchvision.models, facts.model)(weights=None, **extra).eval()  # type: ignore[no-any-return]
    import timm
    from timm.utils.model import reparameterize_model

    return reparameterize_model(timm.create_model(facts.model).eval())  # type: ignore[no-any-return]


def counted(module: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Return (MACs by PyTorch's counter with unfused attention, trainable parameters)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops() // 2, sum(p.numel() for p in module.parameters())


def export(module: nn.Module, x: torch.Tensor, path: Path, exporter: str, opset: int) -> None:
    """Write an ONNX file."""
    dynamo = exporter == "dynamo"
    extra: dict[str, Any] = {"external_data": False, "verbose": False} if dynamo else {}
    torch.onnx.export(module, (x,), path, dynamo=dynamo, opset_version=opset, **extra)


def convert(source: Path, path: Path, form: str, shape: tuple[int, ...]) -> None:
    """Write a form of a file with ONNX Runtime's own tools."""
    import onnx
    import onnxruntime as ort

    if form == "optimised":
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    elif form == "fp16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), path)
    else:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        inferred = path.with_suffix(".inferred.onnx")
        quant_pre_process(str(source), str(inferred), skip_symbolic_shape=True, skip_optimization=True)
        source = inferred
        name = ort.InferenceSession(str(source), providers=["CPUExecutionProvider"]).get_inputs()[0].name

        class One(CalibrationDataReader):
            def __init__(self) -> None:
                self.left = [{name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}]

            def get_next(self) -> Any:
                return self.left.pop() if self.left else None

        quantize_static(str(source), str(path), One(), quant_format=QuantFormat.QDQ if form == "qdq" else QuantFormat.QOperator)
        inferred.unlink()


class Study:
    """Predicts files and keeps the rows."""

    def __init__(self, out: Path, device: str) -> None:
        self.out, self.path = out, out / "rows.jsonl"
        self.profile, self.folder = load_profile(device), find_profile(device).parent
        self.rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.is_file() else []
        self.done = {row["file"] for row in self.rows}

    def latency(self, graph: Graph, precision: str) -> float:
        return load_predictor(self.profile, precision, self.folder).estimate(graph, self.profile, precision).latency_ms

    def add(self, file: str, exporter: str, form: str, graph: Graph | None, status: str = "", **extra: Any) -> None:
        row: dict[str, Any] = {"file": file, "exporter": exporter, "form": form, "status": status or "predicted", **extra}
        if graph is not None:
            row |= {"macs": graph.cost.macs, "params": graph.cost.params, "unknown": list(graph.unknown), "notices": list(graph.notices)}
        for ours, theirs, name in (
            ("macs", "torch_macs", "macs_pct"),
            ("params", "torch_params", "params_pct"),
            ("latency_ms", "source_ms", "latency_pct"),
        ):
            if row.get(ours) is not None and row.get(theirs):
                row[name] = round(100 * (row[ours] / row[theirs] - 1), 3)
        self.rows.append(row)
        with self.path.open("a") as file_:
            file_.write(json.dumps(row) + "\n")
        shown = {key: row.get(key) for key in ("file", "status", "macs_pct", "params_pct", "latency_pct")}
        print(json.dumps(shown), flush=True)

    def predict(self, path: Path, exporter: str, form: str, **extra: Any) -> None:
        """Read a file, with the sizes that its refusal names where it leaves some open, and estimate it."""
        try:
            graph = _loaded(path)
            default = self.profile.default_precision
            fixed = "w8a8" if form in ("qdq", "qoperator") else default
            at = {p for p in graph.precisions if p}
            precision = "w8a8" if "w8a8" in at else fixed
            extra["latency_ms"] = self.latency(graph, precision)
            self.add(
                path.name,
                exporter,
                form,
                graph,
                "predicted up to a cut" if any("counted up to" in notice for notice in graph.notices) else "",
                **extra,
            )
        except NasError as error:
            self.add(path.name, exporter, form, None, f"refused: {error}", **extra)


def _loaded(path: Path) -> Graph:
    try:
        return load_network(str(path)).graph
    except NasError as error:
        if path.name in SIZES:
            return load_network(str(path), input_shapes=dict([parse_input_shape(SIZES[path.name])])).graph
        remedy = re.search(r"Do this: add (.*), with the sizes", str(error))
        if remedy is None:
            raise
        words = remedy[1].replace('"', "").split()
        pairs = list(zip(words[::2], words[1::2], strict=True))
        dims = dict(parse_dim(text) for option, text in pairs if option == "--dim")
        shapes = dict(parse_input_shape(text) for option, text in pairs if option != "--dim")
        return load_network(str(path), input_shapes=shapes, dims=dims).graph


def run(out: Path, count: int, seed: int, device: str, packages: Path | None, most_macs: float) -> Study:
    """Make and predict all files."""
    out.mkdir(parents=True, exist_ok=True)
    study = Study(out, device)
    default = study.profile.default_precision
    forms = iter(FORMS * count)
    for i, name in enumerate(networks(count, seed, most_macs)):
        form = next(forms)
        if any(row["file"].startswith(f"{name}.") and row["form"] == form for row in study.rows):
            continue
        torch.manual_seed(seed)
        module = build(name).requires_grad_(False)
        with torch.no_grad():
            for parameter in module.parameters():  # equal tensors would be stored once, and count once
                if parameter.numel() > 1 and float(parameter.std()) == 0:
                    parameter.add_(0.1 * torch.rand_like(parameter))
        shape = workloads.describe(name).input
        x = torch.randn(shape)
        macs, params = counted(copy.deepcopy(module), x)
        facts: dict[str, Any] = {"torch_macs": macs, "torch_params": params}
        for exporter, opset in (EXPORTERS[(i + j) % len(EXPORTERS)] for j in range(len(EXPORTERS))):
            source = out / f"{name}.{exporter}{opset}.onnx"
            try:
                export(module, x, source, exporter, opset)
                break
            except Exception as error:  # noqa: BLE001 - an exporter that fails is a row, whatever it raises; the next one takes its place
                study.add(
                    source.name, exporter, "source", None, f"not exported: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
                )
        else:
            continue
        made = source.with_suffix(f".{form}.onnx")
        if source.name not in study.done:
            study.predict(source, f"{exporter}{opset}", "source", **facts)
        try:
            convert(source, made, form, shape)
        except Exception as error:  # noqa: BLE001 - so is a converter
            study.add(made.name, exporter, form, None, f"not converted: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
        else:
            at = "w8a8" if form in ("qdq", "qoperator") else default
            study.predict(made, f"{exporter}{opset}", form, source_ms=study.latency(_loaded(source), at), **facts)
        for path in (source, made):
            path.unlink(missing_ok=True)
        gc.collect()
    for path in sorted(packages.rglob("*")) if packages else ():
        if path.suffix in (".onnx", ".tflite", ".pt2") and path.name not in study.done:
            study.predict(path, "package", "shipped")
    return study


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count what the issue asks for."""
    files = [row for row in rows if not row["status"].startswith("not ")]
    forms = {form: [abs(row["latency_pct"]) for row in files if row["form"] == form and "latency_pct" in row] for form in FORMS}
    exact = [row for row in files if row["form"] == "source" and "macs_pct" in row]
    return {
        "files": len(files),
        "predicted": sum(row["status"].startswith("predicted") for row in files),
        "sources": len(exact),
        "sources_whose_macs_equal_torch": sum(row["macs_pct"] == 0 for row in exact),
        "sources_whose_params_are_within_1_pct": sum(abs(row["params_pct"]) < 1 for row in exact),
        **{f"{form}_within_10_pct": f"{sum(p <= 10 for p in pcts)} of {len(pcts)}" for form, pcts in forms.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--most-macs", type=float, default=1.5e9)
    parser.add_argument("--results", type=Path, help="write results.csv and summary.json here")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    study = run(options.out, options.count, options.seed, options.device, options.packages, options.most_macs)
    counts = summary(study.rows)
    print(json.dumps(counts, indent=1))
    if options.results:
        options.results.mkdir(parents=True, exist_ok=True)
        with (options.results / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(study.rows)
        (options.results / "summary.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
