"""``image-folder``: pictures in folders named after their class, as a directory, a ``.tar`` or a compressed tar.

``CLASS/*.jpg``, or ``train/CLASS/*.jpg`` with ``val/`` and ``test/`` beside it where the user brings them (in any case, also as ``training``,
``validation``, ``testing``; or ``CLASS/train/*.jpg``). Pictures are read and decoded once; see `nas.training.data._index`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from nas.errors import DataError, did_you_mean
from nas.spaces.space import Resolution
from nas.training.data._decoding import DECODER
from nas.training.data._index import Entry, Index, index_of
from nas.training.data._layout import Place, doubts, places, readable
from nas.training.dataset import SPLITS, Dataset, Pixels, Split, available_memory_bytes, complete_splits, datasets

MAX_BROKEN_SHARE = 0.05
"""Pictures that cannot be decoded are named and skipped up to this share; beyond it the data set is refused. Set by hand."""

Member = tuple[Entry, Split, str]


@datasets.register("image-folder")
class ImageFolder(Dataset):
    """Pictures in class folders."""

    @classmethod
    def accepts(cls, source: str) -> bool:
        """Return whether the path is a folder or a tar that is not CIFAR-10's binary one."""
        path = Path(source)
        if path.is_dir():
            return not (path / "test_batch.bin").is_file()
        archive = ".tar" in [suffix.lower() for suffix in path.suffixes[-2:]] or path.suffix.lower() in {".tgz", ".txz", ".tbz2"}
        return path.is_file() and archive and not path.name.startswith("cifar-10-binary")

    @classmethod
    def open(cls, source: str, *, seed: int, images: int | None, decoder: str | None = None) -> ImageFolder:
        """Index the pictures (once) and split them.

        Raises:
            DataError: No picture, one class, too many broken pictures, a test class that train lacks, a tar that is damaged or climbs out of
                its folder, or an earlier run's decoder whose pixels are no longer in the cache.
        """
        path = Path(source)
        index = _index(path, source, decoder)
        entries = index.entries
        if not entries:
            beside = f" It holds {'; '.join(index.notices)}." if index.notices else ""
            raise DataError(f"data {source}: no picture found.{beside} Expected CLASS/*.jpg or train/CLASS/*.jpg.")
        notices = _judge_broken(source, entries)
        sound = [entry for entry in entries if not entry.picture.fault]
        placed = places(source, [entry.path for entry in sound])
        members = [(entry, *place) for entry, place in zip(sound, placed, strict=True) if place is not None]
        classes = _classes(source, members)
        number = {label: i for i, label in enumerate(classes)}
        labels = np.array([number[label] for *_, label in members], np.int64)
        published = {
            split: np.array([i for i, (_, own, _) in enumerate(members) if own == split], np.int64)
            for split in SPLITS
            if any(own == split for _, own, _ in members)
        }
        twins = None if decoder == "" else _twins(members)  # runs that noted no decoder were split without a look at twins
        splits, invented = complete_splits(labels, published, seed=seed, images=images, twins=twins)
        digest = hashlib.sha256()
        for entry, split, label in members:
            digest.update(f"{split}/{label}/{entry.picture.sha256}\n".encode())
        self = cls.__new__(cls)
        self._index = index
        place_of = {entry.path: i for i, entry in enumerate(entries)}
        self._places = [place_of[entry.path] for entry, *_ in members]
        notices = (
            *notices,
            *_odd_places(sound, placed),
            *doubts([entry.path for entry in sound], placed),
            *index.notices,
            *_odd_pictures(index, members),
            *invented,
        )
        notices += _repetitions(members, splits)
        name = readable(path.resolve().name)
        Dataset.__init__(
            self, name, classes, labels, splits, digest.hexdigest(), index.size, notices, DECODER if decoder is None else decoder
        )
        return self

    _index: Index
    _places: list[int]

    def read(self, indices: npt.NDArray[np.int64], resolution: Resolution) -> Pixels:
        """Return pictures as (n, h, w, 3); see `Dataset.read`. Those that had to be scaled are mapped from a file.

        Raises:
            DataError: They do not fit into memory or onto the disk, or the pixels of an earlier run are no longer there.
        """
        chosen = [self._places[i] for i in indices]
        size = self._index.size
        if size is not None and size[0] <= resolution[0] and size[1] <= resolution[1]:
            needed = len(chosen) * size[0] * size[1] * 3
            if needed > 0.5 * available_memory_bytes():
                raise DataError(
                    f"data {self.name}: {len(chosen)} pictures need {needed / 1e9:.1f} GB of memory, "
                    f"got {available_memory_bytes() / 1e9:.1f} GB. Do this: give fewer pictures."
                )
            return self._index.small()[[self._index.entries[place].row for place in chosen]]
        pixels = self._index.fitted(chosen, resolution, make=self.decoder in ("", DECODER))
        if pixels is None:
            raise _gone(self.name, self.decoder)
        return pixels


def _index(path: Path, source: str, decoder: str | None) -> Index:
    """Return the index by the present decoder, or by that of an earlier run while its pixels are there."""
    if decoder in (None, DECODER):
        index = index_of(path, DECODER)
    elif decoder == "":
        index = index_of(path, DECODER)
        assert index is not None
        if changed := next((e for e in index.entries if e.picture.turned or e.picture.bits > 8), None):
            raise DataError(
                f"data {source}: this run was made before pictures were turned by their EXIF data and 16-bit and float ones scaled, so it saw "
                f"other pixels of {readable(changed.path)!r}. Do this: start a new run."
            )
    else:
        index = index_of(path, str(decoder), make=False)
        if index is None:
            raise _gone(source, str(decoder))
    assert index is not None
    return index


def _gone(source: str, decoder: str) -> DataError:
    wanted = decoder.split(",")[0].replace("pillow ", "pillow==")
    return DataError(
        f"data {source}: the pictures of this run were decoded by {decoder!r}, and those pixels are no longer in the cache; got {DECODER!r}. "
        f"Do this: pip install {wanted}, or start a new run."
    )


def _classes(source: str, members: Sequence[Member]) -> tuple[str, ...]:
    classes = tuple(sorted({label for _, split, label in members if split == "train"}))
    if foreign := sorted({label for *_, label in members} - set(classes)):
        raise DataError(f"data {source}: a class that train lacks, got {foreign[0]!r}.{did_you_mean(foreign[0], classes)}")
    return classes


def _judge_broken(source: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    broken, total = [entry for entry in entries if entry.picture.fault], len(entries)
    if not broken:
        return ()
    named = ", ".join(repr(readable(entry.path)) for entry in broken[:5]) + (", …" if len(broken) > 5 else "")
    reason = f" ({broken[0].picture.fault})"
    if len(broken) > MAX_BROKEN_SHARE * total:
        share = f"{100 * len(broken) / total:.1f} %"
        limit = f"{100 * MAX_BROKEN_SHARE:.0f} %"
        raise DataError(f"data {source}: {share} of the pictures cannot be decoded, got {named}{reason}. Expected at most {limit}.")
    lines = [f"{len(broken)} of {total} pictures cannot be decoded and are left out: {named}{reason}"]
    whole = {PurePosixPath(entry.path).parent for entry in entries if not entry.picture.fault}
    if lost := sorted({PurePosixPath(entry.path).parent for entry in broken} - whole):
        lines.append(f"{len(lost)} folders hold no picture that can be decoded, the first {readable(str(lost[0]))!r}")
    return tuple(lines)


def _odd_places(sound: Sequence[Entry], placed: Sequence[Place | None]) -> tuple[str, ...]:
    strays = [entry.path for entry, place in zip(sound, placed, strict=True) if place is None]
    if not strays:
        return ()
    return (f"{len(strays)} pictures lie in no class folder and are left out, the first {readable(strays[0])!r}",)


def _odd_pictures(index: Index, members: Sequence[Member]) -> tuple[str, ...]:
    pictures = [(entry.path, entry.picture) for entry, *_ in members]
    lines = []
    if wide := [path for path, picture in pictures if picture.bits == 32]:
        low, high = index.scale
        lines.append(f"{len(wide)} pictures hold floats or 32-bit integers: {low:g} is black and {high:g} white in all of them")
        most = max(picture.high for _, picture in pictures if picture.bits == 32)
        if most - low < (high - low) / 8:
            lines.append(f"they go up to {most:g} only and are dark. Do this: scale them to the whole range if that is wrong")
    deep = [picture for _, picture in pictures if picture.bits == 16]
    if deep and (most := max(picture.high for picture in deep)) < 65535 / 8:
        lines.append(
            f"{len(deep)} pictures of 16 bits go up to {most:g} of 65535 only and are dark. Do this: scale them to the whole range if that is wrong"
        )
    for odd, text in (
        ([path for path, picture in pictures if picture.flat], "pictures are of one colour, transparency left aside"),
        ([path for path, picture in pictures if picture.frames], "files hold several pictures, of which the first is used"),
    ):
        if odd:
            lines.append(f"{len(odd)} {text}, the first {readable(odd[0])!r}")
    return tuple(lines)


def _twins(members: Sequence[Member]) -> npt.NDArray[np.int64]:
    first: dict[str, int] = {}
    return np.array([first.setdefault(entry.picture.sha256, i) for i, (entry, *_) in enumerate(members)], np.int64)


def _repetitions(members: Sequence[Member], splits: dict[Split, npt.NDArray[np.int64]]) -> tuple[str, ...]:
    """Say where one picture (the same bytes) stands in two classes or in two splits."""
    lines = []

    def shared(places: Sequence[tuple[int, str]], text: Callable[[str, str], str]) -> list[tuple[int, int, str]]:
        met: dict[str, tuple[int, str]] = {}
        repetitions: dict[str, tuple[int, int, str]] = {}
        for i, where in places:
            other, there = met.setdefault(members[i][0].picture.sha256, (i, where))
            if there != where:
                repetitions.setdefault(members[i][0].picture.sha256, (other, i, text(there, where)))
        return list(repetitions.values())

    def path(i: int) -> str:
        return repr(readable(members[i][0].path))

    if twice := shared([(i, label) for i, (*_, label) in enumerate(members)], lambda *_: ""):
        a, b, _ = twice[0]
        lines.append(f"{len(twice)} pictures stand in two classes with the same bytes, the first is {path(a)} and {path(b)}")
    for one, other in (("train", "test"), ("validation", "test"), ("train", "validation")):
        places = [(int(i), split) for split in (one, other) for i in splits[split]]  # type: ignore[index]
        if both := shared(places, lambda *_: ""):
            a, b, _ = both[0]
            lines.append(
                f"{len(both)} pictures of {one} are in {other} too with the same bytes, so its accuracy is too high; "
                f"the first is {path(a)} and {path(b)}"
            )
    return tuple(lines)
