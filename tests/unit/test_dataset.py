"""Data: three splits that never meet, pictures read from folders and tars alike, and clear refusals."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.errors import DataError, UnknownNameError, UsageError
from nas.training.dataset import SPLITS, Dataset, complete_splits, load_dataset, validation_share


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE_HOME", str(tmp_path / "cache"))


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, names: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
    for i, (name, count) in enumerate(names.items()):
        (root / name).mkdir(parents=True)
        for j in range(count):
            (root / name / f"{j:03}.png").write_bytes(picture(100 * i + j, size))
    return root


def archive(path: Path, root: Path) -> Path:
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as tar:
        tar.add(root, arcname="pictures")
    return path


def check_splits(data: Dataset) -> None:
    places = [data._splits[split] for split in SPLITS]
    whole = np.concatenate(places)
    assert len(np.unique(whole)) == len(whole)
    for split in SPLITS:
        assert set(data.labels(split)) == set(range(data.num_classes))


def test_digits_have_360_test_pictures_whatever_the_seed() -> None:
    a, b = load_dataset("digits", seed=0), load_dataset("digits", seed=1)
    assert [a.count(split) for split in SPLITS] == [1150, 287, 360]
    assert np.array_equal(a.labels("test"), b.labels("test"))
    assert not np.array_equal(a.labels("train"), b.labels("train"))
    assert a.key != b.key
    assert a.key == load_dataset("digits", seed=0).key
    check_splits(a)


def test_subset_is_stratified_and_keeps_test() -> None:
    data = load_dataset("digits", images=100)
    assert data.count("train") + data.count("validation") == 100
    assert data.count("test") == 360
    check_splits(data)


@pytest.mark.parametrize(("pictures", "held_out"), [(100, 20), (5000, 1000), (8000, 1000), (10_000, 1000), (50_000, 5000)])
def test_a_fifth_is_validation_until_that_is_enough(pictures: int, held_out: int) -> None:
    assert round(pictures * validation_share(pictures)) == held_out
    splits, _ = complete_splits(np.arange(pictures) % 10, {"train": np.arange(pictures), "test": np.arange(0)}, seed=0, images=None)
    assert [len(splits[split]) for split in ("train", "validation")] == [pictures - held_out, held_out]


def test_folder_tar_and_compressed_tar_are_one_data_set(tmp_path: Path) -> None:
    root = folder(tmp_path / "pictures", {"cat": 20, "dog": 20})
    plain, packed = archive(tmp_path / "a.tar", root), archive(tmp_path / "a.tar.xz", root)
    found = [load_dataset(str(path)) for path in (root, plain, packed)]
    assert len({data.key for data in found}) == 1
    assert found[0].classes == ("cat", "dog")
    assert any("no test split" in notice for notice in found[0].notices)
    for data in found:
        check_splits(data)
        assert data.pixels("train", (32, 32)).shape == (data.count("train"), 12, 10, 3)
    assert np.array_equal(found[0].pixels("test", (32, 32)), found[2].pixels("test", (32, 32)))


def test_users_splits_are_kept(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 3, "test/a": 2, "test/b": 4})
    data = load_dataset(str(root))
    assert [data.count(split) for split in SPLITS] == [20, 6, 6]


def test_large_pictures_cover_the_resolution_and_are_cropped(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a": 8, "b": 8}, (90, 120))
    data = load_dataset(str(root))
    assert data.pixels("train", (32, 48)).shape == (data.count("train"), 32, 48, 3)
    again = load_dataset(str(root))
    assert np.array_equal(data.pixels("train", (32, 48)), again.pixels("train", (32, 48)))


def test_imbalance_is_reported(tmp_path: Path) -> None:
    data = load_dataset(str(folder(tmp_path / "d", {"many": 40, "few": 10})))
    assert any("imbalanced 4." in notice for notice in data.notices)


def test_broken_pictures_are_named_and_skipped_up_to_a_share(tmp_path: Path) -> None:
    root = folder(tmp_path / "d", {"a": 20, "b": 20})
    whole = (root / "a" / "003.png").read_bytes()
    (root / "a" / "003.png").write_bytes(whole[: len(whole) // 2])
    data = load_dataset(str(root))
    assert sum(data.count(split) for split in SPLITS) == 39
    assert any("'a/003.png'" in notice for notice in data.notices)
    for name in ("004", "005", "006"):
        (root / "a" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"10\.0 % of the pictures cannot be decoded, got 'a/003\.png'"):
        load_dataset(str(root))


@pytest.mark.parametrize("name", ["../out.png", "/etc/out.png"])
def test_a_tar_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(picture(0))
        tar.addfile(member, io.BytesIO(picture(0)))
    with pytest.raises(DataError, match="climbs out"):
        load_dataset(str(path))


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a single class"):
        load_dataset(str(folder(tmp_path / "one", {"only": 5})))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture"):
        load_dataset(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="a class that train lacks, got 'c'"):
        load_dataset(str(folder(tmp_path / "foreign", {"train/a": 9, "train/b": 9, "test/c": 2})))
    with pytest.raises(UnknownNameError, match="Did you mean 'digits'"):
        load_dataset("digts")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="neither a folder nor an archive"):
        load_dataset(str(tmp_path / "notes.txt"))
    torn = archive(tmp_path / "torn.tar.xz", folder(tmp_path / "whole", {"a": 9, "b": 9}))
    torn.write_bytes(torn.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"torn\.tar\.xz"):
        load_dataset(str(torn))


def cifar(root: Path, labels: list[int]) -> Path:
    root.mkdir()
    for b, name in enumerate([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]):
        rng = np.random.default_rng(b)
        records = b"".join(bytes([label]) + rng.integers(0, 256, 3072, np.uint8).tobytes() for label in labels)
        (root / name).write_bytes(records)
    return root


def test_cifar10_binary(tmp_path: Path) -> None:
    root = cifar(tmp_path / "cifar", list(range(10)))
    data = load_dataset(str(root))
    assert (data.count("train") + data.count("validation"), data.count("test")) == (50, 10)
    first = np.frombuffer((root / "test_batch.bin").read_bytes()[1:3073], np.uint8).reshape(3, 32, 32)
    assert np.array_equal(data.pixels("test", (32, 32))[0].transpose(2, 0, 1), first)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(root, arcname="cifar-10-batches-bin")
    assert load_dataset(str(tmp_path / "cifar-10-binary.tar.gz")).key == data.key
    with pytest.raises(DataError, match="a label is out of range, got 11"):
        load_dataset(str(cifar(tmp_path / "labels", [*range(9), 11])))
    (root / "data_batch_2.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"data_batch_2\.bin is cut off"):
        load_dataset(str(root))
