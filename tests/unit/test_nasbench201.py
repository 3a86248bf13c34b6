"""The cells of NAS-Bench-201: which are one network, and where a table's rows stand."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from nas.errors import UsageError
from search_spaces.nasbench201 import OPERATIONS, NasBench201, cell_indices, cell_key, equivalence_classes

TABLE = Path(__file__).parents[3] / "shared" / "data" / "latency_nasbench201.npz"
N, S, C1, C3, P = OPERATIONS


def test_disconnected_cells_are_one_class() -> None:
    classes = equivalence_classes()
    assert len(classes) == 15625
    assert np.sum(classes == classes[0]) == 341  # the first cell has no edge at all
    assert len(set(equivalence_classes(compiled=False))) == 15625


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ((C1, C3, N, N, S, S), (C3, C1, N, N, S, S), True),  # nodes 1 and 2 exchanged
        ((C1, N, N, N, N, S), (C3, N, P, N, N, N), True),  # both dead: node 2 gets nothing, node 3 gets nothing
        ((C1, N, S, N, N, S), (C1, N, N, N, S, N), True),  # an identity in the way
        ((C1, N, N, N, S, N), (C3, N, N, N, S, N), False),
        ((C1, N, S, N, S, S), (C1, C1, N, N, S, S), False),  # one convolution read twice is not two convolutions
        ((P, N, S, N, S, S), (P, P, N, N, S, S), True),  # a pooling without weights is computed once
        ((S, N, N, N, S, N), (N, N, N, S, N, N), True),
        ((S, N, N, S, S, N), (N, N, N, S, N, N), False),  # x + x is not x
    ],
)
def test_cell_key(a: tuple[str, ...], b: tuple[str, ...], same: bool) -> None:
    assert (cell_key(a) == cell_key(b)) is same
    assert cell_key(a, compiled=False) != cell_key(b, compiled=False)


def test_strings_and_indices_follow_the_enumeration() -> None:
    space = NasBench201()
    cells = list(product(OPERATIONS, repeat=6))[::911]
    strings = [space.write(space.architecture(genes)) for genes in cells]
    assert [space.parse(text).genes for text in strings] == cells
    assert cell_indices(strings).tolist() == list(range(15625))[::911]


@pytest.mark.parametrize("text", ["", "|none~0|+|none~0|none~1|", "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|"])
def test_malformed_cells_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a cell"):
        NasBench201().parse(text)


def test_the_benchmarks_own_costs() -> None:
    """The cell of six 3 × 3 convolutions: the benchmark lists 1.531546 M parameters and 220.11969 M multiply-adds."""
    space = NasBench201()
    cost = space.lower(space.architecture([C3] * 6)).cost
    folded_scales = 5 * 6 * (16 + 32 + 64) + 16 + 2 * (32 + 64)  # one a channel of every normalisation that follows a convolution
    assert cost.params + folded_scales == 1_531_546
    assert cost.macs == pytest.approx(220.11969e6, rel=1e-6)


def test_table_holds_every_cell_once() -> None:
    if not TABLE.exists():
        pytest.skip("the latency tables are not at ../shared/data")
    with np.load(TABLE) as table:
        assert np.array_equal(np.sort(cell_indices(table["arch"])), np.arange(15625))
