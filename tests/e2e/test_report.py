"""The page of a run: it holds what the JSON says, opens without a network, and names nothing of the machine."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nas.report.charts import OperatorTime, Stage, timings_spec
from nas.report.html import Page, page_html
from nas.results import ByClass, Result, Verification
from tests.e2e.browser import CHROMIUM, browser, wrong_figures
from tests.e2e.conftest import Result as Answer
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]


class Text(HTMLParser):
    """Collects what a reader sees, and every address that an element loads or points at."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.addresses: list[str] = []
        self._hidden = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture
def run(nas: Callable[..., Answer], tiny_plugins: None, tmp_path: Path) -> Path:
    device = write_device(tmp_path, "a-device")
    words = ("search", "--device", device, "--budget", "100ms", "--space", "tiny-published", "--out", tmp_path / "run")
    assert nas(*words).code == 0
    return tmp_path / "run"


def test_a_run_has_a_page(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    seen, found = Text(page), json.loads((run / "results.json").read_text())
    assert all(address.startswith("data:") for address in seen.addresses)
    for point in found["front"]:
        assert point["network"] in seen.text
        assert f"{point['accuracy_pct']:.2f}" in seen.text
        assert f"{point['latency_ms']:.3g}" in seen.text
    assert "nas search --device a-device" in seen.text
    assert "--space tiny-published" in seen.text
    for foreign in (str(run.parent), str(Path.home()), socket.gethostname()):
        assert len(foreign) < 4 or foreign not in seen.text
    assert len(page) < 3e6


def test_nothing_is_fetched(nas: Callable[..., Answer], tiny_plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    device = write_device(tmp_path, "a-device")
    words = ("search", "--device", device, "--budget", "100ms", "--space", "tiny-published", "--out", tmp_path / "run")
    assert nas(*words).code == 0
    assert nas("predict", "resnet18", "--device", "sa8295p").code == 0


def everything(run: Path) -> str:
    """Return a page with every chart, from a run's result and made-up findings."""
    result = Result.model_validate_json((run / "results.json").read_text())
    front, device = result.front, next(iter(result.front[0].devices))
    result = result.model_copy(
        update={
            "by_class": ByClass(classes=("cat", "<b>dog</b>"), pictures=(10, 20), accuracy_pct=(90.0, 75.0), confusion=((9, 1), (5, 15))),
            "sensitivity_db": {"stem": 30.0, "stage 1": 12.5},
            "verified": (
                Verification(
                    key="k", line="timed", device="runner", median_ms=1.5, network="a net", latency_ms=1.2, lower_ms=1, upper_ms=1.4
                ),
            ),
            "hypervolume_history": (0.1, 0.2, 0.4),
            "notices": ("a <script>alert(1)</script> & more",),
        }
    )
    times = tuple(OperatorTime(f"stages.{i}.conv", f"stages.{i}", "Conv", 0.1 * i) for i in range(60))
    stages = [Stage(("stem",), "16×32×32", 32, 10, 20, 3), Stage(("stages.1", "stages.2"), "32×16×16", 16, 30, 40, 5)]
    page = Page(result, {"scored by the search": front}, {device: times}, stages, "nas search", {"seed": "1"}, {"a picture": b"png"})
    return page_html(page)


def test_timings_stand_beside_what_was_estimated(nas: Callable[..., Answer], run: Path, tmp_path: Path) -> None:
    before = {p.key: p for p in Result.model_validate_json((run / "results.json").read_text()).front}
    runner = f'{sys.executable} -c "print(50.0)" {{onnx}}'
    words = ("--budget", "40ms", "--space", "tiny-published", "--verify", "1", "--runner", runner, "--out", tmp_path / "timed")
    assert nas("search", "--device", tmp_path / "a-device.toml", *words).code == 0
    result = Result.model_validate_json((tmp_path / "timed" / "results.json").read_text())
    (row,) = timings_spec(result)["data"]["values"]
    point = before[result.verified[0].key]
    assert row == {"network": point.name, "timed": 50, "value": point.latency_ms, "lower": point.lower_ms, "upper": point.upper_ms}
    assert "Estimates and timings" in Text((tmp_path / "timed" / "report.html").read_text()).text
    old = result.model_copy(update={"verified": (Verification(key=point.key, line="timed", median_ms=50.0),)})
    assert "Estimates and timings" not in Text(page_html(Page(old, {}, {}, [], "nas search", {}, {}))).text


def test_a_choice_that_its_timings_forbid_is_shown_with_them(nas: Callable[..., Answer], run: Path, tmp_path: Path) -> None:
    runner = f'{sys.executable} -c "print(500.0)" {{onnx}}'
    words = ("--budget", "40ms", "--space", "tiny-published", "--verify", "9", "--runner", runner, "--out", tmp_path / "timed")
    assert nas("search", "--device", tmp_path / "a-device.toml", *words).code == 0
    result = Result.model_validate_json((tmp_path / "timed" / "results.json").read_text())
    before = Result.model_validate_json((run / "results.json").read_text())
    assert result.chosen is not None
    assert result.chosen.key == before.chosen.key  # type: ignore[union-attr]
    assert result.chosen.latency_ms == 500.0
    assert {point.latency_ms for point in result.front} == {500.0}
    assert "by the timings no candidate is within the budgets any more" in result.why
    assert "do not rely on it" in result.revision.line  # type: ignore[union-attr]


def test_runs_are_compared(nas: Callable[..., Answer], refused: Callable[..., str], run: Path, tmp_path: Path) -> None:
    other, page = tmp_path / "other", tmp_path / "both.html"
    shutil.copytree(run, other)
    rows = json.loads(nas("compare", run, other, "--to", page, "--format", "json").out)
    assert [row["run"] for row in rows] == ["run", "other"]
    chosen = json.loads((run / "results.json").read_text())["chosen"]
    assert rows[0]["network"].startswith(chosen["network"])
    assert rows[0]["devices"] == chosen["devices"]
    seen = Text(page.read_text(encoding="utf-8"))
    assert rows[0]["network"] in seen.text
    assert charts(page)[0]["warnings"] == []
    assert "other" in nas("compare", run, other).out
    assert "two runs or more" in refused("compare", run)
    assert "named twice" in refused("compare", run, run)
    assert "exists already" in refused("compare", run, other, "--to", page)


def test_markup_is_text(run: Path) -> None:
    page = everything(run)
    assert "<script>alert" not in page
    assert "<b>dog" not in page
    assert "a <script>alert(1)</script> & more" in Text(page).text


def charts(page: Path) -> list[dict[str, object]]:
    """Return name, number of marks and warnings of each chart, drawn by the page's own Vega in node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    version = re.match(r"v(\d+)", subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout)
    if version is None or int(version[1]) < 18:
        pytest.skip("node is older than 18")
    done = subprocess.run([node, str(Path(__file__).with_name("report.mjs")), str(page)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]  # a line of Vega has megabytes
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_vega_draws_every_chart(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(everything(run), encoding="utf-8")
    found = charts(file)
    assert [chart["name"] for chart in found] == ["front", "operators", "timings", "stages", "classes", "sensitivity", "progress"]
    assert [chart["warnings"] for chart in found] == [[]] * 7
    assert min(int(str(chart["marks"])) for chart in found) > 3


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it(run: Path, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    page.write_text(everything(run), encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(page, width)
        assert (tab.errors, tab.requests) == ([], [page.as_uri()])
        assert tab.ask("Object.keys(views).length") == 7
        assert tab.ask("document.documentElement.scrollWidth") <= width  # tables scroll by themselves
        tab.open(run / "report.html", width)
        assert (tab.errors, len(tab.requests)) == ([], 2)
        assert wrong_figures(tab, json.loads((run / "results.json").read_text())) == []


def test_the_picture_has_a_panel_a_device_and_names(run: Path) -> None:
    pytest.importorskip("matplotlib")
    result = Result.model_validate_json((run / "results.json").read_text())
    front = [p.model_copy(update={"devices": {**p.devices, "other": p.devices["a-device"]}}) for p in result.front]
    assert result.chosen is not None
    chosen = next(p for p in front if p.key == result.chosen.key)
    result = result.model_copy(update={"front": tuple(front), "chosen": chosen})
    figure = result.plot(behind={"all": front})
    assert [axes.get_title() for axes in figure.axes] == ["a-device", "other"]
    assert chosen.label in figure.get_suptitle()
    assert chosen.label in [text.get_text() for text in figure.axes[0].texts]
    assert len(result.plot("other").axes) == 1


def test_labels_do_not_stand_on_one_another(run: Path) -> None:
    result = Result.model_validate_json((run / "results.json").read_text())
    accuracies = [point.compared_accuracy_pct for point in result.front]
    assert result.chosen is not None
    assert result.labelled(1000, accuracies) == {point.key for point in result.front}
    assert result.labelled(0.5, accuracies) == {result.chosen.key}


def test_the_command_of_a_run_can_be_given_again() -> None:
    from nas.runs.page import command_of
    from nas.runs.request import Request

    asked = Request(devices=("a", "b"), space="chain", anchors=("x", "y"), edits=("out", "width"), pairs=("x:1>y:2", "x:2>y:2"))
    words = shlex.split(command_of(asked))
    assert words == [
        *("nas", "search", "--device", "a", "--device", "b", "--space", "chain", "--anchor", "x", "--anchor", "y"),
        *("--pairs", "x:1>y:2,x:2>y:2", "--edits", "out,width"),
    ]
