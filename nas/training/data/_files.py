"""The picture files of a folder or a tar, one after another, and what else lies there.

Hidden files and folders and what operating systems leave behind are passed over. Links are followed within bounds.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nas.errors import DataError, NasError
from nas.training.data._decoding import MAX_FILE_BYTES, extensions
from nas.training.data._layout import readable

_LEFT_BEHIND = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
_COMPANIONS = {".txt", ".md", ".json", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".html", ".py", ".sh", ".pdf", ".license"}
_MOST_VISITS = 8  # of a folder through links; by hand: stops loops
_DEEPEST = 64  # by hand: stops loops
_MOST_FOLDER_LINKS = 256  # by hand: stops loops


@dataclass(frozen=True, slots=True)
class File:
    """A file that is named like a picture.

    Attributes:
        path: Inside the data set, with ``/``; bytes that are not UTF-8 are surrogates.
        number: Of the member in its archive; 0 in a folder.
        data: Its bytes.
        fault: Why there are none.
    """

    path: str
    number: int
    data: bytes
    fault: str = ""


@dataclass
class Survey:
    """What a walk met beside pictures.

    Attributes:
        endings: Files that cannot be read as pictures, by ending.
        empty: Folders without a picture.
        loops: Links that were not followed, since they lead back or to a folder that was met often already.
        dead: Links that lead nowhere.
        aliases: By path, the path of the archive's member that a link stands for.
        repeated: Names that an archive holds more than once.
    """

    endings: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)

    def notices(self) -> tuple[str, ...]:
        """Return a line for each kind of thing that was left out."""
        odd = Counter({ending: n for ending, n in self.endings.items() if ending not in _COMPANIONS})
        shown = ", ".join(f"{n} {readable(ending) or 'without an ending'}" for ending, n in odd.most_common(6))
        lines = [f"{odd.total()} files cannot be read as pictures and are left out: {shown}"] if odd else []
        for paths, text in (
            (self.empty, "{} folders hold no picture that can be read"),
            (self.loops, "{} links lead back into the data and are not followed"),
            (self.dead, "{} links lead nowhere"),
            (self.repeated, "{} names stand in the archive more than once, the last of each counts"),
        ):
            if paths:
                lines.append(f"{text.format(len(paths))}, the first {readable(paths[0])!r}")
        return tuple(lines)


def files_of(source: Path, survey: Survey) -> Iterator[File]:
    """Yield every file that is named like a picture; `survey` is filled meanwhile.

    Raises:
        DataError: A folder that cannot be listed, an archive that is damaged or climbs out of its folder.
    """
    if source.is_dir():
        for path in sorted(folder_paths(source, survey)):
            yield _read(source, path)
    else:
        yield from _members(source, survey)


def files_at(source: Path, wanted: dict[str, int]) -> Iterator[File]:
    """Yield some files again, each once.

    Args:
        source: Folder or archive.
        wanted: Paths with the numbers of their members, as `files_of` gave them.
    """
    if source.is_dir():
        for path in wanted:
            yield _read(source, path)
        return
    numbers = set(wanted.values())
    with open_tar(source) as archive:
        for number, member in enumerate(checked_members(source, archive)):
            if number in numbers:
                yield _extracted(source, archive, member, number)


def folder_paths(source: Path, survey: Survey) -> list[str]:
    """Return the paths of everything in a folder that is named like a picture.

    Raises:
        DataError: A folder cannot be listed.
    """
    paths: list[str] = []
    visits: Counter[tuple[int, int]] = Counter()

    def enter(folder: str, inside: str, above: tuple[tuple[int, int], ...]) -> bool:
        facts = os.stat(folder)
        identity = (facts.st_dev, facts.st_ino)
        visits[identity] += 1
        if identity in above or visits[identity] > _MOST_VISITS or len(above) > _DEEPEST:
            survey.loops.append(inside)
            return True
        pictures = False
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            if hidden(entry.name):
                continue
            path = f"{inside}/{entry.name}" if inside else entry.name
            try:
                mode = entry.stat().st_mode
            except OSError:
                survey.dead.append(path)
                continue
            if stat.S_ISDIR(mode):
                pictures |= enter(entry.path, path, (*above, identity))
            elif stat.S_ISREG(mode) and (ending := PurePosixPath(entry.name).suffix.lower()) in extensions():
                paths.append(path)
                pictures = True
            elif stat.S_ISREG(mode):
                survey.endings[ending] += 1
        if not pictures and inside:
            survey.empty.append(inside)
        return pictures

    try:
        enter(str(source), "", ())
    except OSError as error:
        raise DataError(f"data {source}: {readable(str(error.filename))} cannot be read ({error.strerror}).") from None
    return paths


def hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or left behind by an operating system."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def open_tar(path: Path) -> tarfile.TarFile:
    """Open an archive of any compression.

    Raises:
        DataError: It is not one.
    """
    try:
        return tarfile.open(path, "r:*")
    except Exception as error:  # noqa: BLE001 - tarfile and the decompressors raise whatever damaged bytes lead them to
        raise DataError(f"data {path}: cannot be read as a tar ({_reason(error)}).") from None


def check_member(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse a member that points out of the archive's folder, itself or by a link.

    Raises:
        DataError: It does.
    """
    names = [member.name]
    if member.islnk():
        names.append(member.linkname)
    elif member.issym():
        names += [posixpath.join(posixpath.dirname(member.name), member.linkname)]
    for name in names:
        pure = posixpath.normpath(name)
        if posixpath.isabs(pure) or pure.split("/")[0] == ".." or ".." in PurePosixPath(member.name).parts:
            raise DataError(f"data {path}: a member climbs out of the archive, got {readable(name)!r}. Nothing was read from it.")


def checked_members(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive.

    Raises:
        DataError: It is damaged, or a member climbs out of its folder.
    """
    try:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # a list of all of them would grow with the archive
            check_member(path, member)
            yield member
    except NasError:
        raise
    except Exception as error:  # noqa: BLE001 - see `open_tar`
        raise DataError(f"data {path}: a damaged archive ({_reason(error)}).") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _members(source: Path, survey: Survey) -> Iterator[File]:
    seen: set[str] = set()
    with open_tar(source) as archive:
        for number, member in enumerate(checked_members(source, archive)):
            name = posixpath.normpath(member.name)
            if any(map(hidden, name.split("/"))) and name != ".":
                continue
            ending = PurePosixPath(name).suffix.lower()
            if member.issym() or member.islnk():
                target = member.linkname if member.islnk() else posixpath.join(posixpath.dirname(name), member.linkname)
                survey.aliases[name] = posixpath.normpath(target)
            elif member.isfile() and ending in extensions():
                if name in seen:
                    survey.repeated.append(name)
                seen.add(name)
                yield _extracted(source, archive, member, number)
            elif member.isfile():
                survey.endings[ending] += 1


def _extracted(source: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, number: int) -> File:
    path = posixpath.normpath(member.name)
    if member.size > MAX_FILE_BYTES:
        return File(path, number, b"", f"it has {member.size} bytes, more than {MAX_FILE_BYTES}")
    return File(path, number, read_member(source, archive, member))


def read_member(source: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a regular member.

    Raises:
        DataError: The archive is damaged there.
    """
    try:
        stream = archive.extractfile(member)
        return stream.read() if stream else b""
    except Exception as error:  # noqa: BLE001 - see `open_tar`
        raise DataError(f"data {source}: a damaged archive ({_reason(error)}).") from None


def _read(source: Path, path: str) -> File:
    file = source / path
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            return File(path, 0, b"", f"it has {size} bytes, more than {MAX_FILE_BYTES}")
        return File(path, 0, file.read_bytes())
    except OSError as error:
        return File(path, 0, b"", str(error.strerror))


def linked(survey: Survey, names: Sequence[str]) -> dict[str, str]:
    """Return the members that the links of an archive stand for, by the path of the link; a link to a folder stands for all in it.

    Args:
        survey: Of the archive; links that cannot be followed are noted.
        names: Of the archive's pictures.
    """
    known, links = set(names), survey.aliases
    targets: dict[str, str] = {}
    folders = 0
    for link, target in links.items():
        for _ in range(_DEEPEST):
            if target in known or target not in links:
                break
            target = links[target]
        if PurePosixPath(link).suffix.lower() in extensions():
            if target in known:
                targets[link] = target
            else:
                survey.dead.append(link)
        elif f"{link}/".startswith(f"{target}/") or folders >= _MOST_FOLDER_LINKS:
            survey.loops.append(link)
        else:
            folders += 1
            targets |= {f"{link}/{name[len(target) + 1 :]}": name for name in names if name.startswith(f"{target}/")}
    return targets
