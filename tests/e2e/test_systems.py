"""The list of systems names only what is built, and all of it."""

import json
from collections.abc import Callable

import pytest

from nas.errors import UnknownNameError
from nas.quantisation.method import quantisers
from nas.spaces.operator_family import channel_mixers, mixers, reparam
from nas.spaces.reference import references
from nas.spaces.space import spaces
from nas.spaces.systems import System, systems
from nas.spaces.token_reduction import token_reductions
from nas.training.importance import importances
from nas.training.recipe import recipes
from tests.e2e.conftest import Result

ROOMS = {
    "mixer": mixers.names(),
    "channel-mixer": channel_mixers.names(),
    "reparam": reparam.names(),
    "reference": references.names(),
    "space": spaces.names(),
    "token-reduction": token_reductions.names(),
    "quantiser": quantisers.names(),
    "recipe": recipes.names(),
    "importance": importances.names(),
}
BASELINES = {"vit", "resnet", "mlp-mixer", "starnet", "fasternet", "shvit", "mambaout"}
"""References that belong to no system of the list."""


@pytest.mark.parametrize("system", systems(), ids=lambda system: system.number)
def test_parts_are_there(system: System) -> None:
    for part in system.parts:
        kind, _, name = part.partition("/")
        assert name in ROOMS[kind], part
    assert system.parts or system.note, "says neither what is built nor why nothing is"


def test_every_mixer_and_reference_is_listed() -> None:
    listed = {part for system in systems() for part in system.parts}
    assert {f"mixer/{name}" for name in mixers.names()} <= listed
    assert {f"token-reduction/{name}" for name in token_reductions.names()} <= listed
    assert {f"reference/{name}" for name in references.names() if name not in BASELINES} <= listed


def test_numbers_are_unique() -> None:
    assert len({system.number for system in systems()}) == len(systems()) == 125


def test_the_command(nas: Callable[..., Result]) -> None:
    (row,) = json.loads(nas("systems", "swin v2", "--format", "json").out)
    assert (row["system"], row["networks"], row["grade"]) == ("Swin V2", 4, "amber")
    assert "arXiv 2111.09883" in row["paper"]


def test_unknown_names(refused: Callable[..., str]) -> None:
    assert "Did you mean" in refused("systems", "Swn", code=UnknownNameError.exit_code)
    assert "kind" in refused("systems", "--kind", "atention", code=UnknownNameError.exit_code)
