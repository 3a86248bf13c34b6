"""One trained network at a precision: which exporter writes it, from which pictures it is calibrated, what the file scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.exporting.exporter import PEAKS, Artifact, ExportOrder, Scores, exporters
from nas.quantisation.method import CALIBRATION_PICTURES, DEFAULT_RECIPE
from nas.spaces.architecture import Architecture
from nas.spaces.elastic import ElasticSpace, child_name, children

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.spaces.precision import PrecisionSpace
    from nas.spaces.space import Resolution, SearchSpace
    from nas.training.dataset import Dataset, Labels


_BATCH = 32  # pictures; by hand


@dataclass(frozen=True)
class Trained:
    """A network with its weights and the data that they come from.

    Attributes:
        space: Of the architecture.
        architecture: What it is; where it says precisions, they count.
        module: In evaluation mode.
        resolution: At which it runs.
        dataset: ``train`` calibrates, ``test`` is scored by a report.
        recipe: How a quantised file is made, see `nas.quantisation.method`.
    """

    space: SearchSpace
    architecture: Architecture
    module: nn.Module
    resolution: Resolution
    dataset: Dataset
    recipe: tuple[str, ...] = DEFAULT_RECIPE

    def export(
        self, precision: str, path: Path, metadata: Mapping[str, str], input_range: str = "normalised", exporter: str = "onnx"
    ) -> Artifact:
        """Write the network at ``fp32``, ``fp16``, a quantised precision, or ``mixed``: at those that the architecture says.

        Args:
            precision: As said.
            path: Must not exist.
            metadata: Written into the file.
            input_range: A key of `nas.exporting.exporter.PEAKS`.
            exporter: Name of the format.

        Raises:
            ArtifactError: See `nas.exporting.exporter.Exporter.export`.
        """
        graph = self.space.lower(self.architecture, self.resolution)
        parts = children(self.space, self.architecture) if precision == "mixed" and isinstance(self.space, ElasticSpace) else {}
        order = ExportOrder(precision, self.calibration, self.recipe, parts)
        artifact = exporters.get(exporter).make(order).export(self.module, graph, path, metadata=metadata)
        return normalising(artifact, input_range, self.dataset)

    def calibration(self, count: int = CALIBRATION_PICTURES) -> list[Tensor]:
        """Return training pictures in batches (n, 3, h, w)."""
        import torch

        from nas.training.supernet.batches import Batches
        from nas.training.supernet.statistics import calibration_indices, pictures

        train = Batches(self.dataset, "train", self.resolution, torch.device("cpu"))
        return list(pictures(train.plain(_BATCH, calibration_indices(train, count))))

    def sensitivity_db(self, precision: str = "w8a8") -> dict[str, float]:
        """Return the signal-to-noise ratio of the scores where one block alone is quantised, by block; the lowest suffers most."""
        from nas.quantisation.sensitivity import sensitivity_db
        from nas.spaces.operator_family import fuse

        fused, blocks = fuse(self.module), dict[str, list[str]]()
        if isinstance(self.space, ElasticSpace):
            labels = [label for label, _ in self.space.segments(self.architecture, self.resolution)]
            for label in labels:
                blocks.setdefault(_block_of(label, labels), []).append(child_name(label))
        else:  # a published network is one segment; what its authors named are its blocks
            blocks = {name: [name] for name, part in fused.named_children() if any(True for _ in part.parameters())}
        return sensitivity_db(fused, blocks, self.calibration(2 * _BATCH), precision)


def _block_of(label: str, labels: Sequence[str]) -> str:
    """Return what a part is a direct part of, if that has no larger parts: ``stage2.block1`` of ``stage2.block1.mixer``; else the part itself."""
    parent = label.rpartition(".")[0]
    beside = [other for other in labels if other.startswith(f"{parent}.")]
    return parent if parent and all(other.rpartition(".")[0] == parent for other in beside) else label


def normalising(artifact: Artifact, input_range: str, dataset: Dataset) -> Artifact:
    """Return an exported file, rewritten to take pictures as asked for.

    Args:
        artifact: Takes pictures normalised by the statistics of `dataset`.
        input_range: A key of `nas.exporting.exporter.PEAKS`.
        dataset: That the network was trained on.

    Raises:
        UsageError: Files of its format take normalised pictures only.
        ArtifactError: The rewritten file does not say what the first one said; the first one stays.
    """
    peak = PEAKS[input_range]
    return artifact if peak is None else exporters.get(artifact.format).normalising(artifact, peak, *dataset.statistics)


def spared(trained: Trained, space: PrecisionSpace, share: float = 0.25) -> Architecture:
    """Return a network at the least precise precision, whose most sensitive blocks run at the most precise.

    Args:
        trained: A member of the plain space.
        space: Its precisions.
        share: Of the blocks.

    Source:
        The order of arXiv 2302.05397, section 3.1 (SQNR of one block alone); differs in that a fixed share is spared, without a search.
    """
    sensitivity = trained.sensitivity_db(space.precisions[-1])
    names = {choice.name: i for i, choice in enumerate(space.choices)}
    genes = list(space.with_precision(trained.architecture, space.precisions[-1]).genes)
    blocks = sorted((block for block in sensitivity if f"{block}.precision" in names), key=lambda block: sensitivity[block])
    for block in blocks[: max(1, round(share * len(blocks)))]:
        genes[names[f"{block}.precision"]] = space.precisions[0]
    return space.architecture(genes)


def predictions_of(
    scores: Scores, dataset: Dataset, resolution: Resolution, peak: float | None = None, *, concurrent: bool = False
) -> Iterator[int]:
    """Yield the class that a reloaded file gives each test image, asked for one image at a time.

    Args:
        scores: Of the file.
        dataset: Its test images.
        resolution: Of the input.
        peak: Largest value of a pixel, for a file that normalises by itself; see `nas.exporting.exporter.PEAKS`.
        concurrent: Whether as many threads as PyTorch's ask at once, see `nas.exporting.exporter.Exporter.concurrent`.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from nas.training.supernet.batches import prepare

    pixels = dataset.pixels("test", resolution)
    with ThreadPoolExecutor(torch.get_num_threads() if concurrent else 1) as pool:
        for start in range(0, len(pixels), _BATCH):
            images = np.ascontiguousarray(prepare(dataset, pixels[start : start + _BATCH], resolution, peak).numpy())
            for answer in pool.map(scores, np.split(images, len(images))):
                yield int(answer.argmax())


def accuracy_in_runtime_pct(
    scores: Scores, dataset: Dataset, resolution: Resolution, peak: float | None = None, *, concurrent: bool = False
) -> float:
    """Return the accuracy of a reloaded file on the test images; see `predictions_of`."""
    labels: Labels = dataset.labels("test")
    predictions = np.fromiter(predictions_of(scores, dataset, resolution, peak, concurrent=concurrent), dtype=np.int64, count=len(labels))
    return 100 * float(np.mean(predictions == labels))
