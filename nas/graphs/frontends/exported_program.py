"""An exported program (``.pt2`` of `torch.export.save`) as a module that can be trained and cut, read without unpickling anything.

PyTorch's own loader unpickles sample inputs and constants. The archive also holds the graph as JSON and the weights as raw bytes: those are all
that is read here. Convolutions, batch norms and linear layers become modules again, so that statistics can be taken anew.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from nas.errors import ArtifactError

_DAMAGED = (zipfile.BadZipFile, OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError, StopIteration)
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_strings")


def read_exported_tensors(path: Path, kind: str = "weights") -> dict[str, Tensor]:
    """Return the ``weights`` or ``constants`` of an exported program by name.

    Raises:
        ArtifactError: Damaged, of an older version, or with pickled tensors.
    """
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    dtypes = {int(number): dtype for number, dtype in _SERIALIZE_TO_TORCH_DTYPE.items()}
    try:
        with zipfile.ZipFile(path) as archive:
            index = next(name for name in archive.namelist() if name.endswith(f"_{kind}_config.json"))
            folder, tensors = index.rpartition("/")[0], {}
            for name, entry in json.loads(archive.read(index))["config"].items():
                if entry["use_pickle"]:
                    raise ArtifactError(
                        f"weights {path}: {name} is pickled, which is never loaded. Do this: save the state_dict() instead."
                    )
                meta = entry["tensor_meta"]
                sizes, strides = ([int(item["as_int"]) for item in meta[key]] for key in ("sizes", "strides"))
                content, dtype = bytearray(archive.read(f"{folder}/{entry['path_name']}")), dtypes[int(meta["dtype"])]
                flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
                tensors[name] = flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])).clone()
            return tensors
    except _DAMAGED as error:
        raise ArtifactError(f"weights {path}: damaged, or of another version of exported programs ({_reason(error)}).") from None


def read_exported_program(path: Path) -> tuple[nn.Module, tuple[int, int]]:
    """Return the network of a file in evaluation mode, and the (height, width) that it was exported for.

    Raises:
        ArtifactError: Damaged, or not a network of one picture batch with static shapes.
    """
    if not path.is_file():
        raise ArtifactError(f"network: no such file, got {str(path)!r}.")
    tensors = read_exported_tensors(path) | read_exported_tensors(path, "constants")
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/models/model.json"))
            program = json.loads(archive.read(name))["graph_module"]
        return _Reader(program, tensors).read()
    except _DAMAGED as error:
        raise ArtifactError(f"network {path}: damaged, or of another version of exported programs ({_reason(error)}).") from None


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


class _Reader:
    """Turns the JSON of a program into a module."""

    def __init__(self, program: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.program, self.tensors = program, tensors
        self.root, self.graph = nn.Module(), fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.sources: dict[str, str] = {}  # graph name of a weight -> its own name
        self.trained: set[str] = set()

    def read(self) -> tuple[nn.Module, tuple[int, int]]:
        size = self._inputs()
        for node in self.program["graph"]["nodes"]:
            self._node(node)
        (output,) = [spec["user_output"]["arg"] for spec in self.program["signature"]["output_specs"] if "user_output" in spec]
        self.graph.output(self._argument(output))
        module = fx.GraphModule(self.root, self.graph)
        module.graph.eliminate_dead_code()
        module.recompile()
        module.delete_all_unused_submodules()
        return module.eval(), size

    def _inputs(self) -> tuple[int, int]:
        pictures: list[str] = []
        for spec in self.program["signature"]["input_specs"]:
            ((kind, entry),) = spec.items()
            if kind == "user_input":
                pictures.append(entry["arg"]["as_tensor"]["name"])
                continue
            self.sources[entry["arg"]["name"]] = next(str(value) for key, value in entry.items() if key.endswith("_name"))
            if kind == "parameter":
                self.trained.add(entry["parameter_name"])
        (picture,) = pictures
        self.values[picture] = self.graph.placeholder("x")
        height, width = (int(size["as_int"]) for size in self.program["graph"]["tensor_values"][picture]["sizes"][-2:])
        return height, width

    def _node(self, node: Mapping[str, Any]) -> None:
        arguments = {item["name"]: item["arg"] for item in node["inputs"]}
        kind = node["target"].removeprefix("torch.ops.aten.").removesuffix(".default")
        build = _MODULES.get(kind)
        module = build(self, arguments) if build is not None else None
        if module is not None:
            name = self.sources[arguments["weight"]["as_tensor"]["name"]].rpartition(".")[0] or kind
            while name in self.taken:
                name = f"{name}_again"
            _set(self.root, name, module)
            made = self.graph.call_module(name, (self._argument(arguments["input"]),))
        else:
            made = self.graph.call_function(
                _operator(node["target"]),
                tuple(self._argument(item["arg"]) for item in node["inputs"] if item.get("kind") != 2),
                {item["name"]: self._argument(item["arg"]) for item in node["inputs"] if item.get("kind") == 2},
            )
        self._bind(node["outputs"], made)

    @property
    def taken(self) -> set[str]:
        return {name for name, _ in self.root.named_modules()}

    def _bind(self, outputs: list[Mapping[str, Any]], made: fx.Node) -> None:
        import operator

        if len(outputs) == 1 and outputs[0].keys() & {"as_sym_int", "as_sym_bool"}:
            self.values[next(iter(outputs[0].values()))["as_name"]] = made
            return
        named = [item for out in outputs for item in (out.get("as_tensors") or [out.get("as_tensor")]) if item]
        if len(outputs) == 1 and "as_tensor" in outputs[0]:
            self.values[named[0]["name"]] = made
            return
        for i, item in enumerate(named):
            self.values[item["name"]] = self.graph.call_function(operator.getitem, (made, i))

    def _argument(self, argument: Mapping[str, Any]) -> Any:
        ((kind, value),) = argument.items()
        if kind == "as_none":
            return None
        if kind in _PLAIN:
            return value
        if kind == "as_tensor":
            return self._value(value["name"])
        if kind == "as_tensors":
            return [self._value(item["name"]) for item in value]
        if kind == "as_sym_int":
            return value["as_int"] if "as_int" in value else self.values[value["as_name"]]
        if kind == "as_sym_ints":
            return [self._argument({"as_sym_int": item}) for item in value]
        if kind in ("as_optional_tensor", "as_optional_tensors"):
            return [self._argument(item) for item in value] if isinstance(value, list) else self._argument(value)
        if kind == "as_device":
            return torch.device("cpu")
        if kind in ("as_scalar_type", "as_layout", "as_memory_format"):
            from torch._export.serde import serialize

            table = {
                "as_scalar_type": serialize._SERIALIZE_TO_TORCH_DTYPE,
                "as_layout": serialize._SERIALIZE_TO_TORCH_LAYOUT,
                "as_memory_format": serialize._SERIALIZE_TO_TORCH_MEMORY_FORMAT,
            }[kind]
            return next(item for number, item in table.items() if int(number) == int(value))
        raise ValueError(f"an argument of the kind {kind}")

    def _value(self, name: str) -> fx.Node:
        if name not in self.values:
            source = self.sources[name]
            tensor = self.tensors[source]
            weight: Tensor = nn.Parameter(tensor) if source in self.trained else tensor
            _set(self.root, source, weight)
            self.values[name] = self.graph.get_attr(source)
        return self.values[name]

    def weight(self, argument: Mapping[str, Any] | None) -> Tensor | None:
        """Return the weight that an argument names; None where there is none, or it is computed."""
        name = (argument or {}).get("as_tensor", {}).get("name")
        return self.tensors[self.sources[name]] if name in self.sources else None


def _operator(target: str) -> Any:
    import operator

    if target.startswith("_operator."):
        return getattr(operator, target.removeprefix("_operator."))
    if not target.startswith("torch.ops.aten."):  # an archive names functions: none but those of PyTorch's tensors are called
        raise ValueError(f"a call of {target}")
    item: Any = torch
    for name in target.removeprefix("torch.").split("."):
        item = getattr(item, name)
    return item


def _set(root: nn.Module, path: str, item: nn.Module | Tensor) -> None:
    """Put a module, a parameter or a buffer under a dotted name."""
    *folders, name = path.split(".")
    for folder in folders:
        if not hasattr(root, folder):
            root.add_module(folder, nn.Module())
        root = getattr(root, folder)
    if isinstance(item, nn.Module):
        root.add_module(name, item)
    elif isinstance(item, nn.Parameter):
        root.register_parameter(name, item)
    else:
        root.register_buffer(name, item)


def _filled(module: nn.Module, **tensors: Tensor | None) -> nn.Module:
    own = dict([*module.named_parameters(), *module.named_buffers()])
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor is not None:
                own[name].copy_(tensor)
    return module


def _plain(arguments: Mapping[str, Any], name: str, default: Any) -> Any:
    return next(iter(arguments[name].values())) if name in arguments else default


def _conv(reader: _Reader, arguments: Mapping[str, Any]) -> nn.Module | None:
    weight, bias = reader.weight(arguments["weight"]), reader.weight(arguments.get("bias"))
    if weight is None or weight.ndim != 4:
        return None
    groups = _plain(arguments, "groups", 1)
    settings = {
        name: tuple(_plain(arguments, name, default)) for name, default in (("stride", (1,)), ("padding", (0,)), ("dilation", (1,)))
    }
    stride, padding, dilation = (value * 2 if len(value) == 1 else value for value in settings.values())
    height, width = weight.shape[2:]
    channels = (weight.shape[1] * groups, weight.shape[0])
    return _filled(nn.Conv2d(*channels, (height, width), stride, padding, dilation, groups, bias is not None), weight=weight, bias=bias)


def _batch_norm(reader: _Reader, arguments: Mapping[str, Any]) -> nn.Module | None:
    tensors = {name: reader.weight(arguments.get(name)) for name in ("weight", "bias", "running_mean", "running_var")}
    if any(tensor is None for tensor in tensors.values()):
        return None
    count = len(tensors["weight"])  # type: ignore[arg-type]
    return _filled(nn.BatchNorm2d(count, _plain(arguments, "eps", 1e-5), _plain(arguments, "momentum", 0.1)), **tensors)


def _linear(reader: _Reader, arguments: Mapping[str, Any]) -> nn.Module | None:
    weight, bias = reader.weight(arguments["weight"]), reader.weight(arguments.get("bias"))
    if weight is None:
        return None
    return _filled(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight=weight, bias=bias)


_MODULES: Mapping[str, Callable[[_Reader, Mapping[str, Any]], nn.Module | None]] = {
    "conv2d": _conv,
    "batch_norm": _batch_norm,
    "linear": _linear,
}
