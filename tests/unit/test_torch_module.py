"""Tracing: exact parameters, exact MACs against PyTorch's own counter, weights recognised wherever they are used."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nas.errors import GraphError
from nas.graphs.frontends.torch_module import trace_module


class FusedProjections(nn.Module):
    """Slices one projection's weight, shares another, gathers a table: all three must count once."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)
        self.table = nn.Parameter(torch.zeros(9, 2))
        self.shared = nn.Linear(8, 8)
        self.register_buffer("index", torch.zeros(16, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 4, 8)
        q, k, v = (nn.functional.linear(x, w) for w in self.qkv.weight.chunk(3))
        q, k, v = (t.reshape(t.shape[0], 4, 2, 4).transpose(1, 2) for t in (q, k, v))
        bias = self.table[self.index].view(4, 4, 2).permute(2, 0, 1)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(x.shape)
        return self.shared(self.shared(y))


class Convolutional(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(inplace=True),
            nn.Conv2d(8, 8, 5, padding="same", groups=8),
            nn.Hardswish(inplace=True),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 10),
        )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (FusedProjections(), (1, 4, 8)),
        (Convolutional(), (1, 3, 33, 31)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 5, 8)),
    ],
    ids=["projections", "convolutions", "transformer"],
)
def test_counts_equal_torch(module: nn.Module, shape: tuple[int, ...]) -> None:
    cost = trace_module(module, shape).cost
    assert cost.params == sum(p.numel() for p in module.parameters())
    # the counter sees neither the fused encoder (taken without gradients) nor the CPU's fused attention
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module.eval()(torch.zeros(shape))
    assert 2 * cost.macs == counter.get_total_flops()


def test_module_is_left_as_it_is() -> None:
    module = Convolutional().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trace_module(module, (1, 3, 32, 32))
    assert module.training
    assert all(part.training for part in module.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not module[0]._forward_hooks


def test_recurrent_weights_count() -> None:
    module = Recurrent()
    graph = trace_module(module, (1, 5, 8))
    assert graph.cost.params == sum(p.numel() for p in module.parameters())
    assert graph.cost.macs == 2 * 5 * 4 * 6 * (8 + 6)


def test_names_are_module_paths() -> None:
    graph = trace_module(Convolutional(), (1, 3, 32, 32))
    assert [op.name for op in graph.operators[:3]] == ["0", "1", "2"]
    assert graph.operators[0].attribute("pads") == (1, 1, 1, 1)


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class Conditional(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_unknown_operator_keeps_its_name() -> None:
    assert trace_module(Unknown(), (1, 4)).unknown == ("aten.special_bessel_j0",)


@pytest.mark.parametrize(
    ("module", "shape"), [(Convolutional(), (1, 4, 32, 32)), (Conditional(), (1, 4))], ids=["channels", "control flow"]
)
def test_what_cannot_be_traced_says_so(module: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match=r"does not run on an input of shape .*Do this"):
        trace_module(module, shape)


class WritesSlice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        y[:, 1:] += x[:, 1:]
        return y


class Remembers(nn.Module):
    """Keeps a mask that it makes when it runs, as some attention modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[int, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = self.cache.setdefault(x.shape[-1], torch.ones(x.shape[-1]))
        return x + mask


def test_writing_into_a_slice_changes_the_whole() -> None:
    graph = trace_module(WritesSlice(), (1, 4))
    assert graph.operators[-1].op == "ScatterND"
    assert graph.outputs == (graph.operators[-1].outputs[0].name,)


def test_nothing_of_the_run_stays_in_the_module() -> None:
    module = Remembers()
    trace_module(module, (1, 4))
    assert not module.cache


class Filtered(nn.Module):
    """A global filter as published: complex weights, real maps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 6, 4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (n, 4, 6, 6)
        return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.weight), s=(6, 6), norm="ortho")


def test_a_transform_is_one_operator_an_axis_and_complex_weights_are_two_numbers() -> None:
    graph = trace_module(Filtered(), (1, 4, 6, 6))
    transforms = [(op.attribute("axis"), op.attribute("inverse", 0)) for op in graph.operators if op.op == "DFT"]
    assert transforms == [(3, 0), (2, 0), (2, 1), (3, 1)]
    assert graph.values[graph.outputs[0]].shape == (1, 4, 6, 6)
    assert graph.cost.params == 4 * 6 * 4 * 2
    assert graph.size_bytes("fp16") == 2 * 4 * 6 * 4 * 2
    assert not graph.unknown


class Standardised(nn.Module):
    """A convolution whose weights are standardised at every run, in a block that is first to use a table."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.table = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.conv.weight.reshape(4, 27)
        weight = weight - weight.mean(dim=1, keepdim=True)  # 4 and 108 numbers
        return nn.functional.conv2d(x, weight.view(4, 3, 3, 3)) * self.table.exp()  # 4


def test_work_on_weights_is_written_down_where_it_is_asked_for() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 1), Standardised())
    plain, told = trace_module(module, (1, 3, 8, 8)), trace_module(module, (1, 3, 8, 8), weight_work=True)
    assert {op.name: op.attribute("weight_elements") for op in told.operators if op.attribute("weight_elements")} == {"1.conv": 116}
    assert not any(op.attribute("weight_elements") for op in plain.operators)
    assert [op.name for op in plain.operators] == [op.name for op in told.operators]
