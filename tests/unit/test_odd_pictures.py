"""Folders and archives as people have them: each gives the right pictures, or one line that says what is wrong."""

import io
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.errors import DataError, NasError
from nas.training.dataset import SPLITS, Dataset, load_dataset


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_HOME", str(tmp_path / "cache"))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def fill(root: Path, *folders: str, count: int = 10, ending: str = ".png", make: Callable[[int], bytes] | None = None) -> Path:
    """Write pictures that are all different into each folder."""
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / folder / f"{i:02}{ending}").write_bytes((make or (lambda n: encoded(noise(n))))(1000 * k + i))
    return root


def counts(data: Dataset) -> tuple[int, ...]:
    return tuple(data.count(split) for split in SPLITS)


def everything(data: Dataset, side: int = 16) -> np.ndarray:
    return np.concatenate([data.pixels(split, (side, side)) for split in SPLITS])


def grey_png_16(value: int, size: tuple[int, int] = (12, 10)) -> bytes:
    return encoded(Image.fromarray(np.full(size, value, np.uint16)))


def tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


# ---------------------------------------------------------------- which pictures, which class, which split

LAYOUTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], int, str]] = {}
"""By name: what to write, the classes, the pictures in all, and a part of a notice that must be there."""


def layout(classes: tuple[str, ...], total: int, notice: str = "") -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def file(write: Callable[[Path], object]) -> Callable[[Path], object]:
        LAYOUTS[write.__name__] = (write, classes, total, notice)
        return write

    return file


@layout(("cat", "dog"), 20)
def plain(root: Path) -> None:
    fill(root, "cat", "dog")


@layout(("a", "b"), 60)
def capital_splits(root: Path) -> None:
    fill(root, "Train/a", "Train/b", "Val/a", "Val/b", "Test/a", "Test/b")


@layout(("a", "b"), 40)
def training_and_testing(root: Path) -> None:
    fill(root, "training/a", "training/b", "testing/a", "testing/b")


@layout(("a", "b"), 40)
def training_set_and_test_set(root: Path) -> None:
    fill(root, "training_set/a", "training_set/b", "test_set/a", "test_set/b")


@layout(("a", "b"), 40)
def validation_in_capitals(root: Path) -> None:
    fill(root, "TRAIN/a", "TRAIN/b", "VALIDATION/a", "VALIDATION/b")


@layout(("a", "b"), 40)
def splits_inside_classes(root: Path) -> None:
    fill(root, "a/train", "b/train", "a/test", "b/test")


@layout(("bus", "car", "train"), 30)
def a_class_called_train(root: Path) -> None:
    fill(root, "bus", "car", "train")


@layout(("a", "b"), 20)
def wrapped_twice(root: Path) -> None:
    fill(root, "data/v1/a", "data/v1/b")


@layout(("a", "b"), 20, "1 pictures lie in no class folder and are left out, the first 'cover.png'")
def loose_beside_classes(root: Path) -> None:
    fill(root, "a", "b")
    (root / "cover.png").write_bytes(encoded(noise(7)))


@layout(("a", "b"), 40, "lie in no class folder")
def loose_beside_a_wrapper(root: Path) -> None:
    fill(root, "d/train/a", "d/train/b", "d/test/a", "d/test/b")
    (root / "cover.png").write_bytes(encoded(noise(7)))


@layout(("a", "b"), 20)
def notebook_checkpoints(root: Path) -> None:
    fill(root, "a", "b", ".ipynb_checkpoints", "a/.ipynb_checkpoints")


@layout(("a", "b"), 20)
def left_behind_by_systems(root: Path) -> None:
    fill(root, "a", "b", "__MACOSX/a", "@eaDir")
    for name in ("a/._00.png", "a/.DS_Store", "b/Thumbs.db", "b/desktop.ini"):
        (root / name).write_bytes(b"\x00\x05\x16\x07 no picture")


@layout(("a", "b"), 20)
def jfif(root: Path) -> None:
    fill(root, "a", ending=".jfif", make=lambda n: encoded(noise(n), "JPEG"))
    fill(root, "b", ending=".JPE", make=lambda n: encoded(noise(500 + n), "JPEG"))


@layout(("a", "b"), 20)
def other_endings(root: Path) -> None:
    for k, (ending, form) in enumerate(((".tga", "TGA"), (".jp2", "JPEG2000"), (".avif", "AVIF"), (".pcx", "PCX"), (".qoi", "QOI"))):
        for folder in "ab":
            fill(
                root, folder, count=2, ending=ending, make=lambda n, k=k, f=form, c=folder: encoded(noise(n + 10 * k + 500 * (c == "b")), f)
            )


@layout(("a", "b"), 20, "20 files cannot be read as pictures and are left out: 20 .heic")
def heic_beside(root: Path) -> None:
    fill(root, "a", "b")
    fill(root, "a", "b", ending=".heic", make=lambda _: b"ftypheic")


@layout(("a", "b"), 20, "1 folders hold no picture that can be read, the first 'c'")
def an_empty_class(root: Path) -> None:
    fill(root, "a", "b")
    (root / "c").mkdir()


@layout(("a", "b"), 20)
def linked_classes(root: Path) -> None:
    fill(root.parent / "elsewhere", "a", "b")
    root.mkdir()
    for name in "ab":
        (root / name).symlink_to(root.parent / "elsewhere" / name)


@layout(("a", "b"), 20, "links lead back")
def a_loop_of_links(root: Path) -> None:
    fill(root, "a", "b")
    (root / "a" / "again").symlink_to(root)


@layout(("a", "b"), 20, "1 links lead nowhere, the first 'a/gone.png'")
def a_dead_link(root: Path) -> None:
    fill(root, "a", "b")
    (root / "a" / "gone.png").symlink_to("nowhere.png")


@layout(("b\\xe9b\\xe9", "chat"), 20)
def names_that_are_not_utf8(root: Path) -> None:
    fill(root, "chat", os.fsdecode(b"b\xe9b\xe9"))
    (root / "chat" / "00.png").rename(root / "chat" / os.fsdecode(b"caf\xe9.png"))


@layout(("café", "thé"), 40)
def composed_and_decomposed(root: Path) -> None:
    fill(root, "train/caf\u00e9", "train/the\u0301", "test/cafe\u0301", "test/th\u00e9")


@layout(("a", "b"), 20)
def odd_names(root: Path) -> None:
    fill(root, "a", "b")
    (root / "a" / "00.png").rename(root / "a" / "new\nline \x1b[31m.png")


@layout(("a", "b"), 20)
def pipes_beside(root: Path) -> None:
    fill(root, "a", "b")
    os.mkfifo(root / "a" / "pipe.png")


@layout(("a", "b"), 30, "classes have no picture in test: 'b'")
def a_class_missing_in_test(root: Path) -> None:
    fill(root, "train/a", "train/b", "test/a")


@layout(("a", "b"), 40, "8 pictures of train are in test too with the same bytes")
def pictures_of_train_in_test(root: Path) -> None:
    fill(root, "train/a", "train/b", "test/b")
    fill(root, "test/a")


@layout(("a", "b"), 21, "1 pictures stand in two classes with the same bytes, the first is 'a/00.png' and 'b/copy.png'")
def one_picture_in_two_classes(root: Path) -> None:
    fill(root, "a", "b")
    (root / "b" / "copy.png").write_bytes((root / "a" / "00.png").read_bytes())


@layout(("a", "b"), 20, "20 pictures are of one colour")
def of_one_colour(root: Path) -> None:
    fill(root, "a", "b", make=lambda n: encoded(Image.new("RGB", (10, 12), (n % 256, n // 256, 3))))


@layout(("a", "b"), 20, "20 files hold several pictures, of which the first is used")
def animations(root: Path) -> None:
    def animated(n: int) -> bytes:
        return encoded(noise(n), "GIF", save_all=True, append_images=[noise(n + 1)])

    fill(root, "a", "b", ending=".gif", make=animated)


@layout(("a", "b"), 39, "1 of 40 pictures cannot be decoded and are left out: 'a/00.png'")
def an_empty_file(root: Path) -> None:
    fill(root, "a", "b", count=20)
    (root / "a" / "00.png").write_bytes(b"")


@layout(("a", "b"), 20)
def another_ending_than_format(root: Path) -> None:
    fill(root, "a", "b", ending=".jpg")


@layout(("a", "b"), 20)
def damaged_exif(root: Path) -> None:
    fill(root, "a", "b", ending=".jpg", make=lambda n: encoded(noise(n), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff\x00\x09"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_classes_and_counts(tmp_path: Path, name: str) -> None:
    write, classes, total, notice = LAYOUTS[name]
    write(tmp_path / "d")
    data = load_dataset(str(tmp_path / "d"))
    assert data.classes == classes
    assert sum(counts(data)) == total
    assert any(notice in text for text in data.notices), data.notices
    assert data.notices[0].startswith(f"data d: {len(classes)} classes; pictures: train {data.count('train')}, ")
    assert len(everything(data)) == total
    for text in data.notices:
        text.encode("utf-8")
        assert "\n" not in text
    assert load_dataset(str(tmp_path / "d")).key == data.key
    assert load_dataset(str(tmp_path / "d")).notices == data.notices


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "only loose": (lambda root: fill(root, "."), "lie in no class folder, got '00.png'"),
    "one class": (lambda root: fill(root, "a"), "a single class"),
    "one class in splits": (lambda root: fill(root, "train/a", "test/a"), "a single class"),
    "no train": (lambda root: fill(root, "val/a", "val/b", "Test/a", "Test/b"), "no pictures to train on, got the splits Test, val"),
    "splits without classes": (lambda root: fill(root, "train", "test"), "pictures lie in test, train without class folders"),
    "empty": (lambda root: root.mkdir(), "no picture found"),
    "heic only": (lambda root: fill(root, "a", "b", ending=".heic"), "no picture found. It holds 20 files cannot be read"),
    "test class": (lambda root: fill(root, "train/cat", "train/dog", "test/Cat", "test/dog"), "got 'Cat'. Did you mean 'cat'"),
    "hidden only": (lambda root: fill(root, ".a", ".b"), "no picture found"),
    "not pictures": (lambda root: fill(root, "a", "b", make=lambda _: b"<html>"), r"100.0 % of the pictures cannot be decoded"),
    "postscript": (lambda root: fill(root, "a", "b", ending=".eps", make=lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n"), "20 .eps"),
    "NaN": (
        lambda root: fill(root, "a", "b", ending=".tif", make=lambda _: tiff(np.full((9, 9), np.nan, np.float32))),
        "numbers that are not finite",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(tmp_path: Path, name: str) -> None:
    write, message = REFUSED[name]
    write(tmp_path / "d")
    with pytest.raises(NasError) as caught:
        load_dataset(str(tmp_path / "d"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("size", [(12, 10), (90, 80)])
@pytest.mark.parametrize("value", [0, 300, 20000, 40000, 65535])
def test_sixteen_bits_are_scaled(tmp_path: Path, value: int, size: tuple[int, int]) -> None:
    fill(tmp_path / "d", "a", make=lambda _: grey_png_16(value, size))
    fill(tmp_path / "d", "b", make=lambda _: grey_png_16(65535 - value, size))
    data = load_dataset(str(tmp_path / "d"))
    for split in SPLITS:
        expected = np.where(data.labels(split) == 0, round(value / 257), round((65535 - value) / 257))
        assert np.array_equal(data.pixels(split, (16, 16))[:, 3, 4, 1], expected)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "dark", "bright"),
    [
        (np.float32, 0.25, 1.0, 64, 255),
        (np.float32, 20.0, 200.0, 20, 200),
        (np.float32, -1.0, 1.0, 0, 255),
        (np.float32, -1000.0, 3000.0, 0, 255),
        (np.int32, 257, 65535, 1, 255),
        (np.int32, 10, 200, 10, 200),
    ],
)
@pytest.mark.parametrize("side", [12, 80])
def test_floats_and_integers_share_one_range(
    tmp_path: Path, side: int, dtype: type, low: float, high: float, dark: int, bright: int
) -> None:
    fill(tmp_path / "d", "a", ending=".tif", make=lambda _: tiff(np.full((side, side), low, dtype)))
    fill(tmp_path / "d", "b", ending=".tif", make=lambda _: tiff(np.full((side, side), high, dtype)))
    data = load_dataset(str(tmp_path / "d"))
    assert any("is black and" in text for text in data.notices)
    for split in SPLITS:
        assert np.array_equal(data.pixels(split, (16, 16))[:, 1, 1, 0], np.where(data.labels(split) == 0, dark, bright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 16), (160, 320)])
def test_exif_turns_a_picture(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    """The upright picture is white at its top left; each file stores it as the orientation says."""
    height, width = size
    upright = np.zeros((height, width, 3), np.uint8)
    upright[: height // 2, : width // 2] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = encoded(Image.fromarray(np.ascontiguousarray(stored)), "JPEG", quality=95, exif=exif)
    data = load_dataset(str(fill(tmp_path / "d", "a", "b", ending=".jpg", make=lambda n: picture + bytes([n % 256, n // 256]))))
    found = everything(data, 32)
    if size == (8, 16):
        assert found.shape[1:] == (8, 16, 3)
    h, w = found.shape[1:3]
    assert found[:, h // 4, w // 4].min() > 200
    assert max(found[:, 3 * h // 4, w // 4].max(), found[:, h // 4, 3 * w // 4].max(), found[:, 3 * h // 4, 3 * w // 4].max()) < 60


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16B"])
def test_every_mode_shows_its_colours(tmp_path: Path, mode: str) -> None:
    def made(grey: int) -> bytes:
        if mode == "I;16B":
            return encoded(Image.frombytes(mode, (20, 20), struct.pack(">H", grey * 257) * 400), "TIFF")
        if mode == "LAB":
            return encoded(Image.new("LAB", (20, 20), (grey, 128, 128)), "TIFF")
        if mode == "HSV":
            return encoded(Image.new("RGB", (20, 20), (grey,) * 3).convert("HSV").convert("RGB"))
        form = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
        return encoded(Image.new("RGB", (20, 20), (grey,) * 3).convert(mode), form)

    ending = ".tif" if mode in ("CMYK", "YCbCr", "LAB", "I;16B") else ".png"
    fill(tmp_path / "d", "dark", ending=ending, make=lambda _: made(0))
    fill(tmp_path / "d", "light", ending=ending, make=lambda _: made(255))
    data = load_dataset(str(tmp_path / "d"))
    for split in SPLITS:
        shown = data.pixels(split, (32, 32)).mean(axis=(1, 2, 3))
        assert np.array_equal(shown > 200, data.labels(split) == 1)
        assert np.array_equal(shown < 50, data.labels(split) == 0)


# ---------------------------------------------------------------- archives


def packed(path: Path, *members: tuple[str, bytes | tarfile.TarInfo], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


@pytest.mark.parametrize("side", [12, 120])
def test_a_name_twice_counts_once_and_the_last(tmp_path: Path, side: int) -> None:
    members = [
        (f"{c}/{i}.png", encoded(Image.new("RGB", (side, side), (value,) * 3))) for value in (9, 200) for c in "ab" for i in range(12)
    ]
    data = load_dataset(str(packed(tmp_path / "twice.tar", *members)))
    assert sum(counts(data)) == 24
    assert any("24 names stand in the archive more than once" in text for text in data.notices)
    assert set(np.unique(everything(data, 96))) == {200}


def test_links_in_an_archive(tmp_path: Path) -> None:
    members: list[tuple[str, bytes | tarfile.TarInfo]] = [(f"pool/{i}.png", encoded(noise(i))) for i in range(10)]
    members += [link(f"set/a/{i}.png", f"pool/{i}.png", tarfile.LNKTYPE) for i in range(5)]
    members += [link(f"set/b/{i}.png", f"../../pool/{i}.png", tarfile.SYMTYPE) for i in range(5, 10)]
    members += [link("set/c", "../pool", tarfile.SYMTYPE), link("set/d/x.png", "gone.png", tarfile.SYMTYPE)]
    data = load_dataset(str(packed(tmp_path / "links.tar", *members)))
    assert data.classes == ("pool", "set")
    assert sum(counts(data)) == 30
    assert any("1 links lead nowhere" in text for text in data.notices)
    assert any("10 pictures stand in two classes" in text for text in data.notices)


def test_what_macos_packs(tmp_path: Path) -> None:
    members = [
        (f"./{c}/{p}{i}.png", b"AppleDouble" if p else encoded(noise(i + ord(c)))) for c in "ab" for i in range(9) for p in ("", "._")
    ]
    data = load_dataset(str(packed(tmp_path / "mac.tar.gz", *members, mode="w:gz")))
    assert (data.classes, sum(counts(data))) == (("a", "b"), 18)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x.png", "a/../../x.png"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_that_climb_out_are_refused(tmp_path: Path, target: str, kind: bytes) -> None:
    path = packed(tmp_path / "evil.tar", ("a/0.png", encoded(noise(0))), link("a/1.png", target, kind))
    if kind == tarfile.SYMTYPE and target == "a/../../x.png":  # a/a/../../x.png is x.png, inside
        pytest.skip("stays inside")
    with pytest.raises(DataError, match="climbs out"):
        load_dataset(str(path))


def test_a_bomb_of_zeros_is_no_picture(tmp_path: Path) -> None:
    from nas.training.data._decoding import MAX_FILE_BYTES

    fill(tmp_path / "d", "a", "b", count=20)
    with (tmp_path / "d" / "a" / "big.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert any("'a/big.png' (it has" in text for text in load_dataset(str(tmp_path / "d")).notices)


# ---------------------------------------------------------------- splits, cache, decoder


def test_copies_are_never_drawn_into_two_splits(tmp_path: Path) -> None:
    root = fill(tmp_path / "d", "a", "b", count=20, make=lambda n: encoded(noise(n // 2)))
    data = load_dataset(str(root))
    seen = [{row.tobytes() for row in data.pixels(split, (16, 16))} for split in SPLITS]
    assert len(set.union(*seen)) == sum(map(len, seen))
    assert sum(counts(data)) == 40


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff" * 40])
@pytest.mark.parametrize("side", [12, 120])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: bytes, side: int) -> None:
    root = fill(tmp_path / "d", "a", "b", make=lambda n: encoded(noise(n, (side, side))))
    before = everything(load_dataset(str(root)))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        path.write_bytes(damage)
    assert np.array_equal(everything(load_dataset(str(root))), before)
    for path in (tmp_path / "cache").rglob("*.pixels"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert np.array_equal(everything(load_dataset(str(root))), before)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NAS_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Do this: set NAS_CACHE_HOME"):
        load_dataset(str(fill(tmp_path / "d", "a", "b")))


def test_an_earlier_decoder_keeps_its_pixels_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.training.data import image_folder

    root = str(fill(tmp_path / "d", "a", "b", make=lambda n: encoded(noise(n, (90, 90)))))
    old, now = "pillow 11.0.0, decoding 2", image_folder.DECODER
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "DECODER", old)
        before = load_dataset(root)
        before.pixels("train", (32, 32))
    assert before.decoder == old
    present = load_dataset(root)
    assert (present.decoder, present.key != before.key) == (now, True)
    again = load_dataset(root, decoder=old)
    assert again.key == before.key
    assert np.array_equal(again.pixels("train", (32, 32)), before.pixels("train", (32, 32)))
    with pytest.raises(DataError, match=r"pip install pillow==11\.0\.0, or start a new run"):
        again.pixels("train", (48, 48))
    with pytest.raises(DataError, match="no longer in the cache"):
        load_dataset(root, decoder="pillow 10.0.0, decoding 2")


def test_a_run_that_noted_no_decoder_goes_on_where_its_pixels_are_the_same(tmp_path: Path) -> None:
    tidy = str(fill(tmp_path / "tidy", "a", "b"))
    assert load_dataset(tidy, decoder="").decoder == ""
    deep = str(fill(tmp_path / "deep", "a", "b", make=grey_png_16))
    with pytest.raises(DataError, match=r"saw other pixels of 'a/00\.png'"):
        load_dataset(deep, decoder="")


def test_chance_and_the_majority_class(tmp_path: Path) -> None:
    fill(tmp_path / "d", "train/a", "test/a", "test/b")
    fill(tmp_path / "d", "train/b", count=15)
    dataset = load_dataset(str(tmp_path / "d"))
    level = dataset.blind("test", 50.0)
    assert (level.chance_pct, level.majority_class, level.majority_pct) == (50.0, "b", 50.0)
    assert "always naming 'b'" in level.verdict
    assert "not clearly better" in dataset.blind("test", 60.0).verdict
    assert dataset.blind("test", 100.0).verdict == "" or dataset.count("test") < 5
