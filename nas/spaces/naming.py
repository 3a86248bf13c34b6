"""Spaces by name: a family, a family with a preset, and either with precisions."""

from __future__ import annotations

from typing import Any

from nas.errors import UnknownNameError, UsageError
from nas.spaces.elastic import ElasticSpace
from nas.spaces.precision import SEPARATOR, PrecisionSpace
from nas.spaces.space import SearchSpace, spaces


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
    plain = name.partition(SEPARATOR)[0]
    return max((family for family in spaces.names() if plain == family or plain.startswith(f"{family}-")), key=len, default=None)


def get_space(name: str, **options: Any) -> SearchSpace:
    """Return the space called `name`: a family (``zoo``), one with a preset (``hybrid-s``), one with precisions (``hybrid-s@fp16+w8a8``).

    Raises:
        UnknownNameError: No family of that name, or no such preset.
    """
    if SEPARATOR in name:
        plain, _, precisions = name.partition(SEPARATOR)
        return PrecisionSpace.make(precisions, plain=get_space(plain, **options))
    family = family_of(name)
    if family is None:
        raise UnknownNameError("space", name, spaces.names(), "A new space is one file in search_spaces/.")
    kind, preset = spaces.get(family), name[len(family) + 1 :]
    if not kind.has_preset(preset):
        raise UnknownNameError("space", name, [f"{family}-{p}" for p in kind.presets])
    return kind.make(preset, **options)
