"""Every registered quantisation method keeps the contract."""

import pytest

from nas.quantisation.method import quantisers
from nas.testing.quantisers import check_quantiser


@pytest.mark.parametrize("name", quantisers.names())
def test_contract(name: str) -> None:
    check_quantiser(quantisers.get(name)())
