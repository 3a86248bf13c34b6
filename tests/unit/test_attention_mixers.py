"""Attention mixers against the definition written out, position by position."""

import numpy as np
import pytest
import torch

from nas.graph import GraphBuilder
from nas.mixer import mixers
from nas.testing.operators import lower, randomise
from search_spaces.layers.attention import heads_of
from search_spaces.mixers.spatial_reduction import SpatialReduction
from search_spaces.mixers.window import Tiling, Window


@pytest.mark.parametrize(
    ("channels", "head_dim", "heads"), [(64, 32, 2), (48, 32, 1), (112, 32, 2), (80, 32, 2), (16, 32, 1), (72, 16, 3), (30, 7, 3)]
)
def test_heads_divide_channels_and_keep_their_width(channels: int, head_dim: int, heads: int) -> None:
    assert heads_of(channels, head_dim) == heads


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(heads, n, d) attention written out in float64."""
    logits = torch.einsum("hnd,hmd->hnm", q, k) * q.shape[-1] ** -0.5 + bias
    return torch.einsum("hnm,hmd->hnd", logits.softmax(-1), v)


def test_reduction_one_is_plain_attention() -> None:
    module = randomise(SpatialReduction(reduction=1, head_dim=8).build(16, (3, 5)).double(), 0)
    x = torch.randn(1, 16, 3, 5, dtype=torch.float64)
    qkv = torch.nn.functional.conv2d(x, module.qkv.weight, module.qkv.bias)
    q, k, v = (part.reshape(2, 8, 15).transpose(1, 2) for part in qkv.chunk(3, dim=1))
    y = attend(q, k, v, torch.zeros(1, dtype=torch.float64)).transpose(1, 2).reshape(1, 16, 3, 5)
    torch.testing.assert_close(module(x), module.project(y))


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (9, 13), (5, 20)])
def test_window_attends_to_its_neighbours_only(size: tuple[int, int], shift: bool) -> None:
    operator = Window(window=7, shift=shift, head_dim=8)
    module = randomise(operator.build(16, size).double(), 1)
    body = module.body
    x = torch.randn(1, 16, *size, dtype=torch.float64)
    tiling = Tiling.of(size, 7, shift)
    where = [(i, j) for i in range(size[0]) for j in range(size[1])]

    def window(i: int, j: int) -> tuple[int, int]:
        moved = ((i - tiling.shift[0]) % tiling.padded[0], (j - tiling.shift[1]) % tiling.padded[1])
        return moved[0] // tiling.window[0], moved[1] // tiling.window[1]

    bias = torch.full((2, len(where), len(where)), -torch.inf, dtype=torch.float64)
    for a, (i, j) in enumerate(where):
        for b, (m, n) in enumerate(where):
            if window(i, j) == window(m, n) and abs(i - m) < tiling.window[0] and abs(j - n) < tiling.window[1]:
                bias[:, a, b] = body.table[(i - m + 6) * 13 + j - n + 6].detach()
    q, k, v = (part.reshape(-1, 2, 8).transpose(0, 1) for part in body.qkv(x.permute(0, 2, 3, 1)).reshape(len(where), -1).chunk(3, dim=1))
    y = body.project(attend(q, k, v, bias).transpose(0, 1).reshape(-1, 16))
    torch.testing.assert_close(module(x), y.T.reshape(1, 16, *size))


def test_windows_shrink_before_they_pad() -> None:
    assert Tiling.of((28, 56), 8) == Tiling((28, 56), (7, 8), (4, 7))
    assert Tiling.of((9, 5), 7).padding == (1, 0)


@pytest.mark.parametrize("name", ["catm", "spatial-reduction", "window"])
def test_no_tensor_has_more_than_four_axes(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        choices = mixers.get(name).choices()
        operator = mixers.get(name)(**{knob: values[rng.integers(len(values))] for knob, values in choices.items()})
        assert max(len(value.shape) for value in lower(operator, 64, (14, 20)).values.values()) <= 4


def test_published_additive_mixer_has_three_projections_and_three_kinds_of_depthwise_convolution() -> None:
    builder = GraphBuilder()
    graph = builder.build(mixers.get("catm")().lower(builder, builder.input((1, 48, 8, 8))))
    c = 48
    assert graph.cost.params == 3 * c * c + 2 * (9 * c + c + c + c * c) + 2 * (9 * c + c)
