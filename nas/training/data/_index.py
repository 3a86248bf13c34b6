"""What a folder or archive of pictures holds, and its pixels, as files that are made once.

They lie under ``$NAS_CACHE_HOME/data`` (default ``~/.cache/nas/data``), addressed by content and decoder, and can be removed at any time. A
damaged one is made again. Neither the pictures nor their pixels are ever all in memory: files are read a few at a time, and pixels mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from nas.errors import DataError
from nas.spaces.space import Resolution
from nas.training.data._decoding import SMALL_PIXELS, Picture, Range, fit, inspect, native, range_of
from nas.training.data._files import File, Survey, files_at, files_of, folder_paths, linked
from nas.training.dataset import Pixels, cache_home

T = TypeVar("T")

_VERSION = 2  # of what an index holds
_BYTES_AHEAD = 64 * 2**20  # by hand: decoded pictures that wait to be written
_CHECK_BYTES = 4  # a CRC-32


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture and where it is.

    Attributes:
        path: Inside the data set.
        file: The path that it is read from; another one where `path` is a link in an archive.
        number: Of the archive's member.
        row: In the file of small pictures; −1 where it is in none.
        picture: Its facts.
    """

    path: str
    file: str
    number: int
    row: int
    picture: Picture


@dataclass(frozen=True)
class Index:
    """All pictures of a source.

    Attributes:
        source: Folder or archive.
        store: Folder of the files that were made of it.
        entries: By path.
        notices: What was met beside pictures.
        size: (height, width) where all pictures are small and of one size; then their pixels are kept as they are.
        rows: Pictures in that file.
    """

    source: Path
    store: Path
    entries: tuple[Entry, ...]
    notices: tuple[str, ...]
    size: Resolution | None
    rows: int

    @property
    def scale(self) -> Range:
        """Black and white of the 32-bit pictures."""
        return range_of([entry.picture for entry in self.entries])

    def small(self) -> Pixels:
        """Return the pixels of all small pictures by `Entry.row`, mapped from their file."""
        assert self.size is not None
        shape = (self.rows, *self.size, 3)
        file = self.store / "small.pixels"
        pixels = _mapped(file, shape)
        if pixels is None:
            with _written(file, math.prod(shape)) as stream:
                rows = {entry.file: entry.row for entry in self.entries if entry.row >= 0}
                self._fill(stream, [(file, [row]) for file, row in rows.items()], self.size, lambda data: native(data, self.scale))
            pixels = _mapped(file, shape)
        assert pixels is not None
        return pixels

    def fitted(self, places: Sequence[int], resolution: Resolution, *, make: bool = True) -> Pixels | None:
        """Return pictures scaled and cropped to a resolution, (n, h, w, 3), mapped from their file.

        Args:
            places: Of the entries.
            resolution: (height, width).
            make: Whether the file is made where it is absent; if not, None is returned then.

        Raises:
            DataError: A file has changed since it was indexed, or the pixels cannot be written.
        """
        chosen = [self.entries[place] for place in places]
        key = hashlib.sha256("\n".join(f"{e.picture.sha256} {e.file}" for e in chosen).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        file, shape = self.store / f"{key}-{resolution[0]}x{resolution[1]}.pixels", (len(chosen), *resolution, 3)
        pixels = _mapped(file, shape)
        if pixels is None and make:
            rows: dict[str, list[int]] = {}
            for row, entry in enumerate(chosen):
                rows.setdefault(entry.file, []).append(row)
            with _written(file, math.prod(shape)) as stream:
                self._fill(stream, list(rows.items()), resolution, lambda data: fit(data, resolution, self.scale))
            pixels = _mapped(file, shape)
        return pixels

    def _fill(
        self, stream: BinaryIO, rows: Sequence[tuple[str, list[int]]], resolution: Resolution, decode: Callable[[bytes], Pixels]
    ) -> None:
        known = {entry.file: entry for entry in self.entries}
        places = dict(rows)

        def pixels_of(file: File) -> Pixels:
            if hashlib.sha256(file.data).hexdigest() != known[file.path].picture.sha256:
                raise DataError(f"data {self.source}: {file.path!r} has changed while it was read. Do this: start again.")
            return decode(file.data)

        size = resolution[0] * resolution[1] * 3
        wanted = {path: known[path].number for path in places}
        for file, pixels in side_by_side(pixels_of, files_at(self.source, wanted), lambda file: len(file.data)):
            if pixels.shape != (*resolution, 3):
                raise DataError(f"data {self.source}: {file.path!r} has changed while it was read. Do this: start again.")
            for row in places[file.path]:
                stream.seek(row * size)
                stream.write(np.ascontiguousarray(pixels).data)


def index_of(source: Path, decoder: str, *, make: bool = True) -> Index | None:
    """Return the index of a source, making it where it is absent.

    Args:
        source: Folder or archive.
        decoder: What decodes the pictures.
        make: Whether an absent one is made; if not, None is returned then.

    Raises:
        DataError: The source cannot be read, or the cache cannot be written.
    """
    store = cache_home() / "data" / _signature(source, decoder)
    index = _load(source, store)
    return index if index is not None or not make else _make(source, store)


def side_by_side(work: Callable[[File], T], files: Iterable[File], size: Callable[[File], int]) -> Iterator[tuple[File, T]]:
    """Yield each file with what `work` makes of it, in order; a few are under way at a time, and few bytes."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of odd files
        pending: deque[tuple[File, Future[T]]] = deque()
        ahead = 0
        for file in files:
            pending.append((file, pool.submit(work, file)))
            ahead += size(file)
            while len(pending) > 4 * workers or (ahead > _BYTES_AHEAD and pending):
                done, future = pending.popleft()
                yield done, future.result()
                ahead -= size(done)
        while pending:
            done, future = pending.popleft()
            yield done, future.result()


def _signature(source: Path, decoder: str) -> str:
    """Return what the cache is addressed by: an archive's bytes, or a folder's names, sizes and times of change; and the decoder.

    The time when the system last wrote to a file's record tells files apart that an archive unpacks with one time and one size for all.
    """
    digest = hashlib.sha256(f"{_VERSION} {decoder}\n".encode())
    if source.is_dir():
        survey = Survey()
        for path in sorted(folder_paths(source, survey)):
            facts = (source / path).stat()
            line = f"{path} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        digest.update("\n".join(survey.notices()).encode())
    else:
        with source.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _make(source: Path, store: Path) -> Index:
    survey = Survey()
    by_path: dict[str, Entry] = {}
    size: Resolution | None = None
    spooling, rows = True, 0
    with _written(store / "small.pixels", None) as spool:

        def look(file: File) -> tuple[Picture, Pixels | None]:
            return (Picture("", fault=file.fault), None) if file.fault else inspect(file.data)

        for file, (picture, pixels) in side_by_side(look, files_of(source, survey), lambda file: len(file.data)):
            if pixels is not None and spooling and (size is None or pixels.shape[:2] == size):
                size = pixels.shape[:2]
                spool.write(np.ascontiguousarray(pixels).data)
            elif not picture.fault:
                spooling = False
            row = -1 if picture.fault else rows
            rows += not picture.fault
            by_path[file.path] = Entry(file.path, file.path, file.number, row, picture)
        if not spooling:
            spool.truncate(0)
    for link, target in linked(survey, list(by_path)).items():
        by_path.setdefault(link, replace(by_path[target], path=link))
    entries = tuple(by_path[path] for path in sorted(by_path))
    sound = [entry.picture for entry in entries if not entry.picture.fault]
    sizes = {(picture.height, picture.width) for picture in sound}
    common = min(sizes) if len(sizes) == 1 and math.prod(min(sizes)) <= SMALL_PIXELS else None
    if common is None:
        entries = tuple(replace(entry, row=-1) for entry in entries)
    index = Index(source, store, entries, survey.notices(), common, rows)
    _save(index)
    return index


def _save(index: Index) -> None:
    data = {
        "notices": index.notices,
        "size": index.size,
        "rows": index.rows,
        "entries": [asdict(entry) for entry in index.entries],
    }
    with _written(index.store / "index.json", None) as stream:
        stream.write(json.dumps(data).encode())


def _load(source: Path, store: Path) -> Index | None:
    """Return the stored index; None where there is none, or a damaged one."""
    try:
        data = (store / "index.json").read_bytes()
        body, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
        if _check_of(store / "index.json", body) != check:
            return None
        record = json.loads(body)
        entries = tuple(Entry(**{**entry, "picture": Picture(**entry["picture"])}) for entry in record["entries"])
        size = (record["size"][0], record["size"][1]) if record["size"] else None
        return Index(source, store, entries, tuple(record["notices"]), size, record["rows"])
    except (OSError, ValueError, TypeError, KeyError):  # absent, or another file in its place
        return None


def _mapped(file: Path, shape: tuple[int, ...]) -> Pixels | None:
    """Return the pixels of a file, mapped; None where it is absent or damaged."""
    size = math.prod(shape)
    try:
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != size + _CHECK_BYTES or _checksum(file, stream, size) != stream.read(_CHECK_BYTES):
                return None
    except OSError:
        return None
    return np.memmap(file, np.uint8, "c", shape=shape) if size else np.zeros(shape, np.uint8)


@contextmanager
def _written(file: Path, size: int | None) -> Iterator[BinaryIO]:
    """Write a file that is there whole, with its checksum at the end, or not at all.

    Raises:
        DataError: It cannot be written, or the disk lacks room for `size` bytes.
    """
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(file.parent).free
        if size is not None and size > room:
            raise DataError(
                f"data: the pixels need {size / 1e9:.1f} GB in {file.parent}, which has {room / 1e9:.1f} GB left. "
                "Do this: set NAS_CACHE_HOME to a folder with room, or give fewer pictures or a lower resolution."
            )
        with part.open("x+b") as stream:
            stream.truncate(size or 0)
            yield stream
            stream.seek(0)
            check = _checksum(file, stream, None)
            stream.seek(0, os.SEEK_END)
            stream.write(check)
        os.replace(part, file)
    except OSError as error:
        raise DataError(
            f"data: the cache in {file.parent} cannot be written ({error.strerror}). Do this: set NAS_CACHE_HOME to another folder."
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()


def _check_of(file: Path, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(file.name.encode())).to_bytes(_CHECK_BYTES, "little")


def _checksum(file: Path, stream: BinaryIO, size: int | None) -> bytes:
    """Return the checksum of the next `size` bytes (None: of all that follow) under a file's name.

    A damaged disk, a torn copy or another file in its place shows in it.
    """
    check, left = zlib.crc32(file.name.encode()), size
    while left is None or left > 0:
        data = stream.read(2**20 if left is None else min(2**20, left))
        if not data:
            break
        check, left = zlib.crc32(data, check), None if left is None else left - len(data)
    return check.to_bytes(_CHECK_BYTES, "little")
