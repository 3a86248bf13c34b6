"""Count MACs and parameters of 60 published networks four ways: module, ONNX file, PyTorch's counter, published table.

    python experiments/009_counts/run.py --table ../shared/catalogue/reference_models.csv

The module is traced on the meta device; the file is written by PyTorch's TorchScript exporter (opset 17) from random weights; PyTorch's
counter is ``FlopCounterMode`` / 2 with unfused attention (it does not see the CPU's fused kernel). Every difference must have a reason.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.errors import GraphError
from nas.graphs.frontends.onnx_file import read_onnx
from nas.graphs.frontends.torch_module import trace_module
from nas.spaces.pretrained.libraries import declare_torchvision_operators

EXTRA = (  # families that the published table lacks
    *("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100"),
    *("efficientnet_b0", "tf_efficientnet_lite0", "regnetx_008", "regnety_008", "repvgg_a0", "ghostnet_100", "mnasnet_100"),
    *("vit_tiny_patch16_224", "deit_small_patch16_224", "levit_128s", "mobilevit_s", "mobilevitv2_050", "coat_lite_tiny"),
    *("resmlp_12_224", "mixer_s32_224", "xcit_nano_12_p8_224", "hrnet_w18_small", "dla34", "tiny_vit_5m_224", "mobilenetv4_conv_small"),
)
TORCHVISION = ("squeezenet1_1", "shufflenet_v2_x1_0", "googlenet", "alexnet")
REASONS = {
    "attention bias": "the file holds the gathered position table, the module the table it is gathered from",
    "batch norm": "the exporter folds batch norms: two vectors go, a bias comes or stays",
    "mask": "the file cannot say that a mask or a coordinate table is no parameter",
    "precomputed": "constants that the module computes from weights at run time (scales, standardised weights) are folded in the file",
}


def create(name: str, *, meta: bool) -> nn.Module:
    """Build a network; on the meta device where only shapes matter."""
    with torch.device("meta" if meta else "cpu"):
        if name in TORCHVISION:
            import torchvision

            extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
            module: nn.Module = getattr(torchvision.models, name)(weights=None, **extra)
            return module.eval()
        import timm
        from timm.utils.model import reparameterize_model

        fused: nn.Module = reparameterize_model(timm.create_model(name, num_classes=1000).eval())
    return fused


def count(name: str, size: int, room: Path) -> dict[str, object]:
    """Count one network from its module, from its file, and by PyTorch's counter."""
    module = create(name, meta=False)
    with torch.no_grad():
        for parameter in module.parameters():  # equal biases would be stored once
            parameter.uniform_(-0.1, 0.1)
    x = torch.zeros(1, 3, size, size)
    start = time.perf_counter()
    traced = trace_module(module, tuple(x.shape), name)
    seconds = time.perf_counter() - start
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.to("meta")(x.to("meta"))
    row: dict[str, object] = {
        "name": name,
        "resolution": size,
        "macs_module": traced.cost.macs,
        "params_module": traced.cost.params,
        "macs_torch": counter.get_total_flops() // 2,
        "params_torch": sum(p.numel() for p in module.parameters()),
        "trace_s": round(seconds, 3),
        "unknown": traced.unknown,
    }
    del module
    module = create(name, meta=False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.1, 0.1)
    path = room / "model.onnx"
    torch.onnx.export(module, (x,), path, dynamo=False, opset_version=17)
    start = time.perf_counter()
    read = read_onnx(path)
    row |= {"macs_onnx": read.cost.macs, "params_onnx": read.cost.params, "read_s": round(time.perf_counter() - start, 3)}
    norms = sum(2 * op.outputs[0].shape[1] for op in traced.operators if op.op == "BatchNormalization")
    row["batch_norm_params"] = norms
    return row


def main() -> None:
    """Count what is wanted and write the results file after each network, so that an interrupted run goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=Path("../shared/catalogue/reference_models.csv"))
    parser.add_argument("--max-params", type=float, default=60.0, help="in millions, of the table's networks")
    parser.add_argument("--minutes", type=float, default=9.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    declare_torchvision_operators()
    import timm

    timm.layers.set_fused_attn(False)
    results = Path(__file__).parent / "results" / "counts.json"
    results.parent.mkdir(exist_ok=True)
    done: dict[str, dict[str, object]] = json.loads(results.read_text()) if results.is_file() else {}
    todo: dict[str, tuple[int, str]] = {}
    for row in csv.DictReader(args.table.open()):
        if (
            row["timm_name"]
            and row["params_M"]
            and float(row["params_M"]) <= args.max_params
            and row["macs_G"]
            and row["resolution"].isdigit()
        ):
            todo.setdefault(row["timm_name"], (int(row["resolution"]), f"{row['params_M']} {row['macs_G']}"))
    picked = dict(sorted(todo.items(), key=lambda item: float(item[1][1].split()[0]))[: 60 - 10])
    for name in (*EXTRA, *TORCHVISION):
        size = 224 if name in TORCHVISION else timm.models.get_pretrained_cfg(name).input_size[-1]
        picked.setdefault(name, (size, ""))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as room:
        for name, (size, published) in picked.items():
            if name in done or time.perf_counter() - start > 60 * args.minutes:
                continue
            try:
                done[name] = count(name, size, Path(room)) | {"published_params_m_macs_g": published}
            except (GraphError, RuntimeError, ValueError, TypeError) as error:
                done[name] = {"name": name, "error": str(error).splitlines()[0].partition(" [Caused by")[0]}
            print(json.dumps(done[name]), flush=True)
            results.write_text("{\n" + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in sorted(done.items())) + "\n}\n")
            gc.collect()


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
