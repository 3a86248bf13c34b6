"""Archives of pictures: indexed, split and decoded."""

import io
import os
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from nas.training.dataset import SPLITS, load_dataset

ENDING = ".tar"
WORDS = (
    b"ustar\x0000",
    b"ustar  \x00",
    b"././@LongLink",
    b"\x00" * 512,
    b"../",
    b"/",
    b"0000777\x00",
    b"77777777777\x00",
    b"\x80\xff",
    b"1",
    b"2",
    b"L",
    b"x",
    b"S",
)


def read(path: Path) -> object:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NAS_CACHE_HOME"] = cache
        data = load_dataset(str(path))
        return [data.pixels(split, (24, 24)).copy() for split in SPLITS]


def absurd(result: list[np.ndarray]) -> str:
    return "" if all(len(pixels) and pixels.dtype == np.uint8 for pixels in result) else f"pictures of {[p.shape for p in result]}"


def picture(seed: int, size: int = 9, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).save(buffer, form)
    return buffer.getvalue()


def packed(members: list[tuple[str, bytes, str]], mode: str, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
        for name, content, link in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if link:
                info.type, info.linkname = tarfile.LNKTYPE, link
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def seeds() -> list[bytes]:
    plain = [(f"{name}/{i}.png", picture(10 * k + i), "") for k, name in enumerate("ab") for i in range(4)]
    splits = [
        (f"d/{split}/{name}", picture(len(split) + sum(name.encode()), 30, "JPEG"), "")
        for split in ("train", "test")
        for name in ("a/1.jpg", "b/1.jpg", "a/2.jpg", "b/2.jpg")
    ]
    linked = [*plain, ("b/9.png", b"", "a/0.png"), (f"b/{'é' * 90}.png", picture(77), "")]
    return [
        packed(plain, "w"),
        packed(splits, "w", tarfile.GNU_FORMAT),
        packed(linked, "w"),
        packed(plain, "w:gz"),
        packed(linked, "w:xz"),
        packed(plain, "w:bz2"),
    ]
