"""``cifar10``: the binary archive of CIFAR-10 (``cifar-10-binary.tar.gz``), or its unpacked folder.

Source:
    Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. A record is one label byte and 3,072
    pixel bytes, channel after channel (https://www.cs.toronto.edu/~kriz/cifar.html).
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from nas.errors import DataError
from nas.spaces.space import Resolution
from nas.training.data._files import checked_members, open_tar, read_member
from nas.training.dataset import Dataset, Labels, Pixels, Split, complete_splits, datasets

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST = "test_batch.bin"
_RECORD = 1 + 3 * 32 * 32  # a label and 3 x 32 x 32 pixels: the page of the binary version


@datasets.register("cifar10")
class Cifar10(Dataset):
    """CIFAR-10, held in memory."""

    def __init__(self, pixels: Pixels, labels: Labels, test_pictures: int, *, seed: int, images: int | None) -> None:
        border = len(labels) - test_pictures
        published: dict[Split, npt.NDArray[np.int64]] = {"train": np.arange(border), "test": np.arange(border, len(labels))}
        if len(labels) and labels.max() >= len(CLASSES):
            raise DataError(f"data cifar10: a label is out of range, got {labels.max()}. Expected 0…{len(CLASSES) - 1}.")
        splits, notices = complete_splits(labels, published, seed=seed, images=images)
        content = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
        super().__init__("cifar10", CLASSES, labels, splits, content, (32, 32), notices)
        self._pixels = pixels

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the path is the binary archive (by its name) or a folder that holds its batches."""
        path = Path(source)
        if path.is_dir():
            return (path / _TEST).is_file()
        return path.is_file() and path.name.startswith("cifar-10-binary.tar")

    @classmethod
    def open(cls, source: str, *, seed: int, images: int | None, decoder: str | None = None) -> Cifar10:  # noqa: ARG003
        """Read the six batches.

        Raises:
            DataError: A batch is missing, cut off or has labels out of range, or the archive climbs out of its folder.
        """
        batches = dict(_batches(Path(source)))
        if missing := [name for name in (*_TRAIN, _TEST) if name not in batches]:
            raise DataError(f"data {source}: a batch is missing, got {sorted(batches)!r}. Expected {missing[0]!r} too.")
        records = []
        for name in (*_TRAIN, _TEST):
            if not batches[name] or len(batches[name]) % _RECORD:
                raise DataError(f"data {source}: {name} is cut off, got {len(batches[name])} bytes. Expected a multiple of {_RECORD}.")
            records.append(np.frombuffer(batches[name], np.uint8).reshape(-1, _RECORD))
        table = np.concatenate(records)
        pixels = np.ascontiguousarray(table[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return cls(pixels, table[:, 0].astype(np.int64), len(records[-1]), seed=seed, images=images)

    def read(self, indices: npt.NDArray[np.int64], resolution: Resolution) -> Pixels:  # noqa: ARG002
        """Return pictures as (n, 32, 32, 3)."""
        return self._pixels[indices]


def _batches(path: Path) -> list[tuple[str, bytes]]:
    if path.is_dir():
        return [(file.name, file.read_bytes()) for file in sorted(path.glob("*.bin"))]
    with open_tar(path) as archive:
        members = [member for member in checked_members(path, archive) if member.isfile() and member.name.endswith(".bin")]
        return [(PurePosixPath(member.name).name, read_member(path, archive, member)) for member in members]
