"""Runs of convolutions: the one that is deployed against those that were trained, in random settings; and what merging saves by prices alone.

python experiments/019_anchors/merges.py equal    # 200 settings: strides, groups, dilations, odd padding, after some steps of training
python experiments/019_anchors/merges.py prices   # each block of MobileNetV2 as it is, merged, narrowed or left out, on a device
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from nas.devices.names import find_profile
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.graphs.onnx_session import onnx_session
from nas.spaces.chain import open_chain
from nas.spaces.pretrained import open_pretrained
from nas.spaces.surgery.merging import ConvolutionRun, runs_of
from nas.spaces.surgery.narrowing import coupled_channels
from nas.spaces.surgery.skips import can_be_left_out

HERE = Path(__file__).parent
SETTINGS = 200


def random_run(rng: np.random.Generator) -> tuple[ConvolutionRun, list[dict[str, Any]]]:
    """Return a run of two or three convolutions with batch norms, and how each was set."""
    channels, layers, told = int(rng.choice([4, 6, 8, 12])), [], []
    for _ in range(int(rng.integers(2, 4))):
        kernel = (int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        depthwise = rng.random() < 0.3
        out = channels if depthwise else int(rng.choice([4, 6, 8, 12]))
        groups = channels if depthwise else int(rng.choice([g for g in (1, 2, 3, 4) if channels % g == 0 and out % g == 0]))
        setting = {
            "kernel_size": kernel,
            "stride": (int(rng.integers(1, 4)), int(rng.integers(1, 3))),
            "padding": (int(rng.integers(0, kernel[0] + 1)), int(rng.integers(0, kernel[1] + 1))),
            "dilation": int(rng.integers(1, 3)),
            "groups": groups,
            "bias": bool(rng.random() < 0.5),
        }
        norm = nn.BatchNorm2d(out) if rng.random() < 0.7 else None
        layers.append((nn.Conv2d(channels, out, **setting), norm))
        told.append({"in": channels, "out": out, "norm": norm is not None, **setting})
        channels = out
    return ConvolutionRun(layers).double(), told


def trained(run: ConvolutionRun, c_in: int, size: tuple[int, int]) -> ConvolutionRun:
    """Return the run after some steps towards noise: weights and statistics have left what they began with."""
    optimizer = torch.optim.SGD(run.parameters(), lr=0.05)
    for _ in range(3):
        made = run.train()(torch.randn(4, c_in, *size, dtype=torch.float64))
        optimizer.zero_grad()
        (made - torch.randn_like(made)).square().mean().backward()
        optimizer.step()
    return run.eval()


def as_onnx(conv: nn.Conv2d, dtype: Any) -> onnx.ModelProto:
    """Return one convolution as a model."""
    (kh, kw), (ph, pw) = conv.kernel_size, conv.padding  # type: ignore[misc]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = [numpy_helper.from_array(p.detach().numpy().astype(dtype), name) for name, p in conv.named_parameters()]
    node = helper.make_node(
        "Conv", ["x", "weight", "bias"], ["y"], kernel_shape=[kh, kw], strides=list(conv.stride), pads=[ph, pw, ph, pw], group=conv.groups
    )
    values = [helper.make_tensor_value_info(name, kind, [None] * 4) for name in ("x", "y")]
    graph = helper.make_graph([node], "run", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def equal() -> dict[str, Any]:
    """Return the largest differences, by the largest answer, over all settings."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    rows = []
    while len(rows) < SETTINGS:
        run, told = random_run(rng)
        size = (int(rng.integers(14, 25)), int(rng.integers(14, 25)))
        try:
            run = trained(run, told[0]["in"], size)
        except RuntimeError:  # the kernels are larger than what is left of the map: no such network
            continue
        x = torch.randn(2, told[0]["in"], *size, dtype=torch.float64)
        with torch.no_grad():
            branched, merged = run(x), run.fuse()
            largest = float(branched.abs().max())
            row = {"float64": float((merged(x) - branched).abs().max()) / largest}
        assert isinstance(merged, nn.Conv2d)
        (y,) = ReferenceEvaluator(as_onnx(merged, np.float64)).run(None, {"x": x.numpy()})
        row["reference_evaluator"] = float(np.abs(y - branched.numpy()).max()) / largest
        session = onnx_session(as_onnx(merged, np.float32).SerializeToString())
        (y,) = session.run(None, {"x": x.numpy().astype(np.float32)})
        row["onnxruntime_fp32"] = float(np.abs(y - branched.numpy()).max()) / largest
        rows.append(row | {"layers": len(told), "kernel": list(merged.kernel_size), "groups": merged.groups})
    worst = {name: max(row[name] for row in rows) for name in ("float64", "reference_evaluator", "onnxruntime_fp32")}
    return {"settings": len(rows), "largest_relative_difference": worst, "kernels_up_to": max(max(row["kernel"]) for row in rows)}


def prices(network: str, device: str) -> dict[str, Any]:
    """Return what each block of a network costs in each form, and what the cheapest forms cost together."""
    chain = open_chain(open_pretrained(network, weights="random"))
    profile = load_profile(device)
    precision = profile.default_precision
    predictor = load_predictor(profile, precision, find_profile(device).parent)
    whole = list(chain.blocks())

    def cost(parts: list[Any]) -> float:
        return float(predictor.estimate_batch([[(p.label, p.graph()) for p in parts]], profile, precision).latency_ms[0])

    alone, rows, cheapest = cost(whole), [], list(whole)
    for i, segment in enumerate(whole[1:-1], start=1):
        module = chain.cuts.segment(segment.first, segment.last)
        row: dict[str, Any] = {"block": segment.label}
        forms: dict[str, list[Any]] = {}
        if runs_of(module):
            forms["merged"] = [chain.segment(segment.first, segment.last, merged=True)]
        if coupled_channels(module):
            forms["0.5"] = [chain.segment(segment.first, segment.last, width="0.5")]
        if segment.shape == segment.output_shape and can_be_left_out(module):
            forms["out"] = []
        for name, parts in forms.items():
            row[f"{name}_saves_ms"] = alone - cost([*whole[:i], *parts, *whole[i + 1 :]])
        if row.get("merged_saves_ms", 0) > 0:
            cheapest[i] = forms["merged"][0]
        rows.append(row)
    merged = cost(cheapest)
    return {
        "network": network,
        "device": device,
        "precision": precision,
        "resolution": list(chain.resolution),
        "latency_ms": alone,
        "merged_where_it_saves_ms": merged,
        "predicted_speedup": alone / merged,
        "blocks": rows,
    }


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["equal", "prices"])
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--device", default="sa8295p")
    args = parser.parse_args()
    found = equal() if args.step == "equal" else prices(args.network, args.device)
    name = "merges" if args.step == "equal" else f"prices-{args.network}-{args.device}"
    (HERE / "results" / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: value for key, value in found.items() if key != "blocks"}, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
