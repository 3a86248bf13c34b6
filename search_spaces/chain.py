"""``chain``: what can be made of trained networks by going on in another one, leaving out, narrowing and merging.

    A: stem ─▶ block ─▶ block ─▶ … ─▶ head
                          └─ stitch ─▶ B: block ─▶ … ─▶ head

A space is named after its anchors (``chain-mobilenetv2_100+tf_efficientnet_lite0``): names of timm, torchvision or our references,
``FILE.py:FUNCTION`` or ``NET.pt2``, written as in an address (``%3A`` for a colon). Every anchor by itself is a member. Genes: the resolution; the anchor; up to two changes of anchor; and for
each block whether it is left out (where a skip leads around it), how wide it is inside, whether its convolutions are merged into one, or whether its
linear layers are two of lower rank. Other pairs of points than the usual ones stand in the name (``chain-A+B:pairs=window``).
Precisions of segments are genes as in every elastic space (``chain-…@fp16+w8a8``).

Source:
    Stitching: SN-Net (arXiv 2302.06586) and SN-Netv2 (arXiv 2307.00154), whose pairs of points are the policies ``window`` and ``aligned``. Leaving
    out and merging: DepthShrinker (arXiv 2206.00843), LayerMerge (arXiv 2406.12837). Widths: NViT (arXiv 2110.04869). Ranks: PELA (arXiv 2310.10700). Differs: any network that
    traces, any mixture of families, and prices of the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise, product
from math import prod
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote

import numpy as np

from nas.errors import ArtifactError, GraphError, UnknownNameError, UsageError
from nas.graphs.graph import Graph
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.chain import Chain, ChainSpace, Segment, Stitch, open_chain
from nas.spaces.elastic import Part
from nas.spaces.naming import SpaceName
from nas.spaces.pretrained import open_pretrained
from nas.spaces.space import Choice, Resolution, spaces
from nas.spaces.surgery.factorising import factorisable
from nas.spaces.surgery.merging import runs_of
from nas.spaces.surgery.narrowing import coupled_channels
from nas.spaces.surgery.skips import can_be_left_out
from nas.spaces.surgery.stitching import resizing
from nas.units import parse_resolution
from search_spaces._changes_of_anchor import Change, follows

if TYPE_CHECKING:
    from torch import nn

POLICIES = ("near", "all", "window", "aligned", "none")
"""Which pairs of points are stitched: see `ChainOfAnchors._pairs`. The first is the usual one."""

NONE, WHOLE, OUT, MERGED = "none", "whole", "out", "merged"
SHARES = (1.0, 0.857, 0.714, 0.571)
"""Deployment resolutions as shares of the anchors' own: 224, 192, 160 and 128 of 224; one anchor alone also runs at those between. Set by hand."""

WIDTHS = ("0.5", "0.75")
RANKS = {"rank-0.5": "0.5"}
"""What a block whose linear layers are two of lower rank is called, and the share of their weights that is left."""

EDITS = ("out", "width", "merge", "rank")
PROXY_STEPS = (8, 16, 32)
"""Steps of a proxy's sides in pixels: the first at which anchors run and stitches fit, so that a size is judged at its own share. Set by hand."""

_TARGETS = {"same": 2, "halve": 1}
"""To how many points of another anchor one is stitched at most, by how positions follow (`nas.spaces.surgery.stitching.resizing`), unless all are. Set by hand."""


@spaces.register("chain")
class ChainOfAnchors(ChainSpace):
    """See the module.

    Args:
        anchors: As a user names them, the first one first.
        num_classes: Of the head; another number than an anchor's gives it a new classifier, which is fitted.
        resolution: Fixes the deployment resolution; None leaves it to the search.
        pairs: Which pairs of points are stitched: one of `POLICIES`, or pairs by name (``A:3>B:4``), such as those of `most_alike`.
        changes: Most changes of anchor, 0 to 2.
        two_way: Whether the dearer anchor may be left for the cheaper one.
        edits: Which of `EDITS` are genes.
        rank: Of the stitches; 0 for all of it.
        weights_dir: Folder of the user's files of weights.
        frozen: See `ChainSpace`.
        importance: See `ChainSpace`.

    Raises:
        UsageError: An anchor given twice, or a resolution at which one does not run.
        UnknownNameError: An anchor, an edit or a pair that nobody knows.
    """

    options: ClassVar[frozenset[str]] = frozenset(
        {"anchors", "num_classes", "resolution", "pairs", "changes", "two_way", "edits", "rank", "weights_dir", "frozen", "importance"}
    )

    def __init__(
        self,
        anchors: Sequence[str],
        *,
        num_classes: int = 1000,
        resolution: Resolution | None = None,
        pairs: str | Sequence[str] = POLICIES[0],
        changes: int = 2,
        two_way: bool = True,
        edits: Sequence[str] = EDITS,
        rank: int = 0,
        weights_dir: str | Path | None = None,
        frozen: bool = True,
        importance: str = ChainSpace.importance,
    ) -> None:
        if unknown := sorted(set(edits) - set(EDITS)):
            raise UnknownNameError("edit", unknown[0], EDITS)
        if len(set(anchors)) < len(anchors):
            raise UsageError(f"space chain: an anchor is given twice, got {list(anchors)!r}.")
        self.num_classes, self.rank = num_classes, rank
        self.untrained: dict[str, str] = {}
        self.frozen, self.importance = frozen, importance
        self.anchors = tuple(self._open(anchor, Path(weights_dir) if weights_dir else None, resolution) for anchor in anchors)
        if len(set(names := [chain.name for chain in self.anchors])) < len(anchors):
            raise UsageError(f"space chain: two anchors have one name, got {names!r}. Do this: rename a function.")
        named = (pairs,) if isinstance(pairs, str) else tuple(pairs)
        self._policy = named[0] if len(named) == 1 and named[0] in POLICIES else "all"  # pairs by name are some of these
        self._edits, self._most, self._two_way = frozenset(edits), changes if len(anchors) > 1 else 0, two_way
        further = {"pairs": (self._policy,)} if self._most and self._policy != POLICIES[0] else {}
        self.name = str(SpaceName(f"chain-{'+'.join(quote(name, '') for name in anchors)}", further))
        offered = self._resolutions(resolution)
        first = parse_resolution(offered[0])
        self.anchors = tuple(chain.at(first) for chain in self.anchors)
        self._chains: dict[Resolution, tuple[Chain, ...]] = {first: self.anchors}
        self._texts = {self._text(change): change for change in self._pairs()}
        if named != (self._policy,):
            self._texts = {text: self._texts[text] for text in self._named(named)}
        self.changes = tuple(self._texts.values())
        self.choices = (
            Choice("resolution", offered),
            Choice("anchor", tuple(chain.name for chain in self.anchors)),
            *(Choice(f"change{i + 1}", (NONE, *self._texts)) for i in range(min(self._most, 2))),
            *(Choice(f"{chain.name}.{i}", forms) for chain in self.anchors for i, forms in enumerate(self._forms(chain))),
        )
        self._first_block = 2 + min(self._most, 2)
        self._graphs: dict[Part, Graph] = {}
        self._running: dict[Resolution, bool] = {}

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> ChainOfAnchors:
        """Return the space of anchors that are joined by ``+`` or given as an option; others are those of the class.

        Raises:
            UsageError: No anchor, or an option that the space does not know.
        """
        cls.check_options(preset, options)
        anchors = [*(unquote(name) for name in preset.split("+") if name), *(options.pop("anchors", None) or ())]
        if not anchors:
            raise UsageError("space chain: has no anchor. Do this: --anchor NAME|FILE.py:FUNCTION|NET.pt2, once for each.")
        return cls(anchors, **options)

    @classmethod
    def has_preset(cls, preset: str) -> bool:  # noqa: ARG003
        """See `SearchSpace.has_preset`: any names of anchors, or none where they are an option."""
        return True

    def _open(self, subject: str, folder: Path | None, resolution: Resolution | None) -> Chain:
        try:
            return open_chain(open_pretrained(subject, folder=folder, resolution=resolution), resolution)
        except ArtifactError as error:
            if folder is not None and self.num_classes != 1000 and "does not fit" in str(error):  # weights of the user's own classes
                return open_chain(open_pretrained(subject, folder=folder, resolution=resolution, num_classes=self.num_classes), resolution)
            if ".py:" in subject or subject.endswith(".pt2") or "no weights on this machine" not in str(error):
                raise
            self.untrained[subject] = str(error)
            return open_chain(open_pretrained(subject, weights="random", resolution=resolution), resolution)

    def _resolutions(self, fixed: Resolution | None) -> tuple[str, ...]:
        """Return the sizes at which every anchor runs."""
        if fixed is not None:
            return (f"{fixed[0]}x{fixed[1]}",)
        height, width = (min(chain.resolution[i] for chain in self.anchors) for i in (0, 1))
        texts, step = [], 32 if len(self.anchors) > 1 else 16  # maps of several anchors need to fit
        for share in SHARES if len(self.anchors) > 1 else sorted((*SHARES, *map(fmean, pairwise(SHARES))), reverse=True):
            size = (step * round(height * share / step), step * round(width * share / step))
            if size == (0, 0) or any(chain.fixed_size and size != chain.resolution for chain in self.anchors):
                continue
            texts.append(f"{size[0]}x{size[1]}")
        if not texts:
            sizes = ", ".join(f"{chain.name} {chain.resolution[0]}x{chain.resolution[1]}" for chain in self.anchors)
            raise UsageError(
                f"space chain: there is no size of picture at which all anchors run, got {sizes}. Do this: --resolution N, or others."
            )
        return tuple(dict.fromkeys(texts))

    def chains(self, resolution: Resolution) -> tuple[Chain, ...]:
        """Return the anchors cut at a size."""
        if resolution not in self._chains:
            self._chains[resolution] = tuple(chain.at(resolution) for chain in self.anchors)
        return self._chains[resolution]

    def _forms(self, chain: Chain) -> Iterator[tuple[str, ...]]:
        """Yield what each block of an anchor can be; the stem and the head stay whole."""
        for segment in chain.blocks()[1:-1]:
            module = segment.chain.cuts.segment(segment.first, segment.last)
            forms = [WHOLE]
            if "width" in self._edits and coupled_channels(module):
                forms += [*WIDTHS]
            if "merge" in self._edits and runs_of(module):
                forms += [MERGED]
            if "rank" in self._edits:
                forms += [form for form, share in RANKS.items() if factorisable(module, float(share))]
            if "out" in self._edits and segment.shape == segment.output_shape and can_be_left_out(module):
                forms += [OUT]
            yield tuple(forms)

    # --- where to change anchor ------------------------------------------------------------------------------------------

    def _order(self) -> list[int]:
        """Return the anchors by their cost, the cheapest first."""
        return sorted(range(len(self.anchors)), key=lambda i: self.anchors[i].cuts.layer_macs)

    def _pairs(self) -> Iterator[Change]:
        """Yield the changes of anchor, in order of depth.

        ``window`` and ``aligned`` are SN-Net's and SN-Netv2's, for anchors of equal blocks: neighbours in cost whose blocks stand at most one apart,
        from the cheaper to the dearer; and points at equal shares of the depth. ``all`` takes every pair whose positions are those of each other,
        halved or doubled; ``near`` of these, for each size of map, the nearest in depth.
        """
        if self._policy == "none" or not self._most:
            return
        order = self._order()
        directed = [(a, b) for a in order for b in order if a != b]
        if self._policy == "window":
            directed = list(pairwise(order))
        elif not self._two_way:
            directed = [(a, b) for a, b in directed if order.index(a) < order.index(b)]
        changes = [Change((a, i), (b, j)) for a, b in directed for i, j in self._points(a, b)]
        yield from sorted(
            changes, key=lambda change: (change.source[1] / len(self.anchors[change.source[0]].ends), change.source, change.target)
        )

    def _named(self, pairs: Sequence[str]) -> list[str]:
        """Return those of all pairs that are named, in order of depth."""
        if unknown := sorted(set(pairs) - set(self._texts)):
            first, example = unknown[0], next(iter(self._texts), "A:3>B:4")
            known = list(self._texts) if ">" in first else [*POLICIES, "similar"]
            raise UnknownNameError("pair", first, known, f"A pair of blocks is written {example}.")
        return [text for text in self._texts if text in set(pairs)]

    def most_alike(self, alike: Mapping[str, float]) -> tuple[str, ...]:
        """Return pairs of points by name, chosen as ``near`` chooses them, by how alike both ends are in place of their depth; of equal ones the nearest.

        Args:
            alike: Of every pair of this space by name, such as CKA; to two decimals, so that the choice is the same on every machine.
        """
        groups: dict[tuple[tuple[int, int], int, str], list[str]] = {}
        for text, change in self._texts.items():
            groups.setdefault((change.source, change.target[0], str(change.resizing(self.anchors))), []).append(text)

        def order(text: str) -> tuple[float, float]:
            (a, i), (b, j) = self._texts[text].source, self._texts[text].target
            return -round(alike[text], 2), abs(j / len(self.anchors[b].ends) - i / len(self.anchors[a].ends))

        chosen = {text for (_, _, how), texts in groups.items() for text in sorted(texts, key=order)[: _TARGETS.get(how, 0)]}
        return tuple(text for text in self._texts if text in chosen)

    def _points(self, a: int, b: int) -> Iterator[tuple[int, int]]:
        """Yield pairs of indices into the block ends of two anchors; what has become a vector has lost its positions for good."""
        first, second = self.anchors[a], self.anchors[b]
        n, m = len(first.ends), len(second.ends)
        for i in range(n):
            allowed = {
                j: how
                for j in range(m)
                if (how := resizing(first.form(first.ends[i]), second.form(second.ends[j]))) is not None
                and "vector" not in (first.points[first.ends[i]].layout, second.points[second.ends[j]].layout)
            }
            if self._policy == "window":
                yield from ((i, j) for j in allowed if i and j and abs(i - j) <= 1)
            elif self._policy == "aligned":
                yield from ((i, j) for j in allowed if 0 < i < n - 1 and i * (m - 1) == j * (n - 1))
            elif self._policy == "all":
                yield from ((i, j) for j in allowed)
            else:
                for how, count in _TARGETS.items():
                    near = sorted((j for j, resize in allowed.items() if resize == how), key=lambda j: abs(j / m - i / n))
                    yield from ((i, j) for j in sorted(near[:count]))

    def _text(self, change: Change) -> str:
        (a, i), (b, j) = change.source, change.target
        return f"{self.anchors[a].name}:{i}>{self.anchors[b].name}:{j}"

    def route(self, genes: Sequence[Gene]) -> tuple[tuple[int, int, int], ...]:
        """Return (anchor, first block, last block) of each stretch; blocks are numbered from the stem, 0."""
        names = [chain.name for chain in self.anchors]
        anchor, start, stretches = names.index(str(genes[1])), 0, []
        for gene in genes[2 : self._first_block]:
            if gene == NONE:
                break
            change = self._texts[str(gene)]
            stretches.append((anchor, start, change.source[1]))
            anchor, start = change.target[0], change.target[1] + 1
        return (*stretches, (anchor, start, len(self.anchors[anchor].ends)))

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Return the spelling in which changes that do not follow are none, and blocks that are not run are whole."""
        if len(genes) != len(self.choices) or not all(
            gene in choice.values for gene, choice in zip(genes[1:], self.choices[1:], strict=True)
        ):
            return genes
        out = list(genes)
        anchor = next(i for i, chain in enumerate(self.anchors) if chain.name == genes[1])
        taken: list[Change] = []
        for position, gene in enumerate(genes[2 : self._first_block], start=2):
            change = None if gene == NONE or len(taken) < position - 2 else self._texts[str(gene)]
            if change is not None and follows(change, taken, anchor):
                taken.append(change)
            else:
                out[position] = NONE
        run = {(a, i) for a, first, last in self.route(out) for i in range(first, last + 1)}
        position = self._first_block
        for a, chain in enumerate(self.anchors):
            for i in range(1, len(chain.ends)):
                if (a, i) not in run:
                    out[position] = WHOLE
                position += 1
        return tuple(out)

    def routes(self) -> Iterator[tuple[Gene, ...]]:
        """Yield the genes of every route with its blocks whole, at the first resolution, in the order of the encoding."""
        rest = [choice.values[0] for choice in self.choices[self._first_block :]]
        for a, chain in enumerate(self.anchors):
            for changes in self._following((), a, self._first_block - 2):
                yield (self.choices[0].values[0], chain.name, *changes, *rest)

    def _following(self, before: Sequence[Change], anchor: int, most: int) -> Iterator[tuple[str, ...]]:
        """Yield the changes that can follow others, `most` of them, filled up with none."""
        yield (NONE,) * most
        if most:
            for text, change in self._texts.items():
                if follows(change, before, anchor):
                    yield from ((text, *more) for more in self._following((*before, change), anchor, most - 1))

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every member once, in the order of the encoding; blocks that a route does not run are not varied."""
        for resolution in self.choices[0].values:
            for _, *route in self.routes():
                run = {(a, i) for a, first, last in self.route((resolution, *route)) for i in range(first, last + 1)}
                blocks = [(a, i) for a, chain in enumerate(self.anchors) for i in range(1, len(chain.ends))]
                offered = [
                    choice.values if block in run else choice.values[:1]
                    for block, choice in zip(blocks, self.choices[self._first_block :], strict=True)
                ]
                for forms in product(*offered):
                    yield Architecture(self.name, self.version, (resolution, *route[: self._first_block - 1], *forms))

    @cached_property
    def _count(self) -> int:
        blocks: list[list[int]] = []
        position = self._first_block
        for chain in self.anchors:
            count = len(chain.ends) - 1
            blocks.append([1, *(len(choice.values) for choice in self.choices[position : position + count]), 1])
            position += count
        total = 0
        for genes in self.routes():
            total += prod(prod(blocks[a][i] for i in range(first, last + 1)) for a, first, last in self.route(genes))
        return total * len(self.choices[0].values)

    def size(self) -> int:
        """Return the exact number of members."""
        return self._count

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return a member: a route that is uniform among those of as many changes, with most of its blocks whole."""
        genes: list[Gene] = [choice.values[rng.integers(len(choice.values))] for choice in self.choices[:2]]
        anchor = next(i for i, chain in enumerate(self.anchors) if chain.name == genes[1])
        wanted, taken = int(rng.integers(self._first_block - 1)), list[Change]()
        for i in range(self._first_block - 2):
            following = [text for text, change in self._texts.items() if i < wanted and follows(change, taken, anchor)]
            genes.append(following[rng.integers(len(following))] if following else NONE)
            taken += [self._texts[str(genes[-1])]] if following else []
        edited = max(0.0, 1.25 * rng.random() - 0.25) ** 2  # a fifth is not edited, a few are all over: members at every latency
        genes += [
            choice.values[rng.integers(len(choice.values))] if rng.random() < edited else WHOLE
            for choice in self.choices[self._first_block :]
        ]
        return self.architecture(genes)

    # --- parts -----------------------------------------------------------------------------------------------------------

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """Return the chain of an architecture: segments of anchors with stitches between them."""
        genes, classes = architecture.genes, num_classes or self.num_classes
        chains = self.chains(resolution or parse_resolution(str(genes[0])))
        parts: list[Part] = []
        before: tuple[int, int] | None = None
        for a, first, last in self.route(genes):
            if before is not None:
                parts.append(self._stitch(chains, before, (a, first - 1)))
            parts += [part for i in range(first, last + 1) for part in self._block(chains[a], a, i, genes, classes)]
            before = a, last
        return tuple(parts)

    def _stitch(self, chains: Sequence[Chain], source: tuple[int, int], target: tuple[int, int]) -> Stitch:
        (a, i), (b, j) = source, target
        points = chains[a].ends[i], chains[b].ends[j]
        forms = chains[a].form(points[0]), chains[b].form(points[1])
        names = (chains[a].name, i), (chains[b].name, j)
        label = f"stitch.{chains[a].name}{i}_{chains[b].name}{j}"
        return Stitch(label, forms[0].shape, *names, forms, self.rank)

    def _block(self, chain: Chain, a: int, i: int, genes: Sequence[Gene], classes: int) -> Iterator[Segment]:
        borders = (-1, *chain.ends, len(chain.points) - 1)
        last = len(chain.ends)
        if i in (0, last):
            own = {"classes": classes} if i == last and classes != chain.classes else {}
            yield chain.segment(borders[i], borders[i + 1], **own)
            return
        position = self._first_block + sum(len(other.ends) - 1 for other in self.anchors[:a]) + i - 1
        form = str(genes[position])
        if form == OUT:
            return
        edits: dict[str, Any] = {}
        if form == MERGED:
            edits = {"merged": True}
        elif form in RANKS:
            edits = {"rank": RANKS[form]}
        elif form != WHOLE:
            edits = {"width": form}
        yield chain.segment(borders[i], borders[i + 1], **edits)

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return segments and stitches as cached graphs."""
        segments = []
        for part in self.parts(architecture, resolution):
            if part not in self._graphs:
                self._graphs[part] = part.graph()
            segments.append((part.label, self._graphs[part]))
        return tuple(segments)

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:
        """Return a member; its segments have their trained weights, its stitches fresh ones.

        Raises:
            UsageError: An anchor has no weights on this machine.
        """
        if self.untrained:
            raise UsageError(next(iter(self.untrained.values())))
        return super().build(architecture, num_classes=num_classes, resolution=resolution)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every segment at its full width, every one with weights of its own (merged, of lower rank), and every stitch."""
        if self.untrained:
            raise UsageError(next(iter(self.untrained.values())))
        chains = self.chains(self.proxy_of(resolution))
        slots: dict[str, tuple[Part, ...]] = {}
        whole = tuple(choice.values[0] for choice in self.choices)
        position = self._first_block
        for a, chain in enumerate(chains):
            for i in range(len(chain.ends) + 1):
                forms: tuple[Gene, ...] = (WHOLE,)
                if 0 < i < len(chain.ends):
                    forms = tuple(form for form in self.choices[position].values if form in (WHOLE, MERGED, *RANKS))
                for form in forms:
                    genes = [*whole[:position], form, *whole[position + 1 :]] if 0 < i < len(chain.ends) else whole
                    for part in self._block(chain, a, i, genes, num_classes):
                        slots[part.slot] = (part,)
                position += 0 < i < len(chain.ends)
        for change in self.changes:
            stitch = self._stitch(chains, change.source, change.target)
            slots[stitch.slot] = (stitch,)
        return slots

    # --- proxies, ends, what a report shows ------------------------------------------------------------------------------

    def proxy_of(self, resolution: Resolution) -> Resolution:
        """Return the proxy of a member at the first resolution, unless an anchor runs at its own size alone."""
        return self._proxy(parse_resolution(str(self.choices[0].values[0])), resolution)

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:
        """Return the proxy resolution times (deployment resolution / the largest), in steps of `PROXY_STEPS`."""
        return self._proxy(parse_resolution(str(architecture.genes[0])), resolution)

    def _proxy(self, own: Resolution, base: Resolution) -> Resolution:
        if any(chain.fixed_size for chain in self.anchors):
            return own
        largest = parse_resolution(str(self.choices[0].values[0]))
        wanted = [(b * side / most, side) for b, side, most in zip(base, own, largest, strict=True)]
        for step in PROXY_STEPS:
            height, width = (min(side, max(32, step * round(length / step))) for length, side in wanted)
            if step == PROXY_STEPS[-1] or self._runs((height, width)):
                break
        return height, width

    def _runs(self, size: Resolution) -> bool:
        """Return whether every anchor runs at a size, and every stitch resizes there as it does at the first one."""
        if size not in self._running:
            try:
                chains = self.chains(size)
                self._running[size] = all(change.resizing(chains) == change.resizing(self.anchors) for change in self.changes)
            except GraphError:
                self._running[size] = False
        return self._running[size]

    def extreme(self, largest: bool) -> Architecture:
        """Return the dearest anchor as it is, or the cheapest with every block as small as it can be."""
        anchor = self._order()[-1 if largest else 0]
        genes: list[Gene] = [choice.values[0] for choice in self.choices]
        genes[1] = self.anchors[anchor].name
        if not largest:
            genes[0] = self.choices[0].values[-1]
            for position in range(self._first_block, len(self.choices)):
                offered = self.choices[position].values
                genes[position] = OUT if OUT in offered else WIDTHS[0] if WIDTHS[0] in offered else WHOLE
        return self.architecture(genes)

    def at_end(self, architecture: Architecture, end: int) -> Architecture:
        """See `ElasticSpace.at_end`: the largest is the dearest anchor, which teaches; the smallest keeps its route and loses what it can."""
        if end == -1:
            return self.extreme(True)
        genes = list(architecture.genes)
        for position in range(self._first_block, len(self.choices)):
            offered = self.choices[position].values
            genes[position] = WIDTHS[0] if WIDTHS[0] in offered else WHOLE
        return self.architecture(genes)

    def member(self, anchor: str, resolution: str | None = None) -> Architecture:
        """Return an anchor by itself."""
        first, _, *rest = (choice.values[0] for choice in self.choices)
        return self.architecture([resolution or first, anchor, *rest])

    def describe(self, architecture: Architecture) -> Mapping[str, Gene]:
        """Return resolution, anchor and changes by name; `facts` has the blocks."""
        return dict(list(super().describe(architecture).items())[: self._first_block])

    def facts(self, architecture: Architecture) -> Mapping[str, str]:
        """Return the chain in words: which blocks of which anchor, and what was done to them."""
        words = []
        for a, first, last in self.route(architecture.genes):
            forms = list(enumerate(self.blocks(architecture)[self.anchors[a].name]))[first : last + 1]
            edits = ", ".join(f"{i} {form}" for i, form in forms if form != WHOLE)
            words.append(f"{self.anchors[a].name} {first}–{last}" + (f" ({edits})" if edits else ""))
        return {"chain": " → ".join(words)}

    def blocks(self, architecture: Architecture) -> Mapping[str, tuple[str, ...]]:
        """See `ChainSpace.blocks`."""
        run = {(a, i) for a, first, last in self.route(architecture.genes) for i in range(first, last + 1)}
        forms_by_anchor, position = {}, self._first_block
        for a, chain in enumerate(self.anchors):
            count = len(chain.ends) - 1
            forms = (WHOLE, *map(str, architecture.genes[position : position + count]), WHOLE)
            forms_by_anchor[chain.name] = tuple(form if (a, i) in run else "" for i, form in enumerate(forms))
            position += count
        return forms_by_anchor
