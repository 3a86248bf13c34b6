"""Every registered token reduction keeps the contract, and is what its definition says, token by token."""

from pathlib import Path

import pytest
import torch

from nas.errors import UsageError
from nas.spaces.token_reduction import KEEPS, BlockSize, token_reductions
from nas.testing import token_reductions as contract
from nas.testing.operators import randomise
from search_spaces.layers.cells import CellMeans
from search_spaces.token_reduction.lookupvit import LookupViT
from search_spaces.token_reduction.ltm import LTM
from search_spaces.token_reduction.stvit import STViT
from search_spaces.token_reduction.zero_tprune import ROUNDS, ZeroTPrune

NAMES = token_reductions.names()
GRID = (3, 4)
BLOCK = BlockSize(GRID, heads=2, head_dim=4, hidden=16)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "lookupvit" else ()) for name in NAMES])
def test_contract(name: str, tmp_path: Path) -> None:
    for keep in KEEPS:
        contract.check_shapes_and_counts(token_reductions.get(name)(keep=keep))
    method = token_reductions.get(name)(keep=KEEPS[0])
    contract.check_numbers(method)
    contract.check_elastic(method)
    contract.check_onnx(method, tmp_path / "tokens.onnx", (9, 13))


@pytest.mark.slow
@pytest.mark.parametrize("grid", contract.GRIDS[:-1], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_exported_at_every_grid(name: str, grid: tuple[int, int], tmp_path: Path) -> None:
    contract.check_onnx(token_reductions.get(name)(keep=KEEPS[1]), tmp_path / "tokens.onnx", grid)


def test_a_share_out_of_range_is_one_line() -> None:
    with pytest.raises(UsageError, match="under 1, got 1"):
        LTM(keep=1.0)


def made(method: STViT | LTM | LookupViT | ZeroTPrune) -> tuple[torch.nn.Module, torch.Tensor]:
    module = randomise(method.build(8, BLOCK).double(), 1).eval()
    return module, torch.randn(1, 13, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int = 2) -> torch.Tensor:
    """Attention written out, token by token; each (tokens, heads · d)."""
    rows = []
    for i in range(len(q)):
        parts = []
        for h in range(heads):
            span = slice(h * q.shape[1] // heads, (h + 1) * q.shape[1] // heads)
            logits = torch.stack([(q[i, span] * k[j, span]).sum() for j in range(len(k))]) / (q.shape[1] / heads) ** 0.5
            shares = logits.exp() / logits.exp().sum()
            parts.append(sum(shares[j] * v[j, span] for j in range(len(k))))
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def means(patches: torch.Tensor, high: int, wide: int) -> torch.Tensor:
    """Adaptive pooling by PyTorch, column by column."""
    grid = patches.T.reshape(1, patches.shape[1], *GRID)
    return torch.nn.functional.adaptive_avg_pool2d(grid, (high, wide))[0].transpose(1, 2).flatten(1).T


def test_cells_are_those_of_adaptive_pooling() -> None:
    x = torch.randn(12, 8, dtype=torch.float64)
    torch.testing.assert_close(CellMeans(GRID, (2, 3))(x[None])[0], means(x, 2, 3), rtol=0, atol=1e-12)


def test_semantic_tokens_are_as_defined() -> None:
    module, x = made(STViT(keep=0.5))
    patches = x[0, 1:]
    s = torch.cat([x[0, :1], means(patches, 2, 3)])
    for attention, before in ((module.first, module.norm1), (module.second, module.norm3)):
        everything = before(torch.cat([s, patches]))
        if attention is module.second:
            s = s + module.centre[0]
        k, v = attention.key_value(everything).chunk(2, dim=1)
        s = s + attention.project(attended(attention.query(before(s)), k, v))
        if attention is module.first:
            s = s + module.perceptron(module.norm2(s))
    torch.testing.assert_close(module(x)[0], s, rtol=0, atol=1e-10)


def test_merged_tokens_are_as_defined() -> None:
    module, x = made(LTM(keep=0.5))
    u = module.attention.norm(x[0])
    q, k, v = module.attention.body.qkv(u).chunk(3, dim=1)
    y = x[0] + module.attention.body.project(attended(q, k, v))
    u = module.norm(y[1:])
    merged = attended(module.ask(means(u, 2, 3)), module.answer(u), torch.ones(12, 4, dtype=torch.float64), heads=1)
    torch.testing.assert_close(merged, torch.ones_like(merged))  # shares add up to one
    logits = module.ask(means(u, 2, 3)) @ module.answer(u).T / 2
    merged = torch.stack([sum(share * token for share, token in zip(row.softmax(0), y[1:], strict=True)) for row in logits])
    torch.testing.assert_close(module(x)[0], torch.cat([y[:1], merged]), rtol=0, atol=1e-10)


def test_pruned_tokens_are_as_defined() -> None:
    module, x = made(ZeroTPrune(keep=0.5))
    q, k, v = (part.reshape(13, 2, 4).transpose(0, 1) for part in module.body.qkv(module.norm(x[0])).chunk(3, dim=1))
    graph = [(q[h] @ k[h].T / 2).softmax(1) for h in range(2)]
    weights = []
    for h in range(2):
        s = torch.full((13,), 1 / 13, dtype=torch.float64)
        for _ in range(ROUNDS):
            s = torch.stack([sum(s[i] * graph[h][i, j] for i in range(13)) for j in range(13)])
        weights.append(s)
    weight = (weights[0] ** 2 + weights[1] ** 2)[1:]
    order = sorted(range(12), key=lambda i: -weight[i].item())
    keys = k.mean(0)[1:]
    alike = {i: max(float(torch.cosine_similarity(keys[i], keys[j], dim=0)) for j in order[0::2]) for i in order[1::2]}
    stay = order[0::2] + sorted(order[1::2], key=lambda i: alike[i])[: 6 - 3]
    best = sorted(stay, key=lambda i: -weight[i].item())[:6]
    y = x[0] + module.body.project(attended(*(part.transpose(0, 1).reshape(13, 8) for part in (q, k, v))))
    torch.testing.assert_close(module(x)[0], y[[0, *(1 + i for i in best)]], rtol=0, atol=1e-10)


def test_a_lookup_block_is_as_defined() -> None:
    method = LookupViT(keep=0.5)
    start, x = made(method)
    state = start(x)[0]
    torch.testing.assert_close(state, torch.cat([x[0, :1], means(x[0, 1:], 2, 3), x[0, 1:]]), rtol=0, atol=1e-12)
    block = randomise(method.build_block(8, BLOCK, last=False).double(), 3).eval()
    p, lookup = state[:7], state[7:]
    q = block.query(block.norm_p(p))
    k, v = block.key_value(block.norm_l(lookup)).chunk(2, dim=1)
    p = p + block.gather(attended(q, k, v))
    p = block.perceptron(block.attention(p[None]))[0]
    back = attended(k, q, block.value(block.norm_back(p)))
    lookup = block.thin(lookup + block.infuse(back))
    torch.testing.assert_close(block(state[None])[0], torch.cat([p, lookup]), rtol=0, atol=1e-10)
