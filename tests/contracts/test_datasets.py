"""Every registered kind of data set against the contract, on small data of its kind."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from nas.testing import datasets as suite
from nas.training.dataset import Dataset, datasets, load_dataset
from tests.e2e.test_design import write_pictures


@pytest.fixture(params=datasets.names())
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NAS_CACHE_HOME", str(tmp_path / "cache"))
    made = {
        "digits": lambda: "digits",
        "image-folder": lambda: str(write_pictures(tmp_path / "data", 20)),
        "cifar10": lambda: _cifar(tmp_path),
    }
    return made[request.param]()


def _cifar(folder: Path) -> str:
    """Write ten pictures a file in the layout of CIFAR-10's binary archive."""
    rng = np.random.default_rng(0)
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            rows = np.concatenate(
                [np.arange(40, dtype=np.uint8).reshape(-1, 1) % 10, rng.integers(0, 256, (40, 3072), dtype=np.uint8)], axis=1
            )
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = rows.size
            archive.addfile(member, io.BytesIO(rows.tobytes()))
    return str(path)


def test_contract(source: str) -> None:
    def opened(seed: int) -> Dataset:
        return load_dataset(source, seed=seed)

    dataset = opened(0)
    suite.check_splits(dataset)
    suite.check_pixels(dataset)
    suite.check_key(opened)
    suite.check_thinned(dataset)
