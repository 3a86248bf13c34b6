"""Plain residual networks: their counts, and what large pictures are spared."""

import pytest

from nas.spaces.naming import get_elastic_space
from search_spaces.residual import ResidualSpace


def test_its_members_are_the_convolutions_that_the_page_names() -> None:
    space = ResidualSpace("s", num_classes=10, resolution=(32, 32))
    graph = space.lower(space.architecture(["32x32", 32, 2, 2, 2, 0]))
    kernels = [9 * 3 * 32, *[9 * 32 * 32] * 4]
    positions = [32**2] * 5
    for before, side in ((32, 16), (64, 8)):
        kernels += [9 * before * 2 * before, *[9 * (2 * before) ** 2] * 3, before * 2 * before]
        positions += [side**2] * 5
    biases = 5 * 32 + 5 * 64 + 5 * 128  # of the folded norms
    assert graph.cost.params == sum(kernels) + biases + 128 * 10 + 10
    convolutions = sum(kernel * area for kernel, area in zip(kernels, positions, strict=True))
    assert graph.cost.macs == pytest.approx(convolutions + 1280, rel=0.003)  # sums and means


def test_a_member_is_the_published_network_of_twenty_layers() -> None:
    space = ResidualSpace("m", num_classes=10, resolution=(32, 32))
    cost = space.lower(space.architecture(["32x32", 16, 3, 3, 3, 0])).cost
    shortcuts = 16 * 32 + 32 * 64 + 32 + 64  # the paper's are free of weights there (option A)
    assert cost.params - shortcuts == pytest.approx(0.27e6, rel=0.02)  # arXiv 1512.03385, table 6


def test_pictures_are_reduced_before_the_first_stage_as_their_size_asks() -> None:
    space = get_elastic_space("residual-s")
    assert [space.map_size((side, side), 0)[0] for side in (28, 32, 64, 96, 128, 224)] == [28, 32, 32, 24, 32, 56]
    assert space.map_size((28, 36), 3) == (4, 5)
    proxies = {space.proxy(space.architecture((text, *space.extreme(True).genes[1:])), (32, 32)) for text in ("32x32", "288x288")}
    assert proxies == {(16, 16), (40, 40)}
