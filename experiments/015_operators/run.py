"""Write which operators each runtime has: ``hardware_profiles/operators/*.toml``, every entry with its source.

    python experiments/015_operators/run.py

An operator that stands in a network which a runtime's devices were timed with runs there. What a vendor's list adds is below, and what a closed
list lacks. ONNX Runtime says itself which kernels it has. An operator in no source stays out: it is unknown there.
"""

from __future__ import annotations

import json
from pathlib import Path

from nas.devices.names import profile_files
from nas.devices.profile import load_profile
from nas.graphs import workloads
from nas.graphs.passes import normalise

ROOM = Path(__file__).parents[2] / "hardware_profiles" / "operators"
TITLES = {
    "qnn": "Qualcomm AI Engine Direct on Hexagon",
    "tflite": "TensorFlow Lite with Qualcomm's delegate on Hexagon",
    "hailort": "HailoRT, networks made by the Hailo Dataflow Compiler",
    "ncnn": "ncnn",
    "pytorch": "PyTorch",
    "rknn": "Rockchip RKNN",
    "onnxruntime-cpu": "ONNX Runtime, provider for processors",
}
SOURCES = {
    "timed": ("networks that devices of this runtime were timed with, in hardware_profiles/", "experiments/015_operators/run.py"),
    "qnn-ep": (
        "ONNX Runtime's provider for QNN, op_builder_factory.cc at 00cd7c6: what is registered goes to the NPU, the rest stays outside",
        "https://github.com/microsoft/onnxruntime/blob/00cd7c6df0a66cd628a5ab7e682cb870134a27ee/onnxruntime/core/providers/qnn/builder/op_builder_factory.cc",
    ),
    "dataflow-compiler": (
        "Hailo Dataflow Compiler Product Brief, release 3.7.0 of April 2021, section 3: supported layers (later lists are not public)",
        "https://www.readkong.com/page/hailo-dataflow-compiler-product-brief-release-3-7-0-7-2267727",
    ),
    "layers": (
        "ncnn docs/developer-guide/operators.md at 0015e9e: the layers",
        "https://github.com/Tencent/ncnn/blob/0015e9e96f03573780780f6c7c40c4c59d680742/docs/developer-guide/operators.md",
    ),
    "kernels": (
        "onnxruntime 1.32.0, get_all_opkernel_def, and functions of ONNX that it takes apart",
        "https://pypi.org/project/onnxruntime/1.32.0/",
    ),
}
QNN = (
    "Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div "
    "Einsum Elu Equal Exp Expand Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample "
    "HardSigmoid HardSwish InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul Max "
    "MaxPool Mean Min Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear RMSNormalization ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum "
    "Reciprocal Relu Reshape Resize Round STFT ScatterElements ScatterND Sigmoid Sign Sin Slice Softmax SpaceToDepth Split Sqrt Sub Sum Tanh Tile TopK "
    "Transpose Where"
)
NCNN = (
    "Abs Add ArgMax AveragePool BatchNormalization Cast Clip Concat Conv ConvTranspose CumSum DepthToSpace Div Elu Exp GRU Gelu Gemm "
    "GlobalAveragePool GlobalMaxPool GridSample GroupNormalization HardSigmoid HardSwish InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Log "
    "LpNormalization MatMul Max MaxPool Min Mish Mul Pad Pow PRelu RNN ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Selu "
    "Sigmoid Slice Softmax Softplus Split Sub Swish Tanh Tile Transpose DequantizeLinear QuantizeLinear"
)
LISTED = {"qnn": ("qnn-ep", QNN), "ncnn": ("layers", NCNN)}
LACKING = {  # GRU, RNN, NonMaxSuppression and NonZero are not registered with QNN's provider; that says nothing of QNN itself, so they are unknown
    "qnn": ("qnn-ep", "DFT If Loop Scan Unique"),
    "ncnn": ("layers", "DFT If Loop NonMaxSuppression NonZero OneHot STFT Scan ScatterElements ScatterND TopK Unique"),
    "hailort": ("dataflow-compiler", "DFT GRU GridSample If LSTM Loop NonZero RNN STFT Scan Unique"),
}


def timed() -> dict[str, set[str]]:
    """Return the operators of the networks that each runtime's devices were timed with, as they are written and as they are compiled."""
    networks: dict[str, set[str]] = {}
    for name in profile_files():
        profile = load_profile(name)
        found = networks.setdefault(profile.runtime.split()[0], set())
        for at in profile.precisions.values():
            found |= set(at.timings_ms)
    known = set(workloads.names())
    ops: dict[str, set[str]] = {}
    read: dict[str, set[str]] = {}
    for runtime, names in networks.items():
        for network in sorted(names & known):
            if network not in read:
                graph = workloads.load(network)
                read[network] = {op.op for each in (graph, normalise(graph)) for op in each.operators if op.category != "unknown"}
            ops.setdefault(runtime, set()).update(read[network])
    return ops


def kernels() -> set[str]:
    """Return the operators of ONNX that this ONNX Runtime runs on a processor: by a kernel, or as the function that ONNX defines."""
    import onnx
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = {k.op_name for k in state.get_all_opkernel_def() if k.provider == "CPUExecutionProvider" and k.domain == ""}
    schemas = [s for s in onnx.defs.get_all_schemas() if s.domain == ""]
    return found | {s.name for s in schemas if s.has_function or s.has_context_dependent_function} | {"Constant"}


def main() -> None:
    ROOM.mkdir(exist_ok=True)
    evidence = timed()
    import onnx

    own = kernels()
    every = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
    for name, title in TITLES.items():
        supported = dict.fromkeys(evidence.get(name, ()), "timed")
        source, listed = LISTED.get(name, ("", ""))
        supported |= {op: source for op in listed.split() if op not in supported}
        source, lacking = LACKING.get(name, ("", ""))
        unsupported = dict.fromkeys((op for op in lacking.split() if op not in supported), source)
        if name == "onnxruntime-cpu":
            supported, unsupported = dict.fromkeys(own, "kernels"), dict.fromkeys(every - own, "kernels")
        used = sorted({*supported.values(), *unsupported.values()})
        lines = [f"title = {json.dumps(title)}"]
        for key in used:
            about, reference = SOURCES[key]
            lines += ["", f"[sources.{key}]", f"title = {json.dumps(about)}", f"reference = {json.dumps(reference)}"]
        for table, entries in (("supported", supported), ("unsupported", unsupported)):
            if entries:
                lines += ["", f"[{table}]", *(f"{op} = {json.dumps(source)}" for op, source in sorted(entries.items()))]
        (ROOM / f"{name}.toml").write_text("\n".join(lines) + "\n")
        print(f"{name}: {len(supported)} supported, {len(unsupported)} unsupported")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
