"""Layers side by side become one: exactly where joined, and not before."""

import pytest
import torch

from nas.errors import UsageError
from nas.spaces.operator_family import fuse
from nas.testing.operators import randomise, relative_error
from search_spaces.layers.attention import heads_of
from search_spaces.references.vit import ViTNet
from search_spaces.reparam.depth import Depth, MergedLayer, ParallelLayer, set_share, share_at


def layer(**knobs: object) -> ParallelLayer:
    made = ParallelLayer(32, heads_of(32, 8), Depth(head_dim=8, **knobs))
    randomise(made.double(), 0)
    return made.eval()


@pytest.mark.parametrize("attention", ["sum", "heads", "logit"])
@pytest.mark.parametrize("perceptron", ["sum", "concat"])
@pytest.mark.parametrize("branches", [1, 2, 3, 4])
def test_joined_branches_are_one_layer(attention: str, perceptron: str, branches: int) -> None:
    made = layer(branches=branches, attention_join=attention, perceptron_join=perceptron)
    x = torch.randn(2, 13, 32, dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(fuse(made)(x), made(x)) <= 1e-10


def test_branches_apart_are_the_sum_of_layers() -> None:
    made = layer(branches=2)
    set_share(made, 0.0)
    singles = []
    for i in range(2):
        single = layer(branches=1)
        single.attention[0].load_state_dict(made.attention[i].state_dict())
        for half in (single.perceptron[0].project,):  # the attention alone
            torch.nn.init.zeros_(half.weight)
            torch.nn.init.zeros_(half.bias)
        singles.append(single)
    for branch in made.perceptron:
        torch.nn.init.zeros_(branch.project.weight)
        torch.nn.init.zeros_(branch.project.bias)
    x = torch.randn(2, 13, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(made(x) - x, sum(single(x) - x for single in singles))


def test_branches_in_between_cannot_be_fused() -> None:
    made = layer(branches=3)
    set_share(made, 0.5)
    with pytest.raises(UsageError, match=r"got share 0\.5"):
        fuse(made)
    with pytest.raises(UsageError, match="training mode"):
        layer(branches=2).train().fuse()


def test_schedule_goes_from_apart_to_joined() -> None:
    shares = [share_at(i / 100) for i in range(101)]
    assert shares[:31] == [0.0] * 31
    assert shares[70:] == [1.0] * 31
    assert shares == sorted(shares)
    with pytest.raises(UsageError, match=r"got 1\.5"):
        set_share(torch.nn.Identity(), 1.5)


def test_twelve_layers_become_six_of_the_same_width() -> None:
    with torch.device("meta"):
        plain = ViTNet(12, 192, False, 1000)
        train = ViTNet(12, 192, False, 1000, branches=2).eval()
        deploy = fuse(train)
    assert sum(isinstance(part, MergedLayer) for part in deploy.modules()) == 6
    norms = 4 * 192  # scale and shift of a layer's two norms, which the merged layer has folded
    count = sum(p.numel() for p in plain.parameters())
    assert count == 5_717_416
    assert sum(p.numel() for p in train.parameters()) == count
    assert sum(p.numel() for p in deploy.parameters()) == count - 6 * 444_864 - 6 * norms
