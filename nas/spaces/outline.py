"""What a space is for and which presets it has, read from its file: a list of spaces imports none of them."""

from __future__ import annotations

import ast
from pathlib import Path

from nas.registry import Registry

_FILES: Registry[object] = Registry("spaces", "search_spaces")
"""The names and files of `nas.spaces.space.spaces`, without what that module imports."""


def families() -> tuple[str, ...]:
    """Return the names of all families of spaces, without importing any."""
    return _FILES.names()


def is_reference(name: str) -> bool:
    """Return whether a file of `search_spaces.references` names a network, without importing it."""
    files: Registry[object] = Registry("references", "search_spaces.references")
    paths = [path for family in files.names() if (path := files.file(family)) is not None]
    return any(f'"{name}"' in path.read_text(encoding="utf-8") for path in paths)


def outline(family: str) -> tuple[str, tuple[str, ...]]:
    """Return the first line of a family's docstring, and its presets; a family whose file does not say them plainly is imported.

    Raises:
        UnknownNameError: No such family.
    """
    path = _FILES.file(family)
    if path is not None and (read := _read(path, family)) is not None:
        return read
    from nas.spaces.space import spaces

    kind = spaces.get(family)
    return _first_line(kind.__doc__), tuple(kind.presets)


def _read(path: Path, family: str) -> tuple[str, tuple[str, ...]] | None:
    """Return docstring and presets of the class that registers the family; None where they are not written out."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not any(
            ast.unparse(mark) == f"spaces.register({family!r})" for mark in node.decorator_list
        ):
            continue
        presets: tuple[str, ...] = ()
        for entry in node.body:
            if not isinstance(entry, ast.Assign | ast.AnnAssign) or entry.value is None:
                continue
            target = entry.targets[0] if isinstance(entry, ast.Assign) else entry.target
            if isinstance(target, ast.Name) and target.id == "presets":
                try:
                    presets = tuple(ast.literal_eval(entry.value))
                except ValueError:
                    return None
        line = _first_line(ast.get_docstring(node))
        return _first_line(ast.get_docstring(tree)) if "see the module" in line.lower() else line, presets
    return None


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
