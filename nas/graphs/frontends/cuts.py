"""A network as a chain: traced with `torch.fx`, cut at points through which every path goes.

Functions and modules that timm and torchvision mark as leaves stay whole, and so do norms, whose statistics depend on the mode. Between two
points lies a segment: one tensor in, one tensor out. Sizes that would cross a point are written into the segment, as constants or as
multiples of the batch, so a segment holds for one size of picture; the same network cut at another size has the same points.
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from nas.errors import GraphError
from nas.graphs.operators import Shape

Layout = Literal["map", "map-last", "tokens", "vector"]
"""(n, c, h, w), (n, h, w, c), (n, tokens, c), (n, c)."""

_IN_PLACE: Mapping[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
    operator.itruediv: operator.truediv,
}
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.ConvTranspose2d)


@dataclass(frozen=True)
class Point:
    """A place through which every path goes.

    Attributes:
        node: Name of the node that makes the tensor.
        label: Where it stands: the module's path, with the function where a function makes it.
        shape: At batch 1.
        layout: What the axes are.
        block_end: Whether a block ends or begins here: a place where stitches make sense.
    """

    node: str
    label: str
    shape: Shape
    layout: Layout
    block_end: bool


@dataclass(frozen=True)
class Cuts:
    """A traced network with its points.

    Attributes:
        module: The traced copy; its parameters are its own.
        points: In order; the network's output is the last.
        input_shape: (1, 3, h, w) for which they hold.
    """

    module: fx.GraphModule
    points: tuple[Point, ...]
    input_shape: Shape
    _observed: Mapping[str, tuple[Any, Any]]
    _segments: dict[tuple[int, int], fx.GraphModule] = field(default_factory=dict)

    def segment(self, first: int, last: int) -> fx.GraphModule:
        """Return what lies between two points as a module that shares parameters with `module`.

        Args:
            first: Index of the point before it; −1 for the network's input.
            last: Index of the point at its end; above `first`.

        Raises:
            GraphError: A value other than a size crosses a point.
        """
        if (first, last) not in self._segments:
            self._segments[first, last] = _Extraction(self, first, last).run()
        return self._segments[first, last]

    @property
    def layer_macs(self) -> float:
        """Multiply-adds of convolutions and linear layers for one picture; what attention multiplies beside them is left out."""
        total = 0.0
        for node in self.module.graph.nodes:
            layer = self.module.get_submodule(str(node.target)) if node.op == "call_module" else None
            made = self._observed[node.name][0]
            if isinstance(layer, _WEIGHTED) and isinstance(made, Tensor):
                total += layer.weight.numel() * made.numel() / (_BATCHES[0] * layer.weight.shape[0])
        return total

    def shape_before(self, first: int) -> Shape:
        """Return the shape at batch 1 of what enters a segment after a point; see `segment`."""
        return self.input_shape if first < 0 else self.points[first].shape


class _Tracer(fx.Tracer):
    """Keeps whole what timm and torchvision mark as leaves, and every norm."""

    def __init__(self) -> None:
        functions, modules, packages = _leaves()
        super().__init__(autowrap_functions=functions, autowrap_modules=packages)
        self._leaf_modules = modules

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """See `torch.fx.Tracer.is_leaf_module`."""
        return isinstance(m, (*self._leaf_modules, *_NORMS, *_WEIGHTED)) or super().is_leaf_module(m, module_qualified_name)


def _leaves() -> tuple[tuple[Any, ...], tuple[type[nn.Module], ...], tuple[Any, ...]]:
    """Return leaf functions, leaf modules and packages of leaf functions of the libraries that are imported."""
    functions: list[Any] = []
    modules: list[type[nn.Module]] = []
    packages: list[Any] = [math]
    if "timm" in sys.modules:
        from timm.layers import get_notrace_functions, get_notrace_modules

        functions += [function for function in get_notrace_functions() if callable(function)]
        modules += get_notrace_modules()
    if "torchvision" in sys.modules:
        import torchvision

        packages.append(torchvision.ops)
        modules += [kind for kind in vars(torchvision.ops).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    return tuple(functions), tuple(modules), tuple(packages)


def trace_symbolically(module: nn.Module, name: str = "") -> fx.GraphModule:
    """Return a traced deep copy of a module in evaluation mode, without operators in place.

    Raises:
        GraphError: Its control flow depends on values, or it does not trace for another reason.
    """
    copied = copy.deepcopy(module).eval()
    if isinstance(copied, fx.GraphModule):
        traced = copied
    else:
        try:
            graph = _Tracer().trace(copied, _defaults(copied))
            _drop_defaults(graph)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise GraphError(
                f"network {name or type(module).__name__}: does not trace, got: {reason}. Do this: remove control flow that depends on values, "
                "or export it with torch.export and give the .pt2 file."
            ) from error
        traced = fx.GraphModule(copied, graph)
    for part in traced.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # type: ignore[assignment]
    for node in traced.graph.nodes:
        if node.op == "call_function" and node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
        if node.kwargs.get("inplace") is True:
            node.kwargs = {**node.kwargs, "inplace": False}
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Return the arguments of a forward pass beside the pictures, at their defaults."""
    parameters = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _drop_defaults(graph: fx.Graph) -> None:
    """Remove inputs that were traced at their defaults, with the checks of them."""
    for node in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        checks, stack = [node], [node]
        while stack:
            for user in stack.pop().users:
                checks.append(user)
                stack.append(user)
        if all(check is node or check.op == "call_function" for check in checks):
            for check in reversed(checks):
                graph.erase_node(check)


def cut(module: nn.Module, input_shape: Sequence[int], name: str = "") -> Cuts:
    """Trace a network and find its points.

    Args:
        module: (n, 3, h, w) -> (n, classes); left as it is. A traced one is taken as it is, and shares its parameters.
        input_shape: (1, 3, h, w).
        name: For messages.

    Raises:
        GraphError: It does not trace, does not run on that shape, or gives more than one tensor.
    """
    traced = module if isinstance(module, fx.GraphModule) and "cuts" in module.meta else trace_symbolically(module, name)
    traced.meta["cuts"] = True
    shape = (1, *input_shape[1:])
    observed = _observe(traced, shape, name)
    order = _dependent(traced)
    if len([node for node in traced.graph.nodes if node.op == "placeholder"]) != 1 or not isinstance(observed[order[-1].name][0], Tensor):
        raise GraphError(f"network {name}: takes or gives more than one tensor. Expected pictures in, one tensor out.")
    dominators = [node for node in _dominators(order, observed) if _is_point(observed[node.name])]
    ends = _block_ends(traced, order, dominators)
    points = []
    for node in dominators:
        made = (1, *observed[node.name][0].shape[1:])
        points.append(Point(node.name, label_of(node), made, _layout(made, shape), node.name in ends))
    return Cuts(traced, tuple(points), shape, observed)


class _Observer(fx.Interpreter):
    """Runs a traced module and keeps what every node gives: of tensors the shape and type alone."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.results: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; a norm keeps the shape, which is known without working through it."""
        leaf = self.module.get_submodule(str(n.target)) if n.op == "call_module" else None
        if isinstance(leaf, _NORMS) and len(n.args) == 1 and not n.kwargs:
            result: Any = torch.empty_like(self.fetch_args_kwargs_from_env(n)[0][0])
        else:
            result = super().run_node(n)
        self.results[n.name] = _light(result)
        return result


def _light(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, tuple | list):
        return type(value)([_light(item) for item in value])
    return value


_BATCHES = (2, 3)  # two sizes, neither 1, that tell the axis of the batch from others


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a logger from printing the trace of a failure that is said in one line."""
    loud = logging.getLogger(name)
    level = loud.level
    loud.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        loud.setLevel(level)


def _observe(traced: fx.GraphModule, shape: Shape, name: str) -> dict[str, tuple[Any, Any]]:
    """Return what every node gives at two sizes of batch."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    results = []
    for batch in _BATCHES:
        observer = _Observer(traced)
        try:
            with _quiet("torch._subclasses.fake_tensor"), FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                observer.run(torch.empty(batch, *shape[1:]))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise GraphError(
                f"network {name}: does not run on an input of {shape}, got: {reason}. Do this: give another resolution."
            ) from error
        results.append(observer.results)
    return {key: (results[0][key], results[1][key]) for key in results[0]}


def _dependent(traced: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that depend on the input and on which the output depends, in order; the output's operand is the last."""
    reached: set[fx.Node] = set()
    for node in traced.graph.nodes:
        if node.op == "placeholder" or any(source in reached for source in node.all_input_nodes):
            reached.add(node)
    (result,) = [node for node in traced.graph.nodes if node.op == "output"]
    wanted, stack = {result}, [result]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in wanted:
                wanted.add(source)
                stack.append(source)
    return [node for node in traced.graph.nodes if node in reached and node in wanted and node.op != "output"]


def _dominators(order: Sequence[fx.Node], observed: Mapping[str, tuple[Any, Any]]) -> Iterator[fx.Node]:
    """Yield the nodes through which every path of tensors goes."""
    place = {node: i for i, node in enumerate(order)}
    last = {node: max((place[user] for user in node.users if user in place), default=len(order)) for node in order}
    reach = -1  # the furthest reader of a tensor that was made before
    for i, node in enumerate(order):
        if reach <= i and isinstance(observed[node.name][0], Tensor) and i:
            yield node
        if not _is_size(observed[node.name][0]):
            reach = max(reach, last[node])


def _is_size(value: Any) -> bool:
    """Return whether a value is made of plain numbers, which can be written down."""
    if isinstance(value, tuple | list):
        return all(_is_size(item) for item in value)
    return value is None or isinstance(value, int | float | bool | str | torch.dtype | torch.device | slice)


def _is_point(observed: tuple[Any, Any]) -> bool:
    first, second = observed
    sizes = [tuple(first.shape), tuple(second.shape)]
    return first.is_floating_point() and 2 <= first.ndim <= 4 and [s[0] for s in sizes] == list(_BATCHES) and sizes[0][1:] == sizes[1][1:]


def _layout(shape: Shape, picture: Shape) -> Layout:
    """Return what the axes of a tensor are: the two whose sizes go with the picture's are its height and width."""
    if len(shape) == 2:
        return "vector"
    if len(shape) == 3:
        return "tokens"
    ratio = picture[2] / picture[3]
    first = abs(math.log(shape[2] / shape[3] / ratio))
    last = abs(math.log(shape[1] / shape[2] / ratio))
    return "map-last" if last < first or (last == first and shape[3] > shape[1] and shape[1] == shape[2] != shape[3]) else "map"


def label_of(node: fx.Node) -> str:
    """Return where a node stands in the network: its module's path, and the function where it is one."""
    if node.op in ("call_module", "get_attr"):
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack and isinstance(stack[-1], tuple) else ""
    short = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{path}.{short}".strip(".")


def path_of(node: fx.Node) -> str:
    """Return the path of the module in whose forward pass a node is called; of a module, its own."""
    return str(node.target) if node.op == "call_module" else label_of(node).rpartition(".")[0]


def _block_ends(traced: fx.GraphModule, order: Sequence[fx.Node], dominators: Sequence[fx.Node]) -> set[str]:
    """Return the names of points at which a block ends or begins.

    A block is a module with two weighted layers or more, one tensor in and one out. What holds numbered blocks (a stage) is looked into, a
    block is not, unless it has several tensors at its end. A graph without such modules ends a block after each sum.
    """
    spans: dict[str, list[int]] = {}
    for i, node in enumerate(order):
        parts = path_of(node).split(".")
        for depth in range(1, len(parts) + 1):
            spans.setdefault(".".join(parts[:depth]), []).append(i)
    weighted = [_weighted_layers(traced, node) for node in order]
    groups = {path for path, span in spans.items() if sum(weighted[i] for i in span) >= 2}
    place = {node: i for i, node in enumerate(order)}
    at = [place[node] for node in dominators]
    ends: set[str] = set()
    for path in _blocks("", groups, {path for path in groups if spans[path][-1] in at}):
        first, last = spans[path][0], spans[path][-1]
        before = [node for node in dominators if place[node] < first]
        ends |= {order[last].name, *(node.name for node in before[-1:])}
    if len(ends) < 2:
        ends = {node.name for node in dominators if node.target in (operator.add, torch.add) or str(node.target) == "aten.add.Tensor"}
    return ends


def _weighted_layers(traced: fx.GraphModule, node: fx.Node) -> int:
    if node.op != "call_module":
        return 0
    return sum(isinstance(part, _WEIGHTED) for part in traced.get_submodule(str(node.target)).modules())


def _blocks(path: str, groups: set[str], closed: set[str]) -> list[str]:
    """Return the blocks in a module; see `_block_ends`.

    Args:
        path: Of the module; empty for the network.
        groups: Paths of modules with several weighted layers.
        closed: Those that end at a point.
    """
    inside = [other for other in groups if other.startswith(f"{path}.")] if path else list(groups)
    within = [other.removeprefix(f"{path}.") if path else other for other in inside]
    stage = not path or any(part[-1:].isdigit() for other in within for part in other.split(".")[:2])
    if path in closed and not stage:
        return [path]
    children = [other for other in inside if not any(other.startswith(f"{between}.") for between in inside)]
    blocks = [block for child in children for block in _blocks(child, groups, closed)]
    return blocks or ([path] if path in closed else [])


class _Extraction:
    """Builds one segment."""

    def __init__(self, cuts: Cuts, first: int, last: int) -> None:
        if not -1 <= first < last < len(cuts.points):
            raise GraphError(f"segment: no such points, got {first} to {last}. Expected −1 ≤ first < last < {len(cuts.points)}.")
        self.cuts, self.graph = cuts, fx.Graph()
        nodes = {node.name: node for node in cuts.module.graph.nodes}
        self.order = _dependent(cuts.module)
        place = {node: i for i, node in enumerate(self.order)}
        self.entry = self.order[0] if first < 0 else nodes[cuts.points[first].node]
        self.exit = nodes[cuts.points[last].node]
        self.inside = {node for node in self.order if place[self.entry] < place[node] <= place[self.exit]}
        self.made: dict[fx.Node, Any] = {}
        self._batch: fx.Node | None = None

    def run(self) -> fx.GraphModule:
        self.made[self.entry] = self.graph.placeholder("x")
        wanted = self._wanted()
        for node in self.cuts.module.graph.nodes:
            if node in wanted and node is not self.entry:
                copied = self.graph.node_copy(node, self._source)
                self.made[node] = copied
        self.graph.output(self.made[self.exit])
        module = fx.GraphModule(self.cuts.module, self.graph)
        module.train(self.cuts.module.training)
        return module

    def _wanted(self) -> set[fx.Node]:
        """Return the nodes to copy: those inside, and what depends on weights alone."""
        wanted, stack = {self.exit}, [self.exit]
        while stack:
            for source in stack.pop().all_input_nodes:
                if source not in wanted and (source in self.inside or not self._depends(source)):
                    wanted.add(source)
                    stack.append(source)
        return wanted

    def _depends(self, node: fx.Node) -> bool:
        return node in self._dependents

    @property
    def _dependents(self) -> set[fx.Node]:
        if not hasattr(self, "_cached"):
            self._cached = set(self.order)
        return self._cached

    def _source(self, node: fx.Node) -> Any:
        """Return what stands for a node of the network: its copy, or the number that it gives."""
        if node in self.made:
            return self.made[node]
        first, second = self.cuts._observed[node.name]
        if not _is_size(first):
            raise GraphError(f"segment: {label_of(node)} crosses the point {label_of(self.entry)}.")
        return self._written(first, second, node)

    def _written(self, first: Any, second: Any, node: fx.Node) -> Any:
        if isinstance(first, tuple | list):
            items = [self._written(a, b, node) for a, b in zip(first, second, strict=True)]
            return items if isinstance(first, list) else tuple(items)
        if first == second:
            return first
        factor, rest = divmod(first, _BATCHES[0])
        if rest or second != factor * _BATCHES[1]:
            raise GraphError(f"segment: {label_of(node)} is no multiple of the batch and crosses the point {label_of(self.entry)}.")
        if self._batch is None:
            with self.graph.inserting_after(self.made[self.entry]):
                self._batch = self.graph.call_method("size", (self.made[self.entry], 0))
        if factor == 1:
            return self._batch
        return self.graph.call_function(operator.mul, (self._batch, factor))
