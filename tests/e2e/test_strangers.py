"""What comes from strangers: profiles that name files elsewhere, runs that hold commands, addresses that hold passwords."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.searching import address
from nas.searching.address import keep_password, with_password, without_password, without_passwords
from tests.e2e.conftest import Result
from tests.e2e.tiny import tiny_plugins, write_device

__all__ = ["tiny_plugins"]
ROOT = Path(__file__).parents[2]
PROFILE = """title = "A gift"
kind = "npu"
runtime = "qnn"
default_precision = "fp16"
[precisions.fp16]
predictor = "physical"
artifact = {artifact}
[origin]
title = "a gift"
"""


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    "artifact",
    [
        *("../../../.bashrc", "/etc/passwd", "a/b.npz", "..", ".", ".hidden", "C:\\x.npz", "C:x.npz", "\\\\host\\share\\x", "a\\b"),
        *("NUL", "con.npz", "com1", "nul.tar.gz", "x\u0000.npz", "x\n.npz", "x.npz.", "x.npz ", "a" * 200, "x:stream", "*"),
    ],
)
def test_an_artifact_is_a_plain_name(refused: Callable[..., str], tmp_path: Path, artifact: str) -> None:
    gift = tmp_path / "gift" / "a" / "b" / "c"
    gift.mkdir(parents=True)
    (gift.parents[2] / ".bashrc").write_text("echo OWNED")
    (gift / "evil.toml").write_text(PROFILE.format(artifact=json.dumps(artifact)))
    before = everything(tmp_path)
    assert "must be the name of a file next to the profile" in refused("devices", "add", gift / "evil.toml")
    assert "must be the name of a file next to the profile" in refused("devices", "show", gift / "evil.toml")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "nul", "com1.x", "a b", "x\n", "-x", "x.", "C:x", "é"])
def test_a_name_is_a_plain_name(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    path = write_device(tmp_path)
    assert "device: not a name" in refused("devices", "add", path, f"--name={name}")
    assert not (tmp_path / "config").exists()


def test_links_are_neither_followed_nor_written_through(nas: Callable[..., Result], refused: Callable[..., str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (tmp_path / "gift").mkdir()
    path = write_device(tmp_path / "gift", name="evil")
    (tmp_path / "gift" / "tiny.json").unlink()
    (tmp_path / "gift" / "tiny.json").symlink_to(secret)
    assert "a link out of its folder" in refused("devices", "add", path)
    (tmp_path / "gift" / "tiny.json").unlink()
    (tmp_path / "gift" / "tiny.json").write_text("{}")
    room = tmp_path / "config" / "devices"
    room.mkdir(parents=True)
    (room / "tiny.json").symlink_to(tmp_path / "absent")
    (room / "evil.toml.old").symlink_to(secret)
    assert nas("devices", "add", path).code == 0
    assert not (tmp_path / "absent").exists()
    assert not (room / "tiny.json").is_symlink()
    assert secret.read_text() == "mine"
    assert nas("devices", "show", "evil").code == 0


def test_a_profile_that_says_another_name_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = write_device(tmp_path, name="gift")
    path.write_text('name = "sa8295p"\n' + path.read_text())
    assert "says another name than its file, got 'sa8295p'. Expected 'gift'" in refused("devices", "add", path)


def test_a_shipped_name_is_one_line_for_that_name_alone(nas: Callable[..., Result], refused: Callable[..., str], tmp_path: Path) -> None:
    room = tmp_path / "config" / "devices"
    room.mkdir(parents=True)
    write_device(room, name="sa8295p")
    line = refused("devices", "show", "sa8295p", code=1)
    assert "a name is taken twice, got 'sa8295p'" in line
    assert f"Do this: rename or remove {room / 'sa8295p.toml'}" in line
    assert nas("devices", "show", "sa8775p").code == 0
    rows = {row["name"]: row for row in json.loads(nas("devices", "list", "--format", "json").out)}
    assert "taken twice" in rows["sa8295p"]["error"]
    assert "error" not in rows["sa8775p"]
    assert "taken twice" in nas("doctor").out


def test_profiles_have_the_permissions_of_the_umask(nas: Callable[..., Result], tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert nas("devices", "add", write_device(tmp_path)).code == 0
    finally:
        os.umask(before)
    files = list((tmp_path / "config" / "devices").iterdir())
    assert {path.name for path in files} == {"tiny.toml", "tiny.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


# ---------------------------------------------------------------- runs


@pytest.fixture
def words(tmp_path: Path, tiny_plugins: None) -> list[object]:
    return ["search", "--device", write_device(tmp_path), "--space", "tiny-published", "--budget", "0.9ms", "--out", tmp_path / "run"]


def interrupted(run: Path, runner: str) -> None:
    """Leave a run as a stranger would hand it over: unfinished, with a command of his."""
    (run / "results.json").unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["request"] |= {"verify": 2, "runner": runner}
    (run / "manifest.json").write_text(json.dumps(manifest))


def test_a_stored_command_waits_for_the_users_word(nas: Callable[..., Result], words: list[object], tmp_path: Path) -> None:
    assert nas(*words).code == 0
    run, trace = tmp_path / "run", tmp_path / "executed"
    evil = f"{sys.executable} -c \"open('{trace}', 'a'); print(1.5)\" {{onnx}}"
    interrupted(run, evil)
    found = json.loads(nas("resume", run, "--format", "json").out)
    assert found["status"] == "finished"
    assert "this run asks to execute" in found["open"][0]
    assert repr(evil) in found["open"][0]
    assert "--yes" in found["open"][0]
    assert "open: verify: not measured" in nas("resume", run).out
    assert "open: verify: not measured" in nas("show", run).out
    assert not trace.exists()
    own = f'{sys.executable} -c "print(2.5)" {{onnx}}'
    found = json.loads(nas("resume", run, "--runner", own, "--format", "json").out)
    assert "open" not in found
    assert {row["median_ms"] for row in found["verified"]} == {2.5}
    assert not trace.exists()


def test_a_stored_command_runs_with_yes(nas: Callable[..., Result], words: list[object], tmp_path: Path) -> None:
    assert nas(*words).code == 0
    interrupted(tmp_path / "run", f'{sys.executable} -c "print(1.5)" {{onnx}}')
    found = json.loads(nas("resume", tmp_path / "run", "--yes", "--format", "json").out)
    assert {row["median_ms"] for row in found["verified"]} == {1.5}


def test_quotes_of_a_runner_are_looked_at_first(refused: Callable[..., str], words: list[object]) -> None:
    assert "runner: cannot be split into words" in refused(*words, "--verify", "1", "--runner", "sh -c 'time {onnx}")
    assert "runner: must contain {onnx}" in refused(*words, "--verify", "1", "--runner", "true")


def test_no_link_in_a_strangers_run_is_written_through(nas: Callable[..., Result], words: list[object], tmp_path: Path) -> None:
    assert nas(*words).code == 0
    run, secret = tmp_path / "run", tmp_path / "secret"
    secret.write_text("mine")
    (run / "results.json").unlink()
    for name in (".status.json.part", ".results.json.part", ".table.txt.part", ".pareto.png.part"):
        (run / name).symlink_to(secret)
    assert nas("resume", run).code == 0
    (run / "results.json").unlink()
    (run / "lock").unlink()
    (run / "lock").symlink_to(secret)
    assert nas("resume", run).code == 1
    assert secret.read_text() == "mine"


def test_files_of_a_run_agree_in_their_permissions_and_reports_hold_no_path(
    nas: Callable[..., Result], words: list[object], tmp_path: Path
) -> None:
    before = os.umask(0o007)
    try:
        assert nas(*words).code == 0
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").iterdir() if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o666 for path in files} == {0o660}
    report = (tmp_path / "run" / "table.txt").read_text()
    assert str(tmp_path) not in report
    assert "Run directory: run" in report


# ---------------------------------------------------------------- passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cret@h:5/db", "postgresql://u@h:5/db"),
        ("postgresql+psycopg://u:s3@cr/et@h/db?sslmode=require", "postgresql+psycopg://u@h/db?sslmode=require"),
        ("postgresql://h/db?user=a&password=s3cret&sslmode=on", "postgresql://h/db?user=a&sslmode=on"),
        ("postgresql://u:s3?cret@h/db", "postgresql://u@h/db"),
        ("mysql://u:s3cret@h/db", "mysql://u@h/db"),
        ("postgresql://u@h/db", "postgresql://u@h/db"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("runs/a:b@c.journal", "runs/a:b@c.journal"),
    ],
)
def test_an_address_is_kept_without_its_password(url: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_passwords", {})
    assert without_password(url) == shown
    assert keep_password(url) == shown
    assert with_password(shown) == url


def test_a_librarys_message_is_shown_without_passwords() -> None:
    keep_password("postgresql://u:h%40mster@h/db")
    assert "mster" not in without_passwords("no h@mster at postgresql://u:h%40mster@h/db (h%40mster)")


def test_a_password_appears_nowhere(
    nas: Callable[..., Result], words: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    url = "postgresql://user:s3cret@127.0.0.1:1/none"
    monkeypatch.setattr(sys, "argv", ["nas", "search", "--storage", url, f"--storage={url}"])
    from nas.runs.directory import RunDirectory

    run = RunDirectory.create(tmp_path / "kept", "label", {"storage": keep_password(url)}, {})
    assert run.storage == "postgresql://user@127.0.0.1:1/none"
    assert not any(b"s3cret" in data for data in everything(tmp_path / "kept").values())


# ---------------------------------------------------------------- the process


def python_m(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nas", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NAS_CONFIG_HOME": str(cwd / "config"), **options.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def test_python_m_nas_loads_nothing_from_the_working_folder(tmp_path: Path) -> None:
    for name in ("typer", "rich", "click", "json", "pydantic", "numpy", "search_spaces", "tomllib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('loaded from the working folder')")
    done = python_m("spaces", "list", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) > 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_output_that_is_not_utf8(tmp_path: Path, encoding: str) -> None:
    for form in ("table", "json"):
        done = python_m("devices", "show", "sa8295p", "--format", form, cwd=tmp_path, env={"PYTHONIOENCODING": encoding}, encoding=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        if form == "json":
            assert json.loads(done.stdout)["name"] == "sa8295p"


def test_closed_and_full_outputs(tmp_path: Path) -> None:
    def shell(redirection: str) -> subprocess.CompletedProcess[str]:
        command = f"{sys.executable} -m nas devices show sa8295p {redirection}"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    closed = shell(">&-")
    assert (closed.returncode, closed.stderr) == (1, "nas: stdout: it is closed, so the result was not printed.\n")
    assert shell("2>&-").returncode == 0
    assert shell("| head -1; exit ${PIPESTATUS[0]}").stderr == ""
    full = shell(">/dev/full")
    assert full.returncode == 1
    assert full.stderr.count("\n") == 1
    assert "No space left on device" in full.stderr
