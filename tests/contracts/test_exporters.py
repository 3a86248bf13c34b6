"""Every registered exporter against the contract, at each precision that it can write."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from nas.errors import UsageError
from nas.exporting.exporter import ExportOrder, exporters
from nas.testing import exporters as suite
from nas.units import Precision

TOLERANCE = {"fp32": 1e-4, "fp16": 0.05, "w8a16": 0.1, "w8a8": 0.2}
NEEDS = {"openvino": "openvino", "tflite": "litert_torch"}
"""Formats whose converters are extras."""
CASES = [(name, str(precision)) for name in exporters.names() for precision in Precision]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_contract(name: str, precision: str, tmp_path: Path) -> None:
    if (module := NEEDS.get(name)) is not None and find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    kind, order = exporters.get(name), ExportOrder(precision, suite.pictures)
    try:
        kind.make(order)
    except UsageError:  # a format says what it does not write, and is asked for what it does below
        with pytest.raises(UsageError, match=precision):
            kind.make(order)
        return
    for check in ("file", "answers", "refusal"):
        (tmp_path / check).mkdir()
    suite.check_file(kind, order, tmp_path / "file")
    suite.check_answers(kind, order, tmp_path / "answers", TOLERANCE[precision])
    suite.check_refusal(kind, order, tmp_path / "refusal")


@pytest.mark.parametrize("name", exporters.names())
def test_writes_something(name: str) -> None:
    """No exporter refuses every precision."""
    for precision in Precision:
        try:
            exporters.get(name).make(ExportOrder(str(precision), suite.pictures))
        except UsageError:
            continue
        return
    pytest.fail(f"{name} writes nothing")
