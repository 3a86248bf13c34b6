"""The product answers as it did: estimates, zoo searches and a seeded run against reference files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import answers
import numpy as np
import pytest

RELATIVE = 1e-9
"""Sums over operators may be taken in another order on another machine."""


def same(found: Any, expected: Any, where: str) -> None:
    """Everything that was answered before is answered still; more keys are welcome."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert set(expected) <= set(found), f"{where}: {sorted(set(expected) - set(found))}"
        for key, value in expected.items():
            same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            same(a, b, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=RELATIVE, abs=1e-12), where
    else:
        assert found == expected, where


@pytest.fixture(autouse=True)
def _own_config_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.slow
def test_estimates_of_networks_on_devices_at_their_precisions() -> None:
    same(answers.predictions(), answers.read("predictions"), "predict")


@pytest.mark.slow
def test_searches_among_published_networks() -> None:
    same(answers.zoo(), answers.read("zoo"), "search --space zoo")


@pytest.mark.slow
def test_a_seeded_run(tmp_path: Path) -> None:
    if not (answers.ANSWERS / f"{answers.digits_name()}.json").is_file():
        pytest.skip(
            f"no reference for this kind of processor ({answers.digits_name()}). Do this on one: python tests/golden/answers.py digits"
        )
    run = tmp_path / "run"
    found, expected = answers.digits(run), answers.read(answers.digits_name())
    assert [p["key"] for p in found["front"]] == [p["key"] for p in expected["front"]]
    assert found["chosen"]["key"] == expected["chosen"]["key"]
    for point, before in zip(found["front"], expected["front"], strict=True):
        same(point["devices"], before["devices"], point["key"])
    arrays, known = answers.tensors(run), np.load(answers.ANSWERS / f"{answers.digits_name()}.npz")
    assert arrays.keys() == set(known.files)
    for name in known.files:  # another processor rounds otherwise, and training carries that on
        np.testing.assert_allclose(arrays[name], known[name], rtol=1e-2, atol=1e-2, err_msg=name)
