"""Quantise networks of a trained supernet: simulated against measured in ONNX Runtime, and fronts with precision as a gene.

    python experiments/013_quantisation/run.py --run runs/cifar --data DATA --part chosen
    python experiments/013_quantisation/run.py --run runs/cifar --data DATA --part members
    python experiments/013_quantisation/run.py --run runs/cifar --data DATA --part attention
    python experiments/013_quantisation/run.py --run runs/cifar --data DATA --part fronts
    python experiments/013_quantisation/run.py --run runs/vit --space vit-n --name cifar10-vit --data DATA --part members   # or fronts
    python experiments/013_quantisation/run.py --weights runs/vit.safetensors --data DATA --part transformer

``members``, ``attention`` and ``fronts`` need no more of a run than its ``supernet.safetensors``, as ``nas train`` writes it.
Each part writes ``results/<name>-<part>.json`` after every row and goes on from there, so it can be run in pieces (``--minutes``). Test images
are read by ``chosen``, ``members``, ``attention`` and ``transformer``; what is chosen on the way is chosen on validation images. Ranges are taken from 256
training pictures, batch-norm statistics from 1,024.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import scipy.stats
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from torch import nn

from nas.events import EventBus
from nas.exporting.exporter import Artifact
from nas.exporting.exporters.onnx import OnnxExporter
from nas.exporting.exporters.onnx_quantised import QuantisedOnnxExporter
from nas.exporting.trained import Trained, accuracy_in_runtime_pct, spared
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.onnx_session import onnx_session
from nas.quantisation.method import DEFAULT_RECIPE
from nas.quantisation.simulate import simulate
from nas.runs.delivery import MEMBER_FILE
from nas.runs.problem import Problem
from nas.runs.request import Request
from nas.runs.targets import choose_by_part, load_targets, make_goal
from nas.runs.trained_search import SUPERNET_FILE
from nas.searching.judge import Judge
from nas.searching.pareto import front, hypervolume
from nas.searching.study import Study
from nas.spaces.architecture import Architecture
from nas.spaces.naming import get_space
from nas.spaces.operator_family import fuse
from nas.spaces.precision import PrecisionSpace
from nas.training.dataset import Dataset, Split, load_dataset
from nas.training.evaluator import evaluators
from nas.training.rank import RESAMPLES, kendall
from nas.training.supernet.batches import Batches
from nas.training.supernet.finetune import finetune, load_member
from nas.training.supernet.statistics import calibration_indices, pictures, predictions, recalibrate
from nas.training.supernet.train import Recipe, load_supernet
from nas.training.supernet.weights import Supernet
from nas.units import parse_resolution
from search_spaces.layers.tokens import to_tokens
from search_spaces.references.vit import ViTNet

RECIPES: dict[str, tuple[str, ...]] = {
    "min-max": ("minmax",),
    "percentile": ("percentile",),
    "mse": ("mse",),
    "mse, bias correction": ("mse", "bias-correction"),
    "equalisation, mse, bias correction": ("equalisation", "mse", "bias-correction"),
    "smoothing, equalisation, mse, bias correction": ("smoothing", "equalisation", "mse", "bias-correction"),
    "adaround, mse": ("adaround", "mse"),
}
TRANSFORMER: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "min-max": ("minmax",),
        "wide softmax, min-max": ("wide-softmax", "minmax"),
        "wide softmax, mse": ("wide-softmax", "mse"),
        "wide softmax, equalisation, mse, bias correction": ("wide-softmax", *DEFAULT_RECIPE),
    },
    {
        "wide softmax, quantisation-aware training": ("wide-softmax", "quantisation-aware-training"),
        "wide softmax, smoothing, min-max": ("wide-softmax", "smoothing", "minmax"),
        "wide softmax, adaround, min-max": ("wide-softmax", "adaround", "minmax"),
        "equalisation, mse, bias correction": DEFAULT_RECIPE,
    },
)
"""For the transformer, in two rounds; no network of hybrid-s attends to so many tokens that a wide softmax would matter."""
DEVICE, BUDGET = "sa8295p", "1.5ms"
CPU = torch.device("cpu")


class Report:
    """A results file that is written after every row."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {**head, "rows": []}

    def has(self, **key: object) -> bool:
        """Whether a row with these values is there."""
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.data["rows"])

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self.data["rows"].append(row)
        self.save()
        print(row, flush=True)

    def save(self) -> None:
        """Write the file."""
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self.data, indent=1) + "\n")


def accuracy_pct(network: Callable[[torch.Tensor], torch.Tensor], scored: Batches) -> float:
    """Share of right answers in percent."""
    return round(100 * float((predictions(network, scored, 128) == scored.labels.numpy()).mean()), 3)


def measured(module: nn.Module, recipe: Sequence[str], precision: str, shown: list[torch.Tensor], dataset: Dataset) -> tuple[float, int]:
    """Write a quantised file, and return its accuracy on the test images and its size."""
    size = tuple(shown[0].shape[2:])
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.onnx"
        made = write_quantised(module, recipe, shown, path, precision)
        return round(accuracy_in_runtime_pct(OnnxExporter.reload(path), dataset, (size[0], size[1])), 3), made.size_bytes


def write_quantised(module: nn.Module, recipe: Sequence[str], shown: list[torch.Tensor], path: Path, precision: str = "w8a8") -> Artifact:
    """Write a quantised file."""
    return QuantisedOnnxExporter(precision, shown, recipe).export(module, trace_module(fuse(module), (1, 3, *shown[0].shape[2:])), path)


class Shown(CalibrationDataReader):  # type: ignore[misc]
    """Calibration pictures one by one, as ONNX Runtime's quantiser asks for them."""

    def __init__(self, shown: list[torch.Tensor]) -> None:
        self.rest = iter([picture[None].numpy() for batch in shown for picture in batch])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next picture; None at the end."""
        return None if (picture := next(self.rest, None)) is None else {"input": picture}


def write_by_defaults(module: nn.Module, shown: list[torch.Tensor], path: Path, per_channel: bool) -> None:
    """Write a file by `onnxruntime.quantization.quantize_static` with its own defaults."""
    with tempfile.TemporaryDirectory() as room:
        source = Path(room) / "float.onnx"
        OnnxExporter().export(module, trace_module(fuse(module), (1, 3, *shown[0].shape[2:])), source)
        quantize_static(str(source), str(path), Shown(shown), per_channel=per_channel)


def by_defaults(module: nn.Module, shown: list[torch.Tensor], dataset: Dataset, per_channel: bool) -> float:
    """Return the accuracy on the test images after ONNX Runtime's own quantisation."""
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "model.onnx"
        write_by_defaults(module, shown, path, per_channel)
        return round(accuracy_in_runtime_pct(OnnxExporter.reload(path), dataset, tuple(shown[0].shape[2:])), 3)  # type: ignore[arg-type]


def chosen(report: Report, run: Path, dataset: Dataset, stop: float) -> None:
    """The network that the run chose, at every precision and by every recipe."""
    space = get_space(report.data["space"], num_classes=dataset.num_classes)
    architecture, module, size = load_member(run / MEMBER_FILE, space)
    trained = Trained(space, architecture, module, size, dataset)  # type: ignore[arg-type]
    shown, test = trained.calibration(), Batches(dataset, "test", size, CPU)
    report.data |= {"resolution": list(size), "architecture": json.loads(architecture.to_json())}
    targets = load_targets([DEVICE], "any")
    mixed, (target,) = choose_by_part(space, targets)  # type: ignore[arg-type]
    assert isinstance(mixed, PrecisionSpace)
    if not report.has(precision="fp32") and time.monotonic() < stop:
        report.add({"precision": "fp32", "recipe": "", "torch_pct": accuracy_pct(module, test)})
    with tempfile.TemporaryDirectory() as room:
        for name in ("w8a8", "w8a16", "fp16", "mixed"):
            if report.has(precision=name, recipe="default") or time.monotonic() > stop:
                continue
            member = spared(trained, mixed) if name == "mixed" else mixed.with_precision(architecture, name)
            subject = Trained(mixed, member, module, size, dataset)
            path = Path(room) / f"{name}.onnx"
            artifact = subject.export(name, path, {})
            estimate = target.predictor.estimate(mixed.lower(member, size), target.profile, target.precision)
            report.add(
                {
                    "precision": name,
                    "recipe": "default",
                    "measured_pct": round(accuracy_in_runtime_pct(OnnxExporter.reload(path), dataset, size), 3),
                    "size_bytes": artifact.size_bytes,
                    "latency_ms": round(estimate.latency_ms, 4),
                    "lower_ms": round(estimate.lower_ms, 4),
                    "upper_ms": round(estimate.upper_ms, 4),
                    "float_parts": [k for k, p in mixed.part_precisions(member).items() if p == "fp16"] if name == "mixed" else [],
                }
            )
    deployed = fuse(module)
    for precision, recipes in (
        ("w8a8", {"default": DEFAULT_RECIPE} | RECIPES),
        ("w8a16", {"min-max": ("minmax",), "default": DEFAULT_RECIPE}),
    ):
        for name, recipe in recipes.items():
            if not report.has(precision=precision, recipe=name, simulated=True) and time.monotonic() < stop:
                found, _ = measured(module, recipe, precision, shown, dataset)
                simulated = accuracy_pct(simulate(deployed, shown, precision, recipe), test)
                row = {"precision": precision, "recipe": name, "simulated": True}
                report.add({**row, "measured_pct": found, "simulated_pct": simulated})
    if "sensitivity_db" not in report.data and time.monotonic() < stop:
        report.data["sensitivity_db"] = {k: round(v, 2) for k, v in trained.sensitivity_db().items()}
        report.save()


def taken_out(supernet: Supernet, architecture: Architecture, dataset: Dataset) -> tuple[nn.Module, list[torch.Tensor], Any]:
    """Return a member with its own statistics, its calibration pictures and its size."""
    size = supernet.space.proxy(architecture, supernet.resolution)
    train = Batches(dataset, "train", size, CPU)
    member = supernet.extract(architecture, size)
    recalibrate(member, pictures(train.plain(256, calibration_indices(train))))
    return member.eval(), list(pictures(train.plain(32, calibration_indices(train, 256)))), size


def members(report: Report, run: Path, dataset: Dataset, count: int, seed: int, stop: float) -> None:
    """Random members with shared weights: float, simulated and measured w8a8 accuracy on the test images."""
    space = get_space(report.data["space"], num_classes=dataset.num_classes)
    supernet, rng = load_supernet(run / SUPERNET_FILE, space), np.random.default_rng(seed)  # type: ignore[arg-type]
    for architecture in [space.sample(rng) for _ in range(count)]:
        row = next((row for row in report.data["rows"] if row["architecture"] == architecture.key), {"architecture": architecture.key})
        if "simulated_pct" in row or time.monotonic() > stop:
            continue
        member, shown, size = taken_out(supernet, architecture, dataset)
        test = Batches(dataset, "test", size, CPU)
        if "measured_pct" not in row:
            row |= {"float_pct": accuracy_pct(member, test), "measured_pct": measured(member, DEFAULT_RECIPE, "w8a8", shown, dataset)[0]}
        row["simulated_pct"] = accuracy_pct(simulate(fuse(member), shown, "w8a8", DEFAULT_RECIPE), test)
        report.data["rows"] = [other for other in report.data["rows"] if other["architecture"] != architecture.key]
        report.add(row)
    rows = report.data["rows"]
    columns = {key: np.array([row[key] for row in rows], dtype=float) for key in ("float_pct", "simulated_pct", "measured_pct")}
    found: dict[str, Any] = {"n": len(rows)}
    for key in ("simulated_pct", "float_pct"):
        a, b = columns[key], columns["measured_pct"]
        interval = bootstrap(lambda i, a=a, b=b: kendall(a[i], b[i]), len(rows), seed)  # type: ignore[misc]
        found[key] = {"kendall": kendall(a, b), "interval_90": interval, "spearman": float(scipy.stats.spearmanr(a, b).statistic)}

    def difference(i: np.ndarray) -> float | None:
        both = [kendall(columns[key][i], columns["measured_pct"][i]) for key in ("simulated_pct", "float_pct")]
        return None if both[0] is None or both[1] is None else both[0] - both[1]

    found["difference_interval_90"] = bootstrap(difference, len(rows), seed)
    gap = np.abs(columns["simulated_pct"] - columns["measured_pct"])
    found |= {"largest_gap_points": float(gap.max()), "mean_gap_points": float(gap.mean())}
    found["mean_loss_points"] = float((columns["float_pct"] - columns["measured_pct"]).mean())
    report.data["rank"] = found
    report.save()
    print(found)


def attention(report: Report, run: Path, dataset: Dataset, seed: int, stop: float) -> None:
    """Members with attention in every block that offers it: of `looks`, the one that min-max costs most on validation images."""
    space = get_space(report.data["space"], num_classes=dataset.num_classes)
    supernet, rng, looks = load_supernet(run / SUPERNET_FILE, space), np.random.default_rng([seed, 7]), 6  # type: ignore[arg-type]
    candidates = []
    for _ in range(looks):
        genes = list(space.sample(rng).genes)
        for i, choice in enumerate(space.choices):
            if choice.name.endswith(".mixer"):
                offered = [v for v in choice.values if str(v).startswith(("spatial-reduction", "window"))]
                genes[i] = offered[int(rng.integers(len(offered)))]
            elif choice.name.endswith(".depth"):
                genes[i] = choice.values[-1]
        candidates.append(space.architecture(genes))
    for architecture in candidates:
        if report.has(stage="choice", architecture=architecture.key) or time.monotonic() > stop:
            continue
        member, shown, size = taken_out(supernet, architecture, dataset)
        validation, deployed = Batches(dataset, "validation", size, CPU), fuse(member)
        row = {"stage": "choice", "architecture": architecture.key, "float_pct": accuracy_pct(member, validation)}
        report.add({**row, "naive_pct": accuracy_pct(simulate(deployed, shown, "w8a8", RECIPES["min-max"]), validation)})
    looked = [row for row in report.data["rows"] if row["stage"] == "choice"]
    if len(looked) < looks:
        return
    worst = max(looked, key=lambda row: row["float_pct"] - row["naive_pct"])["architecture"]
    architecture = next(a for a in candidates if a.key == worst)
    member, shown, size = taken_out(supernet, architecture, dataset)
    validation, test, deployed = Batches(dataset, "validation", size, CPU), Batches(dataset, "test", size, CPU), fuse(member)
    report.data |= {"genes": list(architecture.genes), "float_test_pct": accuracy_pct(member, test), "resolution": list(size)}
    for per_channel in (False, True):
        name = f"onnxruntime's defaults, weights per {'channel' if per_channel else 'tensor'}"
        if not report.has(stage="baseline", recipe=name) and time.monotonic() < stop:
            report.add({"stage": "baseline", "recipe": name, "test_measured_pct": by_defaults(member, shown, dataset, per_channel)})
    for name, recipe in RECIPES.items():
        if not report.has(stage="recipe", recipe=name) and time.monotonic() < stop:
            report.add(
                {
                    "stage": "recipe",
                    "recipe": name,
                    "validation_simulated_pct": accuracy_pct(simulate(deployed, shown, "w8a8", recipe), validation),
                    "test_measured_pct": measured(member, recipe, "w8a8", shown, dataset)[0],
                }
            )
    tried = {row["recipe"]: row for row in report.data["rows"] if row["stage"] == "recipe"}
    if len(tried) == len(RECIPES):
        best = max(tried, key=lambda name: tried[name]["validation_simulated_pct"])
        naive = next(row for row in report.data["rows"] if row["stage"] == "baseline")
        loss = report.data["float_test_pct"] - naive["test_measured_pct"]
        left = report.data["float_test_pct"] - tried[best]["test_measured_pct"]
        report.data |= {
            "best_on_validation": best,
            "naive": naive["recipe"],
            "naive_loss_points": loss,
            "best_loss_points": left,
            "recovered_pct": 100 * (1 - left / loss),
        }
    report.save()


class SparselyTrained(ViTNet):
    """A vision transformer that is trained on a quarter of its tokens, drawn anew for each batch, and answers with all of them.

    Source:
        Liu et al., "PatchDropout", arXiv 2208.07220; differs in that a batch shares its draw, which follows from the number of the step.
    """

    def __init__(self, depth: int, width: int, num_classes: int, side: int, patch: int, head_dim: int) -> None:
        super().__init__(depth, width, False, num_classes, side=side, patch=patch, head_dim=head_dim)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) -> (n, classes)."""
        if not self.training:
            return super().forward(x)
        tokens = to_tokens(self.patches(x)) + self.positions[:, 1:]
        kept = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(int(self.step)))[: tokens.shape[1] // 4]
        self.step += 1
        first = (self.class_token + self.positions[:, :1]).expand(x.shape[0], -1, -1)
        return self.head(self.norm(self.blocks(torch.cat([first, tokens[:, kept]], dim=1)))[:, 0])


def trained_transformer(report: Report, weights: Path, dataset: Dataset, seed: int) -> nn.Module:
    """Train a DeiT of 577 tokens from nothing, or go on with it: as many as DeiT has at 384 × 384. Nothing is planted."""
    side, patch, depth, width, head_dim = 48, 2, 4, 48, 24
    recipe = Recipe(epochs=3, batch=64, learning_rate=2e-3, warmup=0.1)
    member = Architecture("vit", 1, (side, patch, depth, width, head_dim))  # says in the checkpoint what this is
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SparselyTrained(depth, width, dataset.num_classes, side, patch, head_dim)
    bus = EventBus([lambda event: print(event, flush=True)])
    found = finetune(module, member, dataset.thinned("validation", 1000), weights, recipe, resolution=(side, side), seed=seed, bus=bus)
    report.data |= {"genes": list(member.genes), "training": asdict(recipe), "history": [dict(entry) for entry in found.history]}
    report.save()
    return found.module.to(memory_format=torch.contiguous_format).eval()


def transformer(report: Report, weights: Path, dataset: Dataset, seed: int, stop: float) -> None:
    """Naive against our methods at w8a8, where attention and layer norms carry the network: chosen on validation, measured on test."""
    module = trained_transformer(report, weights, dataset, seed)
    side = int(report.data["genes"][0])
    size = (side, side)
    train = Batches(dataset, "train", size, CPU)
    shown = list(pictures(train.plain(32, calibration_indices(train, 128))))
    few, naive = dataset.thinned("validation", 1000), "onnxruntime's defaults"
    makers: dict[str, Callable[[Path], object]] = {
        "float": lambda path: OnnxExporter().export(module, trace_module(fuse(module), (1, 3, *size)), path),
        naive: lambda path: write_by_defaults(module, shown, path, False),
        f"{naive}, weights per channel": lambda path: write_by_defaults(module, shown, path, True),
    }
    baselines = list(makers)

    def score(name: str, data: Dataset, split: Split) -> None:
        if not report.has(recipe=name, split=split) and time.monotonic() < stop:
            with tempfile.TemporaryDirectory() as room:
                makers[name](path := Path(room) / "model.onnx")
                report.add({"recipe": name, "split": split, **scored(path, data, split, size)})

    best = naive
    for recipes in TRANSFORMER:
        for name, recipe in recipes.items():
            makers[name] = lambda path, recipe=recipe: write_quantised(module, recipe, shown, path)  # type: ignore[misc]
            score(name, few, "validation")
        tried = [row for row in report.data["rows"] if row["split"] == "validation" and row["recipe"] not in baselines]
        best = max(tried, key=lambda row: row["accuracy_pct"])["recipe"]
        for name in ("float", naive, best):
            score(name, dataset, "test")
    for name in ("min-max", *baselines):
        score(name, dataset, "test")
    right = {row["recipe"]: unpacked(row) for row in report.data["rows"] if row["split"] == "test"}
    found = {}
    for name, hits in right.items():
        lost = 100 * (right["float"].astype(float) - hits)
        error = lambda values: float(values.std(ddof=1) / len(values) ** 0.5)  # noqa: E731
        found[name] = {"lost_points": float(lost.mean()), "standard_error_paired": error(lost), "standard_error": error(100.0 * hits)}
    report.data |= {"best_on_validation": best, "naive": naive, "calibration_pictures": 128, "test": found}
    if {naive, best} <= found.keys():
        share = lambda i: 1 - (right["float"][i].mean() - right[best][i].mean()) / (right["float"][i].mean() - right[naive][i].mean())  # noqa: E731
        every = np.arange(len(right["float"]))
        report.data["recovered_pct"] = 100 * float(share(every))
        interval = bootstrap(lambda i: float(share(i)), len(every), seed)
        report.data["recovered_interval_90_pct"] = [100 * end for end in interval] if interval else None
    report.save()
    print(found, report.data.get("recovered_pct"), report.data.get("recovered_interval_90_pct"))


def scored(path: Path, dataset: Dataset, split: Split, size: tuple[int, int]) -> dict[str, Any]:
    """Return the accuracy of a file in ONNX Runtime on a split, one picture at a time, and which answers are right, packed as hexadecimals."""
    session = onnx_session(path, threads=1)
    name = session.get_inputs()[0].name
    found = [int(session.run(None, {name: x.contiguous().numpy()})[0].argmax()) for x, _ in Batches(dataset, split, size, CPU).plain(1)]
    right = np.array(found) == dataset.labels(split)
    return {"accuracy_pct": round(100 * float(right.mean()), 3), "images": len(right), "right": np.packbits(right).tobytes().hex()}


def unpacked(row: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Return which answers of a row are right."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(row["right"]), dtype=np.uint8), count=row["images"]).astype(bool)


def bootstrap(statistic: Callable[[Any], float | None], n: int, seed: int) -> tuple[float, float] | None:
    """Return the 5th and the 95th percentile of a statistic over resampled rows; None where it is never defined."""
    rng = np.random.default_rng([seed, 32])
    values = [value for _ in range(RESAMPLES) if (value := statistic(rng.integers(n, size=n))) is not None]
    return (float(np.quantile(values, 0.05)), float(np.quantile(values, 0.95))) if values else None


def fronts(
    report: Report, run: Path, dataset: Dataset, evals: int, seed: int, stop: float, folder: Path, pictures: int, resolution: str | None
) -> None:
    """Search the same supernet with precision as a gene, at fp16 alone and at w8a8 alone; the same number of evaluations each."""
    searches = {}
    few = dataset.thinned("validation", pictures)
    fixed = {"resolution": parse_resolution(resolution)} if resolution else {}
    for precision in ("any", "w8a8", "fp16"):
        targets = load_targets([DEVICE], precision)
        goal = make_goal(targets, [BUDGET])
        plain = get_space(report.data["space"], num_classes=dataset.num_classes, **fixed)
        space, targets = choose_by_part(plain, targets) if precision == "any" else (plain, targets)  # type: ignore[arg-type]
        request = Request(devices=(DEVICE,), budgets=(BUDGET,), precision=precision, space=plain.name)
        problem = Problem(request, targets, goal, space, Judge(space, goal, targets), evaluators.get("supernet"), few)
        evaluator = problem.evaluator.make(problem.assignment(load_supernet(run / SUPERNET_FILE, plain)))  # type: ignore[arg-type]
        study = Study.open(str(folder / f"{precision}-{seed}.journal"), name="nas", space=problem.space, goal=problem.goal)
        searches[precision] = problem, evaluator, study
    for upto in range(5, evals + 1, 5):  # in turn, so that what is compared has had the same number of evaluations
        for problem, evaluator, study in searches.values():
            if study.evaluations < upto and time.monotonic() < stop:
                study.run("guided", evaluator, problem.judge, evals=upto, seed=seed)
    found: dict[str, dict[str, Any]] = {}
    for precision, (problem, _, study) in searches.items():
        points = []
        for trial in study.front():
            verdict = problem.judge.verdicts([trial.architecture])[0]
            values = {"latency_ms": trial.values[f"latency_ms/{DEVICE}"], "accuracy_pct": trial.values["accuracy_pct"]}
            points.append({**values, "upper_ms": verdict.estimates[DEVICE].upper_ms, "precision": verdict.precisions[DEVICE]})
        found[precision] = {"evaluations": study.evaluations, "proposals": study.proposals, "front": points}
        print(precision, study.evaluations, len(points), flush=True)
    report.data |= {"budget": BUDGET, "device": DEVICE, "pictures": pictures, "resolution": resolution or "searched"}
    report.data["rows"] = [row for row in report.data["rows"] if row.get("seed") != seed]
    report.add({"seed": seed, "fronts": found, "compared": compare(found)})
    volumes = {name: np.array([row["compared"]["hypervolume"][name] for row in report.data["rows"]]) for name in searches}
    report.data["hypervolume_over_seeds"] = {name: {"mean": float(v.mean()), "n": len(v)} for name, v in volumes.items()}
    report.save()
    print(report.data["hypervolume_over_seeds"])


def compare(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Hypervolumes over (0 %, the budget), and how much of the single-precision fronts the one with genes dominates."""
    losses = {name: [(-p["accuracy_pct"], p["latency_ms"]) for p in entry["front"]] for name, entry in found.items()}
    budget_ms = float(BUDGET.removesuffix("ms"))
    result: dict[str, Any] = {"hypervolume": {name: hypervolume(points, (0.0, budget_ms)) for name, points in losses.items()}}
    for other in ("fp16", "w8a8"):
        beaten = [any(a <= p and b <= q and (a, b) != (p, q) for a, b in losses["any"]) for p, q in losses[other]]
        result[f"share of the {other} front dominated by any"] = float(np.mean(beaten)) if beaten else None
        back = [any(a <= p and b <= q and (a, b) != (p, q) for a, b in losses[other]) for p, q in losses["any"]]
        result[f"share of the any front dominated by {other}"] = float(np.mean(back)) if back else None
    union = [(name, point) for name, points in losses.items() for point in points]
    result["union"] = {name: sum(union[i][0] == name for i in front([p for _, p in union])) for name in losses}
    return result


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="A finished run, for its supernet and its fine-tuned choice.")
    parser.add_argument(
        "--weights", type=Path, default=Path("runs/vit.safetensors"), help="Checkpoint of `transformer`, made where absent."
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--name", default="", help="Of the results; default: that of the data.")
    parser.add_argument("--space", default="hybrid-s")
    parser.add_argument("--part", choices=("chosen", "members", "attention", "fronts", "transformer"), required=True)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--test-pictures", type=int, help="Test pictures that `members` are measured on; default: all.")
    parser.add_argument("--evals", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search-seed", type=int, default=0, help="Of the searches of `fronts`; each adds a row.")
    parser.add_argument("--pictures", type=int, default=1000, help="Validation pictures that score a candidate of `fronts`.")
    parser.add_argument("--resolution", help="Deployment resolution of `fronts`; default: searched.")
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--studies", type=Path, default=Path("runs"), help="Where the journals of `fronts` lie.")
    args = parser.parse_args()
    dataset = load_dataset(args.data, seed=args.seed)
    if args.test_pictures:
        dataset = dataset.thinned("test", args.test_pictures)
    stop = time.monotonic() + 60 * args.minutes
    source = "--weights WEIGHTS" if args.part == "transformer" else f"--run RUN --space {args.space}"
    source += f" --test-pictures {args.test_pictures}" if args.test_pictures else ""
    source += f" --pictures {args.pictures} --evals {args.evals}" if args.part == "fronts" else ""
    source += f" --name {args.name}" if args.name else ""
    source += f" --resolution {args.resolution}" if args.resolution else ""
    head = {
        "command": f"python experiments/013_quantisation/run.py {source} --data {Path(args.data).name} --part {args.part}",
        "data": dataset.name,
        "space": args.space,
        "seed": args.seed,
        "test_images": dataset.count("test"),
        "validation_images": dataset.count("validation"),
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
        "default_recipe": list(DEFAULT_RECIPE),
    }
    report = Report(Path(__file__).parent / "results" / f"{args.name or dataset.name}-{args.part}.json", head)
    if args.part == "transformer":
        args.weights.parent.mkdir(exist_ok=True)
        transformer(report, args.weights, dataset, args.seed, stop)
        return
    if args.run is None:
        parser.error("--run is needed for this part.")
    if args.part == "chosen":
        chosen(report, args.run, dataset, stop)
    elif args.part == "members":
        members(report, args.run, dataset, args.members, args.seed, stop)
    elif args.part == "attention":
        attention(report, args.run, dataset, args.seed, stop)
    else:
        args.studies.mkdir(exist_ok=True)
        fronts(report, args.run, dataset, args.evals, args.search_seed, stop, args.studies, args.pictures, args.resolution)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
