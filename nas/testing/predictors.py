"""What every latency predictor must satisfy; each check takes a fitted predictor, a profile and a precision.

Import these from a foreign package's tests to check a predictor of one's own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nas.devices.predictor import Predictor
from nas.devices.profile import Profile
from nas.graphs.graph import Graph, GraphBuilder, join
from nas.testing.monotonicity import cases, falls
from nas.units import Precision


def block(channels: int, size: int = 28, *, kernel: int = 3, activation: str = "Relu") -> Graph:
    """Return an inverted-bottleneck block (1, channels, size, size) -> the same."""
    b = GraphBuilder(f"block{channels}")
    x = b.input((1, channels, size, size))
    y = b.conv(x, 2 * channels, 1, activation=activation, name="expand")
    y = b.depthwise(y, kernel, activation=activation, name="depthwise")
    return b.build(b.binary("Add", b.conv(y, channels, 1, name="project"), x))


def many_operators(channels: int = 64, size: int = 14) -> Graph:
    """Return a network with an operator of every category that hybrid spaces use."""
    b = GraphBuilder("many")
    x = b.input((1, 3, size * 4, size * 4))
    x = b.conv(x, channels, 3, stride=4, pads=(1, 1, 1, 1), activation="HardSwish", name="stem")
    x = b.pool("MaxPool", x, 3, stride=1, pads=(1, 1, 1, 1), name="maxpool")
    x = b.binary("Add", x, b.pool("AveragePool", x, 3, stride=1, pads=(1, 1, 1, 1), name="avgpool"), name="residual")
    x = b.conv(x, channels, 3, groups=channels // 8, name="grouped")
    x = b.conv(x, channels, 3, dilation=2, name="dilated")
    gate = b.unary("Sigmoid", b.conv(b.global_pool(x, name="squeeze"), channels, name="excite"), name="gate")
    x = b.binary("Mul", x, gate, name="scale")
    x = b.unary("Gelu", b.depthwise(x, 7, name="depthwise"), name="gelu")
    left, right = b.split(x, (channels // 2, channels // 2), name="split")
    x = b.concat([b.unary("Swish", left, name="swish"), b.unary("HardSwish", right, name="hardswish")], name="concat")
    s = b.shape(x)[-1]
    t = b.transpose(b.reshape(x, (1, channels, s * s), name="tokens"), (0, 2, 1), name="channels_last")
    t = b.norm("LayerNormalization", t, channels, axis=-1, name="norm")
    q, k, v = (b.reshape(b.gemm(t, channels, name=n), (1, s * s, 2, channels // 2), name=f"{n}_heads") for n in "qkv")
    q, k, v = (b.transpose(h, (0, 2, 1, 3), name=f"heads{i}") for i, h in enumerate((q, k, v)))
    scores = b.unary("Softmax", b.matmul(q, b.transpose(k, (0, 1, 3, 2), name="kt"), name="scores"), name="softmax", axis=-1)
    y = b.transpose(b.matmul(scores, v, name="mix"), (0, 2, 1, 3), name="back")
    t = b.binary("Add", b.gemm(b.reshape(y, (1, s * s, channels), name="merge"), channels, name="project"), t, name="residual2")
    pooled = b.reduce("ReduceMean", t, (1,), keepdims=False, name="mean")
    return b.build(b.gemm(pooled, 10, name="head"))


def check_estimate_is_an_interval(predictor: Predictor, profile: Profile, precision: str) -> None:
    """Positive, finite, ordered, wider for more confidence, breakdown sums to the estimate."""
    graph = many_operators()
    narrow, wide = (predictor.estimate(graph, profile, precision, confidence) for confidence in (0.5, 0.9))
    assert 0 < wide.lower_ms < wide.latency_ms < wide.upper_ms < float("inf")
    assert wide.upper_ms >= narrow.upper_ms
    assert wide.lower_ms <= narrow.lower_ms
    assert not wide.unsupported
    if wide.operators:
        assert np.isclose(sum(op.latency_ms for op in wide.operators), wide.latency_ms, rtol=1e-6)
        assert all(op.latency_ms >= 0 for op in wide.operators)


def check_computing_operators_have_prices(predictor: Predictor, profile: Profile, precision: str) -> None:
    """No operator that computes is priced at zero."""
    graph = many_operators()
    priced = {op.name: op.latency_ms for op in predictor.estimate(graph, profile, precision).operators}
    free = {"layout"}
    missing = [op.name for op in graph.operators if op.category not in free and priced.get(op.name, 1.0) <= 0]
    assert not missing, f"priced at zero: {missing}"


def check_unknown_operator_is_named(predictor: Predictor, profile: Profile, precision: str) -> None:
    """An operator outside the vocabulary is unsupported, by name, in single and batched estimates, and no figure holds it."""
    b = GraphBuilder("foreign")
    graph = b.build(b.conv(b.add_operator("FancyOp", [b.input((1, 32, 14, 14))], shape=(1, 32, 14, 14)), 32))
    estimate = predictor.estimate(graph, profile, precision)
    assert estimate.unsupported == ("FancyOp",)
    assert not any(op.op == "FancyOp" and op.latency_ms for op in estimate.operators)
    b = GraphBuilder("plain")
    plain = predictor.estimate(b.build(b.conv(b.input((1, 32, 14, 14)), 32)), profile, precision)
    assert np.isclose(estimate.latency_ms, plain.latency_ms, rtol=1e-3)
    assert not predictor.estimate_batch([[("a", graph)]], profile, precision).usable[0]


def check_what_the_device_lacks_is_named(predictor: Predictor, profile: Profile, precision: str) -> None:
    """An activation that the device lacks is unsupported by name, in single and batched estimates, also where it is fused into a convolution."""
    own = profile.precisions[Precision(precision)]
    lacking = own.model_copy(update={"unsupported_ops": (*own.unsupported_ops, "HardSwish")})
    without = Profile.model_validate({**profile.model_dump(), "precisions": {**profile.precisions, precision: lacking}})
    b = GraphBuilder("apart")
    apart = b.build(b.conv(b.unary("HardSwish", b.conv(b.input((1, 32, 14, 14)), 32)), 32))
    for graph in (block(32, activation="HardSwish"), apart):
        assert predictor.estimate(graph, without, precision).unsupported == ("HardSwish",)
        assert not predictor.estimate_batch([[("a", graph)]], without, precision).usable[0]
    assert not predictor.estimate(block(32), without, precision).unsupported


def check_more_work_takes_longer(predictor: Predictor, profile: Profile, precision: str) -> None:
    """Twice the width, or twice the size, is never faster."""
    for narrow, wide in ((block(32), block(64)), (block(64, 14), block(64, 28)), (block(64, kernel=3), block(64, kernel=7))):
        assert predictor.estimate(narrow, profile, precision).latency_ms <= predictor.estimate(wide, profile, precision).latency_ms


def check_more_work_never_takes_less(predictor: Predictor, profile: Profile, precision: str, count: int = 48, seed: int = 0) -> None:
    """Of random networks and ones that do more (`nas.testing.monotonicity`), none is estimated faster by more than 1 %."""
    falling = falls(predictor, profile, precision, list(cases(count, seed)))
    assert not falling, "; ".join(f"{case.change}: {ratio - 1:+.1%}" for case, ratio in falling[:8])


def check_batch_equals_single(predictor: Predictor, profile: Profile, precision: str) -> None:
    """Estimates from segments equal those of the joined graph; an empty batch gives empty arrays."""
    a, b = block(32), block(32, kernel=5)
    candidates = [[("x", a), ("y", b)], [("x", b)], [("x", a), ("y", a), ("z", b)]]
    batch = predictor.estimate_batch(candidates, profile, precision)
    for i, parts in enumerate(candidates):
        one = predictor.estimate(join(parts), profile, precision)
        assert np.allclose(
            [batch.latency_ms[i], batch.lower_ms[i], batch.upper_ms[i]], [one.latency_ms, one.lower_ms, one.upper_ms], rtol=1e-6
        )
        assert batch.extrapolated[i] == bool(one.extrapolated)
        assert batch.usable[i] == (not one.unsupported)
    assert predictor.estimate_batch([], profile, precision).latency_ms.shape == (0,)


def check_batch_members_are_independent(predictor: Predictor, profile: Profile, precision: str) -> None:
    """A candidate's estimate does not depend on those beside it; where precisions are priced, not on whether those fix theirs either."""
    a, b = block(32), block(64, 14)
    candidates = [[("x", a)], [("y", b)], [("x", a), ("x2", a)]]
    if predictor.prices_mixed:
        for fixed in sorted(profile.precisions):
            candidates += [[("x", at_precision(a, fixed))], [("x", a), ("x2", at_precision(a, fixed))]]
            candidates += [[("x", at_precision(a, fixed)), ("x2", a)], [("x", at_precision(a, fixed, share=0.5))]]
    alone = [predictor.estimate_batch([parts], profile, precision) for parts in candidates]
    single = [predictor.estimate(join(parts) if len(parts) > 1 else parts[0][1], profile, precision) for parts in candidates]
    for order in (range(len(candidates)), range(len(candidates) - 1, -1, -1)):
        batch = predictor.estimate_batch([candidates[i] for i in order], profile, precision)
        for place, i in enumerate(order):
            for name in ("latency_ms", "lower_ms", "upper_ms"):
                expected = getattr(single[i], name)
                assert np.isclose(getattr(batch, name)[place], expected, rtol=1e-6), (name, i)
                assert np.isclose(getattr(alone[i], name)[0], expected, rtol=1e-6), (name, i)


def at_precision(graph: Graph, precision: str, *, share: float = 1.0) -> Graph:
    """Return a graph whose first operators, a `share` of them, fix their precision."""
    count = round(share * len(graph.operators))
    operators = [replace(op, precision=precision) if i < count else op for i, op in enumerate(graph.operators)]
    return Graph(graph.inputs, tuple(operators), graph.outputs, graph.name)


def check_far_away_is_extrapolated(predictor: Predictor, profile: Profile, precision: str) -> None:
    """A network far larger than anything calibrated says so and has a wider interval."""
    near, far = block(256, 56), block(4096, 448)
    close, distant = (predictor.estimate(graph, profile, precision) for graph in (near, far))
    assert distant.extrapolated
    assert distant.upper_ms / distant.lower_ms >= (close.upper_ms / close.lower_ms) * (1 - 1e-9)  # equal where both are far


def check_saved_equals_loaded(predictor: Predictor, profile: Profile, precision: str, folder: Path) -> None:
    """`load` gives back the numbers of what `save` wrote, and two saves are equal byte for byte."""
    predictor.save(folder / "a")
    predictor.save(folder / "b")
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    again = type(predictor).load(folder / "a")
    graph = many_operators()
    assert again.estimate(graph, profile, precision) == predictor.estimate(graph, profile, precision)
