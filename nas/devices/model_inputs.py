"""What a model file is fed for timing it, and the precision at which it says that it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError, UsageError, did_you_mean, one_line

_DTYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    **{f"tensor({name})": np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")},
}
_MOST_ELEMENTS = 2**28  # by hand
_PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def fed(inputs: Sequence[Any], shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """Return seeded numbers for every input of a session: normal ones for floats, bytes for pictures of bytes, 0 and 1 for the rest.

    Args:
        inputs: With name, type and shape; a size that is no integer is open.
        shapes: By name of an input; the empty name is the only one's.
        dims: Symbolic sizes by name. A leading size that nobody gives is 1.

    Raises:
        UsageError: Names that the file lacks, sizes that contradict it, or that are open still.
        ValueError: A type that cannot be made up.
    """
    names = [value.name for value in inputs]
    by_name = {names[0]: shapes[""]} | {n: s for n, s in shapes.items() if n} if "" in shapes and len(names) == 1 else dict(shapes)
    if unknown := sorted(set(by_name) - set(names)):
        raise UsageError(f"input shape: no such input, got {unknown[0]!r}.{did_you_mean(unknown[0], names)}")
    symbols = {size for value in inputs for size in value.shape if isinstance(size, str)}
    if unknown := sorted(set(dims) - symbols):
        raise UsageError(f"dim: no such size, got {unknown[0]!r}.{did_you_mean(unknown[0], symbols)}")
    rng = np.random.default_rng(0)
    return {value.name: _numbers(value.type, _shape(value, by_name.get(value.name), dims), rng) for value in inputs}


def _shape(value: Any, stated: tuple[int, ...] | None, dims: Mapping[str, int]) -> tuple[int, ...]:
    known = [size if isinstance(size, int) and size > 0 else dims.get(size) if isinstance(size, str) else None for size in value.shape]
    if stated is not None:
        if len(stated) != len(known) or any(size not in (None, wanted) for size, wanted in zip(known, stated, strict=True)):
            raise UsageError(
                f"input shape: {one_line(value.name)} is {one_line(value.shape)} in the file, got {'x'.join(map(str, stated))}."
            )
        return stated
    if known and known[0] is None:
        known[0] = 1
    if None in known:
        example = "x".join(str(size or 224) for size in known)
        raise UsageError(
            f"input shape: {one_line(value.name)} leaves sizes open, got {one_line(value.shape)}. Do this: --input-shape {one_line(value.name)}:{example}."
        )
    return tuple(size for size in known if size is not None)


def _numbers(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    if kind not in _DTYPES:
        raise ValueError(f"an input is {kind}; expected a tensor of floats, integers or booleans")
    if prod(shape) > _MOST_ELEMENTS:
        raise UsageError(f"input shape: too large, got {'x'.join(map(str, shape))}. Expected at most {_MOST_ELEMENTS:,} elements.")
    dtype = np.dtype(_DTYPES[kind])
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)


def precision_of_file(path: Path) -> str:
    """Return the precision at which a file's products run: ``w8a8``, ``w8a16``, ``fp16``, ``fp32``, or ``mixed`` where they differ.

    Weights are not read.

    Raises:
        ArtifactError: Not an ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError, ValueError) as error:
        raise ArtifactError(f"measure: {path.name} is no ONNX file ({one_line(error)}).") from None
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    bits: dict[str, int] = {}
    precisions = set()
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            wide = len(node.input) > 2 and kinds.get(node.input[2]) in (onnx.TensorProto.UINT16, onnx.TensorProto.INT16)
            bits[node.output[0]] = 16 if wide else 8
        elif node.op_type == "DequantizeLinear":
            bits[node.output[0]] = bits.get(node.input[0], 8)
        elif node.op_type in ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"):
            precisions.add("w8a8")
        elif node.op_type in _PRODUCTS:
            halves = any(kinds.get(name) == onnx.TensorProto.FLOAT16 for name in node.input)
            quantised = [bits.get(name) for name in node.input[:2]]
            own = "fp16" if halves else "fp32"
            precisions.add(own if None in quantised else "w8a16" if 16 in quantised else "w8a8")
    if not precisions:
        precisions = {"fp16" if graph.input and kinds.get(graph.input[0].name) == onnx.TensorProto.FLOAT16 else "fp32"}
    return next(iter(precisions)) if len(precisions) == 1 else "mixed"
