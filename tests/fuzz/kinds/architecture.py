"""Files of architectures: JSON, down to the graph."""

from pathlib import Path

import numpy as np

from nas.graphs.graph import Graph
from nas.spaces.naming import get_space
from nas.spaces.network import load_network

ENDING = ".json"
WORDS = (b'"space"', b'"genes"', b'"version"', b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b"\\ud800", b'"hybrid-s"')


def read(path: Path) -> Graph:
    return load_network(str(path)).graph


def absurd(graph: Graph) -> str:
    """Numbers that no network has."""
    cost = graph.cost
    return "" if 0 < cost.macs < 2**50 and 0 < cost.params < 2**40 else f"counts of {cost}"


def seeds() -> list[bytes]:
    made = []
    for name in ("hybrid-s", "nasbench201", "fbnet", "ofa"):
        space = get_space(name)
        made.append(space.sample(np.random.default_rng(0)).to_json())
    return [text.encode() for text in made]
