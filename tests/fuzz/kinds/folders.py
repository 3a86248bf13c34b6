"""Folders of pictures with any names, depths and links: indexed, split and decoded. A line of an input is a file: what it holds, then its path."""

import contextlib
import io
import os
import posixpath
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from nas.training.dataset import SPLITS, load_dataset

ENDING = ".folder"
WORDS = (
    *(b"train/", b"Test/", b"val", b"dev/", b"evaluation_set/", b"__MACOSX/", b".hidden/", b"\nlink a/l.png > b/1.png", b"\nlink c > a"),
    *(
        b".JPG",
        b".tif",
        b".gif",
        b".heic",
        b"\xe9",
        b"\xff",
        "e\u0301".encode(),
        "\u202e".encode(),
        b"\x1b[31m",
        b"\r",
        b"\t",
        b" ",
        b"a" * 250,
    ),
    *(
        b"\npng ",
        b"\njpeg ",
        b"\ncut ",
        b"\nempty ",
        b"\ntext ",
        b"\ndeep ",
        b"\nfloat ",
        b"\nclear ",
        b"\nfolder ",
        b"\nlink ",
        b" > ",
        b" > .",
    ),
)
LINES = 80


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def content(what: str, n: int) -> bytes:
    """Return a file's bytes."""
    noise = np.random.default_rng(n).integers(0, 256, (9, 8, 3), np.uint8)
    made = {
        "png": lambda: encoded(Image.fromarray(noise), "PNG"),
        "jpeg": lambda: encoded(Image.fromarray(noise), "JPEG"),
        "cut": lambda: encoded(Image.fromarray(noise), "JPEG")[:-30],
        "text": lambda: b"<html>",
        "deep": lambda: encoded(Image.fromarray(noise[:, :, 0].astype(np.uint16) * 99), "PNG"),
        "float": lambda: encoded(Image.fromarray(noise[:, :, 0].astype(np.float32) / n), "TIFF"),
        "clear": lambda: encoded(Image.fromarray(np.dstack([noise, noise[:, :, :1]])), "PNG"),
    }
    return made[what]() if what in made else b""


def build(root: Path, text: bytes) -> None:
    """Make the files that an input lists, as far as a file system takes them; nothing is made or linked outside of `root`."""
    for n, line in enumerate(text.split(b"\n")[:LINES], 1):
        what, _, path = line.partition(b" ")
        path, _, target = path.partition(b" > ")
        name = posixpath.normpath(path.decode("utf-8", "surrogateescape"))
        aim = posixpath.normpath(posixpath.join(posixpath.dirname(name), target.decode("utf-8", "surrogateescape")))
        if any(posixpath.isabs(place) or place.split("/")[0] == ".." for place in (name, aim)):
            continue
        with contextlib.suppress(OSError, ValueError):  # too long, a name of NUL, a folder where there is a file
            file = root / name
            if not file.parent.resolve().is_relative_to(root.resolve()):
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            if what == b"folder":
                file.mkdir()
            elif what == b"link":
                file.symlink_to(os.path.relpath(root / aim, file.parent))
            elif not file.is_symlink():
                file.write_bytes(content(what.decode("latin-1"), n))


def read(path: Path) -> object:
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAS_CACHE_HOME"] = f"{home}/cache"
        root = Path(home) / "d"
        root.mkdir()
        build(root, path.read_bytes())
        data = load_dataset(str(root))
        for notice in data.notices:
            notice.encode()
        return data.classes, data.notices, [data.pixels(split, (24, 24)).copy() for split in SPLITS]


def absurd(result: tuple[tuple[str, ...], tuple[str, ...], list[np.ndarray]]) -> str:
    classes, notices, pixels = result
    if len(set(classes)) < 2 or not all(map(len, pixels)):
        return f"classes {classes}, pictures {[len(part) for part in pixels]}"
    return next((f"not one plain line: {text!r}" for text in (*notices, *classes) if "\n" in text or "\x1b" in text), "")


def seeds() -> list[bytes]:
    plain = [f"png {name}/{i}.png" for name in "ab" for i in range(6)]
    splits = [f"jpeg d/{split}/{name}/{i}.jpg" for split in ("train", "val", "test") for name in ("cat", "dog") for i in range(3)]
    odd = [
        *plain,
        "deep a/deep.png",
        "float b/f.tif",
        "clear b/c.png",
        "text a/notes.txt",
        "folder c",
        "link d > a",
        "link a/l.png > ../b/1.png",
    ]
    inside = [f"png {name}/{split}/{i}.png" for name in ("é", "ß") for split in ("train", "test") for i in range(4)]
    return ["\n".join(lines).encode() for lines in (plain, splits, odd, inside)]
