"""``hybrid``: a four-stage pyramid whose every block chooses a token mixer, a channel mixer and an expansion.

    stem ─▶ [downsample ─▶ (mixer ─▶ channel mixer) × depth] × 4 ─▶ mean ─▶ linear

Each half of a block is y = x + BN(f(x)); the batch norm folds into a convolution that ends f. Choices are a stage's
width and depth, the stem and the resolution beside those of the blocks. Operator families come from the registries: what
is in ``search_spaces/mixers/`` and ``search_spaces/channel_mixers/`` enters by itself, and says which of its knobs are
searched; its other knobs keep their defaults.

Presets: ``xs`` (for microcontrollers) and ``s m l`` have the families of `DEFAULT_MIXERS` and `DEFAULT_CHANNEL_MIXERS`; ``npu-s …`` have all that are
graded green; ``int-s …`` those whose operators are integers' alone, on widths of whole sixteens; ``gpu-s …`` have all. ``hybrid-s:mixers=pool,hornet:knobs=pool.kernel`` has other families, and more knobs.

Source:
    The pyramid and the split of a block are MetaFormer's (arXiv 2111.11418); the batch norm after the operator is
    LeViT's (arXiv 2104.01136); the stem of two strided convolutions is CAS-ViT's (arXiv 2408.03703), that of one patch
    is ConvNeXt's (arXiv 2201.03545). Widths, depths and presets are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from nas.errors import UsageError
from nas.graphs.graph import GraphBuilder
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.elastic import ElasticSpace, Part, proportional
from nas.spaces.naming import SpaceName
from nas.spaces.operator_family import OperatorFamily
from nas.spaces.space import Choice, Resolution, spaces
from nas.units import parse_resolution
from search_spaces._operator_settings import (
    EXPANSIONS,
    GREEN,
    SMALL,
    STAGES,
    Rule,
    Size,
    channel_families,
    channel_settings,
    checked_families,
    further_knobs,
    is_small,
    macs_of,
    map_size,
    token_families,
    token_settings,
)

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MIXERS = ("depthwise", "inception-next", "pool", "catm", "window", "spatial-reduction")
DEFAULT_CHANNEL_MIXERS = ("mlp", "depthwise-mlp", "inverted-residual", "glu")
RESOLUTIONS = ("128x128", "160x160", "192x192", "224x224", "256x256", "288x288", "128x256", "160x288", "192x256", "256x192")
SMALL_RESOLUTIONS = ("64x64", "96x96", "128x128", "160x160", "192x192", "224x224")
"""Input sizes of the preset for microcontrollers; these and the sizes above are set by hand."""
ALIGNED = 16
"""Widths of the integer-only presets are multiples of so many channels. Set by hand."""

STEMS = ("convolutions", "patch")

# Source: ours, set by hand; see `Size` for the fields.
SIZES: Mapping[str, Size] = {
    "xs": Size(((8, 16), (16, 24, 32), (32, 48, 64, 96), (64, 96, 160, 224)), ((1,), (1, 2), (1, 2, 3), (1, 2)), 0.2e9),
    "s": Size(((16, 24), (32, 40, 48), (64, 80, 96), (128, 160, 192)), ((1, 2), (1, 2), (1, 2, 3, 4), (1, 2)), 0.4e9),
    "m": Size(((24, 32, 40), (48, 64, 80), (96, 128, 160), (192, 256, 320)), ((1, 2), (1, 2, 3), (3, 4, 5, 6), (1, 2, 3)), 1.5e9),
    "l": Size(((48, 64, 72), (96, 128, 144), (192, 256, 288), (384, 512, 576)), ((1, 2), (2, 3, 4), (4, 6, 8), (2, 3)), 5e9),
}


@dataclass(frozen=True)
class Stem(Part):
    """(1, 3, h, w) -> (1, width, h / r, w / r) with r = 2 for small pictures, else 4."""

    kind: str
    width: int

    @property
    def slot(self) -> str:
        """One a kind."""
        return f"{self.label}/{self.kind}"

    @property
    def stride(self) -> int:
        """Reduction after the first halving."""
        return 1 if is_small((self.shape[2], self.shape[3])) else 2

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        if self.kind == "patch":
            return builder.conv(x, self.width, 4, stride=2 * self.stride, pads=_patch_pads(self.stride), name="patch")
        x = builder.unary("Relu", builder.conv(x, max(8, self.width // 2), 3, stride=2, name="conv1"))
        return builder.unary("Relu", builder.conv(x, self.width, 3, stride=self.stride, name="conv2"))

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers import pyramid

        return pyramid.stem(self.kind, self.width, self.stride)


def _patch_pads(stride: int) -> tuple[int, ...]:
    return (1, 1, 1, 1) if stride == 1 else (0, 0, 0, 0)


@dataclass(frozen=True)
class Downsample(Part):
    """(1, c, h, w) -> (1, width, ⌈h / 2⌉, ⌈w / 2⌉): a strided 3 × 3 convolution with batch norm."""

    width: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return builder.conv(x, self.width, 3, stride=2, name="conv")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers.convolution import ConvNorm

        return ConvNorm(self.shape[1], self.width, 3, stride=2)


@dataclass(frozen=True)
class Half(Part):
    """y = x + BN(f(x)), where f is an operator family's: one half of a block.

    Attributes:
        family: Its name.
        operator: It.
        weights: Which of the position's weights it takes; see `Setting.slot`.
    """

    family: str
    operator: OperatorFamily
    weights: str

    @property
    def slot(self) -> str:
        """One a family, or a part of its settings."""
        return f"{self.label}/{self.weights}"

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        y = builder.batch_norm(self.operator.lower(builder, x), name="norm")
        return builder.binary("Add", x, y, name="residual")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers import pyramid

        _, channels, height, width = self.shape
        return pyramid.Residual(self.operator.build(channels, (height, width)), channels, (height, width))


@dataclass(frozen=True)
class Head(Part):
    """(1, c, h, w) -> (1, classes): mean over positions, then a linear layer."""

    classes: int

    def lower(self, builder: GraphBuilder, x: str) -> str:
        """Write the deploy form."""
        return builder.gemm(builder.flatten(builder.global_pool(x)), self.classes, name="classifier")

    def build(self) -> nn.Module:
        """Return the training form."""
        from search_spaces.layers import pyramid

        return pyramid.head(self.shape[1], self.classes)


@spaces.register("hybrid")
class Hybrid(ElasticSpace):
    """The hybrid pyramid; see the module.

    Args:
        preset: ``xs`` (for microcontrollers), ``s``, ``m`` or ``l``, the last three also with ``npu-``, ``int-`` or ``gpu-`` before them.
        num_classes: Of the head.
        resolution: Fixes the deployment resolution; None leaves it to the search.
        without: Operator families to leave out, say because a device lacks their operators.
        mixers: Token mixers and channel mixers to choose from in place of the preset's, or ``green``; a kind of which none is named keeps the preset's.
        knobs: Searched with all their values beside those that the families name, as ``family.knob``.

    Raises:
        UsageError: An unknown family or knob, one that fits no stage, or a stage for which nothing is left.
    """

    presets = ("xs", "s", "m", "l", "npu-s", "npu-m", "npu-l", "int-s", "int-m", "gpu-s", "gpu-m", "gpu-l")

    def __init__(
        self,
        preset: str,
        *,
        num_classes: int = 1000,
        resolution: Resolution | None = None,
        without: Collection[str] = (),
        mixers: Sequence[str] = (),
        knobs: Sequence[str] = (),
    ) -> None:
        where = f"space hybrid-{preset}"
        requested = checked_families(where, mixers)
        self.num_classes = num_classes
        if resolution is not None and (min(resolution) < 32 or any(side % 4 for side in resolution)):
            raise UsageError(f"{where}: cannot take the resolution, got {resolution}. Expected multiples of 4 from 32 pixels a side.")
        group, _, size = preset.rpartition("-")
        every = SMALL_RESOLUTIONS if size == "xs" else RESOLUTIONS
        resolutions = every if resolution is None else (f"{resolution[0]}x{resolution[1]}",)
        self._size = SIZES[size]
        if group == "int":
            self._size = replace(self._size, widths=tuple(tuple(w for w in widths if w % ALIGNED == 0) for widths in self._size.widths))
        self._every_width = bool(group or requested or knobs)
        self._choose_settings(where, group, tuple(dict.fromkeys((*every, *resolutions))), requested, knobs, without)
        offered = {setting.family for stage in (*self._token, *self._channel) for setting in stage.values()}
        if useless := [name for name in mixers if name not in (GREEN, *offered, *without)]:
            raise UsageError(
                f"{where}: fits no stage, or costs more there than the preset allows, got {', '.join(useless)}. Do this: leave it out."
            )
        named = {
            "mixers": tuple(name for name in requested if name in offered),
            "knobs": tuple(sorted({text for text in knobs if text.partition(".")[0] in offered})),
        }
        self.name = str(SpaceName(f"hybrid-{preset}", named))
        choices = [Choice("resolution", resolutions), Choice("stem", STEMS)]
        self._blocks: list[tuple[int, list[int]]] = []  # of each stage: position of its depth, and of its blocks' first genes
        for s, (widths, depths) in enumerate(zip(self._size.widths, self._size.depths, strict=True)):
            here = len(choices)
            choices += [Choice(f"stage{s}.width", widths, ordered=True), Choice(f"stage{s}.depth", depths, ordered=True)]
            self._blocks.append((here + 1, [here + 2 + 3 * b for b in range(depths[-1])]))
            for b in range(depths[-1]):
                choices += [
                    Choice(f"stage{s}.block{b}.mixer", tuple(self._token[s])),
                    Choice(f"stage{s}.block{b}.channel_mixer", tuple(self._channel[s])),
                    Choice(f"stage{s}.block{b}.expansion", EXPANSIONS, ordered=True),
                ]
        self.choices = tuple(choices)
        self._first = tuple(choice.values[0] for choice in choices)
        self._widest = max(resolutions, key=lambda text: prod(parse_resolution(text)))
        self._deployment = cache(parse_resolution)
        self._stem, self._downsample, self._head = cache(self._make_stem), cache(self._make_downsample), cache(self._make_head)
        self._mixer, self._channel_mixer = cache(self._make_mixer), cache(self._make_channel_mixer)

    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "resolution", "without", "mixers", "knobs"})

    def _choose_settings(
        self, where: str, group: str, resolutions: tuple[str, ...], requested: Sequence[str], knobs: Sequence[str], without: Collection[str]
    ) -> None:
        """Settle what each stage offers: as many settings as let the largest member keep the preset's promise.

        Raises:
            UsageError: An unknown family or knob, or a stage for which nothing is left.
        """
        checked_families(where, tuple(without))
        token = token_families(DEFAULT_MIXERS, group, requested, without)
        channel = channel_families(DEFAULT_CHANNEL_MIXERS, group, requested, without)
        further = further_knobs(where, [text for text in knobs if text.partition(".")[0] not in without], {**token, **channel})
        for slack in (1.0, 0.9, 0.8, 0.7, 0.6):
            rule = Rule(self._size, resolutions, bool(group), further, slack)
            self._token = [{s.label: s for s in token_settings(token, stage, rule)} for stage in range(STAGES)]
            self._channel = [{s.label: s for s in channel_settings(channel, stage, rule)} for stage in range(STAGES)]
            empty = [i for i in range(STAGES) if not self._token[i] or not self._channel[i]]
            if empty:
                raise UsageError(
                    f"{where}: nothing is left for stage {empty[0]}, got {', '.join([*token, *channel]) or 'no family'}. "
                    f"Do this: add {DEFAULT_MIXERS[0]} and {DEFAULT_CHANNEL_MIXERS[0]}, which fit everywhere."
                )
            if self._dearest_macs() <= self._size.most_macs:
                break

    @property
    def families(self) -> Mapping[str, frozenset[str]]:
        """Operator families in use, each with the operator kinds that its settings lower to at 224 × 224."""
        kinds: dict[str, set[str]] = {}
        for part in (part for parts in self.slots((224, 224), self.num_classes).values() for part in parts):
            if isinstance(part, Half):
                kinds.setdefault(part.family, set()).update(op.op for op in part.graph().operators)
        return {family: frozenset(ops) for family, ops in kinds.items()}

    def _dearest_macs(self) -> int:
        """Return an upper bound on the multiply-adds of any member at 224 × 224."""
        whole = (224, 224)
        widths = [w[-1] for w in self._size.widths]
        parts: list[tuple[Part, int]] = [(Head("head", (1, widths[3], *map_size(whole, 3)), self.num_classes), 1)]
        parts += [(Downsample("", (1, widths[s - 1], *map_size(whole, s - 1)), widths[s]), 1) for s in (1, 2, 3)]
        total = max(Stem("stem", (1, 3, *whole), kind, widths[0]).graph().cost.macs for kind in STEMS)
        total += sum(part.graph().cost.macs * times for part, times in parts)
        for s, depths in enumerate(self._size.depths):
            shape = (1, widths[s], *map_size(whole, s))
            halves = (self._token[s], self._channel[s])
            dearest = [max(macs_of(o, shape) or 0 for x in half.values() for o in x.operators.values()) for half in halves]
            total += depths[-1] * sum(dearest)
        return total

    def canonical(self, genes: tuple[Gene, ...]) -> tuple[Gene, ...]:
        """Return the spelling in which genes of blocks beyond a stage's depth take their first value."""
        out = list(genes)
        for depth, blocks in self._blocks:
            wanted = genes[depth] if depth < len(genes) else 0
            if isinstance(wanted, int):
                for i in blocks[wanted:]:
                    out[i : i + 3] = self._first[i : i + 3]
        return tuple(out)

    def size(self) -> int:
        """Return the exact number of members."""
        total = prod(len(choice.values) for choice in self.choices[:2])
        for s, (depth, blocks) in enumerate(self._blocks):
            per_block = prod(len(choice.values) for choice in self.choices[blocks[0] : blocks[0] + 3])
            depths = self.choices[depth].values
            total *= len(self._size.widths[s]) * sum(per_block ** int(d) for d in depths)
        return total

    def resolution(self, architecture: Architecture) -> Resolution:
        """Return the deployment resolution of an architecture."""
        return parse_resolution(str(architecture.genes[0]))

    def parts(self, architecture: Architecture, resolution: Resolution | None = None, num_classes: int | None = None) -> tuple[Part, ...]:
        """Return the chain of an architecture."""
        genes: tuple[Any, ...] = architecture.genes
        size = self._deployment(str(genes[0])) if resolution is None else resolution
        mixer, channel_mixer, width = self._mixer, self._channel_mixer, genes[self._blocks[0][0] - 1]
        chain: list[Part] = [self._stem(size, genes[1], width)]
        for s, (depth, blocks) in enumerate(self._blocks):
            before, width = width, genes[depth - 1]
            if s:
                chain.append(self._downsample(size, s, before, width))
            for b, i in enumerate(blocks[: genes[depth]]):
                chain.append(mixer(size, s, b, width, genes[i]))
                chain.append(channel_mixer(size, s, b, width, genes[i + 1], genes[i + 2]))
        chain.append(self._head(size, width, num_classes or self.num_classes))
        return tuple(chain)

    def _make_stem(self, size: Resolution, kind: str, width: int) -> Stem:
        return Stem("stem", (1, 3, *size), kind, width)

    def _make_downsample(self, size: Resolution, stage: int, before: int, width: int) -> Downsample:
        return Downsample(f"stage{stage}.downsample", (1, before, *map_size(size, stage - 1)), width)

    def _make_mixer(self, size: Resolution, stage: int, block: int, width: int, label: str) -> Half:
        setting = self._token[stage][label]
        operator = setting.operators[EXPANSIONS[0]]
        return Half(f"stage{stage}.block{block}.mixer", (1, width, *map_size(size, stage)), setting.family, operator, setting.slot)

    def _make_channel_mixer(self, size: Resolution, stage: int, block: int, width: int, label: str, expansion: int) -> Half:
        setting = self._channel[stage][label]
        operator, position = setting.operators[expansion], f"stage{stage}.block{block}.channel_mixer"
        return Half(position, (1, width, *map_size(size, stage)), setting.family, operator, setting.slot)

    def _make_head(self, size: Resolution, width: int, classes: int) -> Head:
        return Head("head", (1, width, *map_size(size, 3)), classes)

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:
        """Return the proxy resolution times (deployment resolution / 224), in steps of 4 pixels, if the search may choose.

        The stem's reduction is the same for all sizes of a supernet.
        """
        if len(self.choices[0].values) == 1:
            return resolution
        least, most = (16, SMALL - 4) if is_small(resolution) else (SMALL, None)
        return proportional(resolution, self.resolution(architecture), least, most)

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every setting of every position at the stage's widths and the largest proxy."""
        slots: dict[str, list[Part]] = {}
        largest = self.architecture((self._widest, *self._first[1:]))
        for part in self._largest_parts(self.proxy(largest, resolution), num_classes):
            slots.setdefault(part.slot, []).append(part)
        return {slot: tuple(parts) for slot, parts in slots.items()}

    def _largest_parts(self, size: Resolution, classes: int) -> Iterator[Part]:
        widths = [w[-1] for w in self._size.widths]
        for kind in STEMS:
            yield self._stem(size, kind, widths[0])
        for s, depths in enumerate(self._size.depths):
            if s:
                yield self._downsample(size, s, widths[s - 1], widths[s])
            # families beyond the default may group channels otherwise at another width, so every width counts
            for b, width in product(range(depths[-1]), self._size.widths[s] if self._every_width else [widths[s]]):
                for setting in self._token[s]:
                    yield self._mixer(size, s, b, width, setting)
                for setting, expansion in product(self._channel[s], EXPANSIONS):
                    yield self._channel_mixer(size, s, b, width, setting, expansion)
        yield self._head(size, widths[3], classes)
