"""A data set: light and dark pictures."""

import hashlib

import numpy as np

from nas.training.dataset import Dataset, complete_splits


class Shades(Dataset):
    """Light and dark pictures."""

    @classmethod
    def accepts(cls, source):
        return source == "acme-shades"

    @classmethod
    def open(cls, source, *, seed, images, decoder=None):
        labels = np.arange(120) % 2
        rng = np.random.default_rng(0)
        pixels = np.clip(rng.normal(60 + 120 * labels[:, None, None, None], 30, (120, 16, 16, 3)), 0, 255).astype(np.uint8)
        splits, notices = complete_splits(labels, {"train": np.arange(120)}, seed=seed, images=images)
        shades = cls("acme-shades", ("dark", "light"), labels, splits, hashlib.sha256(pixels.tobytes()).hexdigest(), (16, 16), notices)
        shades.pictures = pixels
        return shades

    def read(self, indices, resolution):
        return self.pictures[indices]
