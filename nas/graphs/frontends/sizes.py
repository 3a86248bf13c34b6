"""Sizes that a user gives to a model file whose inputs leave some open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nas.errors import GraphError, UsageError, did_you_mean
from nas.graphs.operators import Shape

Size = int | str
"""A size as a file writes it: a number, or the name of one that is open; the empty string where it has no name."""


@dataclass(frozen=True)
class Sizes:
    """What a user said of a file's inputs.

    Attributes:
        shapes: Shape by the input's name; the empty name is the file's only input.
        dims: Value by the name of a symbolic size.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.shapes or self.dims)

    def settle(self, where: str, declared: Mapping[str, Sequence[Size] | None]) -> dict[str, Shape]:
        """Return the shape of every input.

        Args:
            where: The file, for messages.
            declared: Inputs as the file writes them; None where it says nothing at all.

        Raises:
            UsageError: A name that the file does not have, or a shape of another rank.
            GraphError: A size stays open; the message names it and says what to add.
        """
        shapes = dict(self.shapes)
        if "" in shapes:
            if len(declared) != 1:
                raise UsageError(f"input shape: {where} has several inputs, got no name. Expected one of {', '.join(declared)}.")
            shapes[next(iter(declared))] = shapes.pop("")
        if foreign := sorted(set(shapes) - set(declared)):
            raise UsageError(f"input shape: {where} has no such input, got {foreign[0]!r}.{did_you_mean(foreign[0], declared)}")
        names = {size for sizes in declared.values() for size in sizes or () if isinstance(size, str) and size}
        if foreign := sorted(set(self.dims) - names):
            hint = did_you_mean(foreign[0], names) or " Its sizes are all fixed or have no name."
            raise UsageError(f"dim: no input of {where} has such a size, got {foreign[0]!r}.{hint}")
        dims = dict(self.dims)
        for name, shape in shapes.items():
            sizes = declared[name]
            if sizes is not None and len(sizes) != len(shape):
                raise UsageError(
                    f"input shape: {name} of {where} is {_shown(sizes)}, got {'x'.join(map(str, shape))}. Expected as many sizes."
                )
            for size, number in zip(sizes or (), shape, strict=False):
                if isinstance(size, str) and size and dims.setdefault(size, number) != number:
                    raise UsageError(f"input shape: {size} of {where} has two sizes, got {dims[size]} and {number}.")
        settled = {}
        for name, sizes in declared.items():
            known = shapes.get(name) or _resolved(sizes, dims)
            if known is None:
                raise GraphError(_open(where, declared, shapes, dims))
            settled[name] = known
        return settled


def _resolved(sizes: Sequence[Size] | None, dims: Mapping[str, int]) -> Shape | None:
    if sizes is None:
        return None
    shape = [dims.get(size, -1) if isinstance(size, str) else size for size in sizes]
    return tuple(shape) if all(size >= 0 for size in shape) else None


def _shown(sizes: Sequence[Size] | None) -> str:
    return "without a shape" if sizes is None else "(" + ", ".join(str(size) if size != "" else "?" for size in sizes) + ")"


def _open(where: str, declared: Mapping[str, Sequence[Size] | None], shapes: Mapping[str, Shape], dims: Mapping[str, int]) -> str:
    """Return the line for inputs that stay open: what the file says of them, and the options that would settle them."""
    lacking = {name: sizes for name, sizes in declared.items() if name not in shapes and _resolved(sizes, dims) is None}
    listed = ", ".join(f"{name} {_shown(sizes)}" for name, sizes in lacking.items())
    unnamed = {
        name
        for name, sizes in lacking.items()
        if sizes is None or any(size == "" or (not isinstance(size, str) and size < 1) for size in sizes)
    }
    options = [f"--input-shape {name}:{_example(sizes, dims)}" for name, sizes in lacking.items() if name in unnamed]
    named = dict.fromkeys(size for name, sizes in lacking.items() if name not in unnamed for size in sizes or () if isinstance(size, str))
    options += [f"--dim {_quoted(name)}={_guess(name, lacking)}" for name in named if name not in dims]
    return (
        f"{where}: the sizes of its inputs are not all fixed, got {listed}. Do this: add {' '.join(options)}, with the sizes that you deploy "
        "where these are examples."
    )


def _quoted(name: str) -> str:
    return name if all(c.isalnum() or c in "_-." for c in name) else '"' + name + '"'


def _guess(name: str, lacking: Mapping[str, Sequence[Size] | None]) -> int:
    """Return a size to show: one for what stands first, a picture's side behind the channels."""
    places = [sizes.index(name) for sizes in lacking.values() if sizes and name in sizes]
    return 1 if not places or min(places) == 0 else 3 if "chan" in name.lower() else 224


def _example(sizes: Sequence[Size] | None, dims: Mapping[str, int]) -> str:
    if sizes is None:
        return "1x3x224x224"
    shown = []
    for i, size in enumerate(sizes):
        number = dims.get(size, 0) if isinstance(size, str) else size
        shown.append(number if number > 0 else 1 if i == 0 else 3 if i == 1 and len(sizes) == 4 else 224)
    return "x".join(map(str, shown))
