"""`nas.api` and the command line are one interface: names, options and JSON agree, and importing them costs nothing."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import nas as product
from nas import api
from nas.results import COMMANDS, listings, schemas
from tests.e2e.conftest import Result
from tests.published import perf_folder

ROOT = Path(__file__).parents[2]
SPOKEN = {
    "compare": {"form"},
    "export": {"form"},
    "measure": {"form"},
    "predict": {"form", "breakdown"},
    "rank": {"form"},
    "search": {"form"},
    "train": {"form"},
}
"""Options that say how a command prints."""
OTHERWISE = {
    "predict": {"input_shape"},  # of a module, which has no place on a command line
    "search": {"bus"},
    "train": {"bus", "settings"},
    "rank": {"bus"},
}
"""Arguments of a function that no option gives."""


def parameters(function: Callable[..., object]) -> set[str]:
    return set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", sorted(SPOKEN))
def test_options_and_arguments_agree(name: str) -> None:
    options = parameters(import_module(f"nas.cli.{name}").command) - SPOKEN[name]
    arguments = parameters(getattr(api, name)) - OTHERWISE.get(name, set())
    if name == "train":  # fields of a recipe
        options -= {"epochs", "batch", "learning_rate", "optimizer", "mixed_precision", "recipe"}
    renamed = {"subject": "network"} if name == "measure" else {"networks": "network"}
    if name in ("measure", "predict"):
        renamed |= {"input_shape": "input_shapes", "dim": "dims"}  # given several times, each time for one input
    assert {renamed.get(option, option) for option in options} == arguments


def test_every_public_name_is_documented() -> None:
    assert set(product.__all__) == {
        name for name, thing in vars(api).items() if inspect.isfunction(thing) and thing.__module__ == "nas.api" and name[0] != "_"
    }
    for name in product.__all__:
        function = getattr(product, name)
        text = inspect.getdoc(function) or ""
        for argument in inspect.signature(function).parameters:
            assert name.startswith("list_") or f"{argument}:" in text or name == "load_run", (name, argument)


def test_importing_costs_nothing() -> None:
    code = """
import sys, time
began = time.process_time()
import nas
spent = time.process_time() - began
print(spent, [name for name in ("torch", "onnx", "scipy", "pydantic", "numpy", "optuna") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    spent, _, loaded = done.stdout.strip().partition(" ")
    assert loaded == "[]"
    assert float(spent) < 0.1


def test_three_lines(tmp_path: Path) -> None:
    import torch

    estimate = product.predict("resnet50", "sa8295p")
    assert estimate.basis == "measured"
    traced = product.predict(torch.nn.Sequential(torch.nn.Conv2d(3, 64, 7, 2, 3), torch.nn.ReLU()), "sa8295p", input_shape=(1, 3, 224, 224))
    assert traced.macs == 112 * 112 * 64 * 3 * 49
    assert "sa8295p" in product.list_devices("sa82*")
    assert "hybrid-s" in product.list_spaces("hybrid-*")
    assert {row.system for row in product.list_references("*lsnet*")} == {"LSNet"}
    found = product.survey("sa8295p", "3ms", resolution="160", out=tmp_path / "run")  # of ten networks; `test_zoo.py` surveys all
    assert product.load_run(tmp_path / "run") == found
    assert found.chosen is not None
    assert "<table>" in found._repr_html_()
    assert found.chosen.name.replace("&", "&amp;") in found._repr_html_()
    assert found.plot().axes[0].get_xlabel().startswith("latency on sa8295p")
    assert len(found.rows()) == len(found.front)
    with pytest.raises(AttributeError, match="no attribute 'sarch'"):
        _ = product.sarch


def check(value: object, schema: dict[str, object], where: str, root: dict[str, object]) -> None:
    """Validate JSON against the part of JSON Schema that pydantic writes."""
    if ref := schema.get("$ref"):
        schema = root["$defs"][str(ref).rpartition("/")[2]]  # type: ignore[index]
    if "anyOf" in schema:
        failures = []
        for option in schema["anyOf"]:  # type: ignore[attr-defined]
            try:
                check(value, option, where, root)
            except AssertionError as error:
                failures.append(error)
            else:
                return
        raise AssertionError(f"{where}: fits none of {len(failures)}")
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    if "type" in schema:
        assert isinstance(value, kinds[str(schema["type"])]), where  # type: ignore[arg-type]
    if "enum" in schema:
        assert value in schema["enum"], where  # type: ignore[operator]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), where  # type: ignore[call-overload]
        for key, item in value.items():
            rest = schema.get("additionalProperties", {})
            assert key in properties or rest is not False, f"{where}.{key}"  # type: ignore[operator]
            check(item, properties.get(key, rest if isinstance(rest, dict) else {}), f"{where}.{key}", root)  # type: ignore[attr-defined]
    if isinstance(value, list):
        for i, item in enumerate(value):
            check(item, schema.get("items", {}), f"{where}[{i}]", root)  # type: ignore[arg-type]


def test_json_is_what_the_schema_says(nas: Callable[..., Result], tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / "timings.csv").write_text(
        "network,latency_ms\nresnet18,3.1\nresnet50,5.2\nmobilenetv2_100,2.1\nregnetx_032,4.8\nconvnext_tiny,12.0\n"
    )
    published = perf_folder(tmp_path / "published")
    asked = {
        "predict": ("predict", "resnet50", "--device", "sa8295p"),
        "search": ("search", "--device", "sa8295p", "--budget", "3ms", "--space", "zoo", "--resolution", "160", "--out", run),
        "show": ("show", run),
        "resume": ("resume", run),
        "spaces-references": ("spaces", "references"),
        "devices-update": ("devices", "update", "--from", published, "--device", "sa8295p", "--to", tmp_path),
        "devices-calibrate": ("devices", "calibrate", "mine", "--from", tmp_path / "timings.csv", "--base", "hailo-8", "--to", tmp_path),
        "devices-add": ("devices", "add", tmp_path / "mine.toml"),
        "spaces-show": ("spaces", "show", "nasbench201"),
        "spaces-sample": ("spaces", "sample", "nasbench201", "--count", "2"),
        "devices-list": ("devices", "list", "--vendor", "hailo"),
        "devices-show": ("devices", "show", "stm32n6"),
        "devices-suggest": ("devices", "suggest", "mine", "--count", "2", "--max-mparams", "1.5"),
        "spaces-list": ("spaces", "list"),
        "doctor": ("doctor",),
        "systems": ("systems",),
    }
    for command, words in asked.items():
        check_answer(nas, command, *words)


def test_json_of_anchors_is_what_the_schema_says(nas: Callable[..., Result]) -> None:
    pytest.importorskip("timm", reason="timm is not installed")
    words = ("anchors", "show", "mobilenetv2_100", "--device", "sa8295p", "--weights", "random", "--resolution", "64")
    check_answer(nas, "anchors-show", *words)


def check_answer(nas: Callable[..., Result], command: str, *words: str | Path) -> None:
    schema = json.loads(nas("schema", command).out)
    answer = json.loads(nas(*words, "--format", "json").out)
    for row in answer if isinstance(answer, list) else [answer]:
        check(row, schema, command, schema)
        unknown = set(row) - set(schema["properties"])
        assert not unknown, (command, unknown)


def test_every_command_has_a_schema(nas: Callable[..., Result]) -> None:
    files = [path.stem for path in (ROOT / "nas" / "cli").glob("[a-z]*.py")]
    answering = {file.replace("_", "-") for file in files if "form" in parameters(import_module(f"nas.cli.{file}").command)}
    assert answering == {*COMMANDS, *listings.COMMANDS}
    assert set(COMMANDS.values()) <= set(schemas())
    assert set(listings.COMMANDS.values()) <= set(listings.schemas())
    for name in (*COMMANDS, *listings.COMMANDS, "Result", "Point", "DeviceLatency", "Estimate", "Measurement"):
        assert json.loads(nas("schema", name).out)["type"] == "object"


def test_an_unknown_schema(refused: Callable[..., str]) -> None:
    assert "Did you mean 'Result'" in refused("schema", "Resul")


@pytest.mark.slow
def test_a_table_is_searched(nas: Callable[..., Result], tmp_path: Path) -> None:
    """Known accuracies and latencies of NAS-Bench-201: the best network within the budget is found."""
    from nas.spaces.naming import get_space

    space = get_space("nasbench201")
    members = list(space.enumerate())
    rng = np.random.default_rng(0)
    ops = {op: i for i, op in enumerate(("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3"))}
    strength = np.array([sum(ops[str(gene)] for gene in member.genes) for member in members])
    rows = [space.write(member) for member in members]  # type: ignore[attr-defined]
    np.savez(
        tmp_path / "accuracy.npz",
        arch=rows,
        columns=["first", "second"],
        accuracy=np.stack([strength, 60 + strength], axis=1).astype(float),
    )
    np.savez(tmp_path / "latency.npz", **{"arch": rows, "ms/phone": 1.0 + 0.5 * strength + rng.uniform(0, 0.1, len(rows))})
    words = (
        "search",
        "--space",
        "nasbench201",
        "--device",
        "phone",
        "--budget",
        "9ms",
        "--table",
        tmp_path / "accuracy.npz",
        "--table",
        tmp_path / "latency.npz",
    )
    result = nas(*words, "--column", "second", "--evals", "60", "--out", tmp_path / "run", "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["chosen"]["devices"]["phone"]["basis"] == "measured"
    assert found["chosen"]["upper_ms"] <= 9
    assert found["chosen"]["supernet_accuracy_pct"] >= 74
    assert found["model"] is None
    assert "its weights are not" in found["model_reason"]
