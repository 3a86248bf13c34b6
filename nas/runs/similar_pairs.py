"""Where trained networks are worth joining: pairs of points at which they make most alike of the user's pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nas.errors import UsageError
from nas.runs.request import Request
from nas.spaces.chain import ChainSpace
from nas.spaces.naming import get_elastic_space

if TYPE_CHECKING:
    from nas.training.dataset import Dataset

SIMILAR = "similar"
"""How a user asks for such pairs."""


def similar_pairs(request: Request, dataset: Dataset | None, name: str, options: Mapping[str, object]) -> tuple[tuple[str, ...], str]:
    """Return pairs by name, and a line about them.

    Args:
        request: What is asked for.
        dataset: Whose training pictures both networks are shown.
        name: Of the space.
        options: Of the space; its pairs and edits play no part.

    Raises:
        UsageError: There are no pictures, or no trained weights.
    """
    import torch

    from nas.training.supernet.batches import Batches
    from nas.training.supernet.fitting import ALIKE_PICTURES, alikeness
    from nas.training.supernet.train import default_resolution
    from nas.training.supernet.weights import Supernet

    if dataset is None:
        raise UsageError(f"--pairs {SIMILAR}: it takes pictures to compare networks on. Do this: --data, or leave it out.")
    space = get_elastic_space(name, **{**options, "pairs": "all", "edits": ()})
    assert isinstance(space, ChainSpace)
    side = request.proxy_resolution
    base = (side, side) if side else default_resolution(dataset, space.least_proxy)
    supernet = Supernet(space, dataset.num_classes, base)
    sizes = {chain.name: space.proxy(space.member(chain.name), base) for chain in space.anchors}
    batches = {anchor: Batches(dataset, "train", size, torch.device("cpu")) for anchor, size in sizes.items()}
    alike = {slot.removeprefix("stitch/"): value for slot, value in alikeness(supernet, batches).items()}
    chosen = space.most_alike(alike)
    shown = min(ALIKE_PICTURES, dataset.count("train"))
    return chosen, f"pairs: {len(chosen)} of {len(alike)} are tried, those whose ends make most alike (CKA) of {shown} training pictures."
