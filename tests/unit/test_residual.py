"""Plain residual networks: their counts, and what large pictures are spared."""

import pytest

from nas.spaces.naming import get_elastic_space
from search_spaces.residual import ResidualSpace


def test_its_members_are_the_convolutions_that_the_page_names() -> None:
    space = ResidualSpace("s", num_classes=10, resolution=(32, 32))
    graph = space.lower(space.architecture(["32x32", 32, 1, 1, 1, 0]))
    kernels = [3 * 32, 32 * 64, 64 * 64, 64 * 128, 128 * 128, 128 * 256, 256 * 256]
    positions = [32**2, 16**2, 16**2, 8**2, 8**2, 4**2, 4**2]
    biases = 32 + 2 * (64 + 128 + 256)  # of the folded norms
    assert graph.cost.params == sum(9 * kernel for kernel in kernels) + biases + 256 * 10 + 10
    convolutions = sum(9 * kernel * area for kernel, area in zip(kernels, positions, strict=True))
    assert graph.cost.macs == pytest.approx(convolutions + 2560, rel=0.003)  # sums and means


def test_pictures_are_reduced_before_the_first_stage_as_their_size_asks() -> None:
    space = get_elastic_space("residual-s")
    assert [space.map_size((side, side), 0)[0] for side in (28, 32, 64, 96, 128, 224)] == [28, 32, 32, 24, 32, 56]
    assert space.map_size((28, 36), 3) == (3, 4)
    proxies = {space.proxy(space.architecture((text, *space.extreme(True).genes[1:])), (32, 32)) for text in ("32x32", "288x288")}
    assert proxies == {(16, 16), (40, 40)}
