"""Weights and training state in one safetensors file: written whole or not at all, never pickled.

A file carries metadata (format, version, identity, progress) as JSON. Reading checks all of it before a tensor is used.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nas.errors import ArtifactError

if TYPE_CHECKING:
    from nas.training.dataset import Dataset

FORMAT_VERSION = 1
_META = "nas"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        kind: ``supernet`` or ``member``.
        identity: What the weights belong to and how they are trained; a resumed training must agree with it.
        progress: ``epoch``, ``epochs`` and the history.
        tensors: By name; ``optimizer/…`` beside the weights while training is under way.
    """

    kind: str
    identity: Mapping[str, Any]
    progress: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a file; a crash leaves the one that was there before."""
    from safetensors.torch import save

    meta = {
        "format": f"nas-{checkpoint.kind}",
        "version": FORMAT_VERSION,
        "identity": checkpoint.identity,
        "progress": checkpoint.progress,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    data = save(tensors, {_META: json.dumps(meta, sort_keys=True)})  # one entry: safetensors does not keep their order
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_checkpoint(path: Path, kind: str) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        ArtifactError: Missing, a pickle, truncated, another kind or version, or with numbers that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as stream:
            head = stream.read(9)  # safetensors: eight bytes of length, then JSON
    except OSError as error:
        raise ArtifactError(f"checkpoint: cannot be read, got {str(path)!r} ({error.strerror}).") from None
    if head[8:] != b"{" and (head[:2] == b"PK" or head[:1] == b"\x80"):
        raise ArtifactError(f"checkpoint: a pickle, which is never loaded, got {str(path)!r}. Expected safetensors.")
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {}).get(_META, "{}"))
            if not isinstance(meta, dict):
                raise ValueError("its description is no object")
            if meta.get("format") != f"nas-{kind}":
                raise ArtifactError(f"checkpoint: foreign, got format {meta.get('format')!r} in {str(path)!r}. Expected 'nas-{kind}'.")
            if meta.get("version") != FORMAT_VERSION:
                raise ArtifactError(
                    f"checkpoint: of another version, got {meta.get('version')!r} in {str(path)!r}. Expected {FORMAT_VERSION}."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            checkpoint = Checkpoint(kind, meta["identity"], meta["progress"], tensors)
            _check_contents(checkpoint)
            return checkpoint
    except (SafetensorError, KeyError, ValueError, RecursionError, OSError, MemoryError) as error:  # JSON's errors are ValueErrors
        raise ArtifactError(f"checkpoint: damaged or foreign, got {str(path)!r} ({' '.join(str(error).split())[:300]}).") from None


def _check_contents(checkpoint: Checkpoint) -> None:
    """Raise ValueError where identity, progress or tensors cannot be what a training wrote."""
    identity, progress = checkpoint.identity, checkpoint.progress
    if not isinstance(identity, dict) or not isinstance(progress, dict):
        raise ValueError("identity and progress are no objects")
    counts = [progress.get("epoch"), progress.get("epochs"), identity.get("classes")]
    sides = identity.get("resolution")
    if not all(type(count) is int and 0 <= count < 10**9 for count in counts):
        raise ValueError(f"epoch, epochs and classes are no counts, got {counts}")
    if not (isinstance(sides, list) and len(sides) == 2 and all(type(side) is int and 0 < side <= 16384 for side in sides)):
        raise ValueError(f"its resolution is no height and width, got {sides!r}")
    if not (type(seed := identity.get("seed", 0)) is int and seed >= 0):
        raise ValueError(f"its seed is no seed, got {str(seed)[:100]!r}")
    if checkpoint.kind == "member" and not isinstance(identity.get("architecture"), str):
        raise ValueError("it names no architecture")
    history = progress.get("history")
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise ValueError("its history is no list of epochs")
    _check_begun(progress)
    rows = max((tensor.shape[0] for tensor in checkpoint.tensors.values() if tensor.ndim), default=0)
    if identity["classes"] > rows:
        raise ValueError(f"it holds no tensor for {counts[2]} classes")
    for name, tensor in checkpoint.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise ValueError(f"{name} holds numbers that are not finite")


def _check_begun(progress: Mapping[str, Any]) -> None:
    """Raise ValueError where what is said of an epoch that has begun cannot be."""
    sums, classes = progress.get("sums", [0.0] * 4), progress.get("classes", [])
    numbers = [progress.get(name, 0) for name in ("step", "loss", "since")]
    if not (isinstance(sums, list) and len(sums) == 4 and isinstance(classes, list) and all(type(c) is int for c in classes)):
        raise ValueError("what it says of the epoch that has begun is no sums and classes")
    if not all(type(number) in (int, float) and 0 <= number < 1e9 for number in [*numbers, *sums]):
        raise ValueError(f"step, loss, since and sums are no counts and sums, got {numbers} and {sums}")


def check_identity(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse weights that belong to something else.

    Raises:
        ArtifactError: Some entry differs; the message names the first.
    """
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ArtifactError(
                f"checkpoint {path}: of another training, got {name} {found.get(name)!r}. Expected {expected.get(name)!r}. "
                "Do this: give another folder, or the same settings."
            )


def check_pictures(path: Path, identity: Mapping[str, Any], dataset: Dataset, remedy: str) -> None:
    """Refuse weights that were trained on other pictures than those of a data set's training split: they may have seen its test pictures.

    Raises:
        ArtifactError: Classes, pictures or splits are others.
    """
    from nas.training.evaluators.probe import compared

    for name, here in (("classes", (dataset.num_classes,)), ("data", (dataset.key, compared(dataset).key))):
        if identity.get(name) not in here:
            raise ArtifactError(
                f"checkpoint {path}: trained on other pictures or splits, got {name} {identity.get(name)!r}. Expected {here[0]!r}. {remedy}"
            )


def optimizer_tensors(states: Mapping[int, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return an optimiser's state as named tensors."""
    return {f"optimizer/{i}/{name}": value for i, state in states.items() for name, value in state.items() if isinstance(value, Tensor)}


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimizer_tensors` wrote; nothing where there is none."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, i, entry = name.split("/")
            states.setdefault(int(i), {})[entry] = value
    if not states:
        return
    optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
    for parameter, state in optimizer.state.items():
        for entry, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[entry] = torch.empty_like(parameter).copy_(value)  # fused steps need the parameter's memory layout
