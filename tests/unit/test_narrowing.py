import pytest
import torch
from torch import Tensor, fx, nn

from nas.spaces.surgery.narrowing import coupled_channels, narrowed, reorder, width_of
from nas.training.importances.norms import Norms


class Gated(nn.Module):
    """An inverted bottleneck with a gate and a skip: 32 and 16 inner channels, 8 outside."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(8, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.depthwise, self.norm2 = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32)
        self.squeeze, self.excite = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        self.project, self.norm3 = nn.Conv2d(32, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm2(self.depthwise(self.act(self.norm1(self.expand(x))))))
        y = y * self.excite(self.act(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        return x + self.norm3(self.project(y))


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.expand, self.project = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(nn.functional.gelu(self.expand(self.norm(x))))


def traced(network: nn.Module) -> fx.GraphModule:
    torch.manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.normal_(part.weight)
    return fx.symbolic_trace(network.eval())


CASES = [(Gated, (2, 8, 9, 9), [32, 16]), (Perceptron, (2, 5, 16), [64])]


@pytest.mark.parametrize(("kind", "shape", "sizes"), CASES)
def test_inner_channels_are_found_and_their_order_means_nothing(kind: type[nn.Module], shape: tuple[int, ...], sizes: list[int]) -> None:
    segment, x = traced(kind()), torch.randn(*shape)
    before = segment(x)
    found = coupled_channels(segment)
    assert [channels.size for channels in found] == sizes
    tensors = dict([*segment.named_parameters(), *segment.named_buffers()])
    for channels in found:
        reorder(tensors, channels, torch.rand(channels.size, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(segment(x), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "shape", "sizes"), CASES)
def test_a_narrowed_segment_runs_with_leading_slices(kind: type[nn.Module], shape: tuple[int, ...], sizes: list[int]) -> None:
    segment, x = traced(kind()), torch.randn(*shape)
    half = narrowed(segment, 0.5)
    assert half(x).shape == x.shape
    own, whole = dict(half.named_parameters()), dict(segment.named_parameters())
    assert own.keys() == whole.keys()
    for name, p in own.items():
        assert torch.equal(p, whole[name][tuple(slice(0, size) for size in p.shape)])
    assert sum(p.numel() for p in own.values()) < 0.7 * sum(p.numel() for p in whole.values())


def test_what_does_not_matter_goes_first() -> None:
    segment = traced(Gated())
    tensors = dict([*segment.named_parameters(), *segment.named_buffers()])
    dead = torch.tensor([1, 5, 9, 13, 17, 21, 25, 29, 0, 4, 8, 12, 16, 20, 24, 28])
    with torch.no_grad():
        tensors["project.weight"][:, dead] = 0
    inner = next(channels for channels in coupled_channels(segment) if channels.size == 32)
    reorder(tensors, inner, Norms().scores(tensors, {}, inner))
    assert bool((tensors["project.weight"][:, 16:] == 0).all())
    assert bool((tensors["project.weight"][:, :16] != 0).any(0).all())


def test_channels_that_something_unknown_reads_stay() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 32, 1), nn.Conv2d(32, 8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).roll(1, 1))

    assert coupled_channels(traced(Shuffled())) == ()


@pytest.mark.parametrize(("full", "ratio", "expected"), [(96, 0.5, 48), (96, 0.75, 72), (100, 0.5, 50), (24, 0.1, 8), (20, 1.0, 20)])
def test_widths_are_multiples(full: int, ratio: float, expected: int) -> None:
    assert width_of(full, ratio) == expected
