"""Every registered space keeps the contract."""

from collections.abc import Callable

import pytest

from nas.spaces.space import SearchSpace
from nas.testing.spaces import CHECKS, check_space, instances


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list(instances()))
def test_contract(name: str, check: Callable[[SearchSpace], None]) -> None:
    check(check_space(name))
