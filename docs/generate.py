"""Pages of the site that are made from the program when the site is built, so that no copy can differ from it.

``reference/command-line.md`` is what the commands say of themselves, ``reference/systems.md`` what ``nas systems`` lists, ``gallery/`` the
pages of experiments/026_gallery with their copy of Vega put back.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from html import escape
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

_ROOT = Path(__file__).parents[1]

_ELSEWHERE = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+((?:experiments|tests|hardware_profiles|nas|search_spaces|latency_predictors)(?:/[^)#]*)?|[A-Z]+\.md|LICENSE)(?:#[^)]*)?\)"
)
"""A link from a page to a file of the repository that is not part of the site."""


def command_line() -> str:
    """Return the page of all commands: synopsis, what each does, and every option with its choices and default."""
    parts = [
        "# Command line",
        "",
        "Every command takes `--debug` (a traceback instead of one line) and `--wide` (tables with every column).",
        "",
    ]
    parts += ["Exit code 0 says done, 1 a stated failure, 2 wrong usage; `nas predict` exits with 3 where a budget is broken.", ""]
    for words, command in _commands():
        options = _given(command)
        synopsis = [
            *words,
            *(each.value for each in options if each.argument),
            *(re.sub(r"(, --[\w-]+)+", "", each.name) for each in options if each.required and not each.argument),
            "[OPTIONS]",
        ]
        parts += [f"## {' '.join(words)}", "", _flat(inspect.getdoc(command) or ""), ""]
        parts += [f"    {' '.join(synopsis)}", "", "| argument or option | meaning | default |", "|---|---|---|"]
        parts += [
            f"| <code>{_cell(each.name)}</code>{' (several times)' * each.several} | {_cell(each.meaning)} | {each.default} |"
            for each in options
        ]
        parts.append("")
    return "\n".join(parts)


def systems() -> str:
    """Return the page of the published systems, and of what is built here of each."""
    from nas import api

    rows = api.list_systems()
    built = sum(bool(row.parts) for row in rows)
    parts = ["# Published systems", "", f"What `nas systems` lists: {len(rows)} systems, {built} of them built here in part or whole.", ""]
    parts += [f"They bring {sum(row.networks for row in rows)} published networks, counted exactly (`nas spaces references`).", ""]
    parts += [
        "| | system | kind | priority | NPU | networks | what is built, or why nothing is | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made = ", ".join(row.parts) or row.note
        cells = (row.number, row.system, row.kind, row.priority, row.grade or "", str(row.networks or ""), made, row.paper)
        parts.append("| " + " | ".join(_cell(str(cell)) for cell in cells) + " |")
    return "\n".join([*parts, ""])


def reports() -> dict[str, str]:
    """Return the reports of the gallery by their place below ``docs/``."""
    from nas.report.html import shared_parts

    pages = {}
    for path in sorted((_ROOT / "experiments" / "026_gallery" / "results").glob("*.html")):
        text = path.read_text(encoding="utf-8")
        for mark, part in shared_parts().items():
            text = text.replace(mark, part, 1)
        pages[f"gallery/{path.name}"] = text
    return pages


PAGES: dict[str, Callable[[], str]] = {"reference/command-line.md": command_line, "reference/systems.md": systems}
"""The pages by their place below ``docs/``."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site; called by mkdocs."""
    from mkdocs.structure.files import File

    for place, content in PAGES.items():
        files.append(File.generated(config, place, content=content()))
    for place, page in reports().items():
        files.append(File.generated(config, place, content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write links to files of the repository, which the site does not hold, as their paths; called by mkdocs."""
    return _ELSEWHERE.sub(r"\1 (`\2`)", markdown)


class _Given(NamedTuple):
    """An argument or an option of a command."""

    argument: bool
    name: str
    value: str
    meaning: str
    default: str
    required: bool
    several: bool


def _commands() -> Iterator[tuple[tuple[str, ...], Callable[..., None]]]:
    """Return every command with the words that call it, groups after single commands."""
    from nas.cli._overview import GROUPS, command_files

    for group in (None, *GROUPS):
        for name, path in command_files(group).items():
            yield ("nas", *([group] if group else []), name), import_module(f"nas.cli.{path.stem}").command


def _given(command: Callable[..., None]) -> list[_Given]:
    """Return what a command takes, arguments first, as its signature says."""
    from typer.models import ArgumentInfo

    options = []
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, info = get_args(hints[name])[:2]
        kinds = [each for each in (get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)) if each is not type(None)]
        single = get_args(kinds[0])[0] if get_origin(kinds[0]) is list else kinds[0]
        argument = isinstance(info, ArgumentInfo)
        choices = "|".join(map(str, get_args(single))) if get_origin(single) is Literal else ""
        value = info.metavar or choices or (name.upper() if argument else _KINDS.get(single, name.upper()))
        flags = [flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str) and flag.startswith("-")]
        names = ", ".join(flags or [f"--{name.replace('_', '-')}"])
        shown = value if argument else names if single is bool else f"{names} {value}"
        required = parameter.default is inspect.Parameter.empty
        options.append(_Given(argument, shown, value, info.help or "", _default(parameter), required, get_origin(kinds[0]) is list))
    return sorted(options, key=lambda each: not each.argument)


_KINDS = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return (
        ""
        if parameter.default is None or parameter.default is False or parameter.default == ""
        else f"<code>{_cell(str(parameter.default))}</code>"
    )


def _flat(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return escape(_flat(text), quote=False).replace("|", "&#124;")
