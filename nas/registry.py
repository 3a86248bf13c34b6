"""Registries: one file, one name.

A plug-in is a file in its kind's room, or an entry point in the group ``nas.<kind>`` of another distribution. Names are
listed without importing anything; a plug-in is imported when it is asked for. There is no second list to edit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar, cast

from nas.errors import NasError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """The plug-ins of one kind.

    The name of a plug-in is its file's stem with ``_`` written as ``-``. A file may hold a family: it registers one
    object under its own name, and presets are asked for as ``family-preset`` and resolved by the kind's own module.

    Args:
        kind: Singular noun used in messages and in the entry-point group (``nas.<kind>``).
        room: Dotted package whose modules are the plug-ins.

    Source:
        The file scan follows tinygrad's ``device.py`` (a backend is a file); the collision rule follows fvcore's
        ``Registry`` (a clash raises).
    """

    def __init__(self, kind: str, room: str) -> None:
        self.kind, self.room = kind, room
        self._registered: dict[str, T] = {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        spec = find_spec(self.room)
        roots = spec.submodule_search_locations if spec else None
        return {
            path.stem.replace("_", "-"): path
            for root in roots or ()
            for path in sorted(Path(root).glob("*.py"))
            if not path.stem.startswith("_")
        }

    @cached_property
    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=f"nas.{self.kind}")}

    def names(self) -> tuple[str, ...]:
        """Return every name, sorted, without importing a plug-in.

        Raises:
            NasError: A name is provided by a file and by another distribution.
        """
        if clash := self._files.keys() & self._foreign.keys():
            owner = self._foreign[min(clash)].value
            raise NasError(f"{self.kind}: a name is taken twice, got {min(clash)!r} from {self.room} and from {owner}.")
        return tuple(sorted({*self._files, *self._foreign, *self._registered}))

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files an object under `name`; a module of the room must use its own file's name.

        Raises:
            NasError: The name is taken by another object.
        """

        def file(plugin: T) -> T:
            holder = self._registered.setdefault(name, plugin)
            if holder is not plugin and _origin(holder) != _origin(plugin):
                raise NasError(f"{self.kind}: a name is taken twice, got {name!r} from {_origin(holder)} and {_origin(plugin)}.")
            self._registered[name] = plugin
            return plugin

        return file

    def check(self, name: str) -> None:
        """Do nothing where a plug-in has the name; nothing is imported.

        Raises:
            UnknownNameError: There is none; the message says which name is near and where to create one.
        """
        if name not in self.names():
            raise UnknownNameError(
                self.kind,
                name,
                self.names(),
                f"A new one is one file in {self.room.replace('.', '/')}/, or an entry point nas.{self.kind}.",
            )

    def get(self, name: str) -> T:
        """Return the plug-in filed under `name`, importing its file if need be.

        Raises:
            UnknownNameError: There is none; the message says which name is near and where to create one.
            NasError: The file exists and does not register its own name.
        """
        if name in self._registered:
            return self._registered[name]
        self.check(name)
        if name in self._foreign:
            return self._registered.setdefault(name, cast(T, self._foreign[name].load()))
        module = f"{self.room}.{self._files[name].stem}"
        import_module(module)
        if name not in self._registered:
            raise NasError(
                f"{self.kind}: {module} does not register its own name. Do this: write @{self.kind}.register({name!r}) above its class."
            )
        return self._registered[name]

    def file(self, name: str) -> Path | None:
        """Return the file of a plug-in of the room, without importing it; None for one of another distribution."""
        return self._files.get(name)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield every name with its plug-in, importing all of them."""
        for name in self.names():
            yield name, self.get(name)


def match_name(
    kind: str, text: str, names: Iterable[str], others: Mapping[str, str] | None = None, *, remedy: str = "", parts: bool = True
) -> str:
    """Return the name that a user means, whatever its case, blanks, hyphens and underscores.

    First a whole name, then one of the other names, then a part of either that belongs to one name alone, or to one name whose text begins
    all the others': ``resnet5`` is many, ``sa8295`` is sa8295p, beside which there is sa8295p-tflite.

    Args:
        kind: Singular noun of messages.
        text: What the user wrote.
        names: That exist.
        others: Titles, aliases and names elsewhere: each with the name that it stands for.
        remedy: What to do where there is none.
        parts: Whether a part of a name is enough.

    Raises:
        UnknownNameError: None, or several.
    """
    known = sorted(names)
    if text in known:
        return text
    plain = {_plain(name): name for name in known}
    elsewhere = {_plain(other): name for other, name in (others or {}).items()}
    wanted = _plain(text)
    if (name := plain.get(wanted) or elsewhere.get(wanted)) is not None:
        return name
    if not parts or len(wanted) < _SHORTEST_PART:
        raise UnknownNameError(kind, text, known, remedy)
    fits = sorted({name for at in (plain, elsewhere) for key, name in at.items() if wanted in key}, key=lambda name: (len(name), name))
    if fits and all(name.startswith(fits[0]) for name in fits):
        return fits[0]
    if fits:
        shown = ", ".join(fits[:6]) + (f", … ({len(fits)} in all)" if len(fits) > 6 else "")
        raise UnknownNameError(kind, text, fits, f"Several are called so: {shown}.")
    raise UnknownNameError(kind, text, known, remedy)


_SHORTEST_PART = 3  # letters; by hand: shorter parts of names match too much


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _origin(plugin: object) -> str:
    return f"{getattr(plugin, '__module__', type(plugin).__module__)}.{getattr(plugin, '__qualname__', type(plugin).__qualname__)}"
