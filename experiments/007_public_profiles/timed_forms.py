"""Trace the networks of timm's tables in the form that was timed: as timm builds them, branches unfused, batch norms and all.

    PYTHONPATH=.:../shared/tools python experiments/007_public_profiles/timed_forms.py --data ../shared/data --traces FOLDER

Writes ``timed_forms.xz``: a name and a graph a line, as in ``hardware_profiles/workloads``. Run it beside timm (see 001_workloads). What a
network works out from its weights at every run (standardised weights, position tables) is no operator of its graph: the operator that it
belongs to has the attribute ``weight_elements``. With ``--traces`` a folder keeps the traces, and what is in it is not traced again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import lzma
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from nas import workloads
from nas.frontends import torch_module
from nas.graph import Graph, Value, freeze
from nas.protocols.public_tables import read_timm
from nas.workloads import pack, unpack

OUT = Path(__file__).parent / "timed_forms.xz"
_NO_WORK = {
    *("view", "reshape", "permute", "transpose", "unsqueeze", "squeeze", "expand", "detach", "slice", "select", "t", "alias", "contiguous"),
    *("chunk", "split", "flatten", "unbind", "_unsafe_view", "zeros", "ones", "arange", "full", "empty", "zeros_like", "index", "clone", "copy_"),
    *("lift_fresh", "fill_", "eye", "unflatten", "expand_as", "to", "_to_copy"),
}  # fmt: skip
"""Views, and what timm keeps between runs (index tables)."""


class _Recorder(torch_module._Recorder):
    """Also notes what is computed from weights alone: (ATen name, shape, module)."""

    calls: ClassVar[list[tuple[str, list[int], str]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [self.known(t) for t in torch_module._tensors((args, kwargs or {}))]
        result = super().__torch_dispatch__(func, types, args, kwargs)
        made = next(torch_module._tensors(result), None)
        name = func.overloadpacket.__name__
        if made is not None and name not in _NO_WORK and not any(isinstance(ref, Value) for ref in read):
            self.calls.append((name, list(made.shape), self.scopes[-1].partition("|")[0] if self.scopes else ""))
        return result


def build(model: str, size: int) -> nn.Module:
    """Build a network as timm's benchmark does, on the meta device where its code allows it."""
    import timm

    cfg = timm.models.get_pretrained_cfg(model)
    resized = cfg is not None and cfg.fixed_input_size and cfg.input_size[-1] != size
    keywords = {"img_size": size} if resized else {}
    try:
        with torch.device("meta"):
            found: nn.Module = timm.create_model(model, num_classes=1000, **keywords)
    except (RuntimeError, NotImplementedError):  # reads values while it is built
        found = timm.create_model(model, num_classes=1000, **keywords)
    return found.eval()


def traced(name: str, cache: Path | None) -> tuple[Graph, list[tuple[str, list[int], str]]]:
    """Return a network's graph and what is computed from its weights."""
    path = cache / f"{name}.txt" if cache else None
    if path is not None and path.is_file():
        return unpack(name, path.read_text()), json.loads(path.with_name(f"{name}.json").read_text())
    workload = workloads.describe(name)
    _Recorder.calls.clear()
    graph = torch_module.trace_module(build(workload.model, workload.input[-1]), workload.input, name)
    if path is not None:
        path.with_name(f"{name}.json").write_text(json.dumps(_Recorder.calls))
        path.write_text(pack(graph))
    return graph, list(_Recorder.calls)


def with_weight_work(graph: Graph, calls: list[tuple[str, list[int], str]]) -> Graph:
    """Return the graph with ``weight_elements`` on the operators of the modules that work on their weights."""
    work: dict[str, int] = {}
    names = [op.name for op in graph.operators]
    for _, shape, scope in calls:
        at = None
        while at is None:
            at = next((n for n in names if n == scope or n.startswith(f"{scope}." if scope else "")), None)
            scope = scope.rpartition(".")[0]
        work[at] = work.get(at, 0) + prod(shape)
    return replace(
        graph,
        operators=tuple(
            replace(op, attributes=freeze({**dict(op.attributes), "weight_elements": work[op.name]})) if work.get(op.name) else op
            for op in graph.operators
        ),
    )


def main() -> None:
    """Trace and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--traces", type=Path, help="folder that keeps traces between runs")
    args = parser.parse_args()
    try:
        importlib.import_module("torchvision_cpu")
    except ModuleNotFoundError:
        logging.warning("no torchvision_cpu on the path: going on without it")
    torch_module._Recorder = _Recorder  # type: ignore[misc]
    names = {row.network for path in (args.data / "timm").glob("benchmark-infer-*.csv") for row in read_timm(path, "", "", "gpu", "")}
    lines = []
    for i, name in enumerate(sorted(names)):
        lines.append(f"{name}\t{pack(with_weight_work(*traced(name, args.traces)))}\n")
        if i % 50 == 0:
            print(f"{i}/{len(names)} {name}", flush=True)
    OUT.write_bytes(lzma.compress("".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(names)} networks, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
