"""The cells of NAS-Bench-201: which are one network, and where a table's rows stand."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.errors import UnknownNameError, UsageError
from nas.spaces.naming import get_elastic_space, get_space
from nas.testing.spaces import matrix_weights
from nas.training.supernet.weights import Supernet
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


def test_the_list_of_spaces_counts_to_the_unit() -> None:
    from nas.cli.spaces_list import _counted, _size

    assert _size(_counted("nasbench201", "")) == "15,625"


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


def test_cells_share_the_weights_of_an_edges_operation() -> None:
    space = get_elastic_space("nasbench201-c8n2", num_classes=5)
    net = Supernet(space, 5, (16, 16), seed=1)
    mixed, plain = space.architecture((C3, C1, P, S, N, C3)), space.architecture([C3] * 6)
    shared = net.path(mixed).weights[1]["edges.0.nor_conv_3x3.1.weight"]
    assert torch.equal(shared, net.path(plain).weights[1]["edges.0.nor_conv_3x3.1.weight"])
    assert shared.shape == (8, 8, 3, 3)
    assert {name.split("/")[1].split(".")[2] for name in net.tensors if name.startswith("stage2.cell2/")} == {C1, C3}
    path, module = net.path(mixed), net.extract(mixed)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(path.train()(x), module.train()(x), atol=1e-5)
    assert sum(p.numel() for p in module.parameters() if p.ndim > 1) == matrix_weights(space.lower(mixed, (16, 16)))


def test_a_size_is_a_preset_and_changes_the_network_alone() -> None:
    small, whole = get_space("nasbench201-c8n2"), get_space("nasbench201")
    row = whole.write(whole.architecture([C3] * 6))  # type: ignore[attr-defined]
    assert small.parse(row).genes == whole.parse(row).genes
    assert [label for label, _ in small.segments(small.parse(row))].count("stage3.cell2") == 1
    assert small.lower(small.parse(row)).cost.macs < whole.lower(whole.parse(row)).cost.macs / 8
    with pytest.raises(UnknownNameError):
        get_space("nasbench201-c0n2")
