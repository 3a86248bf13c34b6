"""The normalisation of images: what vendors' tables compile into a network and time with it."""

from __future__ import annotations

from dataclasses import replace

from nas.graphs.graph import Graph, Operator, Weight

CHANNELS = 3


def with_normalisation(graph: Graph) -> Graph:
    """Return a graph whose images are normalised by the network itself: less the channels' means, over their deviations.

    Images are inputs of three channels and two axes or more besides. A graph without images comes back as it is. MACs and parameters stay.
    """
    images = [value for value in graph.inputs if len(value.shape) > 3 and value.shape[1] == CHANNELS]
    if not images:
        return graph
    steps: list[Operator] = []
    renamed = {}
    for value in images:
        vector = Weight((CHANNELS, *(1 for _ in value.shape[2:])), value.dtype, parameter=False)
        centred, scaled = (replace(value, name=f"{value.name}/{step}") for step in ("centred", "normalised"))
        steps.append(Operator(centred.name, "Sub", (value.name,), (centred,), (vector,)))
        steps.append(Operator(scaled.name, "Div", (centred.name,), (scaled,), (vector,)))
        renamed[value.name] = scaled.name
    moved = [
        op if renamed.keys().isdisjoint(op.inputs) else replace(op, inputs=tuple(renamed.get(name, name) for name in op.inputs))
        for op in graph.operators
    ]
    return Graph(graph.inputs, (*steps, *moved), graph.outputs, graph.name)
