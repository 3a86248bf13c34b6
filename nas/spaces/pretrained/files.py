"""Tensors by name from a file of weights: safetensors, a PyTorch checkpoint, an exported program. Nothing is unpickled but tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pt2")
"""What `read_tensors` reads."""

_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "module", "params")
"""Entries under which training scripts put the weights, the averaged ones first (timm's order)."""

_WRAPPERS = ("module.", "_orig_mod.")
"""What data parallelism and compilation put before every name."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file in the file's order.

    Args:
        path: ``.safetensors``; ``.pth``, ``.pt`` or ``.bin`` of `torch.save`, read with ``weights_only``; ``.pt2`` of `torch.export.save`,
            whose raw weights are read from the archive.

    Raises:
        ArtifactError: Missing, damaged, of another kind, or with anything but tensors where tensors are expected.
    """
    readers: Mapping[str, Callable[[Path], dict[str, Tensor]]] = {
        ".safetensors": _safetensors,
        ".pth": _checkpoint,
        ".pt": _checkpoint,
        ".bin": _checkpoint,
        ".pt2": _exported,
    }
    if path.suffix not in readers:
        raise ArtifactError(f"weights: of an unknown kind, got {str(path)!r}. Expected a file that ends in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise ArtifactError(f"weights: no such file, got {str(path)!r}.")
    tensors = _unwrapped(readers[path.suffix](path))
    if not tensors:
        raise ArtifactError(f"weights {path}: holds no tensor.")
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = file.offset_keys()  # as they lie in the file; `keys` sorts them
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"weights {path}: damaged or no safetensors ({error}).") from None


def _checkpoint(path: Path) -> dict[str, Tensor]:
    import pickle

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise ArtifactError(
            f"weights {path}: cannot be read without running what is in it ({reason}). Do this: save its state_dict()."
        ) from None
    return _tensors_of(content, path)


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dictionary in a checkpoint, which may stand beside an epoch and an optimiser."""
    import torch

    if isinstance(content, Mapping):
        if content and all(isinstance(value, torch.Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        for entry in _NESTED:
            if isinstance(content.get(entry), Mapping):
                return _tensors_of(content[entry], path)
    what = f"entries {sorted(map(str, content))[:6]}" if isinstance(content, Mapping) else type(content).__name__
    raise ArtifactError(f"weights {path}: holds no state dictionary, got {what}. Expected tensors by name, or one of {', '.join(_NESTED)}.")


def _exported(path: Path) -> dict[str, Tensor]:
    from nas.graphs.frontends.exported_program import read_exported_tensors

    return read_exported_tensors(path)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors
