"""Published networks have their published integers, and timm's outputs with timm's weights."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from nas.errors import UnknownNameError
from nas.spaces import reference
from nas.testing import references as contract
from nas.testing.operators import randomise, relative_error, unfilled

VARIANTS = dict(reference.variants())
COUNTED = Path(__file__).parents[2] / "../shared/catalogue/reference_models.csv"
HEAVY = 30_000_000
ONE_SIZE = ("affnet", "lsnet", "overlock")
"""Systems with a training form whose weights are of one resolution."""
QUICK = 20_000_000
"""Networks with more parameters are counted among the slow tests."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if v.params > QUICK else ()) for name, v in VARIANTS.items()])
def test_counts(name: str) -> None:
    contract.check_counts(VARIANTS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, v in VARIANTS.items() if v.train_params and v.params < HEAVY])
def test_deploy_form_is_equal(name: str) -> None:
    """At a small size where the system takes it: what is merged is weights, whatever the picture."""
    contract.check_fuse(VARIANTS[name], resolution=None if name.startswith(ONE_SIZE) else (96, 96))


@pytest.mark.parametrize("name", ["repvgg_a0", "caformer_s18", "hornet_tiny_gf", "lsnet_t", "spectformer_h_s", "unireplknet_a"])
def test_traced_graph_counts_as_the_module(name: str) -> None:
    graph, variant = reference.lower(name), VARIANTS[name]
    assert graph.cost.macs == variant.macs
    assert not graph.unknown


def test_entries_are_well_formed() -> None:
    for name, variant in VARIANTS.items():
        assert name == variant.name
        assert variant.timm_name in ("", name)
        assert variant.train_params is None or variant.train_params > variant.params
        contract.check_printed(variant)
    assert len({v.timm_name for v in VARIANTS.values() if v.timm_name}) == sum(bool(v.timm_name) for v in VARIANTS.values())


def test_unknown_name_is_one_line() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        reference.build("repvgg_a00")


@pytest.mark.skipif(not COUNTED.exists(), reason="the catalogue's counted table is not beside the repository")
def test_entries_agree_with_the_counted_table() -> None:
    rows = list(csv.DictReader(COUNTED.open()))
    disagreeing = []
    for variant in VARIANTS.values():
        mine = [r for r in rows if variant.timm_name and r["timm_name"] == variant.timm_name and r["params_M"]]
        for row in mine:
            params = variant.train_params if "train form" in row["variant"] else variant.params
            if round((params or variant.params) / 1e6, 3) != float(row["params_M"]):
                disagreeing.append((variant.name, params, row["params_M"]))
    assert not disagreeing


ANY_SIZE = ("convnext", "inception_next", "lowformer_b", "mambaout", "poolformer", "pvt_v2", "repvgg", "repvit")
"""Systems that compute alike at every size."""


def compared_at(name: str) -> tuple[int, int]:
    """Return the published resolution, and for larger members of a system that takes any size a small one.

    They are built by the code of the smaller; what is their own, widths, depths and heads, shows at any size, and `test_counts` counts their
    multiply-adds at the published one.
    """
    own = VARIANTS[name].resolution
    return (96, 96) if name.startswith(ANY_SIZE) and VARIANTS[name].params > QUICK else own


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, v in VARIANTS.items() if v.timm_name])
def test_timm_agrees(name: str) -> None:
    import torch

    timm = pytest.importorskip("timm", reason="timm is not installed")
    with unfilled():
        theirs, ours = timm.create_model(name, num_classes=1000), reference.build(name)
    # random beyond timm's own start, whose layer scales near zero would hide a wrong branch; single precision loses digits in the deepest
    theirs = randomise(theirs, 2).eval().double()
    assert Counter(tuple(p.shape) for p in ours.parameters()) == Counter(tuple(p.shape) for p in theirs.parameters())
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)), assign=True)
    ours = ours.eval().double()  # the buffers that no file holds
    x = torch.randn(1, 3, *compared_at(name), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(ours(x), theirs(x)) <= 1e-6
