"""The commands as Typer runs them, imported one by one as they are asked for; not a command itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer._completion_classes import completion_init
from typer.core import TyperGroup
from typer.main import get_command

from nas.cli._overview import GROUPS, HELP, SUMMARY, command_files, overview

if TYPE_CHECKING:
    from pathlib import Path


class Commands(TyperGroup):
    """`nas`, or one group of its commands.

    Args:
        group: A name of `GROUPS`; None for `nas` itself.
    """

    def __init__(self, group: str | None) -> None:
        text = SUMMARY if group is None else GROUPS[group]
        super().__init__(
            name=group or "nas", help=text, no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": list(HELP)}
        )
        completion_init()  # a shell that completes asks in `_NAS_COMPLETE`
        self.group = group
        self.commands = _Files(group)  # type: ignore[assignment]  # only ever read

    def get_help(self, ctx: Any) -> str:  # noqa: ARG002
        """Return the overview, which imports no command."""
        return overview(self.group)


class _Files(Mapping[str, Any]):
    """The commands of a group by their names; one is built when it is looked up."""

    def __init__(self, group: str | None) -> None:
        self.files: dict[str, Path | None] = {**command_files(group)}
        if group is None:
            self.files |= dict.fromkeys(GROUPS)

    def __getitem__(self, name: str) -> Any:
        path = self.files[name]
        if path is None:
            return Commands(name)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(import_module(f"nas.cli.{path.stem}").command)
        return get_command(app)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
