"""Trace reference networks from timm, torchvision and ``search_spaces/references`` into the graphs of ``hardware_profiles/workloads/``.

Run it beside a CPU build of PyTorch with timm 1.0.31 and torchvision 0.28:

    python experiments/001_workloads/run.py --data ../shared/data

With ``--only``, ``--missing`` and ``--references`` the other networks stay as they are; the references need neither timm nor torchvision:

    python experiments/001_workloads/run.py --references

With ``--as-written`` every network of the index is traced as its library builds it, branches unfused and batch norms their own operators, with
what it works out from its weights at each run; these graphs go to ``hardware_profiles/workloads/as_written``.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import lzma
import time
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import nn

from nas.bench.public_tables import hailo_inputs
from nas.errors import GraphError
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise
from nas.graphs.workloads import describe, folder, names, pack, unpack
from nas.spaces import reference
from nas.spaces.operator_family import fuse
from nas.spaces.pretrained.libraries import declare_torchvision_operators

MAX_PARAMS = 105e6
"""Of a network that is timed."""
MAX_RATED_PARAMS = 250e6
"""Of a network whose accuracy is published."""
TORCHVISION_ONLY = (  # timed by ncnn and Hailo, and not in timm
    *("alexnet", "squeezenet1_0", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0"),
    *("regnet_y_400mf", "regnet_x_400mf", "mobilenet_v3_large", "mnasnet1_0"),
)


def build(model: str, library: str, size: int, *, fused: bool = True) -> nn.Module:
    """Build a network in evaluation mode, reparameterised if `fused`, on the meta device where its code allows it: no weight is made."""
    try:
        with torch.device("meta"):
            return _created(model, library, size, fused)
    except (RuntimeError, NotImplementedError):  # reads values while it is built
        return _created(model, library, size, fused)


def _created(model: str, library: str, size: int, fused: bool) -> nn.Module:
    if library == "references":
        return fuse(reference.build(model)) if fused else reference.build(model).eval()
    if library == "torchvision":
        import torchvision

        room, _, name = model.rpartition(".")
        home = importlib.import_module(f"torchvision.models.{room}") if room else torchvision.models
        extra = {"aux_logits": False, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
        extra |= {"aux_loss": False, "weights_backbone": None} if room == "segmentation" else {}
        created: nn.Module = getattr(home, name)(weights=None, **extra)
        return created.eval()
    import timm
    from timm.utils.model import reparameterize_model

    cfg = timm.models.get_pretrained_cfg(model)
    resized = cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != size
    module: nn.Module = timm.create_model(model, num_classes=1000, **({"img_size": size} if resized else {})).eval()
    return reparameterize_model(module) if fused else module


def family_of(module: nn.Module) -> str:
    """Return the file of the library that defines the network."""
    parts = type(module).__module__.split(".")
    rooms = [part for part in parts if part in {"video", "segmentation"}]
    return "_".join(dict.fromkeys([*rooms, parts[-1].strip("_")]))


Wanted = dict[str, tuple[str, str, tuple[int, ...]]]


def references() -> Wanted:
    """Return name -> (model, library, input shape) of the references whose accuracy is published; the library is timm where it has them."""
    return {
        name: (name, "timm" if variant.timm_name else "references", (1, 3, *variant.resolution))
        for name, variant in reference.variants().items()
        if variant.top1_pct is not None and variant.params <= MAX_RATED_PARAMS
    }


def wanted(data: Path) -> Wanted:
    """Return name -> (model, library, input shape)."""
    import timm

    found: Wanted = {}

    def add(model: str, shape: tuple[int, ...]) -> None:
        cfg = timm.models.get_pretrained_cfg(model)
        native = cfg is not None and cfg.input_size[-1] == shape[-1]
        found[model if native else f"{model}@{shape[-1]}"] = (model, "timm", (1, *shape))

    for row in csv.DictReader((data / "aihub_models.csv").open()):
        if row["rebuild"].startswith("none"):
            continue
        shape = tuple(map(int, row["input_size"].split("x")))
        if row["rebuild"].startswith("timm"):
            add(row["timm_name"], shape)
        elif row["torchvision_name"]:
            found[row["torchvision_name"].rpartition(".")[2]] = (row["torchvision_name"], "torchvision", (1, *shape))
    for model in TORCHVISION_ONLY:
        found[model] = (model, "torchvision", (1, 3, 224, 224))
    known = set(timm.list_models())
    for model, size in hailo_inputs(data / "hailo_fps.csv"):
        if model in known:
            add(model, (3, size, size))
        elif model in reference.variants():
            found[model if (size, size) == reference.variants()[model].resolution else f"{model}@{size}"] = (
                model,
                "references",
                (1, 3, size, size),
            )
    for path in sorted((data / "timm").glob("*.csv"), reverse=True):  # published accuracies, then the timings
        for row in csv.DictReader(path.open()):
            model, size = row["model"].partition(".")[0], int(row.get("img_size") or row["infer_img_size"])
            most = MAX_RATED_PARAMS if "img_size" in row else MAX_PARAMS
            if model in known and float(row["param_count"].replace(",", "")) * 1e6 <= most:
                add(model, (3, size, size))
    return references() | found


def traced(name: str, model: str, library: str, shape: tuple[int, ...], cache: Path | None) -> tuple[str, Graph]:
    """Return family and raw graph, from the cache of an earlier run where there is one."""
    path = cache / f"{name}.txt" if cache else None
    if path is not None and path.is_file():
        family, line = path.read_text().split("\n", 1)
        return family, unpack(name, line)
    module = build(model, library, shape[-1])
    family, graph = family_of(module), trace_module(module, shape, name)
    if path is not None:
        path.write_text(f"{family}\n{pack(graph)}")
    return family, graph


def kept(out: Path) -> tuple[dict[str, dict[str, str]], dict[str, list[object]]]:
    """Return lines by family and the index of what an earlier run wrote."""
    return stored(out), json.loads((out / "index.json").read_text())


def stored(out: Path) -> dict[str, dict[str, str]]:
    """Return name -> line by family of the files in a folder."""
    files = {path.stem: lzma.decompress(path.read_bytes()).decode().splitlines() for path in out.glob("*.xz")}
    return {family: dict(line.split("\t", 1) for line in rows) for family, rows in files.items()}


def write(lines: Mapping[str, Mapping[str, str]], out: Path) -> None:
    """Write a file a family."""
    for family, networks in lines.items():
        text = "".join(f"{name}\t{networks[name]}\n" for name in sorted(networks))
        (out / f"{family}.xz").write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def as_written(out: Path, cache: Path | None, only: Collection[str] | None, missing: bool) -> None:
    """Trace every network of the index, or some, as its library builds it; those of `aihub.py` stay as they are."""
    lines = stored(out)
    for i, name in enumerate(names()):
        workload = describe(name)
        if workload.library not in {"timm", "torchvision", "references"} or (only and name not in only):
            continue
        if missing and name in lines.get(workload.family, {}):
            continue
        path = cache / f"{name}.written.txt" if cache else None
        if path is not None and path.is_file():
            line = path.read_text()
        else:
            module = build(workload.model, workload.library, workload.input[-1], fused=False)
            line = pack(trace_module(module, workload.input, name, weight_work=True))
            if path is not None:
                path.write_text(line)
        lines.setdefault(workload.family, {})[name] = line
        if i % 50 == 0:
            print(f"{i}/{len(names())} {name}", flush=True)
    out.mkdir(exist_ok=True)
    write(lines, out)
    print({"networks": len(names()), "bytes": sum(p.stat().st_size for p in out.iterdir()), "versions": versions()})


def main() -> None:
    """Trace what is wanted and missing, and write the families' files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", help="names to trace, the others stay as they are; default all")
    parser.add_argument("--missing", action="store_true", help="trace what no earlier run has traced, the others stay as they are")
    parser.add_argument("--references", action="store_true", help="trace search_spaces/references alone, the others stay as they are")
    parser.add_argument(
        "--as-written", action="store_true", help="trace the index's networks as their libraries build them, and nothing else"
    )
    parser.add_argument("--traces", type=Path, help="folder that keeps raw traces between runs")
    args = parser.parse_args()
    declare_torchvision_operators()
    out = folder()
    if args.as_written:
        as_written(out / "as_written", args.traces, args.only, args.missing)
        return
    out.mkdir(exist_ok=True)
    partly = args.references or args.missing or args.only
    lines, index = kept(out) if partly else ({}, {})
    failures: dict[str, str] = {}
    start = time.perf_counter()
    todo = {n: w for n, w in references().items() if n not in index} if args.references else wanted(args.data)
    for i, (name, (model, library, shape)) in enumerate(todo.items()):
        if (args.only and name not in args.only) or (args.missing and name in index):
            continue
        try:
            family, graph = traced(name, model, "references" if args.references else library, shape, args.traces)
            deployed = normalise(graph)
        except (GraphError, RuntimeError, TypeError, ValueError, AssertionError, AttributeError, NotImplementedError) as error:
            failures[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
            print("failed", name, failures[name], flush=True)
            continue
        known = reference.variants().get(name)
        params = known.params if known else graph.cost.params  # as published, whichever form was traced
        index[name] = [model, library, family, list(shape), params, graph.cost.macs]
        lines.setdefault(family, {})[name] = pack(deployed)
        if i % (5 if partly else 50) == 0:
            print(f"{i}/{len(todo)} {name} {time.perf_counter() - start:.0f} s", flush=True)
    write(lines, out)
    (out / "index.json").write_text(
        "{\n" + ",\n".join(f'"{n}": {json.dumps(index[n], separators=(",", ":"))}' for n in sorted(index)) + "\n}\n"
    )
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    report = {
        "networks": len(index),
        "references": sum(row[1] == "references" for row in index.values()),
        "bytes": sum(p.stat().st_size for p in out.iterdir()),
        "versions": json.loads((results / "results.json").read_text())["versions"] if partly else versions(),
        "failures": failures,
    }
    (results / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    print(report)


def versions() -> dict[str, str]:
    """Return the versions of the libraries that build the networks."""
    return {name: importlib.import_module(name).__version__ for name in ("torch", "timm", "torchvision")}


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
