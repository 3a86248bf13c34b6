"""Every command of the README runs: lines of its shell blocks that begin with ``nas``, in order, in one folder."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Result

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Return the commands of a page, continued lines joined, prompts and comments cut."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            text = line.removeprefix("$ ").split("  #")[0].strip()
            if text.startswith(("nas ", "make ")):
                found.append(text)
    return found


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {text.split()[1] for text in commands(ROOT / "README.md") if text.startswith("make ")} <= targets


def trains(text: str) -> bool:
    """Return whether a command trains for minutes: the main job is run by ``make search``."""
    words = shlex.split(text)
    return words[1] in ("train", "rank") or (words[1] == "search" and "zoo" not in " ".join(words))


@pytest.mark.slow
def test_every_command_runs(nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in commands(ROOT / "README.md"):
        if text.startswith("make ") or trains(text):
            continue
        command, _, target = text.partition(" > ")
        result = nas(*shlex.split(command)[1:])
        assert result.code == 0, f"{text}: {result.err}"
        if target:
            Path(target.strip()).write_text(result.out, encoding="utf-8")


def test_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nmake search  # all\nnas predict \\\n  resnet18\n```\n```console\n$ nas doctor\nnothing\n```\n```python\nnas x\n```\n"
    )
    assert commands(page) == ["make search", "nas predict    resnet18", "nas doctor"]
    assert not trains("nas predict resnet18")
    assert trains("nas search --device d")
    assert not trains("nas search --device d --space zoo")
