from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas.errors import GraphError
from nas.graphs.frontends.cuts import cut
from nas.graphs.graph import join
from nas.spaces.chain import Chain, open_chain
from nas.spaces.elastic import Part
from nas.spaces.pretrained import Pretrained
from nas.spaces.pretrained.libraries import build_published, library_of, resolution_of, timm_library

FAMILIES = Path(__file__).parents[3] / "shared" / "design" / "chain_families.txt"


class Block(nn.Module):
    """y = x + f(x), with a convolution, a norm and a rectifier in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, 2 * channels, 1, bias=False), nn.BatchNorm2d(2 * channels)
        self.act = nn.ReLU(inplace=True)
        self.conv2, self.norm2 = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        y += x
        return y


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, c = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.project((q @ k.transpose(-2, -1)).softmax(-1).matmul(v).transpose(1, 2).reshape(n, tokens, c))


class Mixed(nn.Module):
    """Maps, then tokens whose number is asked for early and used late."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.layers = nn.ModuleList([Attention(8), Attention(8)])
        self.table = nn.Parameter(torch.zeros(1, 1, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        x = self.blocks(self.stem(x))
        n, c, h, w = x.shape
        x = x.flatten(2).transpose(1, 2) + self.table
        for layer in self.layers:
            x = layer(x)
        x = x.transpose(1, 2).reshape(n, c, h, w) if mask is None and not causal else x
        return self.head(x.mean((2, 3)))


def mixed() -> nn.Module:
    torch.manual_seed(0)
    network = Mixed().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return network


def pictures(size: int = 16) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_segments_put_together_are_the_network() -> None:
    network = mixed()
    cuts = cut(network, (1, 3, 16, 16))
    x = pictures()
    with torch.no_grad():
        y = x
        for i in range(len(cuts.points)):
            y = cuts.segment(i - 1, i)(y)
            assert tuple(y.shape[1:]) == cuts.points[i].shape[1:]
        torch.testing.assert_close(y, network(x), rtol=0, atol=0)


def test_every_point_is_one_through_which_all_paths_go() -> None:
    labels = [point.label for point in cut(mixed(), (1, 3, 16, 16)).points]
    assert labels[0] == "stem"
    assert labels[-1] == "head"
    assert "blocks.0.conv1" not in labels  # x goes around it
    assert [label for label in labels if label.startswith("blocks")] == ["blocks.0.add", "blocks.1.add"]


def test_blocks_end_where_a_stitch_makes_sense() -> None:
    chain = Chain("mixed", cut(mixed(), (1, 3, 16, 16)))
    assert [chain.points[i].label for i in chain.ends] == ["stem", "blocks.0.add", "blocks.1.add", "add", "layers.0.add", "layers.1.add"]
    assert [chain.points[i].layout for i in chain.ends] == ["map"] * 3 + ["tokens"] * 3
    assert [chain.reduction(i) for i in chain.ends] == [2.0] * 6


def test_a_copy_is_cut_and_a_segment_holds_no_weights_of_others() -> None:
    network = mixed()
    cuts = cut(network, (1, 3, 16, 16))
    assert not {id(p) for p in network.parameters()} & {id(p) for p in cuts.module.parameters()}
    assert network.blocks[0].act.inplace  # type: ignore[index, union-attr, operator]
    names = [name for name, _ in cuts.segment(0, 1).named_parameters()]
    assert names
    assert all(name.startswith("blocks.0.") for name in names)


def test_other_sizes_have_the_same_points() -> None:
    network = mixed()
    small = cut(network, (1, 3, 16, 16))
    large = cut(small.module, (1, 3, 24, 32))
    assert [p.label for p in small.points] == [p.label for p in large.points]
    assert large.module is small.module
    with torch.no_grad():
        x = torch.randn(2, 3, 24, 32)
        y = large.segment(3, len(large.points) - 1)(large.segment(-1, 3)(x))
        torch.testing.assert_close(y, network(x), rtol=0, atol=0)


def test_norms_keep_their_mode() -> None:
    segment = cut(mixed(), (1, 3, 16, 16)).segment(0, 1)
    before = dict(segment.named_buffers())["blocks.0.norm1.running_mean"].clone()
    segment.train()(torch.randn(4, 8, 8, 8))
    assert not torch.equal(before, dict(segment.named_buffers())["blocks.0.norm1.running_mean"])


def test_what_depends_on_values_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(GraphError, match="does not trace"):
        cut(Branching(), (1, 3, 8, 8))


def test_a_network_that_does_not_run_at_a_size_says_so() -> None:
    with pytest.raises(GraphError, match="does not run on an input"):
        cut(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2)), (1, 3, 16, 16))


def test_a_segment_is_a_part_and_its_graph_is_its_deploy_form() -> None:
    chain = open_chain(Pretrained("mixed", mixed(), (16, 16)))
    segments = chain.blocks()
    assert all(isinstance(segment, Part) for segment in segments)
    whole = join([(segment.label, segment.graph()) for segment in segments])
    assert "BatchNormalization" not in {op.op for op in whole.operators}
    x = pictures()
    with torch.no_grad():
        y = x
        for segment in segments:
            y = segment.build()(y)
        torch.testing.assert_close(y, mixed()(x), rtol=0, atol=0)
    assert len({segment.slot for segment in segments}) == len(segments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet50", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mobilenetv3_large_100", "hgnetv2_b4"]
)
def test_published_families_are_chains(name: str) -> None:
    if timm_library() is None:
        pytest.skip("timm is not installed")
    assert library_of(name) == "timm"
    network, (height, width) = build_published(name).eval(), resolution_of(name)
    chain = Chain(name, cut(network, (1, 3, height, width), name))
    assert len(chain.ends) >= 10
    x = torch.randn(2, 3, height, width)
    with torch.no_grad():
        y = x
        for segment in chain.blocks():
            y = segment.build()(y)
        torch.testing.assert_close(y, network(x), rtol=1e-5, atol=1e-5)
