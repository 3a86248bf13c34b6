"""Networks of Qualcomm AI Hub that timm and torchvision lack: built without weights, as they are compiled there, post-processing included.

What `transformers` and `ultralytics` hold comes from their configurations; the others are written here from the papers and the authors'
published configurations. Each is checked by the number of parameters and of layers that AI Hub states (`../aihub.py`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Network:
    """One network, or one part of one that is timed by itself.

    Attributes:
        build: Makes it, on the meta device.
        shape: Of its input, batch first, as compiled.
        library: ``transformers``, ``ultralytics``, ``timm``, ``torchvision``, or ``authors`` for what is written here.
        model: The published configuration.
        family: The file of graphs that holds it.
        component: Which part of the model, as the newest releases call it; empty where the model is one graph.
        since: Date of the release from which this input is compiled; empty where it never changed.
        normalises: Whether AI Hub's graph subtracts a mean and divides by a deviation by channel, which is left out here as everywhere.
        note: What differs from the compiled graph.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    library: str
    model: str
    family: str
    component: str = ""
    since: str = ""
    normalises: bool = True
    note: str = ""


def networks() -> dict[str, Network]:
    """Return every network by the name of its graph: AI Hub's, with ``.component`` where the model has several."""
    table: dict[str, Network] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name.startswith("_"):  # blocks that several files share
            continue
        part = importlib.import_module(f"{__name__}.{module.name}").NETWORKS
        if clash := part.keys() & table.keys():
            raise ValueError(f"networks: a name stands in two files, got {sorted(clash)}.")
        table |= part
    return table
