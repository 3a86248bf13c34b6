"""``digits``: the 1,797 handwritten digits of 8 × 8 pixels that scikit-learn ships.

A smoke test: nearly every network passes it. 360 pictures are the test split, whatever the seed of the run.

Source:
    Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998, as copied
    by scikit-learn. Their 16 grey levels are stretched to 8 bits and repeated over three channels.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from nas.spaces.space import Resolution
from nas.training.dataset import Dataset, Labels, Pixels, complete_splits, datasets, stratified

TEST_PICTURES = 360  # a fifth of 1,797
_SPLIT_SEED = 0  # by hand; part of the data set's identity


@datasets.register("digits")
class Digits(Dataset):
    """Handwritten digits, held in memory."""

    flips = False

    def __init__(self, pixels: Pixels, labels: Labels, *, seed: int, images: int | None) -> None:
        train, test = stratified(labels, TEST_PICTURES / len(labels), _SPLIT_SEED)
        splits, notices = complete_splits(labels, {"train": train, "test": test}, seed=seed, images=images)
        content = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        super().__init__("digits", tuple("0123456789"), labels, splits, content, (8, 8), notices)
        self._pixels = pixels

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the name is ``digits``."""
        return source == "digits"

    @classmethod
    def open(cls, source: str, *, seed: int, images: int | None, decoder: str | None = None) -> Digits:  # noqa: ARG003
        """Load scikit-learn's copy."""
        from sklearn.datasets import load_digits

        grey, labels = load_digits(return_X_y=True)  # (1797, 64) in 0…16
        levels = np.rint(grey * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
        return cls(np.repeat(levels, 3, axis=3), labels.astype(np.int64), seed=seed, images=images)

    def read(self, indices: npt.NDArray[np.int64], resolution: Resolution) -> Pixels:  # noqa: ARG002
        """Return pictures as (n, 8, 8, 3)."""
        return self._pixels[indices]
