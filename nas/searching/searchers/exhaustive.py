"""Exhaustive search: the members in the order of the encoding."""

from collections.abc import Iterator
from functools import cached_property

from nas.searching.searcher import searchers
from nas.searching.searchers._memory import RememberingSearcher
from nas.spaces.architecture import Architecture


@searchers.register("exhaustive")
class ExhaustiveSearch(RememberingSearcher):
    """Walks the space; members that break a budget are proposed too, and so stand in the record."""

    def ask(self, number: int) -> Architecture | None:  # noqa: ARG002
        """Propose the first member that was not proposed before."""
        while self._next is not None and self.space.identity(self._next) in self.seen:
            self._next = next(self._walk, None)
        return self._next

    @cached_property
    def _walk(self) -> Iterator[Architecture]:
        return self.space.enumerate()

    @cached_property
    def _next(self) -> Architecture | None:
        return next(self._walk, None)
