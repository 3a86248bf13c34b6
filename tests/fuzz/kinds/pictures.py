"""Picture files of many formats, as one of a folder's 13 pictures: decoded, or too many that cannot be."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from nas.training.dataset import SPLITS, load_dataset

ENDING = ".png"  # the format is that of the bytes, whatever the ending says
WORDS = (b"\xff\xd8", b"\xff\xd9", b"\xff\xc0", b"IHDR", b"IDAT", b"II*\x00", b"MM\x00*", b"Exif\x00\x00", b"acTL", b"\xff" * 4)
FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000", "PCX", "ICO", "DDS", "SGI", "QOI", "AVIF")


def read(path: Path) -> object:
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAS_CACHE_HOME"] = f"{home}/cache"
        for name in "ab":
            (Path(home) / "d" / name).mkdir(parents=True)
            for i in range(6):
                (Path(home) / "d" / name / f"{i}.png").write_bytes(_SOUND[6 * (name == "b") + i])
        (Path(home) / "d" / "a" / "odd.png").write_bytes(path.read_bytes())
        data = load_dataset(f"{home}/d")
        return [data.pixels(split, (24, 24)).copy() for split in SPLITS]


def absurd(result: list[np.ndarray]) -> str:
    return "" if sum(map(len, result)) == 13 else f"{sum(map(len, result))} pictures"


def encoded(seed: int, form: str = "PNG", mode: str = "RGB", size: int = 9) -> bytes:
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)).convert(mode)
    if form == "PNG" and mode == "I":
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 65536, (size, size)).astype(np.uint16))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
    return buffer.getvalue()


_SOUND = [encoded(i) for i in range(12)]


def seeds() -> list[bytes]:
    return [
        *(encoded(100 + i, form) for i, form in enumerate(FORMATS)),
        *(encoded(200, "PNG", mode) for mode in ("1", "L", "P", "RGBA", "I")),
        *(encoded(300, "TIFF", mode) for mode in ("F", "I", "CMYK", "LAB")),
        encoded(400, "JPEG", size=120),
    ]
