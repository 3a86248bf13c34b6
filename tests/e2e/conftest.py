from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def nas(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the real command line in this process."""
    from nas.cli import main

    def run(*words: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def refused(nas: Callable[..., Result]) -> Callable[..., str]:
    """Run a command that must fail with one line on stderr and nothing on stdout; return the line."""

    def run(*words: object, code: int = 2) -> str:
        result = nas(*words)
        assert result.code == code, result
        assert result.out == ""
        assert result.err.startswith("nas: ")
        assert result.err.count("\n") == 1, result.err
        assert "Traceback" not in result.err
        return result.err

    return run


@pytest.fixture(autouse=True)
def _own_config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CONFIG_HOME", str(tmp_path / "config"))
