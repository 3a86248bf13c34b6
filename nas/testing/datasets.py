"""What every data set must satisfy; each check takes one that was opened."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.training.dataset import SPLITS, Dataset


def check_splits(dataset: Dataset) -> None:
    """Three splits that are not empty and share no picture, with labels of known classes; every class can be learnt."""
    indices = [dataset._splits[split] for split in SPLITS]
    together = np.concatenate(indices)
    assert len(set(together.tolist())) == len(together), "a picture is in two splits"
    for split in SPLITS:
        labels = dataset.labels(split)
        assert dataset.count(split) == len(labels) > 0
        assert labels.min() >= 0
        assert labels.max() < dataset.num_classes == len(dataset.classes)
    assert set(dataset.labels("train").tolist()) == set(range(dataset.num_classes))


def check_pixels(dataset: Dataset) -> None:
    """Pictures are 8-bit RGB in the order of the labels, no larger than asked for, and the same when asked again."""
    for size in ((16, 16), (24, 32)):
        pixels = dataset.pixels("validation", size)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 4
        assert pixels.shape[0] == dataset.count("validation")
        assert pixels.shape[3] == 3
        assert pixels.shape[1] <= max(size[0], (dataset.resolution or size)[0])
        assert np.array_equal(pixels, dataset.read(dataset._splits["validation"], size))
    mean, std = dataset.statistics
    assert all(0 <= value <= 1 for value in mean)
    assert all(0 < value <= 1 for value in std)


def check_key(opened: Callable[[int], Dataset]) -> None:
    """The key follows from pictures, labels and splits: equal for one seed, and another where the splits are."""
    one, same, other = opened(0), opened(0), opened(1)
    assert one.key == same.key
    differ = any(not np.array_equal(one._splits[split], other._splits[split]) for split in SPLITS)
    assert (one.key != other.key) == differ


def check_thinned(dataset: Dataset) -> None:
    """Fewer pictures of a split leave the others as they are, and are told apart by the key."""
    count = dataset.count("train") // 2
    few = dataset.thinned("train", count)
    assert few.count("train") == count
    assert few.count("test") == dataset.count("test")
    assert few.key != dataset.key
    assert few.pixels("train", (16, 16)).shape[0] == count
