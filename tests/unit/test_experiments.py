"""Scripts of experiments: what they import is there, and what stops them is one line."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CalledProcessError

import pytest

from nas.errors import DataError, UsageError, run_script

ROOT = Path(__file__).parents[2]
OURS = ("nas", "search_spaces", "latency_predictors", "tests")


def defined(file: Path) -> set[str]:
    """Return every name that a module defines or imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def missing(script: Path) -> Iterator[str]:
    """Yield what a script imports of ours and what is not there."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.level or (node.module or "").partition(".")[0] not in OURS:
            continue
        folder = ROOT / str(node.module).replace(".", "/")
        file = folder.with_suffix(".py") if folder.with_suffix(".py").is_file() else folder / "__init__.py"
        names = defined(file) if file.is_file() else set()
        for alias in node.names:
            known = {alias.name, "__getattr__"} & names
            if not known and not (folder / f"{alias.name}.py").is_file() and not (folder / alias.name).is_dir():
                yield f"{script.relative_to(ROOT).as_posix()}: {node.module}.{alias.name}"


def test_scripts_import_what_is_there() -> None:
    scripts = sorted((ROOT / "experiments").rglob("*.py"))
    assert len(scripts) > 40
    assert [name for script in scripts for name in missing(script)] == []


def raising(error: Exception) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("table: damaged, got 'x'."), 1, "table: damaged"),
        (UsageError("data: unknown, got 'x'."), 2, "data: unknown"),
        (FileNotFoundError(2, "No such file or directory", "rows.csv"), 1, "rows.csv: No such file"),
        (CalledProcessError(3, ["nas"]), 3, ""),
    ],
)
def test_what_stops_a_script_is_one_line(error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_script(raising(error))
    printed = capsys.readouterr().err
    assert stopped.value.code == code
    assert words in printed
    assert printed.count("\n") <= 1


def test_a_script_that_ends_well_and_an_error_of_ours_stay_as_they_are() -> None:
    run_script(lambda: None)
    with pytest.raises(ZeroDivisionError):
        run_script(raising(ZeroDivisionError()))
