"""Every peer of `nas bench search` that is installed against the contract."""

import pytest

from nas.bench.peer import Peer, peers
from nas.testing import peers as suite

KINDS = {name: peers.get(name) for name in peers.names()}
ALGORITHMS = [
    pytest.param(kind, algorithm, id=f"{name}:{algorithm}", marks=[pytest.mark.slow] if algorithm in kind.left_out else [])
    for name, kind in KINDS.items()
    for algorithm in kind.algorithms
]


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize(("kind", "algorithm"), ALGORITHMS)
def test_contract(kind: type[Peer], algorithm: str, objectives: int) -> None:
    if not kind.installed():
        pytest.skip(f"needs {kind.package}")
    count = 14 if algorithm in kind.left_out else 30
    suite.check_proposes_members(kind, algorithm, objectives=objectives, count=count)
    suite.check_follows_the_seed(kind, algorithm, objectives=objectives, count=count)
