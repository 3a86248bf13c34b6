"""Every option of every command but the search has an effect, or an error says why it has none: a table."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from nas import cli
from tests.e2e.conftest import Result
from tests.published import perf_folder

TIMINGS = "network,latency_ms\nresnet18,3.1\nresnet50,5.2\nmobilenetv2_100,2.1\nregnetx_032,4.8\nconvnext_tiny,12.0\n"

BASE: dict[str, tuple[str, ...]] = {
    "anchors_show": ("anchors", "show", "mobilenetv2_100", "--weights", "random", "--resolution", "64"),
    "devices_add": ("devices", "add", "{folder}/mine.toml"),
    "devices_calibrate": ("devices", "calibrate", "yours", "--from", "{folder}/timings.csv", "--base", "hailo-8", "--to", "{folder}/base"),
    "devices_list": ("devices", "list"),
    "devices_show": ("devices", "show", "sa8295p"),
    "devices_suggest": ("devices", "suggest", "mine", "--count", "2", "--max-mparams", "1.5"),
    "devices_update": ("devices", "update", "--from", "{folder}/published"),
    "predict": ("predict", "resnet50", "--device", "sa8295p"),
    "spaces_list": ("spaces", "list"),
    "spaces_references": ("spaces", "references"),
    "spaces_sample": ("spaces", "sample", "hybrid-s"),
    "spaces_show": ("spaces", "show", "hybrid-s"),
    "systems": ("systems",),
}  # fmt: skip
"""A plain call of each command that answers within seconds."""

OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "anchors_show": {
        "network": (), "device": ("--device", "sa8295p"), "precision": ("--device", "sa8295p", "--precision", "w8a8"), "resolution": ("--resolution", "96"),
        "weights": ("--weights", "{folder}/none.pth"), "weights_dir": ("--weights-dir", "{folder}"), "every": ("--all",),
    },
    "devices_add": {"profile": (), "name": ("--name", "another")},
    "devices_calibrate": {
        "name": (), "timings": (), "base": ("--base", "hailo-15l-streamed"), "precision": ("--precision", "w8a16"), "to": ("--to", "{folder}/elsewhere"),
    },
    "devices_list": {"text": ("hailo",), "vendor": ("--vendor", "nvidia"), "grade": ("--grade", "A")},
    "devices_show": {"device": ()},
    "devices_suggest": {
        "name": (), "count": ("--count", "3"), "base": ("--base", "hailo-8"), "precision": ("--precision", "w8a8"), "to": ("--to", "{folder}/files"),
        "max_mparams": ("--max-mparams", "2.5"),
    },
    "devices_update": {"source": (), "device": ("--device", "sa8775p"), "to": ("--to", "{folder}/elsewhere")},
    "predict": {
        "networks": ("resnet18",), "device": ("--device", "hailo-8"), "precision": ("--precision", "w8a8"), "breakdown": ("--breakdown",),
        "budget": ("--budget", "1ms"), "on": ("--budget", "3.7ms", "--on", "upper"), "compare": ("--compare", "resnet18"),
        "profile_hash": ("--profile-hash", "0000000000000000"), "resolution": ("--resolution", "288"), "input_shape": ("--input-shape", "1x3x96x96"),
        "dim": ("--dim", "batch=2"), "confidence": ("--confidence", ".5"), "task": ("--task", "features"),
    },
    "spaces_list": {"sizes": ("--sizes",)},
    "spaces_references": {"system": ("LSNet",)},
    "spaces_sample": {"space": (), "count": ("--count", "3"), "seed": ("--seed", "5"), "resolution": ("--resolution", "96")},
    "spaces_show": {"space": ()},
    "systems": {"name": ("lsnet",), "kind": ("--kind", "mixer"), "built": ("--built",)},
}  # fmt: skip
"""By option: words that are added to the plain call. None are needed where the plain call itself cannot do without the argument."""

ELSEWHERE = {
    "bench_latency_models": "tests/unit/test_aihub.py",
    "bench_latency_transfer": "tests/unit/test_transfer.py",
    "bench_search": "tests/unit/test_search_protocol.py",
    "compare": "tests/e2e/test_report.py",
    "completion": "tests/e2e/test_terminal.py",
    "doctor": "tests/e2e/test_readme.py",
    "export": "tests/e2e/test_export_command.py",
    "measure": "tests/e2e/test_mistakes.py",
    "rank": "tests/e2e/test_rank.py",
    "resume": "tests/e2e/test_resume_elsewhere.py",
    "schema": "tests/e2e/test_interface.py",
    "search": "tests/e2e/test_options.py",
    "show": "tests/e2e/test_design.py",
    "studies": "tests/e2e/test_hosts.py",
    "train": "tests/e2e/test_train_and_rank.py",
    "worker": "tests/e2e/test_workers.py",
}
"""Commands that train, measure or need a table: the file of tests that uses them."""


def options(file: str) -> set[str]:
    return set(inspect.signature(import_module(f"nas.cli.{file}").command).parameters) - {"form"}


def test_the_table_names_every_option_of_every_command() -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("[a-z]*.py")}
    assert files == {*BASE, *ELSEWHERE}
    assert {file: set(table) for file, table in OPTIONS.items()} == {file: options(file) for file in BASE}
    root = Path(cli.__file__).parents[2]
    assert [path for path in ELSEWHERE.values() if not (root / path).is_file()] == []


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(BASE))
def test_an_option_has_an_effect_or_is_refused(
    nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def said(*words: str) -> tuple[int, str]:
        monkeypatch.setenv("NAS_CONFIG_HOME", str(tmp_path / f"config{len(list(tmp_path.iterdir()))}"))
        (tmp_path / f"call{len(list(tmp_path.iterdir()))}").mkdir()
        result = nas(*(word.format(folder=tmp_path) for word in words))
        if result.code not in (0, 3):  # 3: a budget is broken
            assert result.err.startswith("nas: "), words
            assert result.err.count("\n") == 1, result.err
        return result.code, result.out + result.err

    (tmp_path / "timings.csv").write_text(TIMINGS)
    perf_folder(tmp_path / "published")
    if file == "devices_add":
        made = nas("devices", "calibrate", "mine", "--from", tmp_path / "timings.csv", "--base", "hailo-8", "--to", tmp_path)
        assert made.code == 0
        assert "milliseconds a frame at full load" in made.out
    plain = said(*BASE[file])
    assert plain[0] == 0, plain
    for option, words in OPTIONS[file].items():
        if words:
            assert said(*BASE[file], *words) != plain, f"{option} changes nothing and is not refused"
