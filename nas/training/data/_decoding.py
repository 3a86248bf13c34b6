"""From a picture file's bytes to 8-bit RGB, turned as its EXIF data say, and scaled by the range that its numbers have.

What a decoder makes of one file changes with its version, so `DECODER` names Pillow's and this file's; caches and runs hold it.
"""

from __future__ import annotations

import hashlib
import io
import math
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from nas.spaces.space import Resolution
from nas.training.dataset import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image, Transpose

_VERSION = 2
"""Raised whenever `fit` gives other pixels for some file. 1 had no rotation and cut 16-bit and float pictures off at 255."""

DECODER = f"pillow {version('pillow')}, decoding {_VERSION}"

SMALL_PIXELS = 64 * 64
"""Pictures of at most so many pixels are kept as they are where all have one size. Set by hand."""

MAX_FILE_BYTES = 512 * 2**20
"""Larger files are no pictures that a network is trained on; reading one could take all memory. Set by hand."""

_LARGE_PIXELS = 32 * 2**20  # by hand: some 100 MB when decoded
_LARGE = threading.Lock()  # pictures that take hundreds of MB are decoded one at a time

_FORMATS = (
    *("AVIF", "BLP", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "MSP", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)
"""What Pillow decodes itself. Not EPS, which runs Ghostscript, nor formats that it only recognises (HDF5, GRIB, MPEG, …)."""

_ORIENTATION = 0x0112  # EXIF tag
_SIXTEEN_BITS = ("PNG", "PPM", "JPEG2000")  # formats whose mode "I" is 16 bits, not 32
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))  # by hand


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture without its pixels.

    Attributes:
        sha256: Of the file.
        height: As shown, that is after the rotation.
        width: As shown.
        fault: Why it cannot be decoded; empty where it can.
        turned: Whether its EXIF data turn or mirror it.
        bits: 8, 16, or 32 for 32-bit integers and floats, which have no range of their own.
        low: Smallest number of a 32-bit picture.
        high: Largest number, of a 16-bit one too.
        flat: Whether it is of one colour.
        frames: Whether there are frames beyond the first, which alone is used.
    """

    sha256: str
    height: int = 0
    width: int = 0
    fault: str = ""
    turned: bool = False
    bits: int = 8
    low: float = 0.0
    high: float = 255.0
    flat: bool = False
    frames: bool = False


Range = tuple[float, float]
"""The numbers that are black and white."""


@cache
def formats() -> tuple[str, ...]:
    """Return the names of the formats that this Pillow decodes, of those that are trusted."""
    from PIL import Image

    Image.init()
    return tuple(form for form in _FORMATS if form in Image.OPEN)


@cache
def extensions() -> frozenset[str]:
    """Return the endings of picture files that can be decoded, lower case with their dot."""
    from PIL import Image

    able = {*formats(), "MPO"}  # several JPEG in one; opened as the first
    return frozenset(ending for ending, form in Image.registered_extensions().items() if form in able)


def inspect(data: bytes) -> tuple[Picture, Pixels | None]:
    """Decode a picture as coarsely as its format allows, to learn whether it is whole.

    Returns:
        Its facts, and its pixels (h, w, 3) where it is small and has a range of its own.
    """
    from PIL import UnidentifiedImageError

    sha256 = hashlib.sha256(data).hexdigest()
    try:
        with _opened(data) as image, _alone(image):
            turn = _turn(image)
            width, height = image.size
            small = width * height <= SMALL_PIXELS
            if not small:
                image.draft("RGB", (width // 8, height // 8))
            image.load()
            bits = _bits(image)
            low, high, flat = _extrema(image)
            if bits == 32 and not (math.isfinite(low) and math.isfinite(high)):
                return Picture(sha256, fault="it holds numbers that are not finite"), None
            if turn is not None and turn.name not in ("ROTATE_180", "FLIP_TOP_BOTTOM", "FLIP_LEFT_RIGHT"):
                height, width = width, height
            pixels = _rgb(image, turn, None) if small and bits < 32 else None
            frames = image.format in ("GIF", "TIFF", "PNG", "WEBP") and bool(getattr(image, "is_animated", False))
            return Picture(sha256, height, width, "", turn is not None, bits, low, high, flat, frames), pixels
    except UnidentifiedImageError:
        return Picture(sha256, fault="no picture of a known format" if data else "it is empty"), None
    except Exception as error:  # noqa: BLE001 - Pillow's readers raise whatever damaged bytes lead them to
        return Picture(sha256, fault=" ".join(str(error).split())[:200] or type(error).__name__), None


def fit(data: bytes, resolution: Resolution, scale: Range) -> Pixels:
    """Scale a picture to cover `resolution` and crop it at the centre: bytes -> (h, w, 3).

    Args:
        data: A file that `inspect` found whole.
        resolution: Of the result.
        scale: Black and white of 32-bit pictures.
    """
    height, width = resolution
    with _opened(data) as image, _alone(image):
        turn = _turn(image)
        side = max(height, width) if turn is not None else 0
        image.draft("RGB", (2 * max(width, side), 2 * max(height, side)))
        return _rgb(image, turn, (width, height), scale)


def native(data: bytes, scale: Range) -> Pixels:
    """Return a small picture as it is: bytes -> (h, w, 3)."""
    with _opened(data) as image:
        return _rgb(image, _turn(image), None, scale)


def range_of(pictures: Sequence[Picture]) -> Range:
    """Return black and white of the 32-bit pictures of a data set: the narrowest usual range that holds them all, else their own."""
    wide = [picture for picture in pictures if picture.bits == 32]
    if not wide:
        return _RANGES[0]
    low, high = min(picture.low for picture in wide), max(picture.high for picture in wide)
    return next(((a, b) for a, b in _RANGES if a <= low and high <= b), (low, high))


def _opened(data: bytes) -> Image:
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=formats())


def _alone(image: Image) -> threading.Lock | nullcontext[None]:
    return _LARGE if image.width * image.height > _LARGE_PIXELS else nullcontext()


def _turn(image: Image) -> Transpose | None:
    """Return how the picture must be turned to stand upright; None where it does."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    if image.format == "TIFF":  # Pillow turns these itself
        return None
    try:
        return turns.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data do not make a picture unusable; their parser raises whatever it meets
        return None


def _bits(image: Image) -> int:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        return 16
    return 32 if image.mode in ("I", "F") else 8


def _extrema(image: Image) -> tuple[float, float, bool]:
    """Return the smallest and largest number, and whether every channel that is used has one value only."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        return low, high, low == high
    shown = image.convert("RGB") if image.mode == "P" or image.mode.lower().endswith("a") else image  # of transparency nothing is used
    pairs = shown.getextrema()
    bands = [pairs] if isinstance(pairs[0], int | float) else pairs
    return 0.0, 255.0, all(a == b for a, b in bands)


def _rgb(image: Image, turn: Transpose | None, size: tuple[int, int] | None, scale: Range = (0.0, 1.0)) -> Pixels:
    """Return pixels as (h, w, 3), turned, and scaled and cropped to `size` (width, height) where there is one."""
    from PIL import Image as Images
    from PIL import ImageOps

    image.load()
    bits = _bits(image)
    if bits == 16:
        image, scale = image.convert("I"), (0.0, 65535.0)
    elif bits == 8:
        image = _from_lab(image) if image.mode == "LAB" else image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    if size is not None:
        image = ImageOps.fit(image, size, Images.Resampling.BILINEAR)
    if bits == 8:
        return np.asarray(image)
    low, high = scale
    levels = (np.asarray(image, np.float32) - low) * (255 / max(high - low, 1e-30))
    grey = np.rint(levels.clip(0, 255)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _from_lab(image: Image) -> Image:
    from PIL import ImageCms

    turned = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert turned is not None  # only in place is nothing returned
    return turned
