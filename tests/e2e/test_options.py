"""Every option of a search has an effect, or is refused with the reason: a table of options and spaces."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nas.errors import UsageError
from nas.runs.options import CHECKS
from nas.runs.problem import check_request
from nas.runs.request import Request
from nas.spaces.space import spaces

SAMPLES = {
    "mixers": "pool", "knobs": "depthwise.kernel", "column": "a", "data": "digits", "proxy_resolution": "32", "epochs": "2", "finetune_epochs": "2",
    "searcher": "random", "evals": "3", "seed": "3", "storage": "sqlite:///x.db", "quantisation": "minmax", "exporter": "onnx-fp16", "takes": "unit",
    "time_limit": "5min", "anchors": "mobilenetv2_100", "weights_dir": ".", "runner": "time {onnx}", "batch": "8", "study": "other", "storage_timeout": "5", "workers": "ray://localhost",
    "from_scratch": "",
}  # fmt: skip
"""An option of each kind that some space cannot use."""

REFUSED = {
    "zoo": {
        "from_scratch", "mixers", "knobs", "column", "time_limit", "proxy_resolution", "epochs", "finetune_epochs", "searcher", "evals", "seed", "storage", "quantisation",
        "exporter", "takes", "runner", "batch", "study", "storage_timeout", "workers", "anchors",
    },
    "hybrid-s": {"from_scratch", "anchors", "weights_dir", "column", "runner", "batch", "quantisation", "study"},
    "nasbench201": {"from_scratch", "time_limit", "mixers", "knobs", "data", "proxy_resolution", "epochs", "finetune_epochs", "quantisation", "exporter", "takes", "runner", "batch", "study"},
}  # fmt: skip
"""By space: the options that have no effect with it on sa8295p, where nothing runs quantised and latency is stated."""


def flag(name: str) -> str:
    return CHECKS[name][0]


def test_every_field_of_a_request_is_an_option_with_a_check() -> None:
    assert set(CHECKS) == set(Request.model_fields)
    assert len({flag for flag, _ in CHECKS.values()}) == len(CHECKS)


@pytest.mark.parametrize(("space", "option"), [(space, option) for space, options in REFUSED.items() for option in sorted(options)])
def test_an_option_without_effect_is_refused(refused: Callable[..., str], space: str, option: str, tmp_path: Path) -> None:
    words: list[object] = ["search", "--device", "sa8295p", "--budget", "5ms", "--space", space, "--out", tmp_path / "run"]
    if space == "nasbench201":
        np.savez(tmp_path / "t.npz", arch=["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"], columns=["a"], accuracy=np.array([[10.0]]))
        words += ["--table", tmp_path / "t.npz"]
    message = refused(*words, flag(option), *filter(None, [SAMPLES[option]]))
    assert f"{flag(option)} has no effect" in message
    assert not (tmp_path / "run").exists()


IN_VAIN = {
    "hybrid-s": {"from_scratch", "anchors", "weights_dir", "column", "runner", "study"},
    "hybrid-s --data digits": {"from_scratch", "anchors", "column", "runner", "study"},
    "vit-n": {"from_scratch", "anchors", "weights_dir", "mixers", "knobs", "column", "runner", "study"},
    "residual-s": {"from_scratch", "anchors", "weights_dir", "mixers", "knobs", "column", "runner", "study"},
    "residual-s --data digits": {"from_scratch", "anchors", "weights_dir", "mixers", "knobs", "column", "runner", "study", "proxy_resolution", "epochs"},
    "chain": {"from_scratch", "mixers", "knobs", "column", "runner", "study"},
    "fbnet": {"from_scratch", "anchors", "weights_dir", "mixers", "knobs", "column", "runner", "study"},
    "ofa": {"from_scratch", "anchors", "weights_dir", "mixers", "knobs", "column", "runner", "study"},
    "nasbench201": {"from_scratch", "anchors", "weights_dir", "mixers", "knobs", "column", "runner", "study"},
    "zoo": REFUSED["zoo"] - {"batch"},
    "zoo --data digits": REFUSED["zoo"] - {"batch", "exporter", "finetune_epochs", "quantisation", "seed", "takes", "time_limit"},
}  # fmt: skip
"""By space: the options that are refused before devices and tables are read. Every other option is taken."""


def given(name: str) -> object:
    """Return an option's sample as a request holds it."""
    kinds = str(Request.model_fields[name].annotation)
    if "tuple" in kinds:
        return (SAMPLES[name],)
    if "bool" in kinds:
        return True
    return int(SAMPLES[name]) if "int" in kinds else float(SAMPLES[name]) if "float" in kinds else SAMPLES[name]


@pytest.mark.parametrize("words", IN_VAIN)
def test_an_option_is_taken_or_refused_in_every_space(words: str) -> None:
    space, _, data = words.partition(" --data ")
    assert {re.split("[- ]", name)[0] for name in IN_VAIN} == set(spaces.names())
    base = {"anchors": ("mobilenetv2_100",)} if space == "chain" else {"data": data} if data else {}
    for name in SAMPLES:
        request = Request.model_validate({"devices": ("sa8295p",), "space": space, **base, name: given(name)})
        if name in IN_VAIN[words]:
            with pytest.raises(UsageError, match=f"{flag(name)} has no effect"):
                check_request(request)
        else:
            check_request(request)


def test_several_are_named_at_once(refused: Callable[..., str], tmp_path: Path) -> None:
    line = refused("search", "--device", "sa8295p", "--space", "zoo", "--evals", "3", "--epochs", "2", "--out", tmp_path / "run")
    assert "--evals has no effect" in line
    assert "--epochs has no effect" in line
    assert "leave them out" in line
