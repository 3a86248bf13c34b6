"""``probe``: what a published network's frozen features are worth on the user's pictures, see `nas.training.transfer.probe`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nas.errors import UsageError
from nas.spaces.architecture import Architecture
from nas.spaces.pretrained import Origin, Pretrained
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset
from nas.training.evaluator import Assignment, Evaluator, Metrics, Need, evaluators, needed
from nas.training.supernet.batches import Batches
from nas.training.transfer.probe import Probe, probe, probed

PROBED_PICTURES = 1000
"""Training pictures to which a probe is fitted, and validation pictures on which candidates are compared, at most. Set by hand."""


def compared(dataset: Dataset) -> Dataset:
    """Return data whose validation is cut to what candidates are compared on; itself where it has no more."""
    return dataset if dataset.count("validation") <= PROBED_PICTURES else dataset.thinned("validation", PROBED_PICTURES)


@runtime_checkable
class Transferable(Protocol):
    """A space whose members come with trained weights for other classes."""

    name: str

    def pretrained(self, network: str) -> tuple[Pretrained, str]:
        """Return a network and the name of its classifier, which has the user's classes."""

    def origin(self, network: str) -> Origin | None:
        """Return where its weights lie."""

    def size_of(self, architecture: Architecture) -> Resolution:
        """Return a member's size of picture."""


@dataclass(frozen=True)
class _Opened:
    module: nn.Module
    classifier: str


@evaluators.register("probe")
class ProbeEvaluator(Evaluator):
    """Scores published networks by linear classifiers on their frozen features.

    Args:
        space: Of networks with trained weights.
        dataset: ``train`` is fitted, ``validation`` scored; of either at most `PROBED_PICTURES`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"data"})
    transfers: ClassVar[bool] = True

    @classmethod
    def make(cls, assignment: Assignment) -> ProbeEvaluator:
        """Return the evaluator of a space."""
        needed(assignment, "probe", "data")
        assert assignment.dataset is not None
        if not isinstance(assignment.space, Transferable):
            raise UsageError(
                f"evaluator probe: space {assignment.space.name} has no trained weights. Do this: --space zoo --data NAME|DIR."
            )
        return cls(assignment.space, assignment.dataset)

    def __init__(self, space: Transferable, dataset: Dataset) -> None:
        self.space, self.dataset = space, dataset
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._opened: dict[str, _Opened] = {}
        self._probes: dict[str, Probe] = {}

    @cached_property
    def key(self) -> str:
        """Hash of the space's name, the files of weights and the data."""
        origins = [self.space.origin(str(network)) for network in self.space.choices[0].values]  # type: ignore[attr-defined]
        text = " ".join([self.space.name, self.dataset.key, *(origin.sha256 for origin in origins if origin)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def looks(self) -> int:
        """Pictures that a probe sees."""
        return sum(min(self.dataset.count(split), PROBED_PICTURES) for split in ("train", "validation"))

    def pictures_of(self, architecture: Architecture) -> Dataset:
        """Return the data as a network expects them, validation cut to what candidates are compared on."""
        expected = self.space.normalisation(architecture)  # type: ignore[attr-defined]
        return compared(self.dataset.normalised_by(*expected))

    def opened(self, network: str) -> tuple[nn.Module, str]:
        """Return a network with its published weights, which is not to be changed, and the name of its classifier.

        Raises:
            ArtifactError: See `nas.spaces.pretrained.open_pretrained`.
            UsageError: It takes no other classes.
        """
        if network not in self._opened:
            pretrained, classifier = self.space.pretrained(network)
            module = pretrained.module.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._opened[network] = _Opened(module, classifier)
        return self._opened[network].module, self._opened[network].classifier

    def probe(self, architecture: Architecture, advance: Callable[[int], None] | None = None) -> Probe:
        """Return the probe of a member, fitted once."""
        if architecture.key not in self._probes:
            network, classifier = self.opened(str(architecture.genes[0]))
            dataset, size = self.pictures_of(architecture), self.space.size_of(architecture)
            train, validation = (Batches(dataset, split, size, torch.device(self.device)) for split in ("train", "validation"))
            fitted = probe(network, classifier, train, validation, pictures=PROBED_PICTURES, advance=advance)
            self._probes[architecture.key] = fitted
            self.dataset.release()
        return self._probes[architecture.key]

    def know(self, architecture: Architecture, fitted: Probe) -> None:
        """Take a member's probe as fitted by an earlier session."""
        self._probes[architecture.key] = fitted

    def evaluate(self, architecture: Architecture) -> Metrics:
        """Probe a member."""
        fitted = self.probe(architecture)
        return Metrics(fitted.accuracy_pct, "validation", {"pictures": float(len(fitted.right)), "seconds": fitted.seconds})

    def right(self, architecture: Architecture) -> npt.NDArray[np.bool_]:
        """Return for each compared validation picture whether the probe names its class."""
        return self.probe(architecture).right

    def module(self, architecture: Architecture, resolution: Resolution) -> nn.Module:  # noqa: ARG002 - a member has one size
        """Return a member with its probe as its classifier."""
        network, classifier = self.opened(str(architecture.genes[0]))
        return probed(network, classifier, self.probe(architecture))
