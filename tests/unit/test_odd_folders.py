"""More folders as people have them: the right pictures in the right classes, and a line for what their owner may not have meant."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.errors import DataError, NasError
from nas.training.dataset import SPLITS, load_dataset
from tests.unit.test_odd_pictures import _own_cache, counts, encoded, everything, fill, grey_png_16, noise, tiff

__all__ = ["_own_cache"]

Write = Callable[[Path], object]
AB = ("a", "b")


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """Return a PNG of RGB pixels as its header says, whatever follows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rgb_16(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 65536, (70, 70, 3)).astype(">u2")
    return png(70, 70, 16, b"".join(b"\0" + row.tobytes() for row in values))


def drawn_in_transparency(n: int) -> bytes:
    pixels = np.zeros((30, 30, 4), np.uint8)
    pixels[n // 1000 : 20, n % 1000 : 25, 3] = 255
    return encoded(Image.fromarray(pixels))


def with_odd_file(name: str, data: bytes) -> Write:
    """Write two sound classes and one more file."""

    def write(root: Path) -> None:
        fill(root, *AB, count=20)
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)

    return write


def links(root: Path) -> None:
    fill(root, *AB)
    (root / "self").symlink_to(".")
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    (root / "a" / "p.png").symlink_to("p.png")


FOLDERS: dict[str, tuple[Write, tuple[str, ...], tuple[int, int, int] | int, str]] = {
    "splits in Spanish": (
        lambda root: fill(root, "entrenamiento/a", "entrenamiento/b", "prueba/a", "prueba/b"),
        ("entrenamiento", "prueba"),
        40,
        "All classes hold the folders 'a', 'b'. Do this: where those are the classes, name the folders above them train, val and test",
    ),
    "splits in Japanese": (
        lambda root: fill(root, "学習/犬", "学習/猫", "テスト/犬", "テスト/猫"),
        ("テスト", "学習"),
        40,
        "hold the folders '犬'",
    ),
    "one split in German": (lambda root: fill(root, "Training/a", "Training/b", "Prüfung/a", "Prüfung/b"), AB, 20, "the first 'Prüfung/a/"),
    "dev": (lambda root: fill(root, "train/a", "train/b", "dev/a", "dev/b"), AB, (16, 20, 4), ""),
    "eval": (lambda root: fill(root, "train/a", "train/b", "Evaluation/a", "Evaluation/b"), AB, (16, 4, 20), ""),
    "a class dev": (lambda root: fill(root, "dev", "prod"), ("dev", "prod"), 20, ""),
    "flat val": (lambda root: fill(root, "train/a", "train/b", "val"), AB, 20, "the first 'val/00.png'"),
    "splits twice": (lambda root: fill(root, "train/a", "train/b", "Train/a", "Train/b", "test/a", "test/b"), AB, (32, 8, 20), ""),
    "nested classes": (
        lambda root: fill(root, "animals/cat", "animals/dog", "tools/saw"),
        ("animals", "tools"),
        30,
        "30 pictures lie in folders below that of their class: 'animals/cat/00.png' is of class 'animals'",
    ),
    "nested in splits": (lambda root: fill(root, "train/a/x", "train/b/x", "test/a", "test/b"), AB, 40, "20 pictures lie in folders below"),
    "case twins": (
        lambda root: fill(root, "cat", "Cat", "dog"),
        ("Cat", "cat", "dog"),
        30,
        "classes 'Cat', 'cat' have nearly the same name",
    ),
    "blanks in names": (lambda root: fill(root, " a", "a ", "b"), (" a", "a ", "b"), 30, "classes ' a', 'a ' have nearly the same name"),
    "class names that steer terminals": (
        lambda root: fill(root, "a\nb", "c\x1b[31m", "d\u202ee"),
        ("a\\nb", "c\\x1b[31m", "d\\u202ee"),
        30,
        "",
    ),
    "class names like options": (lambda root: fill(root, "--help", "-rf", "nan"), ("--help", "-rf", "nan"), 30, ""),
    "classes named like pictures": (lambda root: fill(root, "a.jpg", "b.jpg"), ("a.jpg", "b.jpg"), 20, ""),
    "a long name": (lambda root: fill(root, "a" * 250, "b"), ("a" * 250, "b"), 20, ""),
    "upper case endings": (lambda root: fill(root, *AB, ending=".JPG", make=lambda n: encoded(noise(n), "JPEG")), AB, 20, ""),
    "a class that cannot be decoded": (
        with_odd_file("c/0.png", b""),
        AB,
        40,
        "1 folders hold no picture that can be decoded, the first 'c'",
    ),
    "an error page": (with_odd_file("a/x.jpg", b"<html>404"), AB, 40, "'a/x.jpg' (no picture of a known format)"),
    "a cut JPEG": (with_odd_file("a/x.jpg", encoded(noise(1, (200, 200)), "JPEG")[:3000]), AB, 40, "'a/x.jpg' (image file is truncated"),
    "a huge header": (with_odd_file("a/x.png", png(60_000, 60_000, 8, b"\0" * 999)), AB, 40, "'a/x.png' (Image size (3600000000 pixels)"),
    "a zip beside": (with_odd_file("data.zip", b"PK\3\4"), AB, 40, "1 files cannot be read as pictures and are left out: 1 .zip"),
    "a class of one": (with_odd_file("c/0.png", encoded(noise(9999))), ("a", "b", "c"), 41, "have no picture in test: 'c'"),
    "links in circles": (links, AB, 20, "3 links lead nowhere"),
    "webp that moves": (
        lambda root: fill(root, *AB, ending=".webp", make=lambda n: encoded(noise(n), "WEBP", save_all=True, append_images=[noise(n + 1)])),
        AB,
        20,
        "20 files hold several pictures",
    ),
    "two pictures of a camera": (
        lambda root: fill(root, *AB, ending=".MPO", make=lambda n: encoded(noise(n), "MPO", save_all=True, append_images=[noise(n + 1)])),
        AB,
        20,
        "",
    ),
    "one line of pixels": (lambda root: fill(root, *AB, make=lambda n: encoded(noise(n, (1, 3000)))), AB, 20, ""),
    "drawn in transparency": (
        lambda root: fill(root, *AB, make=drawn_in_transparency),
        AB,
        20,
        "20 pictures are of one colour, transparency left aside",
    ),
    "dark floats": (
        lambda root: fill(root, *AB, ending=".tif", make=lambda n: tiff(np.asarray(noise(n), np.float32)[:, :, 0] / 1e6)),
        AB,
        20,
        "they go up to 0.000255 only and are dark",
    ),
    "12 bits in 16": (
        lambda root: fill(root, *AB, make=lambda n: grey_png_16(100 + n, (70, 70))),
        AB,
        20,
        "are dark. Do this: scale them",
    ),
}
"""By name: what to write, the classes, the pictures (in all, or by split), and a part of a notice that must be there."""


@pytest.mark.parametrize("name", FOLDERS)
def test_what_a_folder_holds(tmp_path: Path, name: str) -> None:
    write, classes, pictures, notice = FOLDERS[name]
    write(tmp_path / "d")
    data = load_dataset(str(tmp_path / "d"))
    assert data.classes == classes
    assert pictures in (counts(data), sum(counts(data)))
    assert any(notice in text for text in data.notices), data.notices
    assert not [text for text in data.notices if "\n" in text or "\x1b" in text or " at 0x" in text]
    assert len(everything(data)) == sum(counts(data))


REFUSED: dict[str, tuple[Write, str]] = {
    "train in French": (
        lambda root: fill(root, "apprentissage/a", "apprentissage/b", "test/a", "test/b"),
        "no pictures to train on, got the splits test",
    ),
    "one class and an empty one": (lambda root: (fill(root, "a"), (root / "b").mkdir()), "a single class, got ['a']"),
    "detection": (lambda root: fill(root, "images"), "a single class, got ['images']"),
    "one picture a class": (lambda root: fill(root, *AB, count=1), "'validation' is empty"),
    "empty files": (lambda root: fill(root, *AB, make=lambda _: b""), "(it is empty). Expected at most 5 %"),
    "cut files": (lambda root: fill(root, *AB, make=lambda n: encoded(noise(n))[:200]), "(image file is truncated). Expected at most 5 %"),
    "raw": (lambda root: fill(root, *AB, ending=".CR2", make=lambda _: b"II*\0"), "left out: 20 .cr2; 2 folders hold no picture"),
    "no endings": (lambda root: fill(root, *AB, ending=""), "20 without an ending"),
    "a zip": (lambda root: (root.mkdir(), (root / "data.zip").write_bytes(b"PK\3\4")), "1 files cannot be read as pictures"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path / "d")
    with pytest.raises(NasError) as caught:
        load_dataset(str(tmp_path / "d"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who may list all."""
    root, scan = fill(tmp_path / "d", *AB), os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match=r"/d/b cannot be read \(Permission denied\)"):
        load_dataset(str(root))


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, read = fill(tmp_path / "d", *AB, count=20), Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.match("a/00.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    data = load_dataset(str(root))
    assert sum(counts(data)) == 39
    assert any("'a/00.png' (Permission denied)" in text for text in data.notices)


def test_colours_of_cameras_and_palettes(tmp_path: Path) -> None:
    """A palette with a transparent colour, CMYK in JPEG, and 16 bits a channel show what a viewer shows."""
    made = {
        "palette": lambda n: encoded(Image.new("RGB", (70, 70), (255 * (n // 1000),) * 3).quantize(4), transparency=0),
        "cmyk": lambda n: encoded(Image.new("CMYK", (70, 70), (0, 0, 0, 255 * (1 - n // 1000))), "JPEG"),
        "deep": lambda n: png(70, 70, 16, b"".join(b"\0" + bytes([255 * (n // 1000)] * 420) for _ in range(70))),
    }
    for name, make in made.items():
        root = fill(tmp_path / name, "dark", "light", ending=".jpg" if name == "cmyk" else ".png", make=make)
        data = load_dataset(str(root))
        for split in SPLITS:
            shown = data.pixels(split, (32, 32)).mean(axis=(1, 2, 3))
            assert np.array_equal(shown > 200, data.labels(split) == 1), name
            assert np.array_equal(shown < 50, data.labels(split) == 0), name
    assert 50 < everything(load_dataset(str(fill(tmp_path / "noise", *AB, make=rgb_16)))).mean() < 200


def test_files_of_one_time_and_size_are_told_apart(tmp_path: Path) -> None:
    """As an archive unpacks them that was made to be the same each time."""
    found = []
    for k in range(2):
        root = fill(tmp_path / str(k) / "d", *AB, ending=".bmp", make=lambda n, k=k: encoded(noise(n + 5000 * k), "BMP"))
        for path in root.rglob("*.bmp"):
            os.utime(path, (0, 0))
        found.append(load_dataset(str(root)))
    assert found[0].key != found[1].key
    assert not np.array_equal(everything(found[0]), everything(found[1]))
