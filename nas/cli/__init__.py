"""The command line: one file per command, found by its name.

``predict.py`` is ``nas predict``; ``devices_list.py`` is ``nas devices list``. Each file defines a function ``command``
whose signature is the interface and whose docstring is the help; heavy imports belong inside it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

GROUPS = {
    "bench": "Published protocols, run on tables that the user names.",
    "devices": "Hardware profiles: list, show, add, calibrate, suggest.",
    "spaces": "Search spaces: list, show, sample, references.",
}


def build_app() -> typer.Typer:
    """Return the application with every command file of this folder."""
    import typer

    app = typer.Typer(
        name="nas", help="Find the vision backbone that a chip runs within a budget.", no_args_is_help=True, add_completion=False
    )
    groups = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in GROUPS.items()}
    for name, group in groups.items():
        app.add_typer(group, name=name)
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        head, _, rest = path.stem.partition("_")
        owner, name = (groups[head], rest) if head in groups and rest else (app, path.stem)
        owner.command(name.replace("_", "-"))(import_module(f"{__name__}.{path.stem}").command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 a stated failure, 2 wrong usage; a traceback only with ``--debug``."""
    from nas.errors import NasError

    words = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        build_app()(words, standalone_mode=True)
    except NasError as error:
        if debug:
            raise
        sys.stderr.write(f"nas: {' '.join(str(error).split())}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("nas: interrupted.\n")
        raise SystemExit(1) from None
    except BrokenPipeError:
        raise SystemExit(0) from None
