"""Wrong usage is one line on stderr, and exit 2."""

from collections.abc import Callable

import pytest

from tests.e2e.conftest import Result


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["devises"], "Did you mean 'devices'? Do this: nas --help."),
        (["devices", "frobnicate"], "No such command 'frobnicate'"),
        (["devices", "show"], "Missing argument 'D'"),
        (["devices", "list", "--nope"], "No such option: --nope"),
        (["devices", "list", "--format", "xml"], "'xml' is not one of 'table', 'json'"),
        (["spaces", "show", "nowhere"], "space: unknown name, got 'nowhere'"),
        (["spaces", "sample", "nowhere", "--count", "0"], "count"),
    ],
)
def test_one_line(refused: Callable[..., str], words: list[str], message: str) -> None:
    assert message in refused(*words)


def test_help_is_no_error(nas: Callable[..., Result]) -> None:
    assert nas("--help").code == 0
    assert nas("devices", "--help").code == 0


@pytest.mark.parametrize("command", ["search", "train", "rank"])
def test_help_names_no_data_that_there_are_not(nas: Callable[..., Result], command: str) -> None:
    assert "cifar10" not in nas(command, "--help").out  # its archive is given by path


def test_doctor(nas: Callable[..., Result]) -> None:
    result = nas("doctor")
    assert "optuna" in result.out
    assert result.code == (1 if "FAULT" in result.out else 0)
