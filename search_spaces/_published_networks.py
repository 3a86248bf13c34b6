"""``zoo-of-NET+NET``: published networks with weights at hand, each at several sizes of picture, for the user's own classes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.errors import UsageError
from nas.graphs.graph import Graph
from nas.spaces.architecture import Architecture, Gene
from nas.spaces.pretrained import Origin, Pretrained, find_weights, open_pretrained
from nas.spaces.pretrained.classifier import classifier_of, replace_classifier
from nas.spaces.pretrained.libraries import build_published, deploy_form, library_of, normalisation_of, resolution_of
from nas.spaces.space import Choice, Resolution, SearchSpace
from nas.units import write_resolution

if TYPE_CHECKING:
    from torch import nn

SIDES = (64, 96, 128, 160, 192, 224, 256, 288, 320, 384)
"""Sizes of picture that are offered beside each network's own, in pixels. Set by hand."""

_LARGEST = 1.3
"""No network is run at more than its own side times this. Set by hand."""


class PublishedNetworks(SearchSpace):
    """See the module.

    Args:
        networks: Names of timm, torchvision or our references.
        num_classes: Of the head; None keeps the published one.
        resolution: Fixes the size; None offers `SIDES` and each network's own.
        weights_dir: Folder of the user's files of weights.

    Raises:
        UnknownNameError: A network that no installed library builds.
    """

    evaluator = "probe"
    presets: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        networks: Sequence[str],
        *,
        num_classes: int | None = None,
        resolution: Resolution | None = None,
        weights_dir: str | Path | None = None,
    ) -> None:
        self.name, self.num_classes = f"zoo-of-{'+'.join(networks)}", num_classes
        self.weights_dir = Path(weights_dir) if weights_dir else None
        self._own = {name: resolution_of(name) for name in networks}
        sides = {str(side) for side in SIDES} | {str(write_resolution(size)) for size in self._own.values()}
        offered = sorted(sides, key=_height) if resolution is None else [str(write_resolution(resolution))]
        self._fixed = resolution is not None
        self.choices = (Choice("network", tuple(networks)), Choice("resolution", tuple(offered), ordered=True))
        self._graphs: dict[tuple[str, Resolution], Graph] = {}
        self._built: dict[str, tuple[nn.Module, str]] = {}
        self._fused: dict[str, nn.Module] = {}

    @classmethod
    def make(cls, preset: str = "", **options: Any) -> PublishedNetworks:
        """Return the space of networks that are joined by ``+``; options are those of the class."""
        return cls(preset.split("+"), **options)

    def admits(self, genes: tuple[Gene, ...]) -> bool:
        """Return whether the size is within reach of what the network was trained at."""
        own = self._own[str(genes[0])]
        return self._fixed or str(genes[1]) == str(write_resolution(own)) or _height(str(genes[1])) <= _LARGEST * max(own)

    def validate(self, architecture: Architecture) -> None:
        """Check membership; a size that the user fixed for a run is accepted beside those that are offered."""
        genes = architecture.genes
        if len(genes) == 2 and genes[1] not in self.choices[1].values and not self._fixed:
            _size(str(genes[1]))
            architecture = Architecture(
                architecture.space, architecture.version, (genes[0], str(write_resolution(self._own[str(genes[0])])))
            )
        super().validate(architecture)

    def size_of(self, architecture: Architecture) -> Resolution:
        """Return the size of picture of a member."""
        return _size(str(architecture.genes[1]))

    def member(self, network: str, size: Resolution) -> Architecture:
        """Return a network at a size.

        Raises:
            UsageError: It is not offered at that size.
        """
        return self.architecture((network, str(write_resolution(size))))

    def own_size(self, network: str) -> Resolution:
        """Return the size at which a network was trained."""
        return self._own[network]

    def origin(self, network: str) -> Origin | None:
        """Return where a network's weights lie; None where they are gone."""
        return find_weights(network, self.weights_dir)

    def normalisation(self, architecture: Architecture) -> tuple[Sequence[float], Sequence[float]]:
        """Return the mean and deviation with which a network was trained."""
        return normalisation_of(str(architecture.genes[0]))

    def pretrained(self, network: str) -> tuple[Pretrained, str]:
        """Return a network with its published weights, and the name of its classifier, which is one of zeros for the user's classes.

        Raises:
            ArtifactError: Its weights are gone, or do not fit.
            UsageError: It takes no other classes.
        """
        opened = open_pretrained(network, folder=self.weights_dir)
        name = classifier_of(opened.module, (1, 3, *opened.resolution), f"network {network}")
        if self.num_classes is not None:
            replace_classifier(opened.module, name, self.num_classes)
        return opened, name

    def segments(self, architecture: Architecture, resolution: Resolution | None = None) -> tuple[tuple[str, Graph], ...]:
        """Return the whole network as one segment, with the user's classes.

        Raises:
            GraphError: It does not run at that size.
        """
        from nas.graphs.frontends.torch_module import trace_module
        from nas.graphs.passes import normalise
        from nas.spaces.operator_family import fuse

        network, size = str(architecture.genes[0]), resolution or self.size_of(architecture)
        if (network, size) not in self._graphs:
            if network not in self._fused:
                self._fused[network] = fuse(self.build(architecture))
            self._graphs[network, size] = normalise(trace_module(self._fused[network], (1, 3, *size), network))
        return ((network, self._graphs[network, size]),)

    def build(self, architecture: Architecture, *, num_classes: int | None = None, resolution: Resolution | None = None) -> nn.Module:  # noqa: ARG002
        """Return the network in the form in which it is fine-tuned, with fresh weights: (n, 3, h, w) -> (n, classes).

        Raises:
            UsageError: It takes no other classes.
        """
        network, classes = str(architecture.genes[0]), self.num_classes if num_classes is None else num_classes
        if network not in self._built:
            module = deploy_form(build_published(network))
            self._built[network] = module, classifier_of(module, (1, 3, *self._own[network]), f"network {network}")
        module, name = self._built[network]
        module = copy.deepcopy(module)
        if classes is not None:
            replace_classifier(module, name, classes)
        return module

    def facts(self, architecture: Architecture) -> Mapping[str, str]:
        """Return which network it is, and whose weights it starts from."""
        network = str(architecture.genes[0])
        origin = self.origin(network)
        packaged = origin is not None and origin.source.startswith("package")
        return {
            "network": network,
            "weights": origin.source if origin else "not on this machine",
            "pretraining": "ImageNet-1k" if packaged else "as published",
            "source": f"built by {library_of(network)}",
        }


def _height(text: str) -> int:
    return _size(text)[0]


def _size(text: str) -> Resolution:
    from nas.units import parse_resolution

    try:
        return parse_resolution(text)
    except UsageError as error:
        raise UsageError(f"space zoo: {error}") from None
