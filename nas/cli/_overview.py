"""Which commands there are, and what `nas --help` says of them: read from their files, so that none is imported; not a command itself."""

from __future__ import annotations

from pathlib import Path

from nas import __version__

SUMMARY = (
    "Find the vision backbone that a chip runs within a budget. Every command takes --debug, which prints a traceback with an error, and --wide, which prints "
    "tables with all columns."
)
HELP = ("-h", "--help")
GROUPS = {
    "anchors": "Trained networks to start from: show.",
    "bench": "Published protocols, run on your tables: latency-models, latency-transfer, search.",
    "devices": "Hardware profiles: list, show, add, calibrate, suggest, update.",
    "spaces": "Search spaces: list, show, sample, references.",
}


def command_files(group: str | None = None) -> dict[str, Path]:
    """Return name and file of each command of a group, or of those that belong to none."""
    files = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        head, _, rest = path.stem.partition("_")
        owner, name = (head, rest) if head in GROUPS and rest else (None, path.stem)
        if owner == group:
            files[name.replace("_", "-")] = path
    return files


def summary(path: Path) -> str:
    """Return the first line of what a command file says of its command."""
    body = path.read_text(encoding="utf-8").partition("\ndef command(")[2]
    return body.partition('"""')[2].partition('"""')[0].partition("\n")[0].replace("``", "").strip()


def overview(group: str | None = None) -> str:
    """Return the help of `nas`, or of one group of its commands."""
    words, text = ("nas", SUMMARY) if group is None else (f"nas {group}", GROUPS[group])
    options = {"-h, --help": "Show this message and exit."}
    if group is None:
        options = {"--version": "Print the version and exit.", **options}
    commands = {name: summary(path) for name, path in command_files(group).items()}
    if group is None:
        commands |= GROUPS
    blocks = [f"Usage: {words} [OPTIONS] COMMAND [ARGS]...", _wrapped(text, "  ")]
    blocks += [f"{title}:\n{_columns(rows)}" for title, rows in (("Options", options), ("Commands", commands))]
    return "\n\n".join(blocks)


def light_answer(words: list[str]) -> str | None:
    """Return what is printed where no command has to be imported: the version, or an overview of commands."""
    if words == ["--version"]:
        return f"nas {__version__}"
    match words:
        case [word] if word in HELP:
            return overview()
        case [group, word] if group in GROUPS and word in HELP:
            return overview(group)
    return None


def _columns(rows: dict[str, str]) -> str:
    edge = max(map(len, rows)) + 2
    return "\n".join(_wrapped(text, f"  {name:<{edge}}") for name, text in rows.items())


def _wrapped(text: str, lead: str) -> str:
    import shutil
    import textwrap

    width = max(50, min(shutil.get_terminal_size().columns, 80) - 2)
    return textwrap.fill(text, width, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False)
