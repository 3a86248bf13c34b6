"""Attention mixers against the definition written out, position by position."""

from collections import Counter

import numpy as np
import pytest
import torch

from nas.errors import UsageError
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.graph import GraphBuilder
from nas.graphs.passes import normalise
from nas.spaces.operator_family import fuse, mixers
from nas.testing.operators import lower, randomise, settings
from search_spaces.layers.attention import heads_of
from search_spaces.layers.windows import PositionTable, Tiling
from search_spaces.mixers.biformer import BiFormer
from search_spaces.mixers.cswin import CSWin
from search_spaces.mixers.maxvit import MaxViT
from search_spaces.mixers.rmt import RMT
from search_spaces.mixers.s2aformer import S2AFormer
from search_spaces.mixers.spatial_reduction import SpatialReduction
from search_spaces.mixers.window import Window


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
    tiling = Tiling.of(size, (7, 7), shift)
    where = [(i, j) for i in range(size[0]) for j in range(size[1])]

    def window(i: int, j: int) -> tuple[int, int]:
        moved = ((i - tiling.shift[0]) % tiling.padded[0], (j - tiling.shift[1]) % tiling.padded[1])
        return moved[0] // tiling.window[0], moved[1] // tiling.window[1]

    bias = torch.full((2, len(where), len(where)), -torch.inf, dtype=torch.float64)
    for a, (i, j) in enumerate(where):
        for b, (m, n) in enumerate(where):
            if window(i, j) == window(m, n) and abs(i - m) < tiling.window[0] and abs(j - n) < tiling.window[1]:
                bias[:, a, b] = body.positions.table[:, i - m + 6, j - n + 6].detach()
    q, k, v = (part.reshape(-1, 2, 8).transpose(0, 1) for part in body.qkv(x.permute(0, 2, 3, 1)).reshape(len(where), -1).chunk(3, dim=1))
    y = body.project(attend(q, k, v, bias).transpose(0, 1).reshape(-1, 16))
    torch.testing.assert_close(module(x), y.T.reshape(1, 16, *size))


def test_a_smaller_table_is_the_centre_of_a_larger_one() -> None:
    large, small = (PositionTable((3, 3), (side, side), 2) for side in (7, 4))
    with torch.no_grad():
        small.table.copy_(large.table[:, 3:10, 3:10])
    torch.testing.assert_close(small(), large())


def test_windows_shrink_before_they_pad() -> None:
    assert Tiling.of((28, 56), (8, 8)) == Tiling((28, 56), (7, 8), (4, 7))
    assert Tiling.of((9, 5), (7, 7)).padding == (1, 0)


ATTENTION = ["biformer", "catm", "cswin", "fmvit", "lowformer", "maxvit", "rmt", "s2aformer", "spatial-reduction", "window"]


@pytest.mark.parametrize("name", ATTENTION)
def test_no_tensor_has_more_than_four_axes(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        choices = mixers.get(name).choices()
        operator = mixers.get(name)(**{knob: values[rng.integers(len(values))] for knob, values in choices.items()})
        assert max(len(value.shape) for value in lower(operator, 64, (14, 20)).values.values()) <= 4


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("size", [(14, 14), (9, 13)])
def test_the_traced_module_is_what_lower_writes(name: str, size: tuple[int, int]) -> None:
    for operator in settings(mixers.get(name), np.random.default_rng(1), 4):
        written = normalise(lower(operator, 32, size))
        traced = normalise(trace_module(fuse(operator.build(32, size)), (1, 32, *size)))
        counts = [Counter(op.op for op in graph.operators) for graph in (written, traced)]
        assert counts[0] == counts[1], f"{operator}"
        assert (written.cost.params, written.cost.macs) == (traced.cost.params, traced.cost.macs)


@pytest.mark.parametrize("size", [(14, 14), (9, 13)])
def test_grid_attends_at_equal_phase_only(size: tuple[int, int]) -> None:
    operator = MaxViT(partition="grid", size=7, head_dim=8)
    body = randomise(operator.build(16, size).double(), 1).body
    x = torch.randn(1, *size, 16, dtype=torch.float64)
    step = body.partition.step
    where = [(i, j) for i in range(size[0]) for j in range(size[1])]
    bias = torch.full((2, len(where), len(where)), -torch.inf, dtype=torch.float64)
    for a, (i, j) in enumerate(where):
        for b, (m, n) in enumerate(where):
            if (i - m) % step[0] == 0 and (j - n) % step[1] == 0:
                bias[:, a, b] = body.positions.table[:, (i - m) // step[0] + 6, (j - n) // step[1] + 6].detach()
    q, k, v = (part.reshape(-1, 2, 8).transpose(0, 1) for part in body.qkv(x).reshape(len(where), -1).chunk(3, dim=1))
    y = body.project(attend(q, k, v, bias).transpose(0, 1).reshape(-1, 16))
    torch.testing.assert_close(body(x), y.reshape(1, *size, 16))


@pytest.mark.parametrize("size", [(14, 7), (9, 13)])
def test_stripes_cross_and_encode_inside_their_border(size: tuple[int, int]) -> None:
    module = randomise(CSWin(stripe=2, head_dim=8).build(32, size).double(), 2).body
    x = torch.randn(1, *size, 32, dtype=torch.float64)
    q, k, v = module.qkv(x).chunk(3, dim=3)
    found = torch.zeros(1, *size, 32, dtype=torch.float64)
    for part, axis in ((slice(0, 16), 1), (slice(16, 32), 0)):  # vertical stripes first
        length = -(-size[axis] // -(-size[axis] // 2))
        for start in range(0, size[axis], length):
            stripe = (0, slice(None), slice(start, start + length)) if axis else (0, slice(start, start + length))
            qs, ks, vs = (y[stripe][..., part] for y in (q, k, v))
            high, wide = qs.shape[:2]
            heads = [y.reshape(-1, 2, 8).transpose(0, 1) for y in (qs, ks, vs)]
            near = module.branches[1 - axis].encoding(vs.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
            y = attend(*heads, torch.zeros(1, dtype=torch.float64)).transpose(0, 1).reshape(high, wide, 16) + near
            found[(*stripe[:1], *stripe[1:], Ellipsis, part) if axis else (*stripe, Ellipsis, part)] = y
    torch.testing.assert_close(module(x), module.project(found))


def test_routing_to_all_regions_is_plain_attention() -> None:
    size = (14, 14)
    x = torch.randn(1, 16, *size, dtype=torch.float64)
    modules = [randomise(knobs.build(16, size).double(), 3) for knobs in (BiFormer(topk=49), BiFormer(routing="all"))]
    qkv = modules[0].qkv(x)
    q, k, v = (part.reshape(1, 16, 196).transpose(1, 2) for part in qkv.chunk(3, dim=1))
    y = attend(q, k, v, torch.zeros(1, dtype=torch.float64)).transpose(1, 2).reshape(1, 16, *size)
    y = modules[0].project(y + modules[0].encoding(qkv[:, 32:]))
    for module in modules:
        torch.testing.assert_close(module(x), y)


@pytest.mark.parametrize("size", [(14, 14), (9, 13)])
def test_routing_by_content_takes_the_regions_that_agree_most(size: tuple[int, int]) -> None:
    module = randomise(BiFormer(topk=3, head_scale=True).build(16, size).double(), 4)
    tiling = module.tiling
    x = torch.randn(1, 16, *size, dtype=torch.float64)
    qkv = module.qkv(x)[0].permute(1, 2, 0)
    padded = torch.zeros(*tiling.padded, 48, dtype=torch.float64)
    padded[: size[0], : size[1]] = qkv
    region = {}
    for i in range(size[0]):
        for j in range(size[1]):
            region.setdefault((i // tiling.window[0], j // tiling.window[1]), []).append((i, j))
    area = tiling.window[0] * tiling.window[1]
    sums = {r: sum(qkv[i, j] for i, j in places) / area for r, places in region.items()}
    y = torch.zeros(16, *size, dtype=torch.float64)
    for r, places in region.items():
        best = sorted(region, key=lambda other: -(sums[r][:16] @ sums[other][16:32]).item())[:3]
        keys = torch.stack([qkv[i, j] for other in best for i, j in region[other]])
        for i, j in places:
            y[:, i, j] = (keys[:, 16:32] @ qkv[i, j, :16] * 16**-0.5).softmax(0) @ keys[:, 32:]
    near = module.encoding(qkv[..., 32:].permute(2, 0, 1)[None])
    torch.testing.assert_close(module(x), module.project(y[None] + near))


@pytest.mark.parametrize(("axes", "decay"), [("full", "logits"), ("full", "weights"), ("decomposed", "logits")])
def test_manhattan_attention_is_the_published_one_up_to_the_order_of_rows(axes: str, decay: str) -> None:
    height, width, channels, heads = 4, 5, 32, 2
    module = RMT(axes=axes, decay=decay, head_dim=16).build(channels, (height, width)).double()
    randomise(module, 5)
    half = torch.tensor([h * 16 + i + 8 * pair for h in range(heads) for i in range(8) for pair in (0, 1)])  # neighbours -> halves apart
    x = torch.randn(1, channels, height, width, dtype=torch.float64)
    q, k = (y[0, half].reshape(heads, 16, -1).transpose(1, 2) for y in (module.query(x), module.key(x)))
    v_map = module.value(x)
    v = v_map.reshape(heads, 16, -1).transpose(1, 2)
    angle = (10000 ** -torch.linspace(0, 1, 8, dtype=torch.float64)).repeat_interleave(2)
    turn = torch.arange(height * width).view(-1, 1) * angle

    def rotate(z: torch.Tensor) -> torch.Tensor:
        turned = torch.stack([-z[..., 1::2], z[..., ::2]], dim=-1).flatten(-2)
        return z * turn.cos() + turned * turn.sin()

    q, k = rotate(q), rotate(k)
    rate = torch.log(1 - 2.0 ** (-2 - 4 * torch.arange(heads, dtype=torch.float64) / heads)).view(-1, 1, 1)
    row, column = torch.arange(height * width) // width, torch.arange(height * width) % width
    down, across = (row.view(-1, 1) - row).abs(), (column.view(-1, 1) - column).abs()
    zero = torch.zeros(1, dtype=torch.float64)
    if axes == "decomposed":
        y = attend(q, k, v, torch.where(down == 0, rate * across, -torch.inf))
        y = attend(q, k, y, torch.where(across == 0, rate * down, -torch.inf))
    elif decay == "logits":
        y = attend(q, k, v, rate * (down + across))
    else:
        eye = torch.eye(height * width, dtype=torch.float64).expand(heads, -1, -1)
        y = attend(q, k, eye, zero) * torch.exp(rate * (down + across)) @ v
    y = y.transpose(1, 2).reshape(1, channels, height, width)
    torch.testing.assert_close(module(x), module.project(y + module.encoding(v_map)), rtol=1e-6, atol=1e-6)


def test_strips_as_wide_as_heads_without_reduction_are_plain_attention() -> None:
    module = randomise(S2AFormer(reduction=1, strip=8, local=False, head_dim=8).build(16, (3, 4)).double(), 6)
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64)
    q, k, v = (f(x).reshape(2, 8, 12).transpose(1, 2) for f in (module.query, module.key, module.value))
    y = attend(q, k, v, torch.zeros(1, dtype=torch.float64)).transpose(1, 2).reshape(1, 16, 3, 4)
    torch.testing.assert_close(module(x), module.project(y))


def test_a_map_too_large_for_a_table_of_all_pairs_is_refused() -> None:
    with pytest.raises(UsageError, match=r"got 56×56.*decomposed"):
        RMT(axes="full").build(32, (56, 56))


def test_published_additive_mixer_has_three_projections_and_three_kinds_of_depthwise_convolution() -> None:
    builder = GraphBuilder()
    graph = builder.build(mixers.get("catm")().lower(builder, builder.input((1, 48, 8, 8))))
    c = 48
    assert graph.cost.params == 3 * c * c + 2 * (9 * c + c + c + c * c) + 2 * (9 * c + c)
