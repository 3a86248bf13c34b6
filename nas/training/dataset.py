"""The contract of a data set: labelled pictures in three splits that are never confused.

Weights come from ``train``; every choice hangs on ``train`` and ``validation``; ``test`` is read once, by the report.
A kind of data set is a file in ``nas/training/data/``; `load_dataset` finds the kind that understands a name or a path.

Life of a data set::

    accepts(source)             of each kind in turn, until one understands what the user wrote
            │
    open(source, seed=…)        once a process: classes, labels and splits are settled and checked
            │
    read(indices, resolution)   whenever `pixels` wants pictures at a size that is not in memory yet
"""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from nas.errors import DataError, UnknownNameError, UsageError
from nas.registry import Registry
from nas.results import Blind
from nas.spaces.space import Resolution

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
HELD_OUT_SHARE = 0.2
"""Share of train that becomes test where the user brings none; and validation, up to `ENOUGH` pictures. Set by hand."""

ENOUGH, LEAST_SHARE = 1000, 0.1
"""Pictures of validation up to which a fifth of train is taken, and the share that is taken at least. So many are compared where trained networks are
(`nas.training.evaluators.probe`); the others teach more as pictures of train. Set by hand."""


_SHOWN_CLASSES = 20  # by hand: one screen


_LUCK = 0.05
"""An accuracy that a guess reaches more often than this is not called better than one. Set by hand."""


class Dataset(ABC):
    """Pictures as 8-bit RGB arrays with one label each.

    Args:
        name: Name for messages.
        classes: Names of the classes; a label is an index into them.
        labels: Labels of all pictures, shape (n,).
        splits: Indices of the pictures of each split, disjoint.
        content: Hash of the pictures' bytes and labels.
        resolution: (height, width) of the pictures where all have one size, else None.
        notices: Remarks for the user, such as broken pictures or a split that was made here.
        decoder: Decoder of the pictures' files, with its version; empty where no file was decoded.

    Raises:
        DataError: Fewer than two classes, a label out of range, or an empty split.
    """

    flips: ClassVar[bool] = True
    """Whether a mirrored picture is of the same class (false for digits)."""

    def __init__(
        self,
        name: str,
        classes: tuple[str, ...],
        labels: Labels,
        splits: Mapping[Split, npt.NDArray[np.int64]],
        content: str,
        resolution: Resolution | None,
        notices: tuple[str, ...] = (),
        decoder: str = "",
    ) -> None:
        if len(classes) < 2:
            raise DataError(f"data {name}: a single class, got {list(classes)!r}. Expected two or more.")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
            raise DataError(f"data {name}: a label is out of range, got {labels.min()}…{labels.max()}. Expected 0…{len(classes) - 1}.")
        for split in SPLITS:
            if not len(splits[split]):
                raise DataError(f"data {name}: the split {split!r} is empty. Do this: give more pictures.")
        if lacking := [name for i, name in enumerate(classes) if not np.any(labels[splits["train"]] == i)]:
            raise DataError(f"data {name}: a class has no picture to train on, got {lacking[0]!r}.")
        self.name, self.classes, self.resolution = name, classes, resolution
        self._labels, self._splits, self._content = labels, dict(splits), content
        self.decoder = decoder
        self.notices = (self.summary, *notices, *self._lacking(), *imbalance(classes, labels[splits["train"]]))
        self._held: dict[tuple[Split, Resolution], Pixels] = {}

    @classmethod
    @abstractmethod
    def accepts(cls, source: str) -> bool:
        """Return whether `source` (a name or a path) is of this kind."""

    @classmethod
    @abstractmethod
    def open(cls, source: str, *, seed: int, images: int | None, decoder: str | None = None) -> Dataset:
        """Open `source`.

        Args:
            source: A name or a path.
            seed: Seed of the splits that are made here.
            images: Number of pictures of train and validation together to use, stratified; None uses all.
            decoder: What decoded the pictures of an earlier run, whose very pixels are wanted (empty where it noted none); None for the
                present one. Kinds that decode nothing leave it alone.

        Raises:
            DataError: It cannot be used as it is.
        """

    @abstractmethod
    def read(self, indices: npt.NDArray[np.int64], resolution: Resolution) -> Pixels:
        """Return pictures as (n, h, w, 3), no larger than needed for `resolution`.

        Pictures that are larger are scaled to cover it and cropped at the centre; smaller ones of one size stay as they
        are, since scaling them up is cheaper than keeping them scaled.
        """

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def summary(self) -> str:
        """One line: the classes, and how many pictures each split has of each."""
        counts = [np.bincount(self.labels(split), minlength=self.num_classes) for split in SPLITS]
        each = [f"{name} {'/'.join(str(count[i]) for count in counts)}" for i, name in enumerate(self.classes[:_SHOWN_CLASSES])]
        more = f", … ({self.num_classes - _SHOWN_CLASSES} more)" if self.num_classes > _SHOWN_CLASSES else ""
        whole = ", ".join(f"{split} {self.count(split)}" for split in SPLITS)
        return f"data {self.name}: {self.num_classes} classes; pictures: {whole}; by class in that order: {', '.join(each)}{more}"

    def _lacking(self) -> Iterator[str]:
        for split in ("validation", "test"):
            lacking = sorted(set(range(self.num_classes)) - set(self.labels(split).tolist()))
            if lacking:
                shown = ", ".join(repr(self.classes[i]) for i in lacking[:5]) + (", …" if len(lacking) > 5 else "")
                yield f"{len(lacking)} of {self.num_classes} classes have no picture in {split}: {shown}"

    def blind(self, split: Split, accuracy_pct: float) -> Blind:
        """Return the accuracy of naming classes without looking at the pictures, and whether an accuracy is better than that.

        Source:
            The accuracy is called clearly better where a guess that is right with the better share reaches it in fewer than 5 % of cases:
            the tail of the binomial distribution.
        """
        from scipy.stats import binom

        majority = int(np.bincount(self.labels("train"), minlength=self.num_classes).argmax())
        chance_pct, majority_pct = 100 / self.num_classes, 100 * float(np.mean(self.labels(split) == majority))
        bar_pct, n = max(chance_pct, majority_pct), self.count(split)
        bar = f"always naming {self.classes[majority]!r}" if majority_pct >= chance_pct else "chance"
        compared = f"{bar}: {accuracy_pct:.2f} % against {bar_pct:.2f} % of {n} {split} pictures"
        luck = float(binom.sf(round(n * accuracy_pct / 100) - 1, n, bar_pct / 100))
        verdict = f"not clearly better than {compared}." if luck > _LUCK else ""
        if accuracy_pct <= bar_pct:
            verdict = f"no better than {compared}. Nothing was learned."
        return Blind(chance_pct=chance_pct, majority_class=self.classes[majority], majority_pct=majority_pct, pictures=n, verdict=verdict)

    @cached_property
    def key(self) -> str:
        """16 hex digits over pictures, labels and splits; a run records it."""
        digest = hashlib.sha256(self._content.encode() + self.decoder.encode())
        for split in SPLITS:
            digest.update(self._splits[split].astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    def count(self, split: Split) -> int:
        """Return the number of pictures of a split."""
        return len(self._splits[split])

    def labels(self, split: Split) -> Labels:
        """Return the labels of a split, shape (n,)."""
        return self._labels[self._splits[split]]

    def pixels(self, split: Split, resolution: Resolution) -> Pixels:
        """Return the pictures of a split as (n, h, w, 3), in the order of `labels`; see `read` for their size."""
        native = self.resolution
        wanted = native if native and native[0] <= resolution[0] and native[1] <= resolution[1] else resolution
        if (split, wanted) not in self._held:
            self._held[split, wanted] = self.read(self._splits[split], resolution)
        return self._held[split, wanted]

    def thinned(self, split: Split, pictures: int) -> Self:
        """Return the same data with fewer pictures in one split, stratified; the other splits stay as they are.

        Raises:
            DataError: More pictures than the split has, or none.
        """
        if not 0 < pictures <= self.count(split):
            raise DataError(f"data {self.name}: the split {split!r} has {self.count(split)} pictures, got {pictures} to keep.")
        few = copy.copy(self)
        few.__dict__.pop("key", None)
        few._held = {}
        _, chosen = stratified(self.labels(split), pictures / self.count(split), 0)
        few._splits = {**self._splits, split: self._splits[split][chosen]}
        return few

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> Self:
        """Return the same data whose pictures are normalised by other statistics than their own: those that a trained network expects.

        Args:
            mean: By channel, in 0…1.
            std: By channel, in 0…1.
        """
        other = copy.copy(self)
        other.__dict__["statistics"] = (tuple(float(v) for v in mean), tuple(float(v) for v in std))
        return other

    def release(self) -> None:
        """Free the pictures in memory; they are read again at the next use."""
        self._held.clear()

    @cached_property
    def statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of each channel, in 0…1, over at most 4,096 training pictures."""
        few = self._splits["train"][:: -(-self.count("train") // 4096)]
        values = self.read(few, (32, 32)).reshape(-1, 3).astype(np.float64) / 255
        mean, std = values.mean(0), values.std(0).clip(min=1e-3)
        (a, b, c), (d, e, f) = (tuple(round(float(v), 6) for v in row) for row in (mean, std))
        return (a, b, c), (d, e, f)


def imbalance(classes: tuple[str, ...], labels: Labels) -> tuple[str, ...]:
    """Return a line where the largest class has over 1.5 times the pictures of the smallest."""
    counts = np.bincount(labels, minlength=len(classes))
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] <= 1.5 * counts[least]:
        return ()
    ratio = counts[most] / max(counts[least], 1)
    return (f"classes are imbalanced {ratio:.1f}:1, {classes[most]!r} has {counts[most]} pictures, {classes[least]!r} {counts[least]}",)


def stratified(labels: Labels, share: float, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split positions 0…n−1 in two so that each class gives about `share` (at least one of two or more) to the second part.

    Returns:
        The positions of both parts, ascending.
    """
    rng = np.random.default_rng([seed, 1])
    taken = []
    wanted, drawn = 0.0, 0  # so that roundings do not add up over the classes
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        wanted += share * len(places)
        take = min(max(round(wanted - drawn), 1), len(places) - 1) if len(places) > 1 else 0
        drawn += take
        taken.append(places[:take])
    second = np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.int64)
    return np.setdiff1d(np.arange(len(labels)), second), second


def complete_splits(
    labels: Labels,
    existing: Mapping[Split, npt.NDArray[np.int64]],
    *,
    seed: int,
    images: int | None,
    twins: npt.NDArray[np.int64] | None = None,
) -> tuple[dict[Split, npt.NDArray[np.int64]], tuple[str, ...]]:
    """Return all three splits from those that the user brings (``train`` at least), and what was invented.

    Args:
        labels: Of all pictures.
        existing: Indices by split.
        seed: Of what is drawn.
        images: See `Dataset.open`.
        twins: For each picture the index of the first one with the same content; such pictures are drawn into one split where each class has five contents or more.

    Raises:
        DataError: `images` is not positive.
    """
    notices: tuple[str, ...] = ()
    splits = dict(existing)
    if "test" not in splits:
        splits["train"], splits["test"] = _parted(labels, splits["train"], HELD_OUT_SHARE, seed, twins)
        test = splits["test"]
        notices += (f"no test split was given: a stratified fifth of train, {len(test)} pictures, is test",)
    if images is not None:
        if images < 1:
            raise DataError(f"data: the number of pictures must be positive, got {images}.")
        pool = np.concatenate([splits["train"], splits["validation"]]) if "validation" in splits else splits["train"]
        if images < len(pool):
            _, chosen = stratified(labels[pool], images / len(pool), seed + 1)
            pool = np.sort(pool[chosen])
            for split in ("train", "validation"):
                if split in splits:
                    splits[split] = np.intersect1d(splits[split], pool)
    if "validation" not in splits:
        splits["train"], splits["validation"] = _parted(labels, splits["train"], validation_share(len(splits["train"])), seed, twins)
    return splits, notices


def validation_share(pictures: int) -> float:
    """Return the share of so many pictures that becomes validation: a fifth, as long as that is at most `ENOUGH`, and a tenth at least."""
    return max(min(HELD_OUT_SHARE, ENOUGH / max(pictures, 1)), LEAST_SHARE)


def _parted(
    labels: Labels, pool: npt.NDArray[np.int64], share: float, seed: int, twins: npt.NDArray[np.int64] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Part a pool of pictures in two, stratified; pictures of one content stay together where each class has contents enough."""
    if twins is not None:
        _, firsts, group = np.unique(twins[pool], return_index=True, return_inverse=True)
        distinct = np.unique(labels[pool[firsts]], return_counts=True)[1]
    if twins is None or len(firsts) == len(pool) or len(distinct) < len(np.unique(labels[pool])) or distinct.min() * share < 1:
        rest, second = stratified(labels[pool], share, seed)
        return pool[rest], pool[second]
    _, second = stratified(labels[pool[firsts]], share, seed)
    drawn = np.isin(group, second)
    return pool[~drawn], pool[drawn]


def cache_home() -> Path:
    """Return the folder for content-addressed files that can be made again."""
    return Path(os.environ.get("NAS_CACHE_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas")


def available_memory_bytes() -> int:
    """Return the memory that can be had without swapping; off Linux, the machine's whole memory."""
    report = Path("/proc/meminfo")
    if report.is_file():
        for line in report.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


datasets: Registry[type[Dataset]] = Registry("datasets", "nas.training.data")
"""Kinds of data sets by name."""


def load_dataset(source: str, *, seed: int = 0, images: int | None = None, decoder: str | None = None) -> Dataset:
    """Open a data set by name (``digits``) or path (a folder or archive of pictures, CIFAR-10's binary archive).

    Args:
        source: What the user wrote.
        seed: Seed of the splits that are made here.
        images: Keep so many pictures of train and validation together, stratified.
        decoder: See `Dataset.open`.

    Raises:
        UnknownNameError: Neither a name nor a path.
        UsageError: A path that no kind of data set understands.
        DataError: It cannot be used as it is.
    """
    kind = next((kind for name in datasets.names() if (kind := datasets.get(name)).accepts(source)), None)
    if kind is not None:
        return kind.open(source, seed=seed, images=images, decoder=decoder)
    if Path(source).exists():
        raise UsageError(f"data: neither a folder nor an archive of pictures, got {source!r}. Expected a folder, .tar or .tar.xz.")
    raise UnknownNameError("data", source, ["digits"], "Or give a folder, a .tar or a .tar.xz of pictures.")
