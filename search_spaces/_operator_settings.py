"""Which settings of which operator families a stage of a four-stage pyramid offers; not a space itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from math import prod
from typing import Any

from nas.errors import UnknownNameError, UsageError, did_you_mean
from nas.graphs.graph import GraphBuilder
from nas.graphs.operators import Shape
from nas.registry import Registry
from nas.spaces.operator_family import EXPANSION, OperatorFamily, channel_mixers, mixers
from nas.spaces.space import Resolution
from nas.units import parse_resolution

STAGES = 4  # as in most published pyramids
EXPANSIONS = (2, 3, 4)  # by hand
INTEGER = frozenset(
    [
        *("Conv", "Gemm", "Add", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid", "MaxPool", "AveragePool", "GlobalAveragePool"),
        *("Concat", "Split", "Slice", "Sub", "Reshape"),
    ]
)
"""Operators that an integer-only NPU runs well.

Source: AutoNeural's rules for an integer-only backbone: convolutions, bounded activations and pools; no norm but those that fold, no softmax, sigmoid, GELU,
matrix product of activations or transposition.
"""

GREEN = "green"
"""Stands for all families of that grade where families are named."""

_ACTIVATION = "relu"
SMALL = 48
"""Pictures with a side shorter than this are reduced by 2 in the stem, larger ones by 4. Set by hand."""

Families = Mapping[str, type[OperatorFamily]]


@dataclass(frozen=True)
class Size:
    """Widths and depths of a preset, and what its largest member may cost at 224 × 224."""

    widths: tuple[tuple[int, ...], ...]
    depths: tuple[tuple[int, ...], ...]
    most_macs: float


@dataclass(frozen=True)
class Rule:
    """What decides whether a stage offers a setting.

    Attributes:
        size: Of the preset.
        resolutions: That must be possible.
        wide: See `OperatorFamily.searched`.
        knobs: Of families, searched with every value beside those that the families name.
        slack: Factor on the bound on multiply-adds.
    """

    size: Size
    resolutions: tuple[str, ...]
    wide: bool
    knobs: Mapping[str, frozenset[str]]
    slack: float = 1.0

    def comparison(self, stage: int) -> tuple[Shape, float]:
        """Return a stage's largest input at 224 × 224, and the multiply-adds of an MLP of expansion 4 on it, times the slack."""
        shape = (1, self.size.widths[stage][-1], *map_size((224, 224), stage))
        return shape, self.slack * 8 * prod(shape) * shape[1]

    def fits(self, operator: OperatorFamily, stage: int) -> bool:
        """Return whether an operator takes every width of a stage, and the maps of every resolution and of a small proxy."""
        widths = self.size.widths[stage]
        sizes = [parse_resolution(text) for text in self.resolutions] + [(20, 20), (32, 32), (40, 40)]
        shapes = [(1, width, *map_size(sizes[0], stage)) for width in widths] + [(1, widths[-1], *map_size(size, stage)) for size in sizes]
        return all(macs_of(operator, shape) is not None for shape in shapes)

    def searched(self, family: str, kind: type[OperatorFamily], stage: int, settled: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """Yield the settings of the knobs that are searched; `settled` are those that have a gene of their own."""
        offered = kind.choices()
        values = {**kind.searched(stage, wide=self.wide), **{knob: offered[knob] for knob in self.knobs.get(family, ())}}
        names = [knob for knob in offered if knob in values and knob not in settled]
        for setting in product(*(values[knob] for knob in names)):
            yield dict(zip(names, setting, strict=True))


@dataclass(frozen=True)
class Setting:
    """A family with some of its knobs set.

    Attributes:
        family: Its name.
        knobs: Those that are searched, with their values.
        operators: The operator by expansion; that of a token mixer stands under each.
        further: Names of the knobs that a user asked for.
    """

    family: str
    knobs: Mapping[str, Any]
    operators: Mapping[int, OperatorFamily]
    further: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """The gene: ``pool:kernel=3``."""
        return _written(self.family, self.knobs)

    @property
    def slot(self) -> str:
        """Name under which weights are shared: the family, and the words that a further knob takes, since each makes another operator."""
        return _written(self.family, {k: v for k, v in self.knobs.items() if k in self.further and isinstance(v, str | bool)})


def _written(family: str, knobs: Mapping[str, Any]) -> str:
    return f"{family}:{','.join(f'{knob}={value}' for knob, value in knobs.items())}" if knobs else family


def token_settings(families: Families, stage: int, rule: Rule) -> Iterator[Setting]:
    """Yield each family's settings where they cost no more than an MLP of expansion 4 would.

    The comparison is made at 224 × 224 and the stage's largest width; it keeps global attention out of early stages.
    """
    shape, bound = rule.comparison(stage)
    for family, kind in families.items():
        for knobs in rule.searched(family, kind, stage):
            operator = _operator(kind, **knobs)
            if rule.fits(operator, stage) and _costs_at_most(operator, shape, bound):
                yield Setting(family, knobs, dict.fromkeys(EXPANSIONS, operator), rule.knobs.get(family, frozenset()))


def channel_settings(families: Families, stage: int, rule: Rule) -> Iterator[Setting]:
    """Yield each family's settings; the expansion has a gene of its own.

    A setting whose dearest expansion costs over 1.8 times an MLP's (a dense 3 × 3 convolution) is left out.
    """
    shape, bound = rule.comparison(stage)
    for family, kind in families.items():
        expansions = kind.choices().get(EXPANSION, ())
        for knobs in rule.searched(family, kind, stage, settled=(EXPANSION,)):
            by_expansion = {e: _operator(kind, **knobs, **({EXPANSION: e} if e in expansions else {})) for e in EXPANSIONS}
            largest = by_expansion[EXPANSIONS[-1]]
            if rule.fits(largest, stage) and _costs_at_most(largest, shape, 1.8 * bound):
                yield Setting(family, knobs, by_expansion, rule.knobs.get(family, frozenset()))


def token_families(default: tuple[str, ...], group: str, requested: Collection[str], without: Collection[str]) -> Families:
    """Return token mixers by name, the default ones first.

    Args:
        default: Those of the presets without a group.
        group: ``npu`` for all that are graded green, ``int`` for those of `INTEGER` operators alone, ``gpu`` for all, else the default ones.
        requested: Names of token mixers and channel mixers; token mixers among them are chosen in place of the group's.
        without: Names to leave out.
    """
    return _chosen(mixers, default, group, requested, without)


def channel_families(default: tuple[str, ...], group: str, requested: Collection[str], without: Collection[str]) -> Families:
    """Return channel mixers by name; see `token_families`."""
    return _chosen(channel_mixers, default, group, requested, without)


def _chosen(
    registry: Registry[type[OperatorFamily]], default: tuple[str, ...], group: str, requested: Collection[str], without: Collection[str]
) -> Families:
    every = registry.names()
    own = [name for name in every if name in requested]
    names = own or (every if group else default)
    if group or own:
        names = sorted(names, key=lambda name: (name != default[0], name not in default, name))
    chosen = {name: registry.get(name) for name in names if name not in without}
    if own or group not in ("npu", "int"):
        return chosen
    return {name: kind for name, kind in chosen.items() if (kind().grade == GREEN if group == "npu" else is_integer_only(kind))}


def is_integer_only(kind: type[OperatorFamily]) -> bool:
    """Return whether a family, with the space's activation and its other knobs at their defaults, lowers to `INTEGER` operators alone."""
    builder = GraphBuilder()
    graph = builder.build(_operator(kind).lower(builder, builder.input((1, 32, 14, 14))))
    return {op.op for op in graph.operators} <= INTEGER


def checked_families(where: str, requested: Sequence[str]) -> tuple[str, ...]:
    """Return the families that a user asked for by name, `GREEN` spelt out, in the order of their registries.

    Raises:
        UnknownNameError: One is none.
    """
    known = (*mixers.names(), *channel_mixers.names())
    if unknown := [name for name in requested if name != GREEN and name not in known]:
        raise UnknownNameError(
            f"{where}: mixer", unknown[0], known, "A new mixer is one file in search_spaces/mixers/, or an entry point nas.mixers."
        )
    green = (
        {name for registry in (mixers, channel_mixers) for name, kind in registry.items() if kind().grade == GREEN}
        if GREEN in requested
        else set()
    )
    return tuple(name for name in known if name in green or name in requested)


def further_knobs(where: str, knobs: Sequence[str], families: Families) -> dict[str, frozenset[str]]:
    """Return the knobs that a user asked for, by family.

    Args:
        where: Beginning of an error.
        knobs: As ``family.knob``.
        families: Of the space.

    Raises:
        UsageError: A family that the space has not, or a knob that the family has not or that has a gene of its own.
    """
    searched: dict[str, set[str]] = {}
    for text in knobs:
        family, _, knob = text.partition(".")
        if family not in families:
            raise UsageError(f"{where}: a knob of a family that the space has not, got {text!r}.{did_you_mean(family, families)}")
        settled = {EXPANSION} if family in channel_mixers.names() else set()
        offered = [name for name in families[family].choices() if name not in settled]
        if knob not in offered:
            raise UsageError(f"{where}: {family} has no such knob to search, got {text!r}. Expected {' or '.join(offered) or 'none'}.")
        searched.setdefault(family, set()).add(knob)
    return {family: frozenset(names) for family, names in searched.items()}


def map_size(resolution: Resolution, stage: int) -> Resolution:
    """Return (height, width) of a stage's maps: halvings, rounded up except in the patch stem."""
    halvings = stage + (1 if is_small(resolution) else 2)
    height, width = (-(-side // 2**halvings) for side in resolution)
    return height, width


def is_small(resolution: Resolution) -> bool:
    """Return whether the stem reduces by 2 only."""
    return min(resolution) < SMALL


def _operator(kind: type[OperatorFamily], **knobs: Any) -> OperatorFamily:
    """Return an operator with the space's activation wherever the family lets us choose."""
    known = {field.name for field in fields(kind)}
    fixed = {"activation": _ACTIVATION} if "activation" in known else {}
    return kind(**(fixed | knobs))


def _costs_at_most(operator: OperatorFamily, shape: Shape, macs: float) -> bool:
    count = macs_of(operator, shape)
    return count is not None and count <= macs


@cache
def macs_of(operator: OperatorFamily, shape: Shape) -> int | None:
    """Return the multiply-adds of an operator on an input; None where it cannot take it."""
    builder = GraphBuilder()
    try:
        return builder.build(operator.lower(builder, builder.input(shape))).cost.macs
    except UsageError:
        return None
