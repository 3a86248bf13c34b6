"""Where a chain goes on in another anchor, and which changes can follow one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.spaces.chain import Chain
from nas.spaces.surgery.stitching import resizing


@dataclass(frozen=True)
class Change:
    """Going on in another anchor: indices of block ends."""

    source: tuple[int, int]
    target: tuple[int, int]

    def resizing(self, chains: Sequence[Chain]) -> str | None:
        """Return how it resizes maps, at the size at which the anchors are cut; see `nas.spaces.surgery.stitching.resizing`."""
        source, target = (chains[a].form(chains[a].ends[i]) for a, i in (self.source, self.target))
        return resizing(source, target)


def follows(change: Change, before: Sequence[Change], anchor: int) -> bool:
    """Return whether a change can come after others in a chain that begins in an anchor; no block is run twice."""
    (a, i), (b, j) = change.source, change.target
    here, start = before[-1].target if before else (anchor, -1)
    left = max((earlier.source[1] for earlier in before if earlier.source[0] == b), default=-1)
    return a == here and i > start and j >= left
