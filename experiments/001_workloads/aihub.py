"""Build the networks of Qualcomm AI Hub that timm and torchvision lack, check them, and say which graph stands for which row of its table.

Run it beside a CPU build of PyTorch with transformers 5.24, ultralytics 8.4, timm 1.0.31 and torchvision 0.28 (tools of development: the product
reads the graphs alone):

    python experiments/001_workloads/aihub.py --data ../shared/data [--only NAME …] [--check]

Graphs go to ``hardware_profiles/workloads`` as in `run.py`, and ``hardware_profiles/workloads/aihub.csv`` says for each model (and component, and
input) of the table: the graph, the release date from which it is that graph, and its check, parameters and layers beside those that AI Hub states.
With ``--check`` nothing is traced: the table alone is written again from the stored graphs.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from networks import Network, networks
from run import kept, stored, write
from torch import nn

from nas.bench.aihub import PREPARED, read_models, workload_name
from nas.errors import GraphError
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.graph import Graph
from nas.graphs.passes import normalise
from nas.graphs.workloads import folder, pack, unpack
from nas.spaces.pretrained.libraries import declare_torchvision_operators

COLUMNS = (
    *("model", "component", "input", "since", "workload", "normalises", "params", "params_stated", "params_ratio"),
    *("layers_expected", "layers", "layers_ratio", "note"),
)
WRITTEN_OUT = {"Attention": 20, "Swish": 2, "GroupNormalization": 3}
"""Layers that QAIRT's converter makes of one operator; of attention as counted on ViT-B (384 layers, of which 244 in twelve blocks)."""


def built(network: Network) -> nn.Module:
    """Build a network on the meta device, or with random weights where its code reads values."""
    try:
        with torch.device("meta"):
            return network.build().eval()
    except (RuntimeError, NotImplementedError):
        return network.build().eval()


def expected_layers(graph: Graph) -> int:
    """Return how many layers the converter makes of a graph in deploy form, an activation being one of its own."""
    fused = [op.attribute("activation") for op in graph.operators]
    return sum(WRITTEN_OUT.get(op.op, 1) for op in graph.operators) + sum(WRITTEN_OUT.get(name, 1) for name in fused if name)


def stated_layers(rows: list[dict[str, str]]) -> int | None:
    """Return the number of layers of the newest float graph on the NPU under QNN; None where it never ran there."""
    fit = [r for r in rows if r["precision"] == "float" and r["runtime"] in {"qnn", "qnn_dlc"} and r["layers"] == r["layers_npu"]]
    newest = max((r["date"] for r in fit), default="")
    counts = Counter(int(r["layers"]) for r in fit if r["date"] == newest)
    return counts.most_common(1)[0][0] if counts else None


def spelt(name: str) -> str:
    """Return a component's name without what changed over the releases: ``FaceDetector`` and ``face_detector`` are one."""
    return name.replace("_", "").lower()


def trace(only: list[str], folder_: Path) -> None:
    """Trace networks, as written and in deploy form, and file them."""
    lines, index = kept(folder_)
    written = stored(folder_ / "as_written")
    for name, network in networks().items():
        if only and name not in only:
            continue
        module = built(network)
        try:
            raw = trace_module(module, network.shape, name, weight_work=True)
            deployed = normalise(without_weight_work(raw))
        except GraphError as error:
            print("failed", name, error, flush=True)
            continue
        params = raw.cost.params  # those that the graph uses
        index[name] = [network.model, network.library, network.family, list(network.shape), params, deployed.cost.macs]
        lines.setdefault(network.family, {})[name] = pack(deployed)
        written.setdefault(network.family, {})[name] = pack(raw)
        unknown = sorted({op.op for op in deployed.operators if op.category == "unknown"})
        print(name, params, deployed.cost.macs, *unknown, flush=True)
    write(lines, folder_)
    write(written, folder_ / "as_written")
    text = ",\n".join(f'"{n}": {json.dumps(index[n], separators=(",", ":"))}' for n in sorted(index))
    (folder_ / "index.json").write_text("{\n" + text + "\n}\n")


def without_weight_work(graph: Graph) -> Graph:
    """Return a graph as `trace_module` gives it without its `weight_work`."""
    plain = [replace(op, attributes=tuple(pair for pair in op.attributes if pair[0] != "weight_elements")) for op in graph.operators]
    return Graph(graph.inputs, tuple(plain), graph.outputs, graph.name)


def table(data: Path, folder_: Path) -> list[dict[str, object]]:
    """Return a row a graph that stands for a model of AI Hub's table."""
    lines, index = kept(folder_)
    with gzip.open(data / "aihub_perf.csv.gz", "rt", newline="") as file:
        timed: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in csv.DictReader(file):
            timed[row["model"]].append(row)
    with (data / "aihub_networks.csv").open(newline="") as file:
        stated = {row["model"]: row["params"] for row in csv.DictReader(file)}
    wanted = [
        (row["aihub_model"], "", "", name, row["aihub_model"] not in PREPARED, "")
        for row in read_models(data / "aihub_models.csv")
        if (name := workload_name(row))
    ]
    for name, n in networks().items():
        if name in index:
            wanted.append((name.partition(".")[0], n.component, n.since, name, n.normalises, n.note))
    rows = []
    for model, component, since, name, normalises, note in sorted(wanted):
        _, _, family, shape, params, _ = index[name]
        graph = unpack(name, lines[str(family)][name])
        layers = stated_layers([r for r in timed[model] if not component or spelt(component) == spelt(r["component"])])
        told, expected = number(stated.get(model, "")), expected_layers(graph)
        rows.append(
            dict(
                zip(
                    COLUMNS,
                    (
                        *(model, component, "x".join(map(str, shape[1:])), since, name, int(normalises), params, stated.get(model, "")),
                        *(f"{params / told:.3f}" if told and not component else "", expected, layers or ""),
                        *(f"{expected / layers:.3f}" if layers else "", note),
                    ),
                    strict=True,
                )
            )
        )
    return rows


def number(text: str) -> float | None:
    """Return 28600000 for ``28.6M``; None for an empty text."""
    return float(text[:-1]) * {"K": 1e3, "M": 1e6}[text[-1]] if text else None


def main() -> None:
    """Trace what is wanted and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=[], help="names to trace, the others stay as they are; default all")
    parser.add_argument("--check", action="store_true", help="write the table again from the stored graphs")
    args = parser.parse_args()
    declare_torchvision_operators()
    if not args.check:
        trace(args.only, folder())
    with (folder() / "aihub.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table(args.data, folder()))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
