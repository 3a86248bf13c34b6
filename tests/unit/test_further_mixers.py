"""Mixers that no published count holds, against their definition written out, position by position, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.spaces.operator_family import OperatorFamily, fuse
from nas.testing.operators import randomise
from search_spaces.mixers.atconv import ATConv
from search_spaces.mixers.dsm import DynamicSpectrum
from search_spaces.mixers.halonet import HaloNet
from search_spaces.mixers.ms_mlp import DISTANCES, MSMLP
from search_spaces.mixers.nat import NAT, neighbours
from search_spaces.mixers.raftmlp import RaftMLP
from search_spaces.mixers.soft import SOFT
from search_spaces.mixers.transnext import TransNeXt
from search_spaces.mixers.urpe import URPE
from search_spaces.mixers.vir import ViR

SIZE = (5, 6)
H, W = SIZE
C = 16
PLACES = [(i, j) for i in range(H) for j in range(W)]


def made(operator: OperatorFamily, channels: int = C) -> tuple[nn.Module, Tensor]:
    module = randomise(operator.build(channels, SIZE).double(), 1).eval()
    return module, torch.randn(1, channels, *SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def point(conv: nn.Module, x: Tensor) -> Tensor:
    """A pointwise convolution or a linear layer of each place: (places, c) -> (places, out)."""
    bias = conv.bias if conv.bias is not None else 0
    return x @ conv.weight.reshape(conv.weight.shape[0], -1).T + bias


def tokens(x: Tensor) -> Tensor:
    return x[0].flatten(1).T


def as_map(x: Tensor) -> Tensor:
    return x.T.reshape(1, -1, *SIZE)


def agree(module: nn.Module, x: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(fuse(module)(x), expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)


def test_shifted_groups() -> None:
    module, x = made(MSMLP(regions="wide"), 24)
    mix, project = module
    y = torch.zeros_like(x)
    start = 0
    for g, size in enumerate(mix.sizes):
        for convs, axis in ((mix.across, 1), (mix.down, 0)):
            kernel = convs[g].weight
            half = kernel.shape[2] // 2
            for c in range(size):
                for i, j in PLACES:
                    total = convs[g].bias[c]
                    for a in range(-half, half + 1):
                        for b in range(-half, half + 1):
                            row, column = i + a, j + b
                            if 0 <= row < H and 0 <= column < W:
                                moved = [(row, column - DISTANCES[g]), (row - DISTANCES[g], column)][1 - axis]
                                total = total + kernel[c, 0, a + half, b + half] * x[0, start + c, moved[0] % H, moved[1] % W]
                    y[0, start + c, i, j] += total.detach()
        start += size
    agree(module, x, as_map(point(project, tokens(y))))


def test_rafts() -> None:
    module, x = made(RaftMLP(raft=2, expansion=2))

    def mixed(part: nn.Module, value: Tensor, columns: bool) -> Tensor:
        out = torch.zeros_like(value)
        half = C // 2
        for c in range(half):
            for other in range(W if columns else H):
                line = [
                    value[0, r * half + c, p, other] if columns else value[0, r * half + c, other, p]
                    for p in range(H if columns else W)
                    for r in range(2)
                ]
                found = point(part.project, F.gelu(point(part.expand, torch.stack(line)[None])))[0]
                for p in range(H if columns else W):
                    for r in range(2):
                        out[0, r * half + c, p if columns else other, other if columns else p] = found[2 * p + r].detach()
        return out

    v = mixed(module.vertical, x, True)
    agree(module, x, v + mixed(module.horizontal, x + v, False))


def test_bands_of_the_cosine_transform() -> None:
    from scipy.fft import dct, idct

    module, x = made(DynamicSpectrum(reduction=4))
    y = torch.zeros_like(x)
    for part, axis in ((module.across, 3), (module.down, 2)):
        z = torch.from_numpy(dct(x.numpy(), axis=axis, norm="ortho"))
        mean = z.mean(5 - axis)[0].T  # (bands, c)
        gate = point(part.weigh, F.gelu(point(part.squeeze, mean))).sigmoid().T  # (c, bands)
        weighed = z * gate.reshape(1, C, *((1, W) if axis == 3 else (H, 1)))
        y = y + torch.from_numpy(idct(weighed.detach().numpy(), axis=axis, norm="ortho"))
    agree(module, x, as_map(point(module.project, tokens(y))))


def test_blocks_with_a_halo() -> None:
    module, x = made(HaloNet(block=4, halo=1, head_dim=8))
    attention, project = module
    (high, wide), halo, d = attention.blocks.size, 1, 8
    assert attention.blocks.counts == (2, 2)
    q = point(attention.query, tokens(x)).reshape(H, W, 2, d)
    kv = point(attention.key_value, tokens(x)).reshape(H, W, 2, 2 * d)
    y = torch.zeros(H, W, C, dtype=torch.float64)
    for i, j in PLACES:
        top, left = i // high * high - halo, j // wide * wide - halo
        for h in range(2):
            logits, values = [], []
            for a in range(high + 2 * halo):
                for b in range(wide + 2 * halo):
                    inside = 0 <= top + a < H and 0 <= left + b < W
                    pair = kv[top + a, left + b, h] if inside else torch.zeros(2 * d, dtype=torch.float64)
                    rows = attention.places.rows[a - (i - top - halo) + high + 2 * halo - 1]
                    columns = attention.places.columns[b - (j - left - halo) + wide + 2 * halo - 1]
                    logits.append(q[i, j, h] @ pair[:d] / d**0.5 + q[i, j, h] @ (rows + columns))
                    values.append(pair[d:])
            y[i, j, h * d : (h + 1) * d] = (torch.stack(logits).softmax(0) @ torch.stack(values)).detach()
    agree(module, x, as_map(point(project, y.reshape(H * W, C))))


@pytest.mark.parametrize("dilated", [False, True])
def test_windows_nearest_to_each_position(dilated: bool) -> None:
    operator = NAT(kernel=3, dilated=dilated, head_dim=8)
    module, x = made(operator)
    steps = [side // 3 if dilated else 1 for side in SIZE]

    def near(i: int, side: int, step: int) -> list[int]:
        group = [p for p in range(side) if p % step == i % step]
        return sorted(sorted(group, key=lambda p: (abs(p - i), p))[:3]) if len(group) >= 3 else group

    assert [sorted(row.tolist()) for row in neighbours(6, 3, 2)[0]] == [[0, 2, 4], [1, 3, 5]] * 3
    q = point(module.query, tokens(x)).reshape(H, W, 2, 8)
    k, v = (part.reshape(H, W, 2, 8) for part in point(module.key_value, tokens(x)).chunk(2, dim=1))
    y = torch.zeros(H, W, C, dtype=torch.float64)
    for i, j in PLACES:
        places = [(a, b) for a in near(i, H, steps[0]) for b in near(j, W, steps[1])]
        for h in range(2):
            logits = torch.stack(
                [q[i, j, h] @ k[a, b, h] / 8**0.5 + module.table[h, (a - i) // steps[0] + 2, (b - j) // steps[1] + 2] for a, b in places]
            )
            y[i, j, 8 * h : 8 * h + 8] = (logits.softmax(0) @ torch.stack([v[a, b, h] for a, b in places])).detach()
    agree(module, x, as_map(point(module.project, y.reshape(H * W, C))))


def test_gaussian_attention() -> None:
    module, x = made(SOFT(side=3, iterations=20, head_dim=8))
    q, v = point(module.query_key, tokens(x)), point(module.value, tokens(x))
    cells = F.avg_pool2d(as_map(q), 2, 2, ((-H % 2 + 1) // 2, (-W % 2 + 1) // 2), count_include_pad=False)[0].flatten(1).T
    parts = []
    for h in range(2):
        span = slice(8 * h, 8 * h + 8)

        def kernel(a: Tensor, b: Tensor) -> Tensor:
            return torch.stack([torch.stack([torch.exp(-((s - t) ** 2).sum() / (2 * 8**0.5)) for t in b]) for s in a])

        a, p = kernel(cells[:, span], cells[:, span]), kernel(cells[:, span], q[:, span])
        root = torch.diag(a.sum(1) ** -0.5)
        inverse = a / a.sum(1).max() ** 2
        for _ in range(20):
            inverse = 2 * inverse - inverse @ a @ inverse
        torch.testing.assert_close(inverse @ a, torch.eye(len(a), dtype=torch.float64), rtol=0, atol=1e-3)
        parts.append(p.T @ root @ inverse @ root @ p @ v[:, span])
    agree(module, x, as_map(point(module.project, torch.cat(parts, dim=1))))


def test_neighbours_and_a_pooled_map_in_one_softmax() -> None:
    module, x = made(TransNeXt(reduction=2, head_dim=8))
    t = tokens(x)
    unit = F.normalize
    q = unit(point(module.query, t).reshape(-1, 2, 8), dim=2)
    k, v = (part.reshape(H, W, 2, 8) for part in point(module.key_value, t).chunk(2, dim=1))
    pooled = F.gelu(as_map(point(module.reduce, t)))
    pooled = F.avg_pool2d(pooled, 2, 2, ((-H % 2 + 1) // 2, (-W % 2 + 1) // 2), count_include_pad=False)[0].flatten(1).T
    pooled = F.layer_norm(pooled, (C,), module.norm.weight, module.norm.bias)
    k_pool, v_pool = (part.reshape(-1, 2, 8) for part in point(module.key_value, pooled).chunk(2, dim=1))
    places = module.places()
    y = torch.zeros(H * W, C, dtype=torch.float64)
    for at, (i, j) in enumerate(PLACES):
        inside = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if 0 <= i + a < H and 0 <= j + b < W]
        for h in range(2):
            scale = F.softplus(module.temperature[h, 0, 0]) * math.log(len(inside) + len(k_pool))
            query = (q[at, h] + module.query_embedding[h, 0]) * scale
            index = [3 * (a + 1) + b + 1 for a, b in inside]
            near = [query @ unit(k[i + a, j + b, h], dim=0) + module.near_bias[h, n] for (a, b), n in zip(inside, index, strict=True)]
            far = [query @ unit(key[h], dim=0) + places[h, at, n] for n, key in enumerate(k_pool)]
            shares = torch.stack(near + far).softmax(0)
            learned = [q[at, h] @ module.tokens[h, :, n] + module.bias[h, 0, n] for n in index]
            found = sum((s + extra) * v[i + a, j + b, h] for s, extra, (a, b) in zip(shares, learned, inside, strict=False))
            found = found + sum(s * value[h] for s, value in zip(shares[len(near) :], v_pool, strict=True))
            y[at, 8 * h : 8 * h + 8] = found.detach()
    agree(module, x, as_map(point(module.project, y)))


def test_shares_times_a_number_for_each_displacement() -> None:
    module, x = made(URPE(head_dim=8))
    q, k, v = (part.reshape(-1, 2, 8) for part in point(module.qkv, tokens(x)).chunk(3, dim=1))
    y = torch.zeros(H * W, C, dtype=torch.float64)
    for h in range(2):
        for a, (i, j) in enumerate(PLACES):
            steps = [(i - m + H - 1, j - n + W - 1) for m, n in PLACES]
            logits = torch.stack([q[a, h] @ k[b, h] / 8**0.5 + module.bias.table[h, s, t] for b, (s, t) in enumerate(steps)])
            factors = torch.stack([module.factor.table[h, s, t] for s, t in steps])
            y[a, 8 * h : 8 * h + 8] = ((logits.softmax(0) * factors) @ v[:, h]).detach()
    agree(module, x, as_map(point(module.project, y)))


def test_retention_fades_and_can_be_computed_step_by_step() -> None:
    module, x = made(ViR(head_dim=8))
    q, k, v = (part.reshape(-1, 2, 8) for part in point(module.qkv, tokens(x)).chunk(3, dim=1))
    y = torch.zeros(H * W, C, dtype=torch.float64)
    for h in range(2):
        state = torch.zeros(8, 8, dtype=torch.float64)
        for a in range(H * W):
            state = (1 - 2.0 ** (-5 - h)) * state + torch.outer(k[a, h], v[a, h])
            y[a, 8 * h : 8 * h + 8] = (q[a, h] @ state / 8**0.5).detach()
    agree(module, x, as_map(point(module.project, F.layer_norm(y, (C,), module.norm.weight, module.norm.bias))))


def test_kernels_that_a_picture_makes_for_itself() -> None:
    module, x = made(ATConv(kernel=3), 4)
    keys, values = module.key(x)[0], module.value(x)[0]
    y = torch.zeros_like(x)
    for c in range(4):
        row, count = keys[c].flatten(), len(PLACES)
        means = torch.stack([row[i * count // 9 : -(-(i + 1) * count // 9)].mean() for i in range(9)])
        kernel = module.make(F.gelu(means))
        kernel = kernel - torch.sigmoid(module.inhibition[c]) * kernel.mean()
        for i, j in PLACES:
            seen = [(i + tap // 3 - 1, j + tap % 3 - 1) for tap in range(9)]
            y[0, c, i, j] = sum(kernel[tap] * values[c, a, b] for tap, (a, b) in enumerate(seen) if 0 <= a < H and 0 <= b < W)
    torch.testing.assert_close(module(x), module.project(y), rtol=0, atol=1e-10)
