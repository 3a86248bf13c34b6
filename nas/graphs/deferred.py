"""A graph that is read when its operators are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from nas.graphs.graph import Graph

_FIELDS = frozenset(field.name for field in fields(Graph))


class DeferredGraph(Graph):
    """A graph of which some facts are known; the rest is read when it is asked for, and it is a plain `Graph` from then on.

    A walk over all published networks asks for names, inputs and costs alone, and spares the reading of half a million operators.

    Args:
        read: Returns the whole graph.
        known: What is known of it: fields of `Graph`, and what it works out from them (``cost``, ``precisions``).
    """

    def __init__(self, read: Callable[[], Graph], **known: Any) -> None:
        vars(self).update(known, _read=read)

    def __getattr__(self, name: str) -> Any:
        """Return a field that is not known yet."""
        if name not in _FIELDS:
            raise AttributeError(f"graph: has no attribute {name!r}.")
        whole = vars(self)["_read"]()
        del vars(self)["_read"]
        vars(self).update({field: getattr(whole, field) for field in _FIELDS})
        object.__setattr__(self, "__class__", Graph)
        return vars(self)[name]
