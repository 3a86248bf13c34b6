"""How far a layer moves from what it was is chosen on batches that it is not fitted to."""

import torch
from torch import Tensor

from nas.training.supernet.reconstruction import RIDGES, _added, _error, _Moments


def moments(prior: Tensor, truth: Tensor, rows: int, noise: float, batches: int = 8) -> _Moments:
    generator, found = torch.Generator().manual_seed(0), _Moments()
    for _ in range(batches):
        x = torch.randn(rows // batches, prior.shape[1], generator=generator, dtype=torch.float64)
        found.add(x, x @ truth.T + 1.0 + noise * torch.randn(len(x), len(truth), generator=generator, dtype=torch.float64))
    return found


def test_a_layer_that_was_right_stays_and_one_that_was_not_moves() -> None:
    generator = torch.Generator().manual_seed(1)
    right, wrong = (torch.randn(8, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    stays, bias, *_ = moments(right, right, 128, noise=8.0).solved(lambda _: right)
    moves, *_ = moments(wrong, right, 8192, noise=0.1).solved(lambda _: wrong)
    free = moments(right, right, 128, noise=8.0)
    overfitted = torch.linalg.lstsq(*_added(free.held, free.others)[3:]).solution.T
    assert float((stays - right).norm() / right.norm()) < 0.1 < 0.3 < float((overfitted - right).norm() / right.norm())
    assert float((moves - right).norm() / right.norm()) < 0.15
    assert bias.shape == (8,)
    assert 0.1 in RIDGES


def test_the_error_is_that_of_the_rows_but_for_what_the_target_alone_says() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(50, size, generator=generator, dtype=torch.float64) for size in (6, 3))
    weight, bias = torch.randn(3, 6, generator=generator, dtype=torch.float64), torch.randn(3, generator=generator, dtype=torch.float64)
    found = _Moments()
    found.add(x[:20], y[:20])
    found.add(x[20:], y[20:])
    expected = (x @ weight.T + bias - y).square().sum(1).mean() - y.square().sum(1).mean()
    torch.testing.assert_close(torch.tensor(_error(_added(found.held, found.others), weight, bias), dtype=torch.float64), expected)


def test_one_batch_leaves_a_layer_near_what_it_was_and_two_are_enough() -> None:
    generator = torch.Generator().manual_seed(3)
    prior, truth = (torch.randn(4, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    one, *_ = moments(prior, truth, 300, noise=0.1, batches=1).solved(lambda _: prior)
    two, *_ = moments(prior, truth, 300, noise=0.1, batches=2).solved(lambda _: prior)
    assert float((one - prior).norm()) < 0.1 * float((truth - prior).norm())
    assert float((two - truth).norm()) < 0.2 * float((truth - prior).norm())
