"""The contract of an operator family, as checks that take an operator and raise `AssertionError` where it is broken.

A third party runs them over its own families as ``tests/contracts/test_operators.py`` does over the registered ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nas.errors import UsageError
from nas.graphs.graph import Graph, GraphBuilder
from nas.graphs.onnx_session import onnx_session
from nas.spaces.operator_family import OperatorFamily, fuse
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import Tensor, nn

Made = TypeVar("Made")

CHANNELS = 32  # by hand
RESOLUTIONS: tuple[Resolution, ...] = ((56, 56), (28, 28), (14, 14), (7, 7), (9, 13))  # by hand

PLAIN = frozenset(
    [
        # the catalogue's own list
        *("Conv", "Gemm", "MatMul", "Add", "Mul", "Div", "Sub", "Softmax", "Reshape", "Transpose", "Slice", "Concat", "Pad"),
        *("ReduceMean", "AveragePool", "Sigmoid", "Relu", "HardSwish", "LayerNormalization"),
        *("Erf", "Gelu"),  # how the catalogue says that GELU is written
        *("Split", "Identity", "Constant", "Squeeze", "Unsqueeze"),  # a Slice each, or nothing at run time
        *("GlobalAveragePool", "HardSigmoid"),  # rule R1 of its integer-only section
    ]
)
"""Operators that the catalogue calls plain: those that an operator graded ``green`` may export."""


def settings(family: type[OperatorFamily], rng: np.random.Generator, count: int) -> tuple[OperatorFamily, ...]:
    """Return the default setting and `count` − 1 drawn from ``choices()``, without repetition (fewer where there are fewer)."""
    choices = family.choices()
    drawn_settings = [family()]
    for _ in range(20 * count):
        if len(drawn_settings) >= count:
            break
        drawn = family(**{knob: values[rng.integers(len(values))] for knob, values in choices.items()})
        if drawn not in drawn_settings:
            drawn_settings.append(drawn)
    return tuple(drawn_settings)


def check_searched(family: type[OperatorFamily], stages: int = 4) -> None:
    """Check that what is searched in each stage, widely or not, is among ``choices()``, and so is what is usual."""
    offered = family.choices()
    for stage in range(stages):
        for wide in (False, True):
            for knob, values in family.searched(stage, wide=wide).items():
                assert values, f"stage {stage}: no value of {knob}"
                assert set(values) <= set(offered.get(knob, ())), f"stage {stage}: {knob} takes {values}, choices() has {offered.get(knob)}"
    for knob, values in family.usual.items():
        assert set(values) <= set(offered.get(knob, ())), f"usual: {knob} takes {values}, choices() has {offered.get(knob)}"


def pairs(family: type[OperatorFamily]) -> Iterator[OperatorFamily]:
    """Yield, for every two knobs of ``choices()``, all their values together, the other knobs at their defaults; without repetition."""
    from itertools import combinations, product

    choices, seen = family.choices(), set[OperatorFamily]()
    for knobs in combinations(choices, 2) if len(choices) > 1 else [tuple(choices)]:
        for values in product(*(choices[knob] for knob in knobs)):
            setting = family(**dict(zip(knobs, values, strict=True)))
            if setting not in seen:
                seen.add(setting)
                yield setting


def unfilled() -> AbstractContextManager[object]:
    """Return a context in which networks are built with parameters as they come from memory: nothing is drawn that a check never reads, or fills itself."""
    from torch import nn
    from torch.overrides import TorchFunctionMode

    class Unfilled(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, _types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            name = getattr(function, "__name__", "")
            in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
            return args[0] if in_place and args and isinstance(args[0], nn.Parameter) else function(*args, **(kwargs or {}))

    return Unfilled()


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and running statistic a random value of order one, so that nothing passes for being zero.

    Returns:
        `module` itself.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
        for part in module.modules():
            if (
                isinstance(part, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d)
                and part.running_mean is not None
                and part.running_var is not None
            ):
                part.running_mean.copy_(torch.randn(part.running_mean.shape, generator=generator))
                part.running_var.copy_(torch.rand(part.running_var.shape, generator=generator) + 0.5)
    return module


def lowered_and_built(operator: OperatorFamily, channels: int, resolution: Resolution) -> tuple[Graph, nn.Module] | None:
    """Return the graph and the training form at that size; None where the operator does not take it.

    `lower` and `build` must agree on that, and refuse with a `UsageError` that says what it got.
    """
    graph = _or_refusal(lambda: lower(operator, channels, resolution))
    module = _or_refusal(lambda: operator.build(channels, resolution))
    refusals = [text for text in (graph, module) if isinstance(text, str)]
    assert len(refusals) != 1, f"{operator}: lower and build disagree on {channels} channels at {resolution}."
    for text in refusals:
        assert any(str(got) in text for got in (channels, *resolution)), f"{operator}: a refusal that does not say what it got, {text!r}"
    return None if isinstance(graph, str) or isinstance(module, str) else (graph, module)


def accepts(operator: OperatorFamily, channels: int, resolution: Resolution) -> bool:
    """Return whether the operator takes that size."""
    return lowered_and_built(operator, channels, resolution) is not None


def _or_refusal(attempt: Callable[[], Made]) -> Made | str:
    try:
        return attempt()
    except UsageError as error:
        return str(error)


def lower(operator: OperatorFamily, channels: int, resolution: Resolution) -> Graph:
    """Return the operator's graph at batch 1."""
    builder = GraphBuilder(type(operator).__name__)
    return builder.build(operator.lower(builder, builder.input((1, channels, *resolution))))


def count(module: nn.Module, shape: Sequence[int]) -> tuple[int, int]:
    """Return parameters, and MACs of convolutions and matrix products as PyTorch's own counter sees them."""
    return _run(module, shape)[:2]


def _run(module: nn.Module, shape: Sequence[int]) -> tuple[int, int, tuple[int, ...]]:
    """Return parameters, MACs and the shape of the output."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        y: Tensor = module(torch.zeros(*shape, device=next((p.device for p in module.parameters()), None)))
    return sum(p.numel() for p in module.parameters()), counter.get_total_flops() // 2, tuple(y.shape)


def check_shape_and_counts(
    operator: OperatorFamily, channels: int = CHANNELS, resolutions: Sequence[Resolution] = RESOLUTIONS, *, traced: bool = True
) -> None:
    """Output shape, parameters and MACs of the fused module are those of the graph, at every size that it takes.

    At the first of them, unless `traced` is false, a compiler makes the same operators of both, and the training form traces too. The module is
    on the meta device: shapes and counts, no numbers.
    """
    import torch

    taken = 0
    for resolution in resolutions:
        with torch.device("meta"):
            made = lowered_and_built(operator, channels, resolution)
            if made is None:
                continue
            graph, module, trained = made[0], fuse(made[1]), made[1]
        taken += 1
        shape = (1, channels, *resolution)
        assert graph.values[graph.outputs[0]].shape == shape, f"{operator} at {resolution}: the graph's output has another shape"
        assert not graph.unknown, f"{operator}: operators outside the vocabulary, {graph.unknown}"
        params, macs, output = _run(module, shape)
        assert output == shape, f"{operator} at {resolution}: the module's output has another shape"
        assert (graph.cost.params, graph.cost.macs) == (params, macs), (
            f"{operator} at {resolution}: graph {graph.cost.params} parameters, {graph.cost.macs} MACs; module {params}, {macs}"
        )
        if traced and taken == 1:
            check_trace(operator, graph, module, trained)
    assert taken, f"{operator}: takes none of {resolutions}"


def check_trace(operator: OperatorFamily, graph: Graph, module: nn.Module, trained: nn.Module) -> None:
    """The fused module, traced, counts and compiles as the graph does; the training form traces too."""
    from nas.graphs.frontends.torch_module import trace_module
    from nas.graphs.passes import normalise

    shape = graph.values[graph.outputs[0]].shape
    traced = trace_module(module, shape)
    assert (traced.cost.params, traced.cost.macs) == (graph.cost.params, graph.cost.macs), (
        f"{operator}: the module, traced, counts {traced.cost}"
    )
    assert not traced.unknown, f"{operator}: the module, traced, has operators outside the vocabulary, {traced.unknown}"
    unknown = trace_module(trained, shape).unknown
    assert not unknown, f"{operator}: the training form, traced, has operators outside the vocabulary, {unknown}"
    ours, theirs = (Counter(op.op for op in normalise(either).operators) for either in (graph, traced))
    assert ours == theirs, f"{operator}: the graph has {dict(ours - theirs)} that the module lacks, which has {dict(theirs - ours)}"


def check_fuse(operator: OperatorFamily, channels: int, resolution: Resolution, tolerance: float = 1e-10) -> None:
    """The deploy form equals the training form in float64, and fusing changes neither the module nor its mode."""
    import torch

    module = randomise(operator.build(channels, resolution).double(), 1)
    x = torch.randn(2, channels, *resolution, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fused = fuse(module)
    assert module.training, f"{operator}: fusing changed the module's mode"
    assert before.keys() == module.state_dict().keys(), f"{operator}: fusing changed the module"
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items()), f"{operator}: fusing changed the module"
    with torch.no_grad():
        expected, got = module.eval()(x), fused(x)
    assert got.shape == expected.shape == x.shape, f"{operator}: the output of a batch of two has another shape"
    error = relative_error(got, expected)
    assert error <= tolerance, f"{operator}: the deploy form differs by {error:.1e}"


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference by the largest magnitude expected, or by one where that is less."""
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1.0))


def check_gradients(operator: OperatorFamily, channels: int, resolution: Resolution) -> None:
    """Every parameter, and the input, receives a gradient that is finite and not all zero."""
    import torch

    module = randomise(operator.build(channels, resolution), 3).train()
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, channels, *resolution, generator=generator, requires_grad=True)
    y = module(x)
    y.backward(torch.randn(y.shape, generator=generator))
    for name, parameter in [("input", x), *module.named_parameters()]:
        assert parameter.grad is not None, f"{operator}: no gradient reaches {name}"
        assert bool(parameter.grad.isfinite().all()), f"{operator}: the gradient of {name} is not finite"
        assert bool(parameter.grad.any()), f"{operator}: the gradient of {name} is zero"


def check_batch_independence(operator: OperatorFamily, channels: int, resolution: Resolution) -> None:
    """In evaluation mode, an image's output does not depend on the others of its batch."""
    import torch

    module = randomise(operator.build(channels, resolution).double(), 5).eval()
    x = torch.randn(3, channels, *resolution, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    with torch.no_grad():
        error = relative_error(module(x)[1:2], module(x[1:2]))
    assert error <= 1e-12, f"{operator}: an image's output depends on its batch, by {error:.1e}"


def check_graph_runs(operator: OperatorFamily, channels: int, resolution: Resolution, path: Path) -> None:
    """The graph, written as a file with random weights as `measure` does, runs in ONNX Runtime; red operators may have no file.

    Args:
        operator: What is lowered.
        channels: Of the map.
        resolution: Of the map.
        path: Where the file goes.
    """
    from nas.graphs.onnx_writer import write_onnx

    if operator.grade == "red":
        return
    write_onnx(lower(operator, channels, resolution), path, np.random.default_rng(11))
    session = onnx_session(path)
    x = np.zeros((1, channels, *resolution), np.float32)
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    assert y.shape == x.shape, f"{operator}: the written graph gives {y.shape}"


def check_memory_format(operator: OperatorFamily, channels: int, resolution: Resolution) -> None:
    """A map laid out channels last in memory, as an operator before this one may leave it, gives the same output."""
    import torch

    module = randomise(operator.build(channels, resolution).double(), 9).eval()
    x = torch.randn(2, channels, *resolution, generator=torch.Generator().manual_seed(10), dtype=torch.float64)
    with torch.no_grad():
        error = relative_error(module(x.to(memory_format=torch.channels_last)), module(x))
    assert error <= 1e-12, f"{operator}: the output depends on the layout of its input in memory, by {error:.1e}"


def check_elastic(operator: OperatorFamily, channels: int, resolution: Resolution) -> None:
    """Every parameter of the operator at `channels` is a part of the one of the same name at twice as many."""
    narrow, wide = operator.build(channels, resolution), operator.build(2 * channels, resolution)
    small, large = dict(narrow.named_parameters()), dict(wide.named_parameters())
    assert small.keys() == large.keys(), f"{operator}: other parameters at another width, {sorted(small.keys() ^ large.keys())}"
    for name, parameter in small.items():
        assert parameter.ndim == large[name].ndim, f"{operator}: {name} has another rank at another width"
        assert all(a <= b for a, b in zip(parameter.shape, large[name].shape, strict=True)), (
            f"{operator}: {name} shrinks as the width grows"
        )
    for path, part in wide.named_modules():
        for name, parts in getattr(part, "elastic_parts", {}).items():
            stacked = getattr(part, name, None)
            assert stacked is None or stacked.shape[0] % parts == 0, f"{operator}: {path}.{name} is not {parts} equal parts"


def check_onnx(
    cases: Mapping[str, tuple[OperatorFamily, int, Resolution]], path: Path, tolerance: float = 1e-4, *, scripted: bool = False
) -> None:
    """Many fused operators, exported together, give the same outputs in ONNX Runtime; green ones export plain operators only.

    Args:
        cases: Operator, channels and resolution by a label.
        path: Where the file goes.
        tolerance: On the largest difference by the largest magnitude.
        scripted: Write the file by PyTorch's exporter of traced scripts, which takes a tenth of the time of the one that the product uses, cannot
            write Fourier transforms, and leaves operators that the other folds: what green ones export is then not looked at.
    """
    import warnings

    import onnx
    import torch

    generator = torch.Generator().manual_seed(7)
    shapes = list(dict.fromkeys((channels, *resolution) for _, channels, resolution in cases.values()))
    inputs = tuple(torch.randn(1, *shape, generator=generator) for shape in shapes)
    which = [shapes.index((channels, *resolution)) for _, channels, resolution in cases.values()]
    modules = [fuse(randomise(op.build(channels, resolution), 8 + i)) for i, (op, channels, resolution) in enumerate(cases.values())]

    class Gallery(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(modules)

        def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
            return tuple(part(xs[i]) for i, part in zip(which, self.parts, strict=True))

    gallery = Gallery().eval()
    with torch.no_grad():
        expected = gallery(*inputs)
        with warnings.catch_warnings():
            if scripted:
                warnings.simplefilter("ignore")  # that it will be replaced, and that sizes become constants, as they shall
            torch.onnx.export(gallery, inputs, str(path), dynamo=not scripted, opset_version=18, verbose=False, external_data=False)
    session = onnx_session(path)
    feeds = {entry.name: x.numpy() for entry, x in zip(session.get_inputs(), inputs, strict=True)}
    faults = [
        f"{label}: ONNX Runtime differs by {error:.1e}"
        for label, got, want in zip(cases, session.run(None, feeds), expected, strict=True)
        if not (error := relative_error(torch.from_numpy(got), want)) <= tolerance
    ]
    model = onnx.load(str(path), load_external_data=False)
    for (label, (operator, _, _)), output in zip(cases.items(), model.graph.output, strict=True):
        if not scripted and operator.grade == "green" and (foreign := exported_operators(model.graph, output.name) - PLAIN):
            faults.append(f"{label}: graded green, exports {', '.join(sorted(foreign))}")
    assert not faults, "\n".join(faults)


def exported_operators(graph: object, output: str) -> set[str]:
    """Return the operator types of an ONNX graph on which one of its outputs depends."""
    made = {name: node for node in graph.node for name in node.output}  # type: ignore[attr-defined]
    kinds, pending, seen = set(), [output], set()
    while pending:
        name = pending.pop()
        if name in made and name not in seen:
            seen.add(name)
            kinds.add(made[name].op_type)
            pending += made[name].input
    return kinds
