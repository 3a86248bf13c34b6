"""What is rewritten for NPUs is the same map as what was published, wherever the algebra says so."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.errors import UsageError
from nas.spaces.operator_family import OperatorFamily, channel_mixers, mixers
from nas.testing.operators import CHANNELS, lower, randomise, relative_error
from search_spaces.layers.convolution import densify, dilate, dirac, enlarge
from search_spaces.layers.fourier import FourierTransform
from search_spaces.mixers.lsnet import aggregate

SIZES = [(14, 14), (7, 7), (9, 13), (8, 5)]


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
def test_fourier_products_are_the_fft(size: tuple[int, int]) -> None:
    x = image(2, 3, *size)
    products, fft = FourierTransform(size, "matmul"), FourierTransform(size, "fft")
    spectrum = torch.fft.rfft2(x, norm="ortho").transpose(2, 3)
    assert torch.allclose(products(x), torch.cat([spectrum.real, spectrum.imag], dim=3), atol=1e-13, rtol=0)
    assert torch.allclose(products(x), fft(x), atol=1e-13, rtol=0)
    assert torch.allclose(products.inverse(products(x)), x, atol=1e-13, rtol=0)
    assert torch.allclose(fft.inverse(fft(x)), x, atol=1e-13, rtol=0)


def test_inverse_fourier_of_what_is_no_image_agrees_too() -> None:
    # a filtered spectrum need not be that of a real image: both forms must drop the same part of it
    z = image(2, 3, 5, 2 * 6)
    forms = [FourierTransform((6, 8), form).inverse(z) for form in ("fft", "matmul")]
    assert torch.allclose(*forms, atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("published", "rewritten"),
    [
        (mixers.get("spectral")(form="fft"), mixers.get("spectral")(form="matmul")),
        (mixers.get("affnet")(form="fft"), mixers.get("affnet")(form="matmul")),
        (mixers.get("hornet")(filter="global", form="fft"), mixers.get("hornet")(filter="global", form="matmul")),
        (mixers.get("inception-next")(deploy="bands"), mixers.get("inception-next")(deploy="square")),
    ],
    ids=lambda op: type(op).__name__,
)
def test_rewrites_are_equal(published: OperatorFamily, rewritten: OperatorFamily, size: tuple[int, int]) -> None:
    from nas.spaces.operator_family import fuse

    first = randomise(published.build(CHANNELS, size).double(), 1).eval()
    second = rewritten.build(CHANNELS, size).double().eval()
    second.load_state_dict(first.state_dict())
    x = image(2, CHANNELS, *size)
    with torch.no_grad():
        assert relative_error(fuse(second)(x), first(x)) < 1e-12


@pytest.mark.parametrize("family", ["spectral", "affnet"])
def test_rewritten_graphs_hold_no_fourier_operator(family: str) -> None:
    kind = mixers.get(family)
    ops = {form: {op.op for op in lower(kind(form=form), CHANNELS, (14, 14)).operators} for form in ("fft", "matmul")}
    assert "DFT" in ops["fft"]
    assert "DFT" not in ops["matmul"]
    assert (kind(form="fft").grade, kind(form="matmul").grade) == ("red", "amber")


def test_aggregation_is_its_definition() -> None:
    n, c, sets, k, h, w = 2, 8, 4, 3, 5, 6
    x, weight = image(n, c, h, w), image(n, sets * k * k, h, w)
    columns = F.unfold(x, k, padding=k // 2).view(n, c, k * k, h, w)
    expected = torch.stack([(columns[:, i] * weight.view(n, sets, k * k, h, w)[:, i % sets]).sum(1) for i in range(c)], dim=1)
    assert torch.allclose(aggregate(x, weight, k), expected, atol=1e-13, rtol=0)


def test_wave_rotates_pairs_as_complex_numbers() -> None:
    module = channel_mixers.get("wave")(expansion=2).build(8, (4, 4)).double()
    x = image(2, 16, 4, 4)
    pairs = torch.view_as_complex(x.view(2, 8, 2, 4, 4).permute(0, 1, 3, 4, 2).contiguous())
    turned = torch.view_as_real(pairs * torch.view_as_complex(module.get_parameter("rotation").detach()).view(-1, 1, 1))
    assert torch.allclose(module.rotate(x), turned.permute(0, 1, 4, 2, 3).reshape(2, 16, 4, 4), atol=1e-13, rtol=0)


def test_wave_without_argmax_is_another_grade() -> None:
    kind = channel_mixers.get("wave")
    ops = {peak: {op.op for op in lower(kind(peak=peak), CHANNELS, (7, 7)).operators} for peak in ("argmax", "max", "none")}
    assert {"ArgMax", "GatherElements"} <= ops["argmax"]
    assert "ReduceMax" in ops["max"]
    assert not {"ArgMax", "GatherElements", "ReduceMax"} & ops["none"]
    assert [kind(peak=peak).grade for peak in ("argmax", "max", "none")] == ["red", "amber", "amber"]


def test_kernel_identities() -> None:
    x = image(1, 8, 9, 11)
    assert torch.equal(F.conv2d(x, dirac(8, 2, 3), padding=1, groups=2), x)
    small = image(8, 1, 3, 3)
    dilated = F.conv2d(x, small, padding=3, dilation=3, groups=8)
    assert torch.allclose(F.conv2d(x, enlarge(dilate(small, 3), (9, 9)), padding=4, groups=8), dilated, atol=1e-13, rtol=0)
    grouped = image(8, 2, 1, 1)
    for target in (1, 2, 4):
        assert torch.allclose(F.conv2d(x, densify(grouped, 4, target), groups=target), F.conv2d(x, grouped, groups=4), atol=1e-13, rtol=0)


def test_filter_of_one_size_refuses_another() -> None:
    module = mixers.get("spectral")().build(8, (7, 7))
    with pytest.raises(UsageError, match=r"got an input of \(8, 8\)"):
        module(torch.zeros(1, 8, 8, 8))


def test_training_mode_is_not_fused() -> None:
    with pytest.raises(UsageError, match="training mode"):
        mixers.get("depthwise")().build(8, (7, 7)).train().fuse()
