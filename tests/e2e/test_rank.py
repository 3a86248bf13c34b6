"""`nas rank` where a table knows the accuracies: nothing is trained, and every option has an effect or is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.spaces.naming import get_space
from tests.e2e.conftest import Result


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Accuracies of all cells that grow with the convolutions."""
    space = get_space("nasbench201")
    members = list(space.enumerate())
    strength = np.array([[str(gene).count("conv") for gene in member.genes] for member in members]).sum(axis=1)
    rows = [space.write(member) for member in members]  # type: ignore[attr-defined]
    path = tmp_path / "accuracy.npz"
    np.savez(path, arch=rows, columns=["first", "second"], accuracy=np.stack([10.0 * strength, 60.0 - 5 * strength], axis=1))
    return path


@pytest.mark.slow
def test_orders_are_held_against_a_table(nas: Callable[..., Result], tmp_path: Path, table: Path) -> None:
    words = ("rank", "--space", "nasbench201", "--table", table, "--column", "first", "-n", "4", "--device", "sa8295p")
    told = nas(*words, "--out", tmp_path / "a", "--format", "json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert (found["n"], len(found["networks"]), found["scores"], found["ceiling"], found["data"]) == (4, 4, {}, None, None)
    assert found["truth"] == "first of accuracy.npz"
    assert set(found["baselines"]) == {"params", "macs", "latency_ms/sa8295p", "vote"}
    assert found["baselines"]["params"]["kendall"] > 0
    assert json.loads((tmp_path / "a" / "ranking.json").read_text()) == found
    assert (tmp_path / "a" / found["plot"]).read_bytes().startswith(b"\x89PNG")
    assert "vote of training-free scores" in nas(*words[:5], "--column", "second", "-n", "3", "--seed", "1", "--out", tmp_path / "b").out
    other = json.loads((tmp_path / "b" / "ranking.json").read_text())
    assert other["baselines"]["params"]["kendall"] < 0
    assert {n["architecture"] for n in other["networks"]} != {n["architecture"] for n in found["networks"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--table", "t.npz", "--epochs", "2"), "--epochs has no effect: a table knows the accuracies"),
        (("--table", "t.npz", "--ceiling", "3"), "--ceiling has no effect: a table knows the accuracies"),
        (("--table", "t.npz", "--resolution", "32"), "--resolution has no effect: a table knows the accuracies"),
        (("--table", "t.npz", "--images", "80"), "--images has no effect: no pictures are read without --data"),
        (("--column", "first"), "--column has no effect: no table of accuracies is read"),
        (("--precision", "w8a8"), "--precision has no effect: no latency is estimated without --device"),
        (("--supernet", "w.safetensors", "--resolution", "32"), "--resolution has no effect: the supernet has its own"),
        (("--supernet", "w.safetensors", "--space", "fbnet"), "no supernet serves it"),
        (
            (
                "--space",
                "hybrid-q",
            ),
            "Did you mean",
        ),
        (("--table", "t.npz", "-n", "2"), "too few networks, got 2"),
        (("--known", "4"), "--known: got 4 of 12 networks. Expected 5 to 9, so that 3 are left"),
        (("--known", "9", "-n", "6"), "--known: got 9 of 6 networks. Expected more networks"),
        (("--ceiling", "13"), "--ceiling: got 13 networks. Expected 3 to 12"),
    ],
)
def test_options_in_vain_are_refused(refused: Callable[..., str], words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in refused("rank", *words, "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_supernet_of_cells_is_held_against_a_table(nas: Callable[..., Result], tmp_path: Path, table: Path) -> None:
    weights, space = tmp_path / "w.safetensors", "nasbench201-c8n2"
    few = ("--data", "digits", "--images", "80")
    trained = nas("train", "--space", space, *few, "--batch", "32", "--epochs", "1", "--out", weights, "--format", "json")
    assert trained.code == 0, trained.err
    words = (
        "rank",
        "--space",
        space,
        "--supernet",
        weights,
        *few,
        "--table",
        table,
        "--column",
        "first",
        "-n",
        "3",
        "--out",
        tmp_path / "r",
    )
    told = nas(*words, "--format", "json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert set(found["scores"]) == {"supernet", "features"}
    assert found["scores"]["supernet"]["above_baselines"] is None or 0 <= found["scores"]["supernet"]["above_baselines"] <= 1
    assert found["truth"] == "first of accuracy.npz"
