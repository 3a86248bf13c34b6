"""The memory that a supernet's training needs, by arithmetic, before it starts."""

from __future__ import annotations

from typing import Any

import torch

from nas.errors import TrainingError
from nas.spaces.elastic import ElasticSpace
from nas.spaces.space import Resolution
from nas.training.dataset import available_memory_bytes


def predicted_memory_bytes(
    space: ElasticSpace, classes: int, batch: int, resolution: Resolution, processes: int = 1, copies: int = 1
) -> float:
    """Return what a training needs, by arithmetic: weights with moments, and the activations of the largest member.

    Autograd keeps about three tensors for every operator output of the deploy form (convolution, batch norm, activation).
    """
    largest = space.extreme(True)
    graph = space.lower(largest, space.proxy(largest, resolution))
    weights = sum(_largest_parameters(parts) for parts in space.slots(resolution, classes).values())
    activations = 3.0 * 4 * graph.cost.activation_elements * batch / processes
    return 4 * 4.0 * weights * copies + 2 * 4.0 * graph.cost.params + activations


def _largest_parameters(parts: tuple[Any, ...]) -> int:
    return max(part.graph().cost.params for part in parts)


def check_memory(
    space: ElasticSpace, classes: int, batch: int, resolution: Resolution, device: torch.device, processes: int = 1, copies: int = 1
) -> float:
    """Return the memory that a training is predicted to need, in bytes, once it is known to fit.

    Raises:
        TrainingError: It does not.
    """
    needed = predicted_memory_bytes(space, classes, batch, resolution, processes, copies)
    here = available_memory_bytes() / processes if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    if needed > here:
        raise TrainingError(
            f"training: {space.name} at {resolution[0]}x{resolution[1]} with {batch} pictures a step is predicted to need "
            f"{needed / 1e9:.1f} GB, got {here / 1e9:.1f} GB on {device}. Do this: a smaller batch or proxy resolution."
        )
    return needed
