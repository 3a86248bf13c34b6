"""Every registered space keeps the contract."""

from collections.abc import Callable

import pytest

from nas.spaces.pretrained.libraries import timm_library
from nas.spaces.space import SearchSpace
from nas.testing.spaces import CHECKS, check_space, instances


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list(instances()))
def test_contract(name: str, check: Callable[[SearchSpace], None], monkeypatch: pytest.MonkeyPatch) -> None:
    space = check_space(name)
    if space.evaluator == "published" and (timm := timm_library()) is not None:  # nothing is fetched: shapes and counts need no weights
        create = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options | {"pretrained": False}))
    check(space)
