"""The contract of a reference system: every variant, built, has the integers that its entry states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.spaces import reference
from nas.spaces.operator_family import fuse
from nas.spaces.reference import Variant
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn


def build_without_weights(name: str) -> nn.Module:
    """Return a variant on the meta device: shapes and counts, no numbers."""
    import torch

    with torch.device("meta"):
        return reference.build(name).eval()


def check_counts(variant: Variant) -> None:
    """Parameters of each stated form and MACs of the deploy form are those of the entry, to the last."""
    from nas.testing.operators import count

    module = build_without_weights(variant.name)
    built = sum(p.numel() for p in module.parameters())
    params, macs = count(fuse(module), (1, 3, *variant.resolution))
    if variant.train_params is None:
        assert built == variant.params, f"{variant.name}: has {built} parameters"
    else:
        assert built == variant.train_params, f"{variant.name}: the training form has {built} parameters"
        assert params == variant.params, f"{variant.name}: the deploy form has {params} parameters"
    assert macs == variant.macs, f"{variant.name}: the deploy form has {macs} MACs"


def check_printed(variant: Variant) -> None:
    """The integers of the entry round to the figures that its source prints, where it has any."""
    if variant.printed is not None:
        places = [len(text.partition(".")[2]) for text in variant.printed]
        rounded = (f"{variant.params / 1e6:.{places[0]}f}", f"{variant.macs / 1e9:.{places[1]}f}")
        assert rounded == variant.printed, f"{variant.name}: {rounded} where {variant.printed} is printed"


def check_fuse(variant: Variant, tolerance: float = 1e-10, resolution: Resolution | None = None) -> None:
    """The deploy form equals the training form in float64, with random weights and running statistics; by default at the published resolution."""
    import torch

    from nas.testing.operators import randomise, relative_error

    module = randomise(reference.build(variant.name), 1).double().eval()
    x = torch.randn(1, 3, *(resolution or variant.resolution), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with torch.no_grad():
        error = relative_error(fuse(module)(x), module(x))
    assert error <= tolerance, f"{variant.name}: the deploy form differs by {error:.1e}"
