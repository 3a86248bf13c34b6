"""What a network is made of, for surrogates: its operators, and each with what feeds it and what it feeds.

Names, widths and sizes do not enter, so that networks which compute alike look alike; dead operators and multiplications
by zero are left out, so that networks which are the same have the same patterns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from nas.graphs.graph import Graph, Operator

_TRANSPARENT = {"activation", "norm", "elementwise", "layout", "quantize"}
_MOST_SOURCES = 64  # by hand: a value of more sources than this is no pattern


@lru_cache(maxsize=65_536)
def count_patterns(graph: Graph) -> Mapping[str, int]:
    """Count operators by kind, and operators by kind with their neighbours' kinds.

    Activations, normalisations, sums and layout changes are looked through: the neighbours of a convolution are the
    convolutions, poolings and products that it is connected to.

    Source:
        Two rounds of the Weisfeiler-Lehman subtree kernel, Shervashidze et al., JMLR 2011; for architectures Ru et al.,
        "Interpretable neural architecture search via Bayesian optimisation with Weisfeiler-Lehman kernels", ICLR 2021.
    """
    kinds = ["in"]
    feeds: list[tuple[int, ...]] = [()]
    sources: dict[str, tuple[int, ...]] = {value.name: (0,) for value in graph.inputs}
    for operator in graph.operators:
        flow = tuple(sorted(source for name in operator.inputs for source in sources[name]))
        if operator.op == "Mul" and operator.attribute("constant") == 0:
            flow = ()
        elif flow and operator.category not in _TRANSPARENT:
            kinds.append(_kind(operator, graph))
            feeds.append(flow)
            flow = (len(kinds) - 1,)
        elif len(flow) > _MOST_SOURCES:
            flow = tuple(sorted(set(flow)))
        sources |= {value.name: flow for value in operator.outputs}
    kinds.append("out")
    feeds.append(tuple(sorted(source for name in graph.outputs for source in sources[name])))
    alive: set[int] = set()
    stack = [len(kinds) - 1]
    while stack:
        node = stack.pop()
        if node not in alive:
            alive.add(node)
            stack += feeds[node]
    readers: dict[int, list[str]] = {node: [] for node in alive}
    for node in alive:
        for source in feeds[node]:
            readers[source].append(kinds[node])
    counts = Counter(kinds[node] for node in alive if 0 < node < len(kinds) - 1)
    counts.update(
        f"{'+'.join(sorted(kinds[s] for s in feeds[node]))}>{kinds[node]}>{'+'.join(sorted(readers[node]))}" for node in sorted(alive)
    )
    return counts


def _kind(operator: Operator, graph: Graph) -> str:
    kernel = "x".join(map(str, operator.attribute("kernel", ())))
    groups = operator.attribute("groups", 1)
    channels = graph.values[operator.inputs[0]].shape[1] if groups > 1 else 0
    width = "" if groups == 1 else "depthwise" if groups == channels else "grouped"
    stride = "" if max(operator.attribute("stride", (1,))) == 1 else "strided"
    return f"{operator.op}{kernel}{width}{stride}"
