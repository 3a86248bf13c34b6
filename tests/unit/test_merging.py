from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from nas.errors import UsageError
from nas.spaces.operator_family import fuse
from nas.spaces.surgery.merging import ConvolutionRun, plan, runs_of, with_runs


def random_run(seed: int) -> tuple[ConvolutionRun, Tensor]:
    """Two or three convolutions of random kernels, strides, groups, dilations and odd paddings, with trained norms or without."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    channels = [int(c) for c in rng.choice([4, 8, 12], size=int(rng.integers(3, 5)))]
    layers: list[tuple[nn.Conv2d, nn.BatchNorm2d | None]] = []
    for c_in, c_out in pairwise(channels):
        groups = int(rng.choice([g for g in (1, 2, 4, 8, 12) if c_in % g == 0 and c_out % g == 0]))
        kernel = tuple(int(k) for k in rng.integers(1, 4, size=2))
        window = {name: tuple(int(v) for v in rng.integers(low, high, size=2)) for name, low, high in (("stride", 1, 3), ("padding", 0, 3))}
        conv = nn.Conv2d(c_in, c_out, kernel, dilation=int(rng.integers(1, 3)), groups=groups, bias=bool(rng.integers(2)), **window)
        layers.append((conv, nn.BatchNorm2d(c_out) if rng.integers(2) else None))
    run = ConvolutionRun(layers).double()
    x = torch.randn(4, channels[0], 24, 27, dtype=torch.float64)
    optimizer = torch.optim.SGD(run.parameters(), lr=0.05)
    for _ in range(3):  # statistics and scales as after training
        loss = (run(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return run.eval(), x


@pytest.mark.parametrize("block", range(8))
def test_merged_equals_branched_after_training(block: int) -> None:
    for seed in range(25 * block, 25 * block + 25):
        run, x = random_run(seed)
        with torch.no_grad():
            branched, merged = run(x), fuse(run)(x)
        assert isinstance(fuse(run), nn.Conv2d)
        assert branched.shape == merged.shape
        assert float((branched - merged).abs().max()) <= 1e-10 * max(1.0, float(branched.abs().max())), seed


def test_depthwise_twice_stays_depthwise_and_with_dense_becomes_dense() -> None:
    twice = fuse(ConvolutionRun([(nn.Conv2d(8, 8, 3, padding=1, groups=8), None)] * 2))
    dense = fuse(ConvolutionRun([(nn.Conv2d(8, 8, 3, padding=1, groups=8), None), (nn.Conv2d(8, 16, 1), None)]))
    assert isinstance(twice, nn.Conv2d)
    assert isinstance(dense, nn.Conv2d)
    assert (twice.groups, twice.kernel_size) == (8, (5, 5))
    assert (dense.groups, dense.kernel_size) == (1, (3, 3))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24)
        self.depthwise, self.norm2 = nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24, bias=False), nn.BatchNorm2d(24)
        self.project, self.norm3 = nn.Conv2d(24, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.act = nn.ReLU6()
        self.skip = nn.Conv2d(8, 16, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.expand(x)))
        return self.skip(x) + self.norm3(self.project(self.act(self.norm2(self.depthwise(y)))))


def test_a_block_becomes_one_convolution_beside_its_skip() -> None:
    torch.manual_seed(0)
    segment = fx.symbolic_trace(Block().eval())
    (run,) = runs_of(segment)
    assert run.layers == (("expand", "norm1"), ("depthwise", "norm2"), ("project", "norm3"))
    branched = with_runs(segment)
    merged = fuse(branched)
    x = torch.randn(2, 8, 15, 15)
    torch.testing.assert_close(branched.eval()(x), merged(x), rtol=1e-4, atol=1e-5)
    kernels = [part.kernel_size for part in merged.modules() if isinstance(part, nn.Conv2d)]
    assert sorted(kernels) == [(1, 1), (3, 3)]
    assert not any(isinstance(part, nn.ReLU6) for part in branched.modules())
    assert any(isinstance(part, nn.ReLU6) for part in segment.modules())


def test_a_gate_ends_a_run() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.gate, self.b = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y * self.gate(y.mean((2, 3), keepdim=True)).sigmoid())

    segment = fx.symbolic_trace(Gated().eval())
    assert runs_of(segment) == ()
    with pytest.raises(UsageError, match="no run"):
        with_runs(segment)


def test_a_run_in_training_is_not_fused() -> None:
    with pytest.raises(UsageError, match="training mode"):
        ConvolutionRun([(nn.Conv2d(4, 4, 3), None)]).train().fuse()


def test_the_plan_is_the_best_of_all_ways() -> None:
    rng = np.random.default_rng(0)
    last = 6
    pieces = [(i, j) for i in range(last) for j in range(i + 1, last + 1)]
    prices = {piece: float(rng.uniform(0.5, 1.0) * (piece[1] - piece[0]) ** 0.6) for piece in pieces}
    losses = {(i, j): 0.0 if j == i + 1 else float(rng.uniform(0, 1) * (j - i)) for i, j in pieces}

    def ways(start: int) -> list[list[tuple[int, int]]]:
        return [[]] if start == last else [[(start, end), *rest] for end in range(start + 1, last + 1) for rest in ways(end)]

    for budget in (2.5, 3.0, 4.0, 10.0):
        allowed = [way for way in ways(0) if sum(prices[p] for p in way) <= budget]
        found = plan(prices, losses, budget)
        assert sum(prices[p] for p in found) <= budget
        assert sum(losses[p] for p in found) == pytest.approx(min(sum(losses[p] for p in way) for way in allowed), abs=0.02)
    with pytest.raises(UsageError, match="within the budget"):
        plan(prices, losses, 0.1)
