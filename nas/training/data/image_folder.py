"""``image-folder``: pictures in folders named after their class, as a directory, a ``.tar`` or a compressed tar.

``CLASS/*.jpg``, or ``train/CLASS/*.jpg`` with ``val/`` and ``test/`` beside it where the user brings them. Pictures are
decoded once; index and pixels are content-addressed files under ``$NAS_CACHE_HOME`` (default ``~/.cache/nas``).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from nas.errors import DataError
from nas.spaces.space import Resolution
from nas.training.dataset import Dataset, Pixels, Split, available_memory_bytes, cache_home, complete_splits, datasets

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
MAX_BROKEN_SHARE = 0.05
"""Pictures that cannot be decoded are named and skipped up to this share; beyond it the data set is refused."""

_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_SMALL_PIXELS = 64 * 64
_CHUNK = 2048
_INDEX_VERSION = 1


@dataclass(frozen=True, slots=True)
class _Picture:
    path: str
    sha256: str
    height: int
    width: int
    broken: str = ""


@datasets.register("image-folder")
class ImageFolder(Dataset):
    """Pictures in class folders."""

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the path is a folder or a tar that is not CIFAR-10's binary one."""
        path = Path(source)
        if path.is_dir():
            return not (path / "test_batch.bin").is_file()
        archive = ".tar" in path.suffixes[-2:] or path.suffix in {".tgz", ".txz"}
        return path.is_file() and archive and not path.name.startswith("cifar-10-binary")

    @classmethod
    def open(cls, source: str, *, seed: int, images: int | None) -> ImageFolder:
        """Index the pictures (once) and split them.

        Raises:
            DataError: No picture, one class, too many broken pictures, a test class that train lacks, or a tar that is
                damaged or climbs out of its folder.
        """
        path = Path(source)
        store = cache_home() / "data" / _signature(path)
        pictures, native = _index(path, store)
        if not pictures:
            raise DataError(f"data {source}: no picture found. Expected CLASS/*.jpg or train/CLASS/*.jpg.")
        broken = [picture for picture in pictures if picture.broken]
        notices = _judge_broken(source, broken, len(pictures))
        kept = [i for i, picture in enumerate(pictures) if not picture.broken]
        places = _places([pictures[i].path for i in kept])
        if strays := [pictures[i].path for i, place in zip(kept, places, strict=True) if place is None]:
            notices += (f"{len(strays)} pictures lie in no class folder and are left out, the first {strays[0]!r}",)
        members = [(i, *place) for i, place in zip(kept, places, strict=True) if place is not None]
        has_train = any(split == "train" for _, split, _ in members)
        classes = tuple(sorted({label for _, split, label in members if split == "train" or not has_train}))
        if foreign := sorted({label for *_, label in members} - set(classes)):
            raise DataError(f"data {source}: a class that train lacks, got {foreign[0]!r}. Expected one of {', '.join(classes[:12])}.")
        number = {label: i for i, label in enumerate(classes)}
        labels = np.array([number[label] for *_, label in members], np.int64)
        found: dict[Split, list[int]] = {}
        for row, (_, split, _) in enumerate(members):
            found.setdefault(split if has_train else "train", []).append(row)
        given = {split: np.array(rows, np.int64) for split, rows in found.items()}
        splits, invented = complete_splits(labels, given, seed=seed, images=images)
        digest = hashlib.sha256()
        for i, split, label in members:
            digest.update(f"{split}/{label}/{pictures[i].sha256}\n".encode())
        self = cls.__new__(cls)
        self._source, self._store, self._native = path, store, native
        self._members = [(i, pictures[i].path) for i, *_ in members]
        size = (native.shape[1], native.shape[2]) if native is not None else None
        Dataset.__init__(self, path.name, classes, labels, splits, digest.hexdigest(), size, notices + invented)
        return self

    _source: Path
    _store: Path
    _native: Pixels | None
    _members: list[tuple[int, str]]

    def read(self, indices: npt.NDArray[np.int64], resolution: Resolution) -> Pixels:
        """Return pictures as (n, h, w, 3); see `Dataset.read`.

        Raises:
            DataError: They do not fit into memory.
        """
        rows = [self._members[i] for i in indices]
        if self._native is not None and self._native.shape[1] <= resolution[0] and self._native.shape[2] <= resolution[1]:
            return self._native[[i for i, _ in rows]]
        needed = len(rows) * resolution[0] * resolution[1] * 3
        if needed > 0.5 * available_memory_bytes():
            raise DataError(
                f"data {self.name}: {len(rows)} pictures of {resolution[0]}x{resolution[1]} need {needed / 1e9:.1f} GB of memory, "
                f"got {available_memory_bytes() / 1e9:.1f} GB. Do this: give fewer pictures or a lower resolution."
            )
        key = hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16]
        file = self._store / f"{key}-{resolution[0]}x{resolution[1]}.npy"
        if not file.is_file():
            _save(file, self._decode([path for _, path in rows], resolution))
        return np.asarray(np.load(file))

    def _decode(self, paths: list[str], resolution: Resolution) -> Pixels:
        row = {path: i for i, path in enumerate(paths)}
        out = np.empty((len(paths), *resolution, 3), np.uint8)
        wanted = ((path, data) for path, data in _files(self._source) if path in row)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while chunk := list(islice(wanted, _CHUNK)):
                for (path, _), pixels in zip(chunk, pool.map(lambda item: _fit(item[1], resolution), chunk), strict=True):
                    out[row[path]] = pixels
        return out


def open_tar(path: Path) -> tarfile.TarFile:
    """Open an archive of any compression.

    Raises:
        DataError: It is not one.
    """
    try:
        return tarfile.open(path, "r:*")
    except (tarfile.ReadError, EOFError, OSError) as error:
        raise DataError(f"data {path}: cannot be read as a tar ({error}).") from None


def check_member(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse a member that points out of the archive's folder, itself or by a link.

    Raises:
        DataError: It does.
    """
    for name in (member.name, member.linkname if member.issym() or member.islnk() else ""):
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts:
            raise DataError(f"data {path}: a member climbs out of the archive, got {name!r}. Nothing was read from it.")


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (path inside the data set, bytes) of everything that is named like a picture."""
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.suffix.lower() in EXTENSIONS and file.is_file():
                yield file.relative_to(source).as_posix(), file.read_bytes()
        return
    with open_tar(source) as archive:
        try:
            for member in archive:
                check_member(source, member)
                name = PurePosixPath(member.name)
                if member.isfile() and name.suffix.lower() in EXTENSIONS:
                    stream = archive.extractfile(member)
                    if stream is not None:
                        yield name.as_posix(), stream.read()
        except (tarfile.ReadError, EOFError, OSError) as error:
            raise DataError(f"data {source}: a damaged archive ({error}).") from None


def _signature(source: Path) -> str:
    """Return what the cache is addressed by: an archive's bytes, a folder's names, sizes and times of change."""
    digest = hashlib.sha256(f"{_INDEX_VERSION}".encode())
    if source.is_dir():
        for file in sorted(source.rglob("*")):
            if file.suffix.lower() in EXTENSIONS and file.is_file():
                facts = file.stat()
                digest.update(f"{file.relative_to(source).as_posix()} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    else:
        with source.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _index(source: Path, store: Path) -> tuple[list[_Picture], Pixels | None]:
    """Return all pictures by path, and their pixels where all are small and of one size."""
    file, pixels_file = store / "index.json", store / "native.npy"
    if file.is_file():
        pictures = [_Picture(**entry) for entry in json.loads(file.read_text())]
        return pictures, np.load(pixels_file) if pixels_file.is_file() else None
    found: list[tuple[_Picture, Pixels | None]] = []
    files = _files(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(files, _CHUNK)):
            found += pool.map(_inspect, *zip(*chunk, strict=True))
    found.sort(key=lambda item: item[0].path)
    pictures = [picture for picture, _ in found]
    sound = [pixels for picture, pixels in found if not picture.broken]
    native = None
    if sound and len({pixels.shape if pixels is not None else None for pixels in sound}) == 1 and sound[0] is not None:
        blank = np.zeros_like(sound[0])
        native = np.stack([blank if pixels is None else pixels for _, pixels in found])
        _save(pixels_file, native)
    store.mkdir(parents=True, exist_ok=True)
    _replace(file, json.dumps([asdict(picture) for picture in pictures]).encode())
    return pictures, native


def _inspect(path: str, data: bytes) -> tuple[_Picture, Pixels | None]:
    """Decode a picture as coarsely as its format allows, to learn whether it is whole; small ones are decoded fully and kept."""
    from PIL import Image

    sha256 = hashlib.sha256(data).hexdigest()
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height <= _SMALL_PIXELS:
                return _Picture(path, sha256, height, width), np.asarray(image.convert("RGB"))
            image.draft("RGB", (width // 8, height // 8))
            image.load()
            return _Picture(path, sha256, height, width), None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return _Picture(path, sha256, 0, 0, str(error) or type(error).__name__), None


def _fit(data: bytes, resolution: Resolution) -> Pixels:
    """Scale a picture to cover `resolution` and crop it at the centre: bytes -> (h, w, 3)."""
    from PIL import Image, ImageOps

    height, width = resolution
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (2 * width, 2 * height))
        return np.asarray(ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BILINEAR))


def _judge_broken(source: str, broken: list[_Picture], total: int) -> tuple[str, ...]:
    if not broken:
        return ()
    named = ", ".join(repr(picture.path) for picture in broken[:5]) + (", …" if len(broken) > 5 else "")
    if len(broken) > MAX_BROKEN_SHARE * total:
        share = f"{100 * len(broken) / total:.1f} %"
        limit = f"{100 * MAX_BROKEN_SHARE:.0f} %"
        raise DataError(f"data {source}: {share} of the pictures cannot be decoded, got {named}. Expected at most {limit}.")
    return (f"{len(broken)} of {total} pictures cannot be decoded and are left out: {named}",)


def _places(paths: list[str]) -> list[tuple[Split, str] | None]:
    """Return (split, class) of each path; folders around the whole are ignored, and None lies in no class folder."""
    parts = [PurePosixPath(path).parts for path in paths]
    while parts and len({p[0] for p in parts}) == 1 and parts[0][0] not in _SPLIT_FOLDERS and min(map(len, parts)) > 2:
        parts = [p[1:] for p in parts]
    if any(p[0] == "train" and len(p) > 2 for p in parts):
        return [(_SPLIT_FOLDERS[p[0]], p[1]) if p[0] in _SPLIT_FOLDERS and len(p) > 2 else None for p in parts]
    return [("train", p[0]) if len(p) > 1 else None for p in parts]


def _save(file: Path, array: Pixels) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    _replace(file, buffer.getbuffer())


def _replace(file: Path, data: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    Path(name).replace(file)
