"""Operators on small constants, worked out with numpy at the file's own operator set, in bounded memory.

What a file computes of its shapes is arithmetic on a few integers. An operator that is not listed, or whose result would be large, gives no
numbers; its result stays a constant of known shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]
LIMIT = 4096
"""Elements beyond which a result is not worked out. Set by hand."""

_Attributes = Mapping[str, Any]
_Fold = Callable[[Sequence[Array | None], _Attributes], Array | Sequence[Array] | None]
_FOLDS: dict[str, _Fold] = {}


def fold(op: str, arrays: Sequence[Array | None], attributes: Mapping[str, Any]) -> list[Array] | None:
    """Return the outputs of an operator on constants, None where they are not worked out.

    Args:
        op: ONNX name.
        arrays: Operands in order, None for one that is left out.
        attributes: Of the node; axes and the like may be attributes or operands, as the operator set has it.

    Raises:
        ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError: The operands do not fit the operator.
    """
    work = _FOLDS.get(op)
    if work is None:
        return None
    with np.errstate(all="ignore"):
        made = work(arrays, attributes)
    if made is None:
        return None
    results = [np.asarray(array) for array in ([made] if isinstance(made, np.ndarray | np.generic) else made)]
    return results if all(array.size <= LIMIT for array in results) else None


def _folds(*names: str) -> Callable[[_Fold], _Fold]:
    def register(work: _Fold) -> _Fold:
        _FOLDS.update(dict.fromkeys(names, work))
        return work

    return register


def _first(arrays: Sequence[Array | None], index: int = 0) -> Array:
    array = arrays[index] if index < len(arrays) else None
    if array is None:
        raise ValueError(f"operand {index} is left out")
    return array


def _integers(arrays: Sequence[Array | None], attributes: _Attributes, index: int, name: str) -> tuple[int, ...] | None:
    if name in attributes:
        value = attributes[name]
        return tuple(value) if isinstance(value, tuple) else (int(value),)
    array = arrays[index] if index < len(arrays) else None
    return None if array is None else tuple(int(i) for i in array.reshape(-1))


def _fits(*shapes: Sequence[int]) -> bool:
    return prod(np.broadcast_shapes(*map(tuple, shapes))) <= LIMIT


_SAME_TYPE: dict[str, Callable[[Array], Array]] = {
    "Identity": np.array,
    "Dropout": np.array,
    "Neg": np.negative,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Reciprocal": np.reciprocal,
    "Sign": np.sign,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
for _name, _function in _SAME_TYPE.items():
    _FOLDS[_name] = lambda arrays, _, function=_function: np.asarray(function(_first(arrays)), dtype=_first(arrays).dtype)  # type: ignore[misc]
_FOLDS["Not"] = lambda arrays, _: np.logical_not(_first(arrays))
_FOLDS["IsNaN"] = lambda arrays, _: np.isnan(_first(arrays))


def _quotient(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(np.divide(a, b))
    if not np.all(b):
        raise ZeroDivisionError("division by zero")
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _quotient,
    "Pow": lambda a, b: np.asarray(np.power(a.astype(np.float64), b)).astype(a.dtype),
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Equal": np.equal,
    "Less": np.less,
    "Greater": np.greater,
    "LessOrEqual": np.less_equal,
    "GreaterOrEqual": np.greater_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Sum": np.add,
}


def _chained(function: Callable[[Array, Array], Array]) -> _Fold:
    def work(arrays: Sequence[Array | None], _: _Attributes) -> Array | None:
        present = [array for array in arrays if array is not None]
        if not _fits(*(array.shape for array in present)):
            return None
        result = present[0]
        for array in present[1:]:
            result = np.asarray(function(result, array))
        return result

    return work


_FOLDS |= {name: _chained(function) for name, function in _BINARY.items()}


@_folds("Mod")
def _mod(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    a, b = _first(arrays), _first(arrays, 1)
    if a.dtype.kind in "iu" and not np.all(b):
        raise ZeroDivisionError("division by zero")
    return np.asarray((np.fmod if attributes.get("fmod") else np.mod)(a, b)) if _fits(a.shape, b.shape) else None


@_folds("Where")
def _where(arrays: Sequence[Array | None], _: _Attributes) -> Array | None:
    operands = [_first(arrays, i) for i in range(3)]
    return np.where(*operands) if _fits(*(array.shape for array in operands)) else None


@_folds("Clip")
def _clip(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    low, high = (attributes.get(name, arrays[i] if i < len(arrays) else None) for i, name in enumerate(("min", "max"), 1))
    x = _first(arrays)
    return np.asarray(x if low is None and high is None else np.clip(x, low, high), dtype=x.dtype)


@_folds("Cast")
def _cast(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    to = attributes["to"]
    if to == onnx.TensorProto.STRING or _first(arrays).dtype.kind not in "biufc":
        return None
    return _first(arrays).astype(onnx.helper.tensor_dtype_to_np_dtype(to))


@_folds("CastLike")
def _cast_like(arrays: Sequence[Array | None], _: _Attributes) -> Array:
    return _first(arrays).astype(_first(arrays, 1).dtype)


@_folds("Size")
def _size(arrays: Sequence[Array | None], _: _Attributes) -> Array:
    return np.array(_first(arrays).size, dtype=np.int64)


@_folds("Gather")
def _gather(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    x, index, axis = _first(arrays), _first(arrays, 1), attributes.get("axis", 0)
    if x.ndim == 0 or x.size // max(1, x.shape[axis]) * index.size > LIMIT:
        return None
    return np.take(x, index.astype(np.int64), axis=axis)


@_folds("Unsqueeze")
def _unsqueeze(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    x, axes = _first(arrays), _integers(arrays, attributes, 1, "axes") or ()
    return np.expand_dims(x, axes) if x.ndim + len(axes) <= 32 else np.asarray(x)


@_folds("Squeeze")
def _squeeze(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    axes = _integers(arrays, attributes, 1, "axes")
    return np.squeeze(_first(arrays), axis=axes)


@_folds("Concat")
def _concat(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present, axis=attributes["axis"]) if sum(array.size for array in present) <= LIMIT else None


@_folds("Slice")
def _slice(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    x = _first(arrays)
    starts, ends = (_integers(arrays, attributes, i, name) for i, name in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise ValueError("starts or ends are left out")
    axes = _integers(arrays, attributes, 3, "axes") or tuple(range(len(starts)))
    steps = _integers(arrays, attributes, 4, "steps") or (1,) * len(starts)
    cuts = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cuts[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(cuts)]


@_folds("Reshape")
def _reshape(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    x, target = _first(arrays), _integers(arrays, attributes, 1, "shape") or ()
    keep_zero = attributes.get("allowzero", 0)
    return x.reshape([x.shape[i] if size == 0 and not keep_zero else size for i, size in enumerate(target)])


@_folds("Flatten")
def _flatten(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    x, axis = _first(arrays), attributes.get("axis", 1)
    return x.reshape(prod(x.shape[:axis]), -1)


@_folds("Transpose")
def _transpose(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    return np.transpose(_first(arrays), attributes.get("perm"))


@_folds("Split")
def _split(arrays: Sequence[Array | None], attributes: _Attributes) -> list[Array] | None:
    x, axis, sizes = _first(arrays), attributes.get("axis", 0), _integers(arrays, attributes, 1, "split")
    if sizes is None:
        return None
    return np.split(x, np.cumsum(sizes)[:-1], axis=axis) if len(sizes) <= LIMIT else None


@_folds("Expand")
def _expand(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    x, target = _first(arrays), _integers(arrays, attributes, 1, "shape") or ()
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, target)).copy() if _fits(x.shape, target) else None


@_folds("Tile")
def _tile(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    x, repeats = _first(arrays), _integers(arrays, attributes, 1, "repeats") or ()
    return np.tile(x, repeats) if 0 <= x.size * prod(repeats) <= LIMIT and len(repeats) <= 32 else None


@_folds("ConstantOfShape")
def _constant_of_shape(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    shape = tuple(int(i) for i in _first(arrays).reshape(-1))
    if min(shape, default=0) < 0:
        raise ValueError(f"a shape with a negative size, {shape}")
    if prod(shape) > LIMIT:
        return None
    value = onnx.numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return np.full(shape, value.reshape(-1)[0], dtype=value.dtype)


@_folds("Range")
def _range(arrays: Sequence[Array | None], _: _Attributes) -> Array | None:
    start, limit, delta = (_first(arrays, i).reshape(-1)[0] for i in range(3))
    if not delta:
        raise ZeroDivisionError("a range whose step is zero")
    count = (float(limit) - float(start)) / float(delta)
    return np.arange(start, limit, delta) if count <= LIMIT else None


def _reducing(function: Callable[..., Any]) -> _Fold:
    def work(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
        x, axes = _first(arrays), _integers(arrays, attributes, 1, "axes")
        if not axes and attributes.get("noop_with_empty_axes"):
            return x
        return np.asarray(function(x, axis=axes or None, keepdims=bool(attributes.get("keepdims", 1))), dtype=x.dtype)

    return work


_FOLDS |= {
    name: _reducing(function)
    for name, function in (
        ("ReduceSum", np.sum),
        ("ReduceProd", np.prod),
        ("ReduceMax", np.max),
        ("ReduceMin", np.min),
        ("ReduceMean", np.mean),
    )
}


@_folds("NonZero")
def _non_zero(arrays: Sequence[Array | None], _: _Attributes) -> Array:
    return np.array(np.nonzero(_first(arrays)), dtype=np.int64)


@_folds("CumSum")
def _cumulate(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    if attributes.get("exclusive") or attributes.get("reverse"):
        return None
    return np.cumsum(_first(arrays), axis=int(_first(arrays, 1).reshape(-1)[0]), dtype=_first(arrays).dtype)


@_folds("ScatterElements", "Scatter")
def _scatter(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    if attributes.get("reduction", "none") != "none":
        return None
    made = _first(arrays).copy()
    np.put_along_axis(made, _first(arrays, 1), _first(arrays, 2), axis=attributes.get("axis", 0))
    return made


@_folds("ScatterND")
def _scatter_nd(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    if attributes.get("reduction", "none") != "none":
        return None
    made, index = _first(arrays).copy(), _first(arrays, 1)
    made[tuple(np.moveaxis(index, -1, 0))] = _first(arrays, 2)
    return made


@_folds("GatherND")
def _gather_nd(arrays: Sequence[Array | None], attributes: _Attributes) -> Array | None:
    if attributes.get("batch_dims", 0):
        return None
    x, index = _first(arrays), _first(arrays, 1)
    if prod(index.shape[:-1]) * prod(x.shape[index.shape[-1] :]) > LIMIT:
        return None
    return np.asarray(x[tuple(np.moveaxis(index, -1, 0))])


@_folds("Trilu")
def _trilu(arrays: Sequence[Array | None], attributes: _Attributes) -> Array:
    k = int(_first(arrays, 1).reshape(-1)[0]) if len(arrays) > 1 and arrays[1] is not None else 0
    return (np.triu if attributes.get("upper", 1) else np.tril)(_first(arrays), k)
