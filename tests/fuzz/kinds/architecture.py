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


def seeds() -> list[bytes]:
    made = []
    for name in ("hybrid-s", "nasbench201"):
        space = get_space(name)
        made.append(space.sample(np.random.default_rng(0)).to_json())
    return [text.encode() for text in made]
