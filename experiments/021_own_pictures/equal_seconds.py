"""What the trainings of equal processor seconds share: whose pictures they learn and are scored on, when they end, and what a row says of the machine."""

import copy
import os
import platform
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from nas.spaces.space import Resolution
from nas.training.dataset import Dataset
from nas.training.supernet.batches import Batches
from nas.training.supernet.statistics import predictions
from nas.training.transfer.tuning import Tuning


def halved(data: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Return the data set with `count` of its training pictures, and one whose validation has all the others, too."""
    order = np.random.default_rng(seed).permutation(data._splits["train"])
    rest = np.sort(np.concatenate([order[count:], data._splits["validation"]]))
    halves = copy.copy(data), copy.copy(data)
    for half, splits in zip(halves, ({"train": np.sort(order[:count])}, {"validation": rest}), strict=True):
        half._held, half._splits = {}, {**data._splits, **splits}
    return halves


def tune(tuning: Tuning, processor_s: float, began_s: float, began_wall_s: float) -> None:
    """Fine-tune to the end of a schedule that is cut to so many processor seconds.

    Args:
        tuning: With more steps than the time allows.
        processor_s: From `began_s` on.
        began_s: `time.process_time` when the work began.
        began_wall_s: `time.monotonic` then.
    """
    while tuning.step < tuning.steps:
        if tuning.seconds:
            used_s = time.process_time() - began_s
            tuning.fit_into(max(processor_s - used_s, 0.0) * (time.monotonic() - began_wall_s) / used_s)
        tuning.advance(tuning.step + 4)


def scored(network: torch.nn.Module, others: Dataset, size: Resolution) -> dict[str, Any]:
    """Return the accuracy of a network in evaluation mode on the validation of `others`, in percent, with the half width of its 95 % interval."""
    right = predictions(network, Batches(others, "validation", size, torch.device("cpu")), 64) == others.labels("validation")
    share, count = float(right.mean()), len(right)
    half_width_pct = round(196 * (share * (1 - share) / count) ** 0.5, 2)
    return {"accuracy_pct": round(100 * share, 2), "pictures": count, "half_width_pct": half_width_pct}


def machine() -> dict[str, Any]:
    """Return what a row says of where and when it was made."""
    return {
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
