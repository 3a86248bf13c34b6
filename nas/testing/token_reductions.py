"""The contract of a token reduction, as checks that take one and raise `AssertionError` where it is broken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.graphs.graph import Graph, GraphBuilder
from nas.graphs.onnx_session import onnx_session
from nas.spaces.space import Resolution
from nas.spaces.token_reduction import BlockSize, LayeredReduction, TokenReduction
from nas.testing.operators import count, exported_operators, randomise, relative_error

if TYPE_CHECKING:
    from torch import Tensor, nn

CHANNELS, HEADS, HEAD_DIM, EXPANSION = 32, 2, 16, 3  # by hand
GRIDS: tuple[Resolution, ...] = ((14, 14), (7, 7), (12, 12), (16, 16), (9, 13))  # by hand


def stages(method: TokenReduction, grid: Resolution, channels: int = CHANNELS) -> list[tuple[Graph, nn.Module, tuple[int, ...]]]:
    """Return the graph and the module of the reduction and, of a layered one, of a block and of the last; with their input's shape."""
    shape = (1, 1 + grid[0] * grid[1], channels)
    builder, block = GraphBuilder(), BlockSize(grid, HEADS, HEAD_DIM, EXPANSION * channels)
    graph = builder.build(method.lower(builder, builder.input(shape), block))
    forms: list[tuple[Graph, nn.Module, tuple[int, ...]]] = [(graph, method.build(channels, block), shape)]
    if not isinstance(method, LayeredReduction):
        return forms
    shape = (1, 1 + method.remaining(grid), channels)
    for last in (False, True):
        builder = GraphBuilder()
        graph = builder.build(method.lower_block(builder, builder.input(shape), block, last=last))
        forms.append((graph, method.build_block(channels, block, last=last), shape))
    return forms


def check_shapes_and_counts(method: TokenReduction) -> None:
    """Shapes, parameters and MACs of the module, and of the module traced, are those of the graph; the tokens left are those announced."""
    import torch

    from nas.graphs.frontends.torch_module import trace_module
    from nas.graphs.passes import normalise

    for grid in GRIDS:
        with torch.device("meta"):
            made = stages(method, grid)
        first = made[0][0]
        assert first.values[first.outputs[0]].shape == (1, 1 + method.remaining(grid), CHANNELS), (
            f"{method} at {grid}: other tokens are left"
        )
        for graph, module, shape in made:
            assert not graph.unknown, f"{method}: operators outside the vocabulary, {graph.unknown}"
            with torch.device("meta"):  # a module without weights does not say where it is
                params, macs = count(module.eval(), shape)
            assert (graph.cost.params, graph.cost.macs) == (params, macs), (
                f"{method} at {grid}: graph {graph.cost.params} parameters, {graph.cost.macs} MACs; module {params}, {macs}"
            )
            with torch.no_grad():
                y = module(torch.zeros(2, *shape[1:], device="meta"))
            assert tuple(y.shape[1:]) == graph.values[graph.outputs[0]].shape[1:], (
                f"{method} at {grid}: the module's output has another shape"
            )
            if grid == GRIDS[0]:
                traced = trace_module(module, shape)
                assert (traced.cost.params, traced.cost.macs) == (params, macs), f"{method}: the module, traced, counts {traced.cost}"
                assert not traced.unknown, f"{method}: the module, traced, has operators outside the vocabulary, {traced.unknown}"
                ours, theirs = (Counter(op.op for op in normalise(either).operators) for either in (graph, traced))
                assert ours == theirs, (
                    f"{method}: the graph has {dict(ours - theirs)} that the module lacks, which has {dict(theirs - ours)}"
                )


def check_numbers(method: TokenReduction, grid: Resolution = (9, 13)) -> None:
    """Every parameter receives a gradient, and a picture's tokens do not depend on the others of its batch."""
    import torch

    for _, module, shape in stages(method, grid):
        generator = torch.Generator().manual_seed(4)
        x = torch.randn(3, *shape[1:], generator=generator, dtype=torch.float64, requires_grad=True)
        y = randomise(module.double(), 3)(x)
        y.backward(torch.randn(y.shape, generator=generator, dtype=torch.float64))
        for name, value in [("input", x), *module.named_parameters()]:
            assert value.grad is not None, f"{method}: no gradient reaches {name}"
            assert bool(value.grad.isfinite().all() and value.grad.any()), f"{method}: the gradient of {name} is zero or not finite"
        with torch.no_grad():
            error = relative_error(module.eval()(x)[1:2], module(x[1:2]))
        assert error <= 1e-12, f"{method}: a picture's tokens depend on its batch, by {error:.1e}"


def check_elastic(method: TokenReduction) -> None:
    """Every parameter at `CHANNELS` is a part of the one of the same name at twice as many, and none depends on the grid."""
    for narrow, wide, other in zip(
        *(stages(method, g, c) for g, c in (((7, 7), CHANNELS), ((7, 7), 2 * CHANNELS), ((9, 13), CHANNELS))), strict=True
    ):
        small, large, moved = (dict(made[1].named_parameters()) for made in (narrow, wide, other))
        assert small.keys() == large.keys() == moved.keys(), f"{method}: other parameters at another width or grid"
        for name, parameter in small.items():
            assert all(a <= b for a, b in zip(parameter.shape, large[name].shape, strict=True)), (
                f"{method}: {name} shrinks as the width grows"
            )
            assert parameter.shape == moved[name].shape, f"{method}: {name} depends on the grid"


def check_onnx(method: TokenReduction, path: Path, grid: Resolution, tolerance: float = 1e-4) -> None:
    """The exported module gives the same tokens in ONNX Runtime; the graph, written with random weights, runs unless it is red."""
    import onnx
    import torch

    from nas.graphs.onnx_writer import write_onnx

    for i, (graph, module, shape) in enumerate(stages(method, grid)):
        module = randomise(module, 5 + i).eval()
        x: Tensor = torch.randn(*shape, generator=torch.Generator().manual_seed(6))
        with torch.no_grad():
            expected = module(x)
            torch.onnx.export(module, (x,), str(path), dynamo=True, opset_version=18, verbose=False, external_data=False)
        session = onnx_session(path)
        (answer,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        error = relative_error(torch.from_numpy(answer), expected)
        assert error <= tolerance, f"{method} at {grid}: ONNX Runtime differs by {error:.1e}"
        model = onnx.load(str(path), load_external_data=False)
        red = {"TopK", "GatherElements", "GatherND"} & exported_operators(model.graph, model.graph.output[0].name)
        assert method.npu_grade == "red" or not red, f"{method}: graded {method.npu_grade}, exports {', '.join(sorted(red))}"
        if method.npu_grade != "red":
            written = path.with_stem(f"{path.stem}_written{i}")
            write_onnx(graph, written, np.random.default_rng(7))
            session = onnx_session(written)
            (answer,) = session.run(None, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})
            assert answer.shape == tuple(expected.shape), f"{method} at {grid}: the written graph gives {answer.shape}"
