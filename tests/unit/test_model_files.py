"""Model files of every kind that has gone wrong: the right value, or one clear line."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas import api
from nas.devices.new_device import calibrate
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.devices.timings import read_timings
from nas.errors import GraphError, NasError, UsageError
from nas.graphs.frontends.onnx_file import read_onnx
from nas.graphs.graph import Graph
from nas.graphs.operators import DATA_DEPENDENT, OPS, WRITTEN_OUT
from nas.graphs.passes import normalise
from nas.results import Estimate
from nas.spaces.network import load_network

F = np.float32
N = helper.make_node
CASES = Path(__file__).parents[3] / "shared" / "cases"


def info(name: str, shape: Sequence[int | str] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str] = ("y",),
    constants: dict[str, Any] | None = None,
    opset: int = 17,
    **graph: Any,
) -> Path:
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    made = helper.make_graph(nodes, "g", inputs, [info(name, None) for name in outputs], weights, **graph)
    domains = {node.domain for node in nodes if node.domain}
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Graph]:
    return lambda *args, **kwargs: read_onnx(save(tmp_path / "m.onnx", *args, **kwargs))


def test_every_operator_of_onnx_is_known() -> None:
    names = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert names <= set(OPS) | set(WRITTEN_OUT) | DATA_DEPENDENT
    assert all(spec.category != "unknown" for spec in OPS.values())
    for spec in OPS.values():
        assert not spec.priced_as or OPS[spec.priced_as].category == spec.category, spec.name


def run_case(name: str, *words: object) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"no {CASES / name}")
    subprocess.run([sys.executable, str(CASES / name), *map(str, words)], check=True, capture_output=True, env=os.environ)


def test_cases_of_old_operator_sets_are_read(tmp_path: Path) -> None:
    run_case("old_opset_fold.py", tmp_path)
    files = sorted(tmp_path.glob("*.onnx"))
    assert len(files) >= 14
    for path in files:
        graph = read_onnx(path)
        assert not graph.unknown, path.name
        assert not graph.notices, path.name
        normalise(graph)
    assert read_onnx(tmp_path / "view_opset9.onnx").values["y"].shape == (1, 128)
    assert read_onnx(tmp_path / "scan_const_floor_opset9.onnx").operators[-1].outputs[0].shape == (1, 8, 8, 8)


def test_cases_of_the_quantiser_and_the_fp16_converter_are_read(tmp_path: Path) -> None:
    run_case("qdq_infer.py", tmp_path)
    for name, precision in (("contrib16", "w8a16"), ("computed_reshape", "w8a8"), ("unsorted_fp16", None)):
        graph = read_onnx(tmp_path / f"{name}.onnx")
        conv = next(op for op in graph.operators if op.op == "Conv")
        assert (graph.cost.macs, conv.precision) == (8 * 8 * 9 * 256, precision), name


def test_sum_is_add(tmp_path: Path) -> None:
    for op in ("Sum", "Add"):
        run_case("sum_resnet.py", tmp_path / f"{op}.onnx", op)
    graphs = [normalise(read_onnx(tmp_path / f"{op}.onnx")) for op in ("Sum", "Add")]
    assert graphs[0].key == graphs[1].key


def estimated(path: Path, precision: str | None = None) -> Estimate:
    return api.predict(str(path), "sa8295p", precision=precision)


def test_a_file_quantised_in_part_costs_what_its_parts_cost(tmp_path: Path) -> None:
    for kind in ("mixed", "float"):
        run_case("mixed_precision_file.py", tmp_path / f"{kind}.onnx", kind)
    mixed, whole = estimated(tmp_path / "mixed.onnx"), estimated(tmp_path / "float.onnx")
    assert mixed.latency_ms == pytest.approx(whole.latency_ms, rel=0.05)
    assert mixed.precisions["w8a8"] == 1
    assert mixed.precisions["fp16"] >= 24


@pytest.mark.parametrize("precision", [None, "w8a8"])
def test_work_in_front_of_the_first_convolution_makes_no_network_faster(tmp_path: Path, precision: str | None) -> None:
    run_case("nhwc_cheaper.py", tmp_path)
    ms = {path.stem: estimated(path, precision) for path in tmp_path.glob("*.onnx")}
    for less, more in (
        *((f"nchw_{size}", f"nhwc_{size}") for size in (112, 224, 448)),
        ("nchw_224", "nchw_sub_div"),
        ("nhwc_224", "nhwc_sub_div"),
        ("nchw_112", "nchw_224"),
        ("nchw_224", "nchw_448"),
    ):
        assert ms[more].latency_ms >= 0.99 * ms[less].latency_ms, (less, more)
        larger = {"nchw_112", "nchw_224", "nchw_448"} >= {less, more}  # of four times as many pixels the intervals need not meet
        assert ms[more].lower_ms < ms[less].upper_ms or larger or "448" in more, (less, more)
    assert ms["nhwc_448"].lower_ms < ms["nchw_448"].upper_ms


def test_a_batch_that_was_not_timed_is_scaled_and_said(tmp_path: Path) -> None:
    weights = {"w": np.ones((64, 3, 3, 3), F), "v": np.ones((64, 64, 3, 3), F)}
    nodes = [N("Conv", ["x", "w"], ["a"], pads=[1] * 4), N("Relu", ["a"], ["b"]), N("Conv", ["b", "v"], ["y"], pads=[1] * 4)]
    one, eight = (save(tmp_path / f"{n}.onnx", nodes, [info("x", (n, 3, 64, 64))], constants=weights) for n in (1, 8))
    for device in ("sa8295p", "rtx-4090", "hailo-8"):
        single, batched = api.predict(str(one), device), api.predict(str(eight), device)
        assert (batched.macs, batched.batch) == (8 * single.macs, 8)
        assert batched.extrapolated
        assert "batch 8: the device was timed at batch" in " ".join(batched.extrapolated_why)
        frames = 8 if batched.quantity == "latency" else 1  # a frame at full load stays about as dear
        assert batched.latency_ms < 1.01 * frames * single.latency_ms, device


def test_cases_of_tables_of_timings_are_read_or_get_one_line(tmp_path: Path) -> None:
    run_case("calibrate_csv.py", tmp_path)
    plain = {t.subject: t.latency_ms for t in read_timings(tmp_path / "plain.csv", "fp16")}
    assert len(plain) == 6
    for path in sorted(tmp_path.glob("*.csv")):
        timings = read_timings(path, "fp16")
        factor = 1e-3 if path.stem == "seconds" else 1
        expected = {name.replace("resnet50", "resnet-50") if path.stem == "typo" else name: factor * ms for name, ms in plain.items()}
        assert {t.subject: t.latency_ms for t in timings} == pytest.approx(expected), path.name
        assert {t.precision for t in timings} == {"w8a8" if path.stem == "int8" else "fp16"}
    base = load_profile("hailo-8")
    with pytest.raises(NasError, match="look like seconds") as caught:
        calibrate("mine", read_timings(tmp_path / "seconds.csv", "w8a8"), base, load_predictor(base), "t.csv", tmp_path)
    assert "\n" not in str(caught.value)
    made = calibrate("mine", read_timings(tmp_path / "typo.csv", "w8a8"), base, load_predictor(base), "t.csv", tmp_path)
    assert made.profile.at("w8a8").timings_ms["resnet50"] == 4.1  # resnet-50, as people write it


def test_a_constant_that_folds_to_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    run_case("onnx_bomb.py", 100, tmp_path / "bomb.onnx")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert [op.op for op in read_onnx(tmp_path / "bomb.onnx").operators] == ["Relu"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(
    "node",
    [
        N("Expand", ["one", "far"], ["c"]),
        N("Tile", ["one", "far"], ["c"]),
        N("Range", ["zero", "many", "step"], ["c"]),
        N("EyeLike", ["wide"], ["c"]),
        N("OneHot", ["index", "many", "pair"], ["c"]),
        N("Pad", ["one", "before"], ["c"]),
    ],
    ids=lambda node: str(node.op_type),
)
def test_no_constant_is_worked_out_at_any_size(read: Callable[..., Graph], node: onnx.NodeProto) -> None:
    many = 3 * 10**10
    constants = {
        "one": np.ones(1, F),
        "far": np.array([many]),
        "zero": np.int64(0),
        "many": np.int64(many),
        "step": np.int64(1),
        "index": np.array([0, 1]),
        "pair": np.array([0, 1], F),
        "before": np.array([0, many]),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nodes = [N("ConstantOfShape", ["square"], ["wide"]), node, N("Relu", ["x"], ["y"])]
    graph = read(nodes, [info("x", (1, 4))], constants=constants | {"square": np.array([200_000, 200_000])})
    assert graph.operators[-1].op == "Relu"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_einsum_of_three_operands_counts_pairs_from_left_to_right(read: Callable[..., Graph]) -> None:
    shapes = {"x": (2, 3, 5), "a": (5, 7), "b": (7, 11)}
    graph = read([N("Einsum", list(shapes), ["y"], equation="bij,jk,kl->bil")], [info(n, s) for n, s in shapes.items()])
    assert graph.cost.macs == 2 * 3 * 5 * 7 + 2 * 3 * 7 * 11
    graph = read([N("Einsum", ["x", "v"], ["y"], equation="...ij,j->...i")], [info("x", (2, 3, 5)), info("v", (5,))])
    assert (graph.cost.macs, graph.operators[0].outputs[0].shape) == (30, (2, 3))


def body(nodes: Sequence[onnx.NodeProto], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", inputs, outputs)


def test_bodies_count(read: Callable[..., Graph]) -> None:
    product, w = N("MatMul", ["v", "w"], ["v2"]), np.ones((4, 4), F)
    flag = [info("k", [], TensorProto.BOOL)]
    loop = body(
        [product, N("Identity", ["k"], ["k2"])],
        [info("i", [], TensorProto.INT64), *flag, info("v", (1, 4))],
        [info("k2", [], TensorProto.BOOL), info("v2", (1, 4))],
    )
    graph = read(
        [N("Loop", ["n", "t", "x"], ["y"], body=loop)], [info("x", (1, 4))], constants={"n": np.int64(5), "t": np.bool_(True), "w": w}
    )
    assert (graph.cost.macs, graph.cost.params) == (5 * 16, 16)
    scan = body(
        [N("Add", ["s", "e"], ["v"]), product, N("Identity", ["v2"], ["o"])],
        [info("s", (1, 4)), info("e", (1, 4))],
        [info("v2", None), info("o", None)],
    )
    graph = read(
        [N("Scan", ["h", "x"], ["last", "y"], body=scan, num_scan_inputs=1)], [info("x", (6, 1, 4)), info("h", (1, 4))], constants={"w": w}
    )
    assert graph.cost.macs == 6 * 16
    assert graph.values["y"].shape == (6, 1, 4)
    then, other = body([N("MatMul", ["x", "w"], ["a"])], [], [info("a", None)]), body([N("Relu", ["x"], ["b"])], [], [info("b", None)])
    fixed = read(
        [N("If", ["c"], ["y"], then_branch=then, else_branch=other)], [info("x", (1, 4))], constants={"c": np.bool_(False), "w": w}
    )
    assert (fixed.cost.macs, fixed.notices) == (0, ())
    either = read(
        [N("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        [info("x", (1, 4)), info("c", [], TensorProto.BOOL)],
        constants={"w": w},
    )
    assert either.cost.macs == 16
    assert "the dearer one is counted" in either.notices[0]


def test_quantised_operators_count(read: Callable[..., Graph]) -> None:
    s, z = F(0.1), np.uint8(0)
    conv = ["x", "s", "z", "w", "s", "zw", "s", "z", "b"]
    constants = {"s": s, "z": z, "zw": np.int8(0), "w": np.ones((8, 4, 3, 3), np.int8), "b": np.zeros(8, np.int32)}
    graph = read([N("QLinearConv", conv, ["y"], pads=[1] * 4)], [info("x", (1, 4, 6, 6), TensorProto.UINT8)], constants=constants)
    assert (graph.cost.macs, graph.cost.params, graph.operators[0].precision) == (36 * 8 * 36, 8 * 36 + 8, "w8a8")
    graph = read([N("ConvInteger", ["x", "w"], ["y"])], [info("x", (1, 4, 6, 6), TensorProto.UINT8)], constants={"w": constants["w"]})
    assert graph.cost.macs == 16 * 8 * 36
    graph = read([N("MatMulInteger", ["x", "m"], ["y"])], [info("x", (3, 5), TensorProto.UINT8)], constants={"m": np.ones((5, 7), np.int8)})
    assert (graph.cost.macs, graph.operators[0].outputs[0].dtype) == (105, "int32")


def test_quantised_operators_of_the_runtime_are_written_out(read: Callable[..., Graph]) -> None:
    ms, scales = {"domain": "com.microsoft"}, {"s": F(0.1), "z": np.uint8(0)}
    x = info("x", (1, 4, 6, 6), TensorProto.UINT8)
    q = ["s", "z", "s", "z"]
    nodes = [
        N("QLinearSigmoid", ["x", *q], ["a"], **ms),
        N("QLinearMul", ["a", "s", "z", "x", "s", "z", "s", "z"], ["b"], **ms),
        N("QLinearConcat", ["s", "z", "a", "s", "z", "b", "s", "z"], ["c"], axis=1, **ms),
        N("QLinearAveragePool", ["c", *q], ["d"], kernel_shape=[2, 2], strides=[2, 2], **ms),
        N("QLinearGlobalAveragePool", ["d", *q], ["e"], **ms),
        N("Flatten", ["e"], ["f"]),
        N("QGemm", ["f", "s", "z", "w", "s", "zw", "bias", "s", "z"], ["y"], transB=1, **ms),
    ]
    graph = read(nodes, [x], constants=scales | {"w": np.ones((5, 8), np.int8), "zw": np.int8(0), "bias": np.zeros(5, np.int32)})
    assert [op.op for op in graph.operators] == ["Sigmoid", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Reshape", "Gemm"]
    assert (graph.cost.macs, graph.cost.params, graph.notices) == (40, 45, ())
    scale = [N("QuantizeLinear", ["half", "s2", "z"], ["hq"]), N("QLinearMul", ["hq", "s2", "z", "x", "s", "z", "s", "z"], ["y"], **ms)]
    graph = read(scale, [x], constants=scales | {"half": F(0.5), "s2": F(0.5 / 255)})
    assert graph.operators[0].attribute("scalar") == pytest.approx(0.5)  # so that a GELU of three scalars is still one
    lstm = N("DynamicQuantizeLSTM", ["v", "w", "r", "", "", "", "", "", "s", "zw", "s", "zw"], ["y"], hidden_size=6, **ms)
    weights = {"w": np.ones((1, 5, 24), np.int8), "r": np.ones((1, 6, 24), np.int8), "s": F(0.1), "zw": np.int8(0)}
    graph = read([lstm], [info("v", (7, 2, 5))], constants=weights)
    assert (graph.cost.macs, graph.cost.params) == (7 * 2 * 24 * 11, 24 * 11)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_count(read: Callable[..., Graph], op: str, gates: int) -> None:
    w, r = np.ones((1, gates * 6, 5), F), np.ones((1, gates * 6, 6), F)
    graph = read([N(op, ["x", "w", "r"], ["y"], hidden_size=6)], [info("x", (7, 2, 5))], constants={"w": w, "r": r})
    assert (graph.cost.macs, graph.cost.params) == (7 * 2 * gates * 6 * 11, gates * 6 * 11)
    computed = read([N(op, ["x", "w", "r"], ["y"], hidden_size=6)], [info("x", (7, 2, 5)), info("w", w.shape), info("r", r.shape)])
    assert computed.cost.macs == graph.cost.macs


def test_baked_constants_are_no_parameters(read: Callable[..., Graph]) -> None:
    constants = {
        "onnx::MatMul_7": np.ones((8, 8), F),
        "onnx::Add_9": np.ones((1, 2, 4, 4), F),
        "pos_embed": np.ones((1, 4, 8), F),
        "onnx::Mul_3": np.ones(8, F),
    }
    nodes = [
        N("Add", ["x", "pos_embed"], ["a"]),
        N("MatMul", ["a", "onnx::MatMul_7"], ["q"]),
        N("Mul", ["q", "onnx::Mul_3"], ["m"]),
        N("Reshape", ["m", "shape"], ["h"]),
        N("Add", ["h", "onnx::Add_9"], ["y"]),
    ]
    graph = read(nodes, [info("x", (1, 4, 8))], constants=constants | {"shape": np.array([1, 2, 4, 4])})
    assert graph.cost.params == 64 + 32 + 8
    nodes = [N("Gather", ["table", "index"], ["t"], axis=1), N("Add", ["x", "t"], ["y"])]
    graph = read(nodes, [info("x", (2, 16, 16))], constants={"table": np.ones((2, 9), F), "index": np.zeros((16, 16), np.int64)})
    assert graph.cost.params == 18  # the table, not what is gathered from it


def test_a_graph_ends_where_sizes_are_computed(read: Callable[..., Graph]) -> None:
    conv = N("Conv", ["x", "w"], ["c"])
    nodes = [conv, N("NonZero", ["c"], ["n"]), N("Transpose", ["n"], ["t"]), N("Cast", ["t"], ["y"], to=1)]
    graph = read(nodes, [info("x", (1, 3, 8, 8))], constants={"w": np.ones((4, 3, 1, 1), F)})
    assert [op.op for op in graph.operators] == ["Conv"]
    assert graph.notices == (
        "counted up to NonZero 'n': its sizes depend on numbers that are computed; 3 operators from there on are left out",
    )
    assert normalise(graph).notices == graph.notices
    endless = body(
        [N("Relu", ["v"], ["v2"]), N("Identity", ["k"], ["k2"])],
        [info("i", [], 7), info("k", [], 9), info("v", None)],
        [info("k2", [], 9), info("v2", None)],
    )
    nodes = [conv, N("Loop", ["n", "", "c"], ["y"], body=endless)]
    graph = read(nodes, [info("x", (1, 3, 8, 8)), info("n", [], 7)], constants={"w": np.ones((4, 3, 1, 1), F)})
    assert "counted up to Loop 'y'" in graph.notices[0]
    with pytest.raises(GraphError, match=r"counted up to acme\.Find 'q': that operator is not known"):
        read([N("Find", ["x"], ["q"], domain="acme"), N("Relu", ["q"], ["y"])], [info("x", (1, 4))])


def test_operators_of_the_optimiser_are_written_out(read: Callable[..., Graph]) -> None:
    ms = {"domain": "com.microsoft"}
    x, w, b = info("x", (1, 10, 32)), np.ones((32, 96), F), np.ones(96, F)
    attention = 10 * 10 * 64
    graph = read([N("Attention", ["x", "w", "b"], ["y"], num_heads=4, **ms)], [x], constants={"w": w, "b": b})
    assert (graph.cost.macs, graph.unknown) == (10 * 32 * 96 + attention, ())
    graph = read([N("MultiHeadAttention", ["x"], ["y"], num_heads=4, **ms)], [info("x", (1, 10, 4, 3, 8))])
    assert (graph.cost.macs, graph.values["y"].shape) == (attention, (1, 10, 32))
    graph = read(
        [N("GroupQueryAttention", ["x", "k", "v"], ["y"], num_heads=4, kv_num_heads=2, **ms)],
        [x, info("k", (1, 10, 16)), info("v", (1, 10, 16))],
    )
    assert (graph.cost.macs, graph.values["y"].shape) == (attention, (1, 10, 32))
    nodes = [N("SkipLayerNormalization", ["x", "s", "g", "h"], ["n"], **ms), N("BiasGelu", ["n", "h"], ["y"], **ms)]
    graph = read(nodes, [x, info("s", (1, 10, 32))], constants={"g": np.ones(32, F), "h": np.ones(32, F)})
    assert [op.op for op in graph.operators] == ["Add", "LayerNormalization", "Add", "Gelu"]
    fused = N("FusedConv", ["p", "w", "", "z"], ["y"], activation="Relu", **ms)
    graph = read([fused], [info("p", (1, 3, 8, 8)), info("z", (1, 4, 8, 8))], constants={"w": np.ones((4, 3, 1, 1), F)})
    assert [op.op for op in graph.operators] == ["Conv", "Add", "Relu"]
    packed = N("MatMulNBits", ["x", "q", "s"], ["y"], N=16, K=32, bits=4, block_size=32, **ms)
    graph = read([packed], [x], constants={"q": np.ones((16, 1, 16), np.uint8), "s": np.ones(16, F)})
    assert (graph.cost.macs, graph.operators[0].weights[0].dtype, graph.cost.params) == (10 * 16 * 32, "int4", 512)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 16),
        ({"output_shape": [17, 17], "strides": [2, 2]}, 17),
        ({"dilations": [2, 2]}, 12),
        ({"auto_pad": "VALID", "strides": [3, 3]}, 24),
        ({"output_padding": [1, 1], "strides": [2, 2], "pads": [1] * 4}, 16),
    ],
)
def test_transposed_convolutions(read: Callable[..., Graph], attributes: dict[str, Any], size: int) -> None:
    graph = read(
        [N("ConvTranspose", ["x", "w"], ["y"], **attributes)], [info("x", (1, 4, 8, 8))], constants={"w": np.ones((4, 6, 3, 3), F)}
    )
    assert graph.values["y"].shape == (1, 6, size, size)
    assert graph.cost.macs == 4 * 64 * 6 * 9


def test_unusual_constants(tmp_path: Path, read: Callable[..., Graph]) -> None:
    x = info("x", (1, 16))
    words = helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"b"])
    narrow = helper.make_tensor("w", TensorProto.INT4, [16, 4], np.ones(64, np.int8), raw=False)
    eight = helper.make_tensor("e", TensorProto.FLOAT8E4M3FN, [16, 4], np.ones(64, F))
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [3], [0, 5, 9]), [16, 4])
    nodes = [
        N("DequantizeLinear", ["w", "s"], ["wd"]),
        N("MatMul", ["x", "wd"], ["a"]),
        N("DequantizeLinear", ["e", "s"], ["ed"]),
        N("MatMul", ["x", "ed"], ["b"]),
        N("MatMul", ["x", "sparse"], ["c"]),
        N("Sum", ["a", "b", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [x], [info("y", (1, 4))], [words, narrow, eight, numpy_helper.from_array(F(0.1), "s")], sparse_initializer=[sparse]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "u.onnx")
    made = read_onnx(tmp_path / "u.onnx")
    assert made.cost.macs == 3 * 64
    assert [op.weights[0].dtype for op in made.operators[:3]] == ["int4", "fp8", "fp32"]
    assert made.operators[0].weights[0].params == 64
    twice = read([N("Relu", ["x"], ["a"], name="same"), N("Relu", ["a"], ["b"], name="same"), N("Relu", ["b"], ["y"], name="same_2")], [x])
    assert len({op.name for op in twice.operators}) == 3


def test_numbers_of_shapes_may_lie_beside_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [N("Reshape", ["x", "t"], ["y"])], [info("x", (1, 16))], constants={"t": np.array([4, 4])})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="m.bin")
    assert read_onnx(path).values["y"].shape == (4, 4)
    tensor = onnx.load(path, load_external_data=False)
    tensor.graph.initializer[0].external_data[0].value = "../../etc/passwd"
    onnx.save(tensor, path)
    with pytest.raises(GraphError, match="outside the model's folder"):
        read_onnx(path)


def test_names_are_shown_as_text(read: Callable[..., Graph]) -> None:
    graph = read([N("Relu", ["x"], ["y"], name="\x1b[31m[bold]red\x1b[0m\nline\u202e")], [info("x", (1, 4))])
    assert graph.operators[0].name == "[bold]redline"


def test_markup_in_a_name_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from nas.report.tables import print_table

    print_table("", ["name"], [["[bold]conv[/bold]"], ["[/red]"]])
    assert "[bold]conv[/bold]" in capsys.readouterr().out


def test_tensors_whose_numbers_do_not_fill_their_shape_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [N("MatMul", ["x", "w"], ["y"])], [info("x", (1, 100))], constants={"w": np.ones((100, 100), F)})
    model = onnx.load(path)
    model.graph.initializer[0].dims[1] = 10**9
    onnx.save(model, path)
    with pytest.raises(GraphError, match="holds 40000 bytes and needs"):
        read_onnx(path)


def test_open_sizes_are_named_with_what_settles_them(read: Callable[..., Graph]) -> None:
    pool = N("GlobalAveragePool", ["images"], ["y"])
    with pytest.raises(GraphError, match=r"got images \(batch, 3, h, w\)\. Do this: add --dim batch=1 --dim h=224 --dim w=224"):
        read([pool], [info("images", ("batch", 3, "h", "w"))])
    with pytest.raises(GraphError, match=r"got images \(\?, 3, 32, 32\)\. Do this: add --input-shape images:1x3x32x32"):
        read([pool], [info("images", (None, 3, 32, 32))])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.h5", "net.mlmodel", "net.engine", "net.ONNX"])
def test_other_endings_say_what_to_do(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_network(name)
    assert "Do this" in str(caught.value) or "Expected .onnx" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_large_files_are_read_without_their_weights(tmp_path: Path) -> None:
    """300 MB of weights, more than 2 GB of virtual file: memory and processor time stay those of a small file."""
    path, rows = tmp_path / "large.onnx", 1000
    nodes = [N("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(75)]
    made = helper.make_graph(nodes, "g", [info("x0", (1, rows))], [info("x75", None)], [])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for i in range(75):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((rows, rows), F), f"w{i}"))
    onnx.save(model, path)
    assert path.stat().st_size > 300e6
    code = (
        "import sys; from nas.spaces.network import load_network; g = load_network(sys.argv[1]).graph; "
        "status = dict(line.split(':', 1) for line in open('/proc/self/status')); print(g.cost.macs, status['VmHWM'].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    macs, kilobytes = map(int, done.stdout.split())
    assert macs == 75 * rows * rows
    assert kilobytes < 200_000


@pytest.mark.slow
def test_node_cases_of_onnx_are_counted_or_named(tmp_path: Path) -> None:
    """Every case of ONNX's own suite that ONNX Runtime loads is counted, or what is not counted is named."""
    import onnxruntime
    from onnx.backend.test.case.node import collect_testcases

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    outcome = {"counted": 0, "named": 0, "refused": 0}
    wrong = []
    for case in collect_testcases(None):
        path = tmp_path / "case.onnx"
        onnx.save(case.model, path)
        try:
            graph = read_onnx(path)
        except NasError as error:
            try:
                onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception:  # noqa: BLE001 - the runtime has its own errors, without a common base
                outcome["refused"] += 1
                continue
            text = str(error)
            if not any(
                reason in text for reason in ("counted up to", "no operator that is counted", "sizes of its inputs", "has no usable size")
            ):
                wrong.append(f"{case.name}: {text}")
            outcome["named"] += 1
        else:
            outcome["named" if graph.unknown or graph.notices else "counted"] += 1
    assert not wrong
    assert outcome["counted"] > 1700


@pytest.mark.slow
def test_foreign_files_are_predicted(tmp_path: Path) -> None:
    """Six networks by both exporters and a form of each by ONNX Runtime's tools: the study of a hundred files in small."""
    pytest.importorskip("timm")
    study = Path(__file__).parents[2] / "experiments" / "016_model_files"
    spec = importlib.util.spec_from_file_location("model_files", study / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.run(tmp_path, 6, 3, "sa8295p", None, 2.5e8).rows
    counts = module.summary(rows)
    assert counts["files"] >= 11
    assert counts["predicted"] == counts["files"]
    assert all(abs(row.get("macs_pct", 0)) < 2 for row in rows), rows
    assert all(abs(row.get("latency_pct", 0)) <= 10 for row in rows), rows


def test_the_study_of_foreign_files_holds() -> None:
    counts = json.loads((Path(__file__).parents[2] / "experiments" / "016_model_files" / "results" / "summary.json").read_text())
    assert counts["files"] >= 100
    assert counts["predicted"] >= counts["files"] - 3
