"""The contract suite of search spaces: functions that take a space and fail with an assertion where it breaks the contract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from nas.errors import NasError, UsageError
from nas.graphs.graph import Graph, join
from nas.spaces.architecture import Architecture
from nas.spaces.chain import ChainSpace
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_space
from nas.spaces.operator_family import fuse
from nas.spaces.space import SearchSpace, spaces
from nas.testing.operators import unfilled

SAMPLES = 6  # by hand


def instances() -> Iterator[str]:
    """Yield the name of every registered space, presets included; a space of trained networks is one only with a user's anchors."""
    for family, kind in spaces.items():
        if issubclass(kind, ChainSpace):
            continue
        yield from [f"{family}-{preset}" if preset else family for preset in kind.presets or ("",)]


def samples(space: SearchSpace, count: int = SAMPLES, seed: int = 0) -> list[Architecture]:
    """Return reproducible members."""
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(count)]


def check_sampling(space: SearchSpace) -> None:
    """Samples are members, follow from the seed alone, and differ where there is a choice."""
    first = samples(space)
    for architecture in first:
        space.validate(architecture)
    assert first == samples(space)
    assert space.size() == 1 or len(set(samples(space, 20))) > 1


def check_encoding(space: SearchSpace) -> None:
    """Encodings have a fixed length, stay in range, and decode to the architecture; JSON does too."""
    for architecture in samples(space):
        codes = space.encode(architecture)
        assert codes.shape == (len(space.choices),)
        assert all(0 <= code < len(choice.values) for code, choice in zip(codes, space.choices, strict=True))
        assert space.decode(codes) == architecture
        assert Architecture.from_json(architecture.to_json()) == architecture
    assert len({choice.name for choice in space.choices}) == len(space.choices)


def check_canonical(space: SearchSpace) -> None:
    """The canonical spelling is its own, and any spelling of an admitted network decodes to a member."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        genes = tuple(choice.values[rng.integers(len(choice.values))] for choice in space.choices)
        spelling = space.canonical(genes)
        assert space.canonical(spelling) == spelling
        if space.admits(spelling):
            assert space.architecture(genes).genes == spelling


def check_variation(space: SearchSpace) -> None:
    """Mutation changes a member into another; crossover gives a member; both follow from the generator."""
    if space.size() == 1:
        return
    for seed, (a, b) in enumerate(zip(samples(space), samples(space, seed=1), strict=True)):
        child = space.mutate(a, np.random.default_rng(seed))
        space.validate(child)
        assert child != a
        assert child == space.mutate(a, np.random.default_rng(seed))
        mixed = space.crossover(a, b, np.random.default_rng(seed))
        space.validate(mixed)
        assert mixed == space.crossover(a, b, np.random.default_rng(seed))


def check_refusal(space: SearchSpace) -> None:
    """Foreign, misspelt and truncated architectures are refused with a line that says why."""
    architecture = samples(space, 1)[0]
    wrong = [
        replace(architecture, space="elsewhere"),
        replace(architecture, version=architecture.version + 1),
        replace(architecture, genes=architecture.genes[:-1]),
        replace(architecture, genes=("no such value", *architecture.genes[1:])),
    ]
    for candidate in wrong:
        with pytest.raises(UsageError, match="architecture"):
            space.validate(candidate)


def check_enumeration(space: SearchSpace, most: int = 2000) -> None:
    """The walk (its beginning, for a large space) meets members only, each once."""
    if space.size() > 10**6:
        return
    members = list(islice(space.enumerate(), most))
    assert len(set(members)) == len(members)
    assert len(members) <= space.size()
    for architecture in members[:: max(1, len(members) // 20)]:
        space.validate(architecture)


def check_lowering(space: SearchSpace) -> None:
    """Graphs take one image of three channels, give one row of scores, know their operators, and segments chain to the whole."""
    for architecture in samples(space):
        parts = space.segments(architecture)
        whole = space.lower(architecture)
        assert whole == (parts[0][1] if len(parts) == 1 else join(parts))
        assert whole.cost.macs == sum(graph.cost.macs for _, graph in parts)
        assert whole.inputs[0].shape[:2] == (1, 3)
        assert len(whole.outputs) == 1
        assert not whole.unknown
        assert whole.cost.macs > 0
        assert whole == space.lower(architecture)


def check_building(space: SearchSpace, count: int = 3) -> None:
    """The module's deploy form has the graph's MACs, weights and output, and both depend on the architecture alone.

    Skipped where the space can only be looked up, or its weights are others' and cannot be had here.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for architecture in samples(space, count):
        graph = space.lower(architecture)
        try:
            with unfilled():
                module = fuse(space.build(architecture))
        except NasError as error:
            if not isinstance(error, UsageError) and space.evaluator != "published":
                raise
            pytest.skip(str(error))
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the one whose operations the counter sees
            output = module.to("meta")(torch.zeros(graph.inputs[0].shape, device="meta"))  # shapes and counts, no arithmetic
        assert tuple(output.shape) == graph.values[graph.outputs[0]].shape
        if isinstance(space, ElasticSpace) and space.any_size:
            half = [side // 2 for side in graph.inputs[0].shape[2:]]
            assert module(torch.zeros(*graph.inputs[0].shape[:2], *half, device="meta")).shape == output.shape, (
                "it takes no smaller pictures"
            )
        macs = counter.get_total_flops() / 2
        assert abs(macs - graph.cost.macs) <= 0.001 * graph.cost.macs, f"the module has {macs} MACs, the graph {graph.cost.macs}"
        built = sum(p.numel() for p in module.parameters() if p.ndim > 1)
        assert abs(built - matrix_weights(graph)) <= 0.002 * built, f"the module has {built} weights, the graph {matrix_weights(graph)}"


def matrix_weights(graph: Graph) -> int:
    """Return the number of parameters in weights of two or more axes; batch normalisation folds into the others."""
    return sum(w.elements for op in graph.operators for w in op.weights if w.parameter and len(w.shape) > 1)


def check_space(name: str) -> SearchSpace:
    """Return the space called `name`, whose name must be what it was asked for."""
    space = get_space(name)
    assert space.name == name
    return space


CHECKS = (
    check_sampling,
    check_encoding,
    check_canonical,
    check_variation,
    check_refusal,
    check_enumeration,
    check_lowering,
    check_building,
)
