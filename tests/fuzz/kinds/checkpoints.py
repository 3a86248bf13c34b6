"""Checkpoints of supernets and of single networks, as a search, an export and a resumed training read them.

An input is the head of a file (its length, then JSON); the numbers, follow unharmed.
"""

import tempfile
from functools import cache
from pathlib import Path

import torch

from nas.spaces.naming import get_elastic_space
from nas.training.supernet.checkpoint import Checkpoint, write_checkpoint
from nas.training.supernet.finetune import fresh, load_member
from nas.training.supernet.train import load_supernet
from nas.training.supernet.weights import Supernet

ENDING = ".safetensors"
WORDS = (
    b'"epoch"',
    b'"epochs"',
    b'"identity"',
    b'\\"classes\\":',
    b'"F32"',
    b'"F16"',
    b'"I64"',
    b'"data_offsets"',
    b'"shape"',
    b"\x00\x00\xc0\x7f",
    b"null",
)
CLASSES, SIDE = 3, (32, 32)


@cache
def _space() -> object:
    return get_elastic_space("vit-n", num_classes=CLASSES)


def read(path: Path) -> object:
    numbers = _numbers()["nas-member" in path.read_bytes().decode("latin-1")]
    with path.open("ab") as file:
        file.write(numbers)
    if b"nas-member" in path.read_bytes()[:65536]:
        return load_member(path, _space())[1].state_dict()
    return load_supernet(path, _space()).tensors


def absurd(result: dict[str, torch.Tensor]) -> str:
    return "" if all(bool(torch.isfinite(tensor.float()).all()) for tensor in result.values()) else "weights that are not finite"


@cache
def _files() -> list[bytes]:
    torch.set_num_threads(1)  # threads do not survive a fork
    space = _space()
    progress = {"epoch": 1, "epochs": 1, "history": [{"loss": 1.0}]}
    with tempfile.TemporaryDirectory() as folder:
        supernet = Supernet(space, CLASSES, SIDE)
        identity = {"space": space.name, "layout": "", "classes": CLASSES, "resolution": list(SIDE), "data": "", "seed": 0, "recipe": {}}
        write_checkpoint(Path(folder) / "a", Checkpoint("supernet", identity, progress, supernet.tensors))
        smallest = space.extreme(False)
        module = fresh(space, smallest, num_classes=CLASSES, resolution=SIDE, seed=0)
        tensors = {f"best/{name}": tensor for name, tensor in module.state_dict().items()}
        member = {"architecture": smallest.to_json(), "classes": CLASSES, "resolution": list(SIDE)}
        write_checkpoint(Path(folder) / "b", Checkpoint("member", member, progress, tensors))
        return [(Path(folder) / name).read_bytes() for name in "ab"]


def _head(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


@cache
def _numbers() -> list[bytes]:
    return [data[_head(data) :] for data in _files()]


def seeds() -> list[bytes]:
    return [data[: _head(data)] for data in _files()]
