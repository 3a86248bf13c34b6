"""What a person at a terminal sees: no line over its width, no broken name; what a pipe gets is whole; names as people write them."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nas import cli
from nas.devices.names import find_profile, profile_files
from nas.errors import UnknownNameError
from nas.graphs import workloads
from nas.registry import match_name
from nas.report.tables import Column, print_lines, print_table, show_whole_tables
from nas.units import canonical_precision
from tests.e2e.conftest import Result
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
WIDTHS = (80, 100, 120)


def on_terminal(width: int, call: Callable[[], object]) -> list[str]:
    """Call with stdout on a pseudo-terminal of so many columns; return the lines that appear there, without escapes."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    pieces: list[bytes] = []

    def read() -> None:
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # the other end is closed
                return
            if not piece:
                return
            pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    before = sys.stdout
    sys.stdout = os.fdopen(follower, "w", encoding="utf-8")
    try:
        call()
    finally:
        sys.stdout.close()
        sys.stdout = before
    reader.join()
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(pieces).decode()).replace("\r", "").splitlines()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def at_width(width: int, *words: object) -> list[str]:
    from nas.cli import main

    def call() -> None:
        with pytest.raises(SystemExit):
            main([str(word) for word in words])

    return on_terminal(width, call)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_device_is_one_line_with_its_name(width: int) -> None:
    lines = at_width(width, "devices", "list")
    names = profile_files()
    assert max(map(len, lines)) <= width
    assert len(lines) <= len(names) + 10
    assert {line.split()[0] for line in lines if line} >= set(names)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "words",
    [
        ("devices", "show", "sa8295p"),
        ("spaces", "list"),
        ("predict", "resnet50", "--device", "sa8295p", "--breakdown"),
        ("predict", "resnet50", "mobilenetv2_100", "--device", "hailo-8", "--device", "sa8295p", "--budget", "sa8295p:2ms"),
        ("systems",),
        ("systems", "lsnet"),
        ("doctor",),
        ("spaces", "show", "hybrid-s"),
        ("spaces", "references"),
        ("spaces", "sample", "hybrid-s", "--count", "2"),
        ("anchors", "show", "mobilenetv2_100", "--weights", "random", "--resolution", "64", "--device", "sa8295p"),
        ("devices", "suggest", "mine", "--count", "2", "--max-mparams", "1.5"),
        ("--help",),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_line_is_wider_than_the_terminal(words: tuple[str, ...], width: int) -> None:
    if words[0] == "anchors":
        pytest.importorskip("timm", reason="timm is not installed")
    lines = at_width(width, *words)
    assert lines
    assert [line for line in lines if len(line) > width and not line.strip().startswith("/")] == []  # a path is as long as it is


@pytest.mark.parametrize("file", sorted(path.stem for path in (Path(cli.__file__).parent).glob("[a-z]*.py")))
def test_the_help_of_every_command_fits(file: str) -> None:
    group, _, rest = file.partition("_")
    words = (group, rest.replace("_", "-")) if rest else (group,)
    for width in WIDTHS:
        lines = at_width(width, *words, "--help")
        assert any(line.strip().startswith("Usage:") for line in lines)
        assert [line for line in lines if len(line) > width] == []


@pytest.mark.usefixtures("tiny_plugins")
@pytest.mark.parametrize("width", WIDTHS)
def test_a_front_keeps_its_names(width: int, tmp_path: Path) -> None:
    device = write_device(tmp_path, "a-device-with-a-long-name")
    lines = at_width(width, "search", "--device", device, "--budget", "100ms", "--space", "tiny-published", "--out", tmp_path / "run")
    run = str(tmp_path / "run")  # a path is as long as it is
    assert [line for line in lines if len(line) > width and run not in line] == []
    shown = at_width(width, "show", run)
    assert [line for line in shown if len(line) > width and run not in line] == []
    assert {f"tiny-{size}" for size in (8, 16, 32, 64)} <= {word for line in lines for word in line.split()}


def test_columns_go_by_priority_and_come_back() -> None:
    columns = [Column("name"), Column("first to go", 2), Column("second", 1)]
    rows = [["x" * 50, "y" * 30, "z" * 20]]

    def call() -> None:
        print_table("", columns, rows)

    lines = on_terminal(80, call)
    assert "y" * 30 not in "".join(lines)
    assert "z" * 20 in "".join(lines)
    assert lines[-1] == "left out for the terminal's width: first to go (--wide)"
    narrow = on_terminal(40, call)
    assert "x" * 50 in narrow
    show_whole_tables()
    try:
        assert "y" * 30 in "".join(on_terminal(80, call))
    finally:
        show_whole_tables(False)


def test_sentences_break_between_words_and_names_never() -> None:
    name = "hgnetv2_b4/" + "x" * 100
    lines = on_terminal(80, lambda: print_lines([f"  {name} is " + "followed-by words " * 20]))
    assert any(name in line for line in lines)
    assert all(len(line) <= 80 for line in lines if name not in line)
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_pipe_gets_everything_plainly(nas: Callable[..., Result]) -> None:
    out = nas("devices", "list").out
    assert "\x1b" not in out
    assert "title" in out.splitlines()[0]
    assert "left out for the terminal" not in out
    assert len(out.splitlines()) == len(profile_files()) + 5


def test_filters_of_the_list(nas: Callable[..., Result], refused: Callable[..., str]) -> None:
    assert {line.split()[0] for line in nas("devices", "list", "SA8295").out.splitlines()[2:-3]} == {"sa8295p", "sa8295p-tflite"}
    qualcomm = nas("devices", "list", "--vendor", "qualcomm", "--format", "json").out
    assert '"name": "samsung-galaxy-s24"' in qualcomm
    assert "hailo-8" not in qualcomm
    assert "Did you mean 'Hailo'" in refused("devices", "list", "--vendor", "hail")
    assert "none of" in refused("devices", "list", "no-such-device-at-all")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SA8295P", "sa8295p"),
        ("SA8295P ADP", "sa8295p"),
        ("rtx4090", "rtx-4090"),
        ("galaxy s24", "samsung-galaxy-s24"),
        ("sa8295", "sa8295p"),
        ("Hailo8", "hailo-8"),
    ],
)
def test_devices_by_what_people_call_them(text: str, name: str) -> None:
    assert find_profile(text).stem == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ResNet50", "resnet50"),
        ("mobilenet_v2", "mobilenet_v2"),
        ("MobileNet-v2", "mobilenet_v2"),
        ("resnet50.a1_in1k", "resnet50"),
        ("vit_b_16", "vit_base_patch16_224"),
        ("regnet_x_3_2gf", "regnetx_032"),
    ],
)
def test_networks_by_what_people_call_them(text: str, name: str) -> None:
    assert workloads.find(text) == name


def test_a_part_of_several_names_is_none(refused: Callable[..., str]) -> None:
    with pytest.raises(UnknownNameError, match="Several are called so"):
        match_name("network", "net1", ["anet1", "bnet1"])
    assert "Several are called so" in refused("predict", "resnet5", "--device", "sa8295p")


def test_other_names_of_networks_exist_and_are_the_same_network() -> None:
    published = {
        **{"mnasnet0_5": 2218512, "mobilenet_v3_small": 2542856, "regnet_x_800mf": 7259656},
        **{"regnet_x_1_6gf": 9190136, "regnet_x_3_2gf": 15296552, "regnet_y_1_6gf": 11202430, "regnet_y_3_2gf": 19436338},
        **{"swin_b": 87768224, "swin_s": 49606258, "swin_t": 28288354, "vit_b_16": 86567656, "vit_b_32": 88224232},
    }  # torchvision's own counts
    assert published.keys() == workloads.ALIASES.keys()
    for name, params in published.items():
        assert workloads.describe(workloads.ALIASES[name]).params == params, name


@pytest.mark.parametrize(
    ("text", "name"), [("int8", "w8a8"), ("INT8", "w8a8"), ("FP16", "fp16"), ("float32", "fp32"), ("a16w8", "w8a16"), ("int4", "int4")]
)
def test_precisions_by_what_people_call_them(text: str, name: str) -> None:
    assert canonical_precision(text) == name


def test_a_shell_completes(nas: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "_NAS_COMPLETE" in nas("completion", "bash").out
    monkeypatch.setenv("_NAS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "nas predict --device hailo-8")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert nas().out.split() == ["hailo-8", "hailo-8-streamed", "hailo-8l", "hailo-8l-streamed"]


def test_a_list_of_spaces_builds_none(nas: Callable[..., Result]) -> None:
    import subprocess

    code = "import sys; from nas.cli import main\ntry: main(['spaces', 'list'])\nexcept SystemExit: print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.splitlines()[-1] == "False False"
    assert "zoo-in1k" in done.stdout


@pytest.mark.parametrize("words", [("predict", "resnet5x", "--device", "sa8295p"), ("predict", "resnet50", "--device", "sa82")])
def test_a_wrong_name_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    import subprocess

    code = f"import sys; from nas.cli import main\ntry: main({list(words)!r})\nexcept SystemExit: print([m for m in ('torch', 'numpy', 'nas.results') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "[]"
    assert done.stderr.startswith("nas: ")


def test_progress_names_phases_steps_and_what_is_left() -> None:
    import io

    from rich.console import Console

    from nas.events import PhaseAdvanced, PhaseFinished, PhaseStarted
    from nas.report.progress import ProgressReport, number_text

    now = [0.0]
    out = io.StringIO()
    report = ProgressReport(Console(file=out, width=200), clock=lambda: now[0])
    report(PhaseStarted("train", 30, 0, "hybrid-s at 128x128 on digits"))
    now[0] = 12.0
    report(PhaseAdvanced("train", 0, part=0.4))
    now[0] = 22.0
    report(PhaseAdvanced("train", 10, {"loss": 0.5, "validation_accuracy_pct": 91.25}))
    now[0] = 61.0
    report(PhaseFinished("train", 61.0))
    assert out.getvalue().splitlines() == [
        "training the supernet: 0.4/30 epochs, 15 min to go",
        "training the supernet: 10/30 epochs, 44 s to go, loss 0.5, validation 91.25 %",
        "training the supernet: done in 61 s",
    ]
    assert number_text("measured_ms", 2.5) == "2.5 ms"
    resumed = io.StringIO()
    report = ProgressReport(Console(file=resumed, width=200), clock=lambda: now[0])
    report(PhaseStarted("finetune", 100, 66, unit="%", part=0.5))
    now[0] += 20
    report(PhaseAdvanced("finetune", 67, part=0.5))
    assert resumed.getvalue() == "fine-tuning the choice: 67.5/100 %, 11 min to go\n"  # a percent in 20 s
    terminal = io.StringIO()
    report = ProgressReport(Console(file=terminal, width=60, force_terminal=True, color_system=None), clock=lambda: now[0])
    report(PhaseStarted("search", 100, 0, "zoo"))
    now[0] += 5
    report(PhaseAdvanced("search", 50, {"best_accuracy_pct": 80.0, "hypervolume": 0.123456, "evaluations_per_s": 10.0}))
    report.close()
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    assert all(len(line.rstrip()) <= 60 for line in lines)
    assert any("50/100 networks" in line for line in lines)
