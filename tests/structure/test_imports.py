"""The frame holds: `nas` imports no sibling, its rooms stand in levels, what need not be heavy is light, rich stays at the edge."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIBLINGS = {"search_spaces", "latency_predictors", "hardware_profiles"}
HEAVY = {
    "torch",
    "optuna",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "sklearn",
    "matplotlib",
    "networkx",
    "accelerate",
    "safetensors",
    "nni",
}


HEAVY_FILES = (
    "exporting/exporters/*",
    "graphs/frontends/*",
    "graphs/frontends/onnx_reader/*",
    "graphs/onnx_writer.py",
    "quantisation/[!_m]*.py",
    "quantisation/methods/*",
    "spaces/surgery/*",
    "training/evaluators/*",
    "training/supernet/*",
    "training/importances/*",
    "training/recipes/*",
    "training/scores/*.py",
    "training/transfer/*",
)
"""What works on modules and files by nature. Everything else in `nas/` imports no heavy library at its top."""

LEVELS = (
    ("errors",),
    ("events", "registry", "results", "units"),
    ("graphs", "report"),
    ("quantisation",),
    ("spaces",),
    ("devices", "training"),
    ("exporting", "searching"),
    ("bench", "runs"),
    ("testing",),
    ("api",),
    ("cli",),
    ("__main__",),
)
"""The rooms of `nas/` from the bottom up. A room imports from lower levels only; rooms of one level do not know each other."""

FILES = sorted((ROOT / "nas").rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in FILES}


def uses(path: Path) -> set[str]:
    """Return the modules of `nas` that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & MODULES or {node.module}
            found |= {node.module} if inner - MODULES else set()
    return (found & MODULES) - {module_of(path), "nas"}


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", sorted((ROOT / "nas").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_engine_knows_siblings_by_name_only(path: Path) -> None:
    assert not {name for name in imports(path, top_level=False) if name.split(".")[0] in SIBLINGS}


def test_every_room_has_a_level() -> None:
    entries = {path.stem for path in (ROOT / "nas").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert entries - {"__init__"} == {room for level in LEVELS for room in level}
    assert len(entries - {"__init__", "__main__"}) <= 18


def test_no_import_runs_up_a_level_or_across() -> None:
    level = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
    rising = [
        f"{module_of(path)} -> {other}"
        for path in FILES
        if path != ROOT / "nas" / "__init__.py"
        for other in uses(path)
        if room_of(other) != room_of(module_of(path)) and level[room_of(other)] >= level[room_of(module_of(path))]
    ]
    assert not rising


def test_no_circle_of_files() -> None:
    import networkx

    circles = networkx.simple_cycles(networkx.DiGraph([(module_of(path), other) for path in FILES for other in uses(path)]))
    assert not list(circles)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_need_not_be_heavy_is_light(path: Path) -> None:
    if not any(path.relative_to(ROOT / "nas").match(pattern) for pattern in HEAVY_FILES):
        assert not {name for name in imports(path, top_level=True) if name.split(".")[0] in HEAVY}


def test_a_room_has_no_name_of_a_public_function() -> None:
    import nas

    assert not {path.stem for path in (ROOT / "nas").iterdir()} & {name for name in getattr(nas, "__all__", ()) if name.islower()}


def test_no_list_of_paths_names_what_is_not_there() -> None:
    """A room that moves takes its exceptions along: a pattern that matches nothing would be a silent skip."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    patterns = [p for p in settings["ruff"]["lint"]["per-file-ignores"] if "{" not in p]
    assert [p for p in patterns if not any(ROOT.glob(p))] == []
    modules = [m for override in settings["mypy"]["overrides"] for m in override["module"] if m.split(".")[0] in {"nas", *SIBLINGS}]
    assert [m for m in modules if not (ROOT / m.removesuffix(".*").replace(".", "/")).exists()] == []
    assert [p for p in HEAVY_FILES if not any((ROOT / "nas").glob(p))] == []


def test_data_of_a_fixed_shape_have_a_type() -> None:
    """`dict[str, Any]` is for what others write and for arguments of any function; what has a shape is a record or a TypedDict."""
    shapeless = [
        f"{module_of(path)}:{i}" for path in FILES for i, line in enumerate(path.read_text().splitlines(), 1) if "dict[str, Any]" in line
    ]
    assert len(shapeless) <= 25, shapeless


PLUG_IN_ROOMS = {"searchers", "evaluators", "exporters", "methods", "data", "recipes"}
LOOK_UPS = {"spaces", "mixers", "channel_mixers", "reparam", "predictors", "searchers", "evaluators", "exporters", "quantisers", "datasets"}


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name not in PLUG_IN_ROOMS], ids=lambda p: str(p.relative_to(ROOT)))
def test_generic_code_asks_for_no_plug_in_by_name(path: Path) -> None:
    """What sets a plug-in apart is a property of its contract; a name written here would be a special case."""
    asked = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            function = node.func
            registry = isinstance(function, ast.Attribute) and function.attr == "get" and isinstance(function.value, ast.Name)
            if (registry and function.value.id in LOOK_UPS) or (
                isinstance(function, ast.Name) and function.id in ("get_space", "get_elastic_space")
            ):  # type: ignore[union-attr]
                asked.append(node.args[0].value)
    assert asked == []


@pytest.mark.parametrize("path", sorted((ROOT / "nas").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_rich_stays_at_the_edge(path: Path) -> None:
    if path.relative_to(ROOT / "nas").parts[0] not in {"report", "cli"}:
        assert not {name for name in imports(path, top_level=False) if name.split(".")[0] in {"rich", "typer"}}


def test_commands_import_nothing_heavy() -> None:
    code = """
import sys
from nas.cli import build_app
app = build_app()
commands = [*app.commands.values()]
assert len(commands + [part for group in commands for part in getattr(group, "commands", {}).values()]) > 20
print([m for m in sys.argv[1:] if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(HEAVY), "numpy", "pydantic"], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["devices", "--help"], ["--version"]])
def test_help_imports_nothing(words: list[str]) -> None:
    code = """
import sys, time
began = time.process_time()
from nas.cli import main
try: main(sys.argv[1:])
except SystemExit as error: assert not error.code
light = {"nas", "nas.cli", "nas.cli._overview"}
loaded = {m for m in sys.modules if m.partition(".")[0] in ("nas", "typer", "click", "rich", "numpy", "pydantic", "torch", "onnx", "scipy")}
sys.stderr.write(repr([sorted(loaded - light), time.process_time() - began < 0.12]))
"""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == "[[], True]"
    assert done.stdout


def test_the_overview_says_what_the_commands_say() -> None:
    """It reads the files; a command whose file is written otherwise would be listed with the wrong words."""
    from importlib import import_module

    from nas.cli._overview import GROUPS, command_files, summary

    for group in (None, *GROUPS):
        for name, path in command_files(group).items():
            said = import_module(f"nas.cli.{path.stem}").command.__doc__
            assert summary(path) == said.partition("\n")[0].replace("``", "").strip() != "", name
