"""``hybrid``: a four-stage pyramid whose every block chooses a token mixer, a channel mixer and an expansion.

    stem ─▶ [downsample ─▶ (mixer ─▶ channel mixer) × depth] × 4 ─▶ mean ─▶ linear

Each half of a block is y = x + BN(f(x)); the batch norm folds into a convolution that ends f. Choices are a stage's
width and depth, the stem and the resolution beside those of the blocks. Operator families come from the registries: what
is in ``search_spaces/mixers/`` and ``search_spaces/channel_mixers/`` enters by itself, its first knob is searched, and
its other knobs keep their defaults.

Presets: ``s m l`` have the families of `DEFAULT_MIXERS` and `DEFAULT_CHANNEL_MIXERS`; ``npu-s …`` have all that are
graded green; ``gpu-s …`` have all.

Source:
    The pyramid and the split of a block are MetaFormer's (arXiv 2111.11418); the batch norm after the operator is
    LeViT's (arXiv 2104.01136); the stem of two strided convolutions is CAS-ViT's (arXiv 2408.03703), that of one patch
    is ConvNeXt's (arXiv 2201.03545). Widths, depths and presets are ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from nas.errors import UnknownNameError, UsageError
from nas.graphs.graph import GraphBuilder
from nas.graphs.operators import Shape
from nas.registry import Registry
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.elastic import ElasticSpace, Part
from nas.spaces.operator_family import OperatorFamily, channel_mixers, mixers
from nas.spaces.space import Choice, Resolution, spaces
from nas.units import parse_resolution

if TYPE_CHECKING:
    from torch import nn

DEFAULT_MIXERS = ("depthwise", "inception-next", "pool", "catm", "window", "spatial-reduction")
DEFAULT_CHANNEL_MIXERS = ("mlp", "depthwise-mlp", "inverted-residual", "glu")
RESOLUTIONS = ("128x128", "160x160", "192x192", "224x224", "256x256", "288x288", "128x256", "160x288", "192x256", "256x192")
EXPANSIONS = (2, 3, 4)
STEMS = ("convolutions", "patch")
_ACTIVATION = "relu"
_SMALL = 48
"""Pictures with a side shorter than this are reduced by 2 in the stem, larger ones by 4."""

_KNOBS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "inception-next": {"band": (11,)},
    "pool": {"kernel": (3,)},
    "catm": {"kernel": (3,)},
    "window": {"window": (7,)},
    "depthwise-mlp": {"kernel": (3,)},
    "inverted-residual": {"kernel": (3, 5)},
}
"""What the first knob takes where the default presets want less than the family offers."""

_REDUCTIONS = (8, 4, 2, 1)
"""Of spatially reduced attention in each stage, as in PVT (arXiv 2102.12122)."""


@dataclass(frozen=True)
class _Size:
    """Widths and depths of a preset, and what its largest member may cost at 224 × 224."""

    widths: tuple[tuple[int, ...], ...]
    depths: tuple[tuple[int, ...], ...]
    most_macs: float


@dataclass(frozen=True)
class _Rule:
    """What decides whether a stage offers a setting.

    Attributes:
        size: Of the preset.
        resolutions: That must be possible.
        slack: Factor on the bound on multiply-adds.
        narrow: Whether `_KNOBS` applies.
    """

    size: _Size
    resolutions: tuple[str, ...]
    slack: float
    narrow: bool


SIZES: Mapping[str, _Size] = {
    "s": _Size(((16, 24), (32, 40, 48), (64, 80, 96), (128, 160, 192)), ((1, 2), (1, 2), (1, 2, 3, 4), (1, 2)), 0.4e9),
    "m": _Size(((24, 32, 40), (48, 64, 80), (96, 128, 160), (192, 256, 320)), ((1, 2), (1, 2, 3), (3, 4, 5, 6), (1, 2, 3)), 1.5e9),
    "l": _Size(((48, 64, 72), (96, 128, 144), (192, 256, 288), (384, 512, 576)), ((1, 2), (2, 3, 4), (4, 6, 8), (2, 3)), 5e9),
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
        return 1 if min(self.shape[2:]) < _SMALL else 2

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
    """y = x + BN(f(x)), where f is an operator family's: one half of a block."""

    family: str
    operator: OperatorFamily

    @property
    def slot(self) -> str:
        """One a family."""
        return f"{self.label}/{self.family}"

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
        preset: ``s``, ``m`` or ``l``, with ``npu-`` or ``gpu-`` before it.
        num_classes: Of the head.
        resolution: Fixes the deployment resolution; None leaves it to the search.
        without: Operator families to leave out, say because a device lacks their operators.

    Raises:
        UsageError: An unknown family in `without`, or one that every network needs.
    """

    presets = ("s", "m", "l", "npu-s", "npu-m", "npu-l", "gpu-s", "gpu-m", "gpu-l")

    def __init__(
        self, preset: str, *, num_classes: int = 1000, resolution: Resolution | None = None, without: Collection[str] = ()
    ) -> None:
        self.name = f"hybrid-{preset}"
        self.num_classes = num_classes
        group, _, size = preset.rpartition("-")
        self._size, self._narrow = SIZES[size], not group
        known = {*mixers.names(), *channel_mixers.names()}
        if unknown := sorted(set(without) - known):
            raise UnknownNameError("mixer", unknown[0], known)
        if kept := sorted({"depthwise", "mlp"} & set(without)):
            raise UsageError(f"space {self.name}: cannot do without {kept[0]!r}, got without={sorted(without)!r}.")
        if resolution is not None and (min(resolution) < 32 or any(side % 4 for side in resolution)):
            raise UsageError(
                f"space {self.name}: cannot take the resolution, got {resolution}. Expected multiples of 4 from 32 pixels a side."
            )
        token = _families(mixers, DEFAULT_MIXERS, group, without)
        channel = _families(channel_mixers, DEFAULT_CHANNEL_MIXERS, group, without)
        resolutions = RESOLUTIONS if resolution is None else (f"{resolution[0]}x{resolution[1]}",)
        for slack in (1.0, 0.9, 0.8, 0.7, 0.6):  # whatever families there are, the largest member keeps the preset's promise
            rule = _Rule(self._size, resolutions, slack, self._narrow)
            self._token = [dict(_settings(token, stage, rule)) for stage in range(4)]
            self._channel = [dict(_channel_settings(channel, stage, rule)) for stage in range(4)]
            if self._dearest_macs() <= self._size.most_macs:
                break
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

    options: ClassVar[frozenset[str]] = frozenset({"num_classes", "resolution", "without"})

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> Hybrid:
        """Return the space of a preset; options are those of the class.

        Raises:
            UsageError: An option that the space does not know.
        """
        cls.check_options(preset, options)
        return cls(preset, **options)

    @property
    def families(self) -> Mapping[str, frozenset[str]]:
        """Operator families in use, each with the operator kinds that its settings lower to at 224 × 224."""
        found: dict[str, set[str]] = {}
        for part in (part for parts in self.slots((224, 224), self.num_classes).values() for part in parts):
            if isinstance(part, Half):
                found.setdefault(part.family, set()).update(op.op for op in part.graph().operators)
        return {family: frozenset(ops) for family, ops in found.items()}

    def _dearest_macs(self) -> int:
        """Return an upper bound on the multiply-adds of any member at 224 × 224."""
        whole = (224, 224)
        widths = [w[-1] for w in self._size.widths]
        parts: list[tuple[Part, int]] = [(Head("head", (1, widths[3], *_map_size(whole, 3)), self.num_classes), 1)]
        parts += [(Downsample("", (1, widths[s - 1], *_map_size(whole, s - 1)), widths[s]), 1) for s in (1, 2, 3)]
        total = max(Stem("stem", (1, 3, *whole), kind, widths[0]).graph().cost.macs for kind in STEMS)
        total += sum(part.graph().cost.macs * times for part, times in parts)
        for s, depths in enumerate(self._size.depths):
            shape = (1, widths[s], *_map_size(whole, s))
            mixer = max(_macs(operator, shape) or 0 for _, operator in self._token[s].values())
            channel = max(_macs(o, shape) or 0 for _, operators in self._channel[s].values() for o in operators.values())
            total += depths[-1] * (mixer + channel)
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
        return Downsample(f"stage{stage}.downsample", (1, before, *_map_size(size, stage - 1)), width)

    def _make_mixer(self, size: Resolution, stage: int, block: int, width: int, setting: str) -> Half:
        family, operator = self._token[stage][setting]
        return Half(f"stage{stage}.block{block}.mixer", (1, width, *_map_size(size, stage)), family, operator)

    def _make_channel_mixer(self, size: Resolution, stage: int, block: int, width: int, setting: str, expansion: int) -> Half:
        family, operators = self._channel[stage][setting]
        return Half(f"stage{stage}.block{block}.channel_mixer", (1, width, *_map_size(size, stage)), family, operators[expansion])

    def _make_head(self, size: Resolution, width: int, classes: int) -> Head:
        return Head("head", (1, width, *_map_size(size, 3)), classes)

    def proxy(self, architecture: Architecture, resolution: Resolution) -> Resolution:
        """Return the proxy resolution times (deployment resolution / 224), in steps of 4 pixels, if the search may choose.

        The stem's reduction is the same for all sizes of a supernet.
        """
        if len(self.choices[0].values) == 1:
            return resolution
        small = min(resolution) < _SMALL
        height, width = (
            min(_SMALL - 4, max(16, size)) if small else max(_SMALL, size)
            for size in (4 * round(base * side / 224 / 4) for base, side in zip(resolution, self.resolution(architecture), strict=True))
        )
        return height, width

    def slots(self, resolution: Resolution, num_classes: int) -> Mapping[str, tuple[Part, ...]]:
        """Return every setting of every position at the stage's widths and the largest proxy."""
        found: dict[str, list[Part]] = {}
        largest = self.architecture((self._widest, *self._first[1:]))
        for part in self._largest_parts(self.proxy(largest, resolution), num_classes):
            found.setdefault(part.slot, []).append(part)
        return {slot: tuple(parts) for slot, parts in found.items()}

    def _largest_parts(self, size: Resolution, classes: int) -> Iterator[Part]:
        widths = [w[-1] for w in self._size.widths]
        for kind in STEMS:
            yield self._stem(size, kind, widths[0])
        for s, depths in enumerate(self._size.depths):
            if s:
                yield self._downsample(size, s, widths[s - 1], widths[s])
            # families beyond the default may group channels otherwise at another width, so every width counts
            for b, width in product(range(depths[-1]), [widths[s]] if self._narrow else self._size.widths[s]):
                for setting in self._token[s]:
                    yield self._mixer(size, s, b, width, setting)
                for setting, expansion in product(self._channel[s], EXPANSIONS):
                    yield self._channel_mixer(size, s, b, width, setting, expansion)
        yield self._head(size, widths[3], classes)


def _map_size(resolution: Resolution, stage: int) -> Resolution:
    """Return (height, width) of a stage's maps: halvings, rounded up except in the patch stem."""
    halvings = stage + (1 if min(resolution) < _SMALL else 2)
    height, width = (-(-side // 2**halvings) for side in resolution)
    return height, width


def _families(
    registry: Registry[type[OperatorFamily]], default: tuple[str, ...], group: str, without: Collection[str]
) -> dict[str, type[OperatorFamily]]:
    """Return the families of a group of presets by name, plain ones first."""
    names = default if not group else sorted(registry.names(), key=lambda name: (name not in default, name))
    found = {name: registry.get(name) for name in names if name not in without}
    first = default[0]
    ordered = {first: found[first]} | found
    return {name: kind for name, kind in ordered.items() if group != "npu" or kind().grade == "green"}


def _operator(kind: type[OperatorFamily], **knobs: Any) -> OperatorFamily:
    """Return an operator with the space's activation and batch norms wherever the family lets us choose."""
    known = {field.name for field in fields(kind)}
    fixed: dict[str, Any] = {}
    if "activation" in known:
        fixed["activation"] = _ACTIVATION
    return kind(**(fixed | knobs))


def _costs_at_most(operator: OperatorFamily, shape: Shape, macs: float) -> bool:
    found = _macs(operator, shape)
    return found is not None and found <= macs


def _comparison(stage: int, rule: _Rule) -> tuple[Shape, float]:
    """Return a stage's largest input at 224 × 224, and the multiply-adds of an MLP of expansion 4 on it, times the slack."""
    shape = (1, rule.size.widths[stage][-1], *_map_size((224, 224), stage))
    return shape, rule.slack * 8 * prod(shape) * shape[1]


@cache
def _macs(operator: OperatorFamily, shape: Shape) -> int | None:
    """Return the multiply-adds of an operator on an input; None where it cannot take it."""
    builder = GraphBuilder()
    try:
        return builder.build(operator.lower(builder, builder.input(shape))).cost.macs
    except UsageError:
        return None


def _fits(operator: OperatorFamily, stage: int, rule: _Rule) -> bool:
    """Return whether an operator takes every width of a stage, and the maps of every resolution and of a small proxy."""
    widths = rule.size.widths[stage]
    sizes = [parse_resolution(text) for text in rule.resolutions] + [(20, 20), (32, 32), (40, 40)]
    shapes = [(1, width, *_map_size(sizes[0], stage)) for width in widths] + [(1, widths[-1], *_map_size(size, stage)) for size in sizes]
    return all(_macs(operator, shape) is not None for shape in shapes)


def _label(family: str, knob: str | None, value: Any) -> str:
    return family if knob is None else f"{family}:{knob}={value}"


def _settings(families: Mapping[str, type[OperatorFamily]], stage: int, rule: _Rule) -> Iterator[tuple[str, tuple[str, OperatorFamily]]]:
    """Yield (gene, (family, operator)): each family's first knob, where it costs no more than an MLP of expansion 4 would.

    The comparison is made at 224 × 224 and the stage's largest width; it keeps global attention out of early stages.
    """
    shape, bound = _comparison(stage, rule)
    for family, kind in families.items():
        offered = dict(kind.choices())
        knob = next(iter(offered), None)
        values = (None,) if knob is None else offered[knob]
        if rule.narrow and knob is not None:
            values = _KNOBS.get(family, {}).get(knob, values)
        if family == "spatial-reduction" and knob == "reduction":
            values = (_REDUCTIONS[stage],)
        for value in values:
            operator = _operator(kind, **({} if knob is None else {knob: value}))
            if _fits(operator, stage, rule) and _costs_at_most(operator, shape, bound):
                yield _label(family, knob, value), (family, operator)


def _channel_settings(
    families: Mapping[str, type[OperatorFamily]], stage: int, rule: _Rule
) -> Iterator[tuple[str, tuple[str, dict[int, OperatorFamily]]]]:
    """Yield (gene, (family, operator by expansion)): the first knob beside expansion and activation.

    A setting whose dearest expansion costs over 1.8 times an MLP's (a dense 3 × 3 convolution) is left out.
    """
    shape, bound = _comparison(stage, rule)
    for family, kind in families.items():
        offered = {knob: values for knob, values in kind.choices().items() if knob != "activation"}
        expansions = offered.pop("expansion", ())
        knob = next(iter(offered), None)
        values = (None,) if knob is None else offered[knob]
        if rule.narrow and knob is not None:
            values = _KNOBS.get(family, {}).get(knob, values)
        for value in values:
            own = {} if knob is None else {knob: value}
            found = {e: _operator(kind, **own, **({"expansion": e} if e in expansions else {})) for e in EXPANSIONS}
            largest = found[EXPANSIONS[-1]]
            if _fits(largest, stage, rule) and _costs_at_most(largest, shape, 1.8 * bound):
                yield _label(family, knob, value), (family, found)
