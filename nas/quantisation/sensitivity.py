"""How much a block suffers from quantisation: the ratio of signal to noise at the network's output where that block alone is quantised."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.quantisation.method import methods
from nas.quantisation.simulate import Simulated


def sensitivity_db(
    module: nn.Module,
    blocks: Mapping[str, Sequence[str]],
    batches: Sequence[Tensor],
    precision: str = "w8a8",
    recipe: Sequence[str] = ("minmax",),
) -> dict[str, float]:
    """Return the signal-to-quantisation-noise ratio in dB by block; the lowest is the most sensitive.

    Args:
        module: Fused, in evaluation mode.
        blocks: By name, the paths of the parts that make a block.
        batches: Calibration pictures; the last one is scored.
        precision: What the block is quantised to.
        recipe: Range methods; preparations are not run.

    Source:
        Q-HyViT (arXiv 2303.12557) finds bridge blocks between convolution and attention by such a score; SQNR as in Pandey et al.,
        "A practical mixed precision algorithm", arXiv 2302.05397, section 3.1.
    """
    chosen = methods(recipe)
    with torch.inference_mode():
        expected = module(batches[-1])
    ratios = {}
    for block, parts in blocks.items():
        simulated = Simulated(copy.deepcopy(module), "fp32", dict.fromkeys(parts, precision))
        simulated.calibrate(batches, chosen)
        noise = (simulated(batches[-1]) - expected).square().mean().clamp_min(1e-20)
        ratios[block] = float(10 * torch.log10(expected.square().mean().clamp_min(1e-20) / noise))
    return ratios
