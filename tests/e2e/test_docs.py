"""The documentation holds: its commands run, its links lead somewhere, its functions are documented, its claims have a proof."""

import inspect
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nas as product
from nas import results
from tests.e2e.conftest import Result

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
FENCE = re.compile(r"^```(\w*)[ \t]*(?:title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELLS = ("", "sh", "bash", "console")
OURS = ("nas ", "python ")
TRIES = 10
"""Of a timing that is refused, and rightly so, since other tests share the cores."""


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[str]:
    """Return the commands of a page that are ours, continued lines joined, prompts and comments cut."""
    lines = [
        line.removeprefix("$ ").split("  #")[0].strip()
        for block in blocks(page)
        if block.language in SHELLS
        for line in block.text.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line.startswith(OURS)]


def not_run() -> dict[str, str]:
    listed = tomllib.loads((DOCS / "not-run.toml").read_text(encoding="utf-8"))
    return {command: listed["reasons"][reason] for command, reason in listed["commands"].items()}


def test_commands_that_are_not_run_stand_on_a_page() -> None:
    written = {command for page in (ROOT / "README.md", *PAGES) for command in commands(page)}
    assert set(not_run()) - written == set()


def run_command(text: str, nas: Callable[..., Result]) -> None:
    command, _, target = text.partition(" > ")
    words = shlex.split(command)
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return
    result = nas(*words[1:])
    for _ in range(TRIES):
        if "spread too far" not in result.err:
            break
        result = nas(*words[1:])
    assert result.code == 0 or (result.code == 3 and "--budget" in words), f"{text}: {result.err}"
    if target:
        Path(target.strip()).write_text(result.out, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if set(commands(page)) - set(not_run())], ids=lambda page: page.stem)
def test_every_command_runs(page: Path, nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
    for text in commands(page):
        if text not in not_run():
            run_command(text, nas)


def generated() -> dict[str, Callable[[], str]]:
    pages: dict[str, Callable[[], str]] = runpy.run_path(str(DOCS / "generate.py"))["PAGES"]
    return pages


def written(page: Path) -> str:
    """Return a page as the site has it."""
    text: str = runpy.run_path(str(DOCS / "generate.py"))["on_page_markdown"](page.read_text(encoding="utf-8"))
    return text


def gallery() -> dict[str, str]:
    reports: dict[str, str] = runpy.run_path(str(DOCS / "generate.py"))["reports"]()
    return reports


def test_the_gallery_has_whole_and_small_pages() -> None:
    pages = gallery()
    assert set(re.findall(r"gallery/\w+\.html", (DOCS / "gallery.md").read_text(encoding="utf-8"))) == set(pages) != set()
    for place, page in pages.items():
        assert len(page) < 3e6, place
        assert page.count("vegaEmbed") > 1, place
        assert not re.search("@[A-Z]+@", page)
        assert "<style>\n:root" in page


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as MkDocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_link_is_broken(page: Path) -> None:
    made = {(DOCS / place).resolve() for place in (*generated(), *gallery())}
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", text)):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists() or file in made, f"{page}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_no_link_leaves_the_site(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", written(page)))
    targets = [target for target in LINK.findall(text) if "://" not in target and not target.startswith("#")]
    assert [target for target in targets if not (page.parent / target.partition("#")[0]).resolve().is_relative_to(DOCS)] == []


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {page.relative_to(DOCS).as_posix() for page in PAGES} | set(generated())


def test_generated_pages_hold_everything() -> None:
    pages = {place: make() for place, make in generated().items()}
    reference = pages["reference/command-line.md"]
    files = {path.stem for path in (ROOT / "nas" / "cli").glob("[a-z]*.py")}
    headings = re.findall(r"^## nas (.+)$", reference, re.MULTILINE)
    assert {re.sub("[ -]", "_", heading) for heading in headings} == files
    assert "| <code>--confidence NUMBER</code> |" in reference
    assert "| <code>0.9</code> |" in reference
    assert {row.system for row in product.list_systems()} <= {
        unescape(cell.strip()) for line in pages["reference/systems.md"].splitlines() for cell in line.split("|")
    }


def test_the_help_names_every_choice() -> None:
    from nas.devices.runner import runners
    from nas.exporting.exporter import exporters
    from nas.quantisation.method import quantisers
    from nas.searching.searcher import searchers
    from nas.training.dataset import datasets
    from nas.training.evaluator import evaluators
    from nas.training.recipe import recipes

    by_precision = {"onnx-fp16", "onnx-quantised"}
    choices = {
        "nas search --searcher": searchers.names(),
        "nas search --evaluator": evaluators.names(),
        "nas search --exporter": set(exporters.names()) - by_precision,
        "nas search --quantisation": quantisers.names(),
        "nas search --data": {name for name in datasets.names() if datasets.get(name).accepts(name)},  # others are given by path
        "nas train --recipe": recipes.names(),
        "nas measure --runner": runners.names(),
        "nas systems --kind": {row.kind for row in product.list_systems()},
    }
    reference = generated()["reference/command-line.md"]()
    for place, names in choices.items():
        command, _, option = place.partition(" --")
        section = reference.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        (row,) = [line for line in section.splitlines() if line.startswith(f"| <code>--{option}")]
        assert [name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", row)] == [], place


def test_every_included_file_exists() -> None:
    included = [name for page in PAGES for name in re.findall(r'--8<-- "([^"]+)"', page.read_text(encoding="utf-8"))]
    assert len(included) > 10
    assert [name for name in included if not (ROOT / name).is_file()] == []
    shown = {Path(name).name for name in included}
    plug_ins = {
        path.name for path in (ROOT / "tests/structure/acme_nas").rglob("*.*") if path.suffix in (".py", ".toml") and path.stat().st_size
    }
    assert plug_ins - shown == {"__init__.py"}


UNITS = {
    "budget": "5ms",
    "confidence": "overage",
    "dims": "symbolic sizes",
    "finetune_epochs": "choice",
    "input_shape": "(1, 3, 224, 224)",
    "max_drop": "Points",
    "proxy_resolution": "pixels",
    "storage_timeout": "seconds",
    "time_limit": "30min",
}
"""What the text of an argument with a shape or a unit must say, unless it points to another function."""


def described(function: Callable[..., Any], argument: str) -> str:
    found = re.search(rf"^ +{argument}: (.+)$", inspect.getdoc(function) or "", re.MULTILINE)
    return found[1] if found else ""


@pytest.mark.parametrize("name", product.__all__)
def test_every_function_says_shapes_units_and_errors(name: str) -> None:
    function = getattr(product, name)
    text = inspect.getdoc(function) or ""
    assert function.__module__ == "nas.api"  # whose functions the page of the reference holds
    for section in ("Raises:", "Yields:" if name == "predict_all" else "Returns:"):
        assert (f"\n{section}\n" in text) != name.startswith("list_"), section
    for argument in inspect.signature(function).parameters:
        if argument in UNITS:
            text = described(function, argument)
            assert UNITS[argument] in text or text.startswith("As in `"), (argument, text)


UNIT = re.compile(r"_(ms|pct|s|bytes|db|fps|mb|kb|px|per_s|s_per_epoch)$|^(macs|params)$")


def test_every_number_of_a_record_has_a_unit_or_an_explanation() -> None:
    records = [
        kind for kind in vars(results).values() if inspect.isclass(kind) and issubclass(kind, results.Record) and kind is not results.Record
    ]
    assert len(records) > 15
    silent = [
        f"{kind.__name__}.{name}"
        for kind in records
        for name, field in kind.model_fields.items()
        if field.annotation in (int, float, int | None, float | None) and not UNIT.search(name)
        if not any(f" {name}: " in (inspect.getdoc(parent) or "") for parent in kind.__mro__)
    ]
    assert silent == []


def claims() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((DOCS / "claims.toml").read_text(encoding="utf-8"))["claim"]
    return found


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("claim", claims(), ids=lambda claim: claim["sentence"][:40])
def test_a_claim_stands_in_the_readme_and_has_a_proof(claim: dict[str, Any]) -> None:
    assert flat(claim["sentence"]) in flat((ROOT / "README.md").read_text(encoding="utf-8"))
    assert claim["proof"]
    for proof in claim["proof"]:
        file, _, name = proof.partition("::")
        assert (ROOT / file).is_file(), proof
        assert not name or name in (ROOT / file).read_text(encoding="utf-8"), proof


@pytest.mark.parametrize("claim", [each for each in claims() if "figures" in each], ids=lambda claim: claim["sentence"][:40])
def test_a_figure_is_what_the_results_hold(claim: dict[str, Any]) -> None:
    for figure in claim["figures"]:
        found = json.loads((ROOT / figure["file"]).read_text(encoding="utf-8"))
        for key in figure["at"].split("."):
            found = found[key]
        decimals = len(figure["value"].partition(".")[2])
        assert f"{found:,.{decimals}f}" == figure["value"], figure
        assert figure.get("word", figure["value"]) in claim["sentence"], figure


def test_no_promise_is_without_a_claim() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    promises = re.findall(r"^\d\. .*(?:\n   .*)*", page, re.MULTILINE)
    rows = [line for line in page.splitlines() if line.startswith("| ") and "experiments/" in line]
    assert (len(promises), len(rows)) == (3, 10)
    sentences = [flat(claim["sentence"]) for claim in claims()]
    assert [text for text in (*promises, *rows) if not any(sentence in flat(text) for sentence in sentences)] == []


def test_the_readme_shows_a_transcript_as_it_was_printed() -> None:
    shown = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("$ nas ")]
    assert [text.strip() for text in shown] == [
        (ROOT / "experiments/012_transcripts/results/zoo-5ms.txt").read_text(encoding="utf-8").strip()
    ]
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.slow
def test_the_site_is_built(tmp_path: Path) -> None:
    if any(find_spec(module) is None for module in ("mkdocs", "material", "mkdocstrings")):
        pytest.skip("the extra docs is not installed")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "reference" / "command-line" / "index.html").is_file()
    reference = (tmp_path / "site" / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    assert [name for name in product.__all__ if f'id="nas.api.{name}"' not in reference] == []
    shutil.rmtree(tmp_path / "site")
