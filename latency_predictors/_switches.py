"""The modelling switches of the physical model: how countable quantities become priced columns.

No single choice of switches is right, and choosing by held-out error costs more than it gains; the ensemble draws many and averages. Chosen on the
other lineages, 12 and 24 of 96 settings miss 13.0 and 13.1 % of the left-out one on three boards; 48 drawn ones 12.8 %, and all of 192 12.5 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from latency_predictors._pooled import Priors
from latency_predictors._quantities import COLUMN, DENSE, QUANTITIES
from nas.devices.predictor import Floats

# column: (typical price on Hexagon v68 in ms a unit, group); units are those of QUANTITIES.
# Source: guesses to one digit from which the fit starts, made while fits to AI Hub's table were watched (experiments/004_qualcomm_latency says so). `price_sd`
# says how little they are trusted: of the 54 prices of the fit to the table of October 2026 (fp16, mean over members) 37 lie within a factor 2 of them, 47 within 3.
PRICES: Mapping[str, tuple[float, int]] = {
    "launch": (0.6, 0),
    "stem": (1e-3, 1),
    "point": (6e-4, 1),
    "conv": (5e-4, 1),
    "dilated": (1e-3, 1),
    "conv3d": (6e-4, 1),
    "gemm": (6e-4, 1),
    "group": (1e-3, 1),
    "attention": (1e-3, 1),
    "recurrent": (1.2e-3, 1),
    "strided-macs": (5e-4, 1),
    "strided": (1e-1, 3),
    "dw3": (2e-2, 2),
    "dw5": (2e-2, 2),
    "dw7": (2e-2, 2),
    "dw-stride": (1e-2, 2),
    "dw-elements": (3e-2, 2),
    "add": (2e-2, 2),
    "mul": (3e-2, 2),
    "affine": (2e-2, 2),
    "slow": (5e-2, 2),
    "relu": (1e-2, 2),
    "hard": (3e-2, 2),
    "silu": (4e-2, 2),
    "gelu": (5e-2, 2),
    "norm": (8e-2, 2),
    "norm-rows": (5e-3, 2),
    "softmax": (6e-2, 2),
    "softmax-rows": (5e-3, 2),
    "overlap": (5e-2, 2),
    "pool": (3e-2, 2),
    "taps": (4e-3, 2),
    "reduce": (3e-2, 2),
    "exotic": (5e-1, 2),
    "attention-io": (2e-1, 3),
    "transpose": (5e-2, 3),
    "concat": (1e-2, 3),
    "move": (3e-2, 3),
    "gather": (2e-1, 3),
    "blocks": (5e-2, 3),
    "resize": (3e-2, 3),
    "io": (5e-3, 3),
    "spill": (2e-2, 3),
    "weights": (2e-2, 3),
    "n-compute": (2e-3, 0),
    "n-vector": (2e-3, 0),
    "n-layout": (2e-3, 0),
    "n-squeeze": (1e-2, 0),
    "n-exotic": (5e-2, 0),
    "heads": (5e-1, 0),
    "steps": (1e1, 0),
    "image": (3e0, 0),
    "image-out": (8e-1, 3),
    "image-read": (5e0, 0),
    "regroup": (3e-2, 3),
    "transpose-deep": (3e-2, 3),
}
COLUMNS = tuple(PRICES)
FICKLE: Mapping[str, float] = {"gelu": 6.0, "silu": 6.0, "hard": 4.0, "softmax": 4.0, "norm": 3.0}
"""How much more a device's price strays where generations differ in kind (v68 and v69 lack fast fp16 transcendentals).
Source: set while held-out errors were watched; experiments/004_qualcomm_latency tells what that was worth."""

GROUPS = np.array([group for _, group in PRICES.values()])
"""Prices that a device shifts together: 0 starting work, 1 matrix unit, 2 vector unit, 3 memory."""


@dataclass(frozen=True, slots=True)
class Switches:
    """One setting.

    Attributes:
        align: How channels of dense layers are padded.
        strided: What convolutions with a stride pay extra for: their input, their output, their multiply-adds, or input and output.
        reuse: Positions below which a dense layer waits for its weights.
        one_dense: Whether 1×1, k×k and linear layers share a price a multiply-add.
        gemm_is_point: Whether linear layers on tokens are priced as 1×1 convolutions.
        group: How grouped convolutions fill the tile.
        depthwise: Priced by taps in bands, by taps alone, by rows of taps, or by taps and elements.
        attention: Padding of the products of attention.
        softmax: Padding of its rows.
        activation: Whether transcendental activations share a price.
        elementwise: Whether products and constants share the price of additions.
        traffic: Whether every operator also pays for its elements.
        spill: 10⁶ elements held on chip; 0 prices no spill.
        layout: Which layout changes cost: all, those outside attention, those that no layout of the runtime absorbs.
        heads: Whether each head of attention costs for being started.
        squeeze: Squeeze-and-excite priced by count beside its elements.
        counts: Whether operators cost for being started: none, all alike, or by unit.
        weights: Whether weights also cost by size.
        pool: Pooling priced by input, by output or by taps.
        overlap: Whether pooling with a stride smaller than its window pays extra.
        layout_counts: Whether layout operators cost for being started.
        softmax_rows: Whether softmax costs by row as well.
        norm_rows: Whether normalisations cost by row as well.
        price_sd: Trust in the typical prices (log).
        deviation_sd: How far a device's single price strays (log).
        group_sd: How far a device's unit strays (log).
        network_sd: What the model misses about a network (log).
        stored: Whether elements are counted as they are stored, channels in multiples of 32.
        read: Whether an image of few channels costs for being taken up, by pixel.
        regroup: Whether reshapes that take channels apart, and transposes of five axes and more, cost.
        leaky: Whether leaky and parametric ReLU cost what standing activations do; else the convolution before applies them.
    """

    align: str
    strided: str
    reuse: int | str
    one_dense: bool
    gemm_is_point: bool
    group: str
    depthwise: str
    attention: int
    softmax: int
    activation: bool
    elementwise: bool
    traffic: bool
    spill: int
    layout: str
    heads: bool
    squeeze: bool
    counts: str
    weights: bool
    pool: str
    overlap: bool
    layout_counts: bool
    softmax_rows: bool
    norm_rows: bool
    price_sd: float
    deviation_sd: float
    group_sd: float
    network_sd: float
    stored: bool = False
    read: bool = False
    regroup: bool = False
    leaky: bool = True


OPTIONS: Mapping[str, tuple[object, ...]] = {
    "align": ("none", "out", "tile", "packed"),
    "strided": ("in", "out", "out", "both"),
    "reuse": (0, 16, 32, 64, 128, "map"),
    "one_dense": (False, True),
    "gemm_is_point": (False, True),
    "group": ("exact", "32", "dense", "tile"),
    "depthwise": ("bands", "taps", "rows", "elements"),
    "attention": (1, 32, 64),
    "softmax": (1, 32, 64),
    "activation": (False, True),
    "elementwise": (False, True),
    "traffic": (False, True),
    "spill": (0, 1, 2, 4),
    "layout": ("all", "outside", "bare"),
    "heads": (False, True),
    "squeeze": (False, True),
    "counts": ("none", "all", "unit"),
    "weights": (False, True, True),
    "pool": ("in", "out", "taps"),
    "overlap": (False, True),
    "layout_counts": (False, True),
    "softmax_rows": (False, True),
    "norm_rows": (False, True),
    "price_sd": (0.3, 0.5, 0.8),
    "deviation_sd": (0.06, 0.1),
    "group_sd": (0.15, 0.3),
    "network_sd": (0.035, 0.05, 0.08),
    "stored": (False, True, True, True),
    "read": (False, True),
    "regroup": (False, False, True),
    "leaky": (False, True),
}
"""Values of each switch, of which a member of the ensemble draws one; one that stands twice is drawn twice as often. Source: as `FICKLE`."""

_FORMER: Mapping[str, tuple[object, ...]] = {"align": ("wide",), "strided": ("macs",)}
"""Options that are drawn no more; fits that hold them are read as before."""


def is_option(name: str, value: object) -> bool:
    """Return whether a switch can have a value; deviations are positive numbers, which another precision may have scaled."""
    if name.endswith("_sd"):
        return isinstance(value, float) and 0 < value < 100
    return any(value == option and type(value) is type(option) for option in (*OPTIONS[name], *_FORMER.get(name, ())))


_HOST = 2.0
"""How much more devices differ in starting work than in a unit of the processor: the host takes part in it. Source: as `FICKLE`."""

RELATED: Mapping[str, tuple[float, ...]] = {"price": (0.25, 0.4, 0.6, 1.0), "network": (0.1, 0.25, 0.5), "nu": (1.0, 3.0)}
"""Where another precision centres the prior: factors on the sd of prices (it says more than typical ones do) and of what the features miss
about a network, and the latter's degrees of freedom (some networks compile to something else when quantised). Drawn, like switches.
Source: as `FICKLE`."""

_RELATED_DEVICE = 0.5
"""Factor on how far devices stray there: few networks are timed at each precision. Source: as `FICKLE`."""

_RELATED_IMAGE = 0.3
"""Factor on the sd of an image's price there: networks timed with and without normalising (releases of 2 and 16 April 2024, Galaxy S24) paid
0.30 ms for it in fp16 and 0.19 to 0.24 ms in w8a8."""

NOISE_SD = 0.03
"""Of one timing (log): releases of the SDK move latencies by a few percent. Source: as `FICKLE`."""

if set(OPTIONS) != {field.name for field in fields(Switches)}:
    raise RuntimeError("switches: OPTIONS and Switches name different switches")


def draw(members: int, seed: int) -> list[Switches]:
    """Draw settings, every switch uniform over its options, independent."""
    rng = np.random.default_rng(seed)
    return [Switches(**{name: options[rng.integers(len(options))] for name, options in OPTIONS.items()}) for _ in range(members)]  # type: ignore[arg-type]


def relate(priors: Priors, seed: int) -> Priors:
    """Return priors whose centre is another precision's fit, each member with its own draw of `RELATED`."""
    rng = np.random.default_rng((seed, 1))
    price, network, nu = (rng.choice(options, len(priors.price_sd)) for options in RELATED.values())
    price_sd = price[:, None] * priors.price_sd
    price_sd[:, COLUMNS.index("image")] *= _RELATED_IMAGE
    group_sd = priors.group_sd.copy()
    group_sd[:, 0] *= _RELATED_DEVICE
    return replace(
        priors,
        price_sd=price_sd,
        group_sd=group_sd,
        deviation_sd=_RELATED_DEVICE * priors.deviation_sd,
        network_sd=network * priors.network_sd,
        network_nu=nu,
    )


def columns_of(s: Switches) -> Floats:
    """Return the map from quantities to priced columns, (quantities, columns); ``launch`` is no operator's and stays zero."""
    matrix = np.zeros((len(QUANTITIES), len(COLUMNS)))

    def price(quantity: str, column: str, weight: float = 1.0) -> None:
        matrix[COLUMN[quantity], COLUMNS.index(column)] += weight

    for kind in DENSE:
        column = kind
        if s.one_dense and kind in ("point", "gemm", "conv", "conv3d"):
            column = "conv"
        elif s.gemm_is_point and kind == "gemm":
            column = "point"
        price(f"{kind}/{s.align}/{s.reuse}", column)
    if s.strided in ("macs", "both"):
        price("strided/macs", "strided-macs")
    if s.strided != "macs":
        price("strided/in" if s.strided == "in" else "strided/out", "strided")
    if s.group == "tile":  # as dense layers of 32 channels, and no cheaper than these
        price("group/32", "conv")
    else:
        price(f"group/{s.group}", "group", {"exact": 1.0, "32": 0.5, "dense": 0.1}[s.group])
    if s.depthwise == "rows":
        price("dw/row", "dw-elements")
        price("dw/out", "dw5")
    else:
        for band in ("3", "5", "7"):
            price(f"dw/{band}", f"dw{band}" if s.depthwise == "bands" else "dw3")
            price(f"dw/{band}/strided", "dw-stride")
        if s.depthwise == "elements":
            price("dw/out", "dw-elements")
    price(f"attention/{s.attention}", "attention")
    price("softmax" if s.softmax == 1 else f"softmax/{s.softmax}", "softmax")
    price("attention/io", "attention-io")
    if s.heads:
        price("attention/heads", "heads")
    deep = "/deep" if s.stored else ""
    for name in ("hard", "silu", "gelu"):
        price(name + deep, "silu" if s.activation else name)
    for name in ("add", "mul", "affine"):
        price(name + deep, "add" if s.elementwise else name)
    if not s.leaky:
        price("leaky" + deep, "relu", -1.0)
    for name in ("slow", "relu", "norm", "resize", "blocks"):
        price(name + deep, name)
    for name in ("gather", "exotic"):
        price(name, name)
    if s.traffic:
        price("io" + deep, "io")
    if s.spill:
        price(f"spill/{s.spill}{deep}", "spill")
    price("transpose", "transpose")
    if s.layout in ("all", "outside"):
        price("transpose/nhwc", "transpose")
    if s.layout == "all":
        price("transpose/attention", "transpose")
        price("split/attention", "concat")
    price("concat" + deep, "concat")
    price("split", "concat")
    price("move", "move")
    if s.squeeze:
        price("n/squeeze", "n-squeeze")
    if s.counts != "none":
        for name in ("n/dense", "n/depthwise", "n/attention"):
            price(name, "n-compute")
        for name in ("n/elementwise", "n/norm", "n/other", "n/squeeze"):
            price(name, "n-compute" if s.counts == "all" else "n-vector")
    if s.weights:
        price("weights", "weights")
    if s.pool == "taps":
        price("pool/taps", "taps")
    else:
        price(("pool" if s.pool == "out" else "pool/in") + deep, "pool")
    price("global" + deep, "reduce", 0.5)
    price("reduce", "reduce")
    if s.overlap:
        price("pool/overlapping", "overlap")
    if s.layout_counts:
        price("n/layout", "n-layout")
    if s.softmax_rows:
        price("softmax/rows", "softmax-rows")
    if s.norm_rows:
        price("norm/rows", "norm-rows")
    price("recurrent", "recurrent")
    price("recurrent/steps", "steps")
    price("n/exotic", "n-exotic")
    price("image", "image")
    if s.read:
        price("image/read", "image-read")
    if s.regroup:
        price("regroup", "regroup")
        price("transpose/deep", "transpose-deep")
    price("image/out", "image-out")
    return matrix


def priors_of(settings: list[Switches], centre: Floats | None = None) -> Priors:
    """Return the priors of an ensemble; `centre` (members, columns) replaces the typical log prices."""
    members = len(settings)
    typical = np.log([price for price, _ in PRICES.values()])
    group_sd = np.array([[_HOST * s.group_sd, *[s.group_sd] * 3] for s in settings])
    return Priors(
        price_log=np.repeat(typical[None], members, 0) if centre is None else centre.copy(),
        price_sd=np.array([[s.price_sd] * len(COLUMNS) for s in settings]),
        group=GROUPS,
        group_sd=group_sd,
        deviation_sd=np.array([[s.deviation_sd * FICKLE.get(name, 1.0) for name in COLUMNS] for s in settings]),
        network_sd=np.array([s.network_sd for s in settings]),
        noise_sd=np.full(members, NOISE_SD),
        network_nu=np.full(members, np.inf),
    )
