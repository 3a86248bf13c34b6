"""Spaces by name: a family, a family with a preset, and either with precisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nas.errors import UnknownNameError, UsageError
from nas.spaces.elastic import ElasticSpace
from nas.spaces.precision import SEPARATOR, PrecisionSpace
from nas.spaces.space import SearchSpace, spaces

NAMED_OPTIONS = ("mixers", "knobs", "pairs")
"""Options of a space that stand in its name, since they change what its genes are."""


def is_elastic(name: str) -> bool:
    """Return whether a name is that of a family of elastic spaces, with or without a preset."""
    family = family_of(name)
    return family is not None and issubclass(spaces.get(family), ElasticSpace)


def get_elastic_space(name: str, **options: Any) -> ElasticSpace:
    """Return the elastic space called `name`; see `nas.spaces.naming.get_space`.

    Raises:
        UnknownNameError: No such space.
        UsageError: No supernet serves it.
    """
    space = get_space(name, **options) if is_elastic(name) else get_space(name)
    if not isinstance(space, ElasticSpace):
        raise UsageError(f"space {name}: no supernet serves it. Expected one of {', '.join(filter(is_elastic, spaces.names()))}.")
    return space


def family_of(name: str) -> str | None:
    """Return the registered family of a space's name (``hybrid`` of ``hybrid-s@fp16+w8a8``); None where there is none."""
    plain = SpaceName.parse(name).plain
    return max((family for family in spaces.names() if plain == family or plain.startswith(f"{family}-")), key=len, default=None)


def get_space(name: str, **options: Any) -> SearchSpace:
    """Return the space called `name`; see `SpaceName`.

    Raises:
        UnknownNameError: No family of that name, or no such preset.
        UsageError: An option that the family does not know, or one that is given here and in the name.
    """
    parsed = SpaceName.parse(name)
    if parsed.precisions:
        return PrecisionSpace.make(parsed.precisions, plain=get_space(str(replace(parsed, precisions="")), **options))
    family = family_of(parsed.plain)
    if family is None:
        raise UnknownNameError("space", name, spaces.names(), "A new space is one file in search_spaces/, or an entry point nas.spaces.")
    kind, preset = spaces.get(family), parsed.plain[len(family) + 1 :]
    if not kind.has_preset(preset):
        raise UnknownNameError("space", name, [f"{family}-{p}" if p else family for p in kind.presets])
    if twice := sorted(parsed.options.keys() & options.keys()):
        raise UsageError(f"space {name}: {twice[0]} are in its name already, got {options[twice[0]]!r} too. Do this: leave one out.")
    return kind.make(preset, **parsed.options, **options)


@dataclass(frozen=True)
class SpaceName:
    """The parts of ``hybrid-s:mixers=pool,window:knobs=pool.kernel@fp16+w8a8``.

    Attributes:
        plain: Family with its preset.
        options: Those that change which genes there are, hence belong to the name; empty ones are not written.
        precisions: Joined by ``+``; empty where the run decides.
    """

    plain: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    precisions: str = ""

    @classmethod
    def parse(cls, name: str) -> SpaceName:
        """Read a name.

        Raises:
            UsageError: An option of a name that is none.
        """
        rest, _, precisions = name.partition(SEPARATOR)
        plain, *words = rest.split(":")
        options: dict[str, tuple[str, ...]] = {}
        for word in words:
            option, mark, values = word.partition("=")
            if option not in NAMED_OPTIONS or not mark or not values or option in options:
                expected = " and ".join(f":{option}=A,B" for option in NAMED_OPTIONS)
                raise UsageError(f"space {plain}: cannot read its name, got {word!r}. Expected {expected}, once each.")
            options[option] = tuple(values.split(","))
        return cls(plain, options, precisions)

    def __str__(self) -> str:
        words = [f":{option}={','.join(self.options[option])}" for option in NAMED_OPTIONS if self.options.get(option)]
        return "".join((self.plain, *words, f"{SEPARATOR}{self.precisions}" if self.precisions else ""))
