"""`nas devices update`: newer published timings in profiles, and what was there before a bad table."""

from pathlib import Path

import numpy as np
import pytest

from nas import api
from nas.devices import device_folder
from nas.devices.drift import drift_of, fit_drift
from nas.devices.names import find_profile, superseded_updates, updates_home
from nas.devices.profile import load_profile
from nas.devices.twins import remarks
from nas.errors import DataError, NasError, UsageError
from tests.published import LATENCIES, perf_folder, perf_wheel

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "aihub_wheel_sample.whl"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_a_factor_and_a_constant_are_found_beside_one_other_graph() -> None:
    before = np.array([1.0, 1.5, 2.0, 4.0, 9.0, 16.0, 30.0])
    after = 0.97 * before - 0.1
    after[3] = 9.0
    factor, start_ms = fit_drift(before, after)
    assert factor == pytest.approx(0.97, abs=0.01)
    assert start_ms == pytest.approx(-0.1, abs=0.03)


def test_what_was_not_timed_again_follows_the_rest(tmp_path: Path) -> None:
    shipped = load_profile("sa8295p")
    before = {name: api.predict(name, "sa8295p") for name in ("resnet50", "shufflenet_v2_x0_5", "resnet34")}
    result = api.update_devices(perf_wheel(tmp_path / "qai_hub_models-0.70.0-py3-none-any.whl"), devices=["sa8295p"])
    (moved,) = result.moved
    assert (result.release, moved.n, moved.before, moved.after) == ("0.70.0", len(LATENCIES), "QAIRT 2.50.0", "QAIRT 2.60.0")
    assert moved.start_ms < -0.05
    assert moved.carried == len(shipped.precisions["fp16"].timings_ms) - len(LATENCIES)  # type: ignore[index]
    assert find_profile("sa8295p").parent == updates_home()
    own = api.predict("resnet50", "sa8295p")
    assert (own.latency_ms, own.basis) == (LATENCIES["resnet50"], "measured")
    for name in ("shufflenet_v2_x0_5", "resnet34"):  # timed before, and never timed
        now = api.predict(name, "sa8295p")
        assert now.basis == "estimated"
        assert now.latency_ms == pytest.approx(moved.factor * before[name].latency_ms + moved.start_ms)
        assert now.lower_ms < now.latency_ms < now.upper_ms
        assert now.upper_ms / now.latency_ms > before[name].upper_ms / before[name].latency_ms
    assert load_profile("sa8295p").at("w8a8").timings_ms == shipped.at("w8a8").timings_ms


def test_all_of_an_update_survives_a_second_one(tmp_path: Path) -> None:
    api.update_devices(perf_folder(tmp_path / "first"), devices=["sa8295p"])
    first = load_profile("sa8295p").at("fp16")
    again = {name: 0.9 * ms for name, ms in LATENCIES.items() if name != "googlenet"}
    api.update_devices(perf_folder(tmp_path / "second", again, sdk="2.70.0.270801000000"), devices=["sa8295p"])
    second = load_profile("sa8295p").at("fp16")
    assert first.drift is not None
    assert second.drift is not None
    assert second.drift.since == first.drift.since == "QAIRT 2.50.0"
    assert {*second.timings_ms, *second.former_timings_ms} == {*first.timings_ms, *first.former_timings_ms}


def test_a_batch_moves_as_one_network_does(tmp_path: Path) -> None:
    from nas.devices.predictor import load_predictor
    from nas.graphs import workloads

    api.update_devices(perf_folder(tmp_path / "first"), devices=["sa8295p"])
    profile = load_profile("sa8295p")
    predictor, graph = load_predictor(profile, "fp16"), workloads.load("resnet34")
    one, many = predictor.estimate(graph, profile, "fp16"), predictor.estimate_batch([[("", graph)]], profile, "fp16")
    assert [many.lower_ms[0], many.latency_ms[0], many.upper_ms[0]] == pytest.approx([one.lower_ms, one.latency_ms, one.upper_ms])


@pytest.mark.parametrize("factor", [0.7, 1.5, 2.0])
def test_a_shift_that_all_networks_agree_on_is_followed(factor: float) -> None:
    before = [1.3, 2.1, 3.6, 5.0, 9.0]
    drift = drift_of(before, [factor * ms for ms in before], "QAIRT 2.50.0")
    assert (drift.factor, drift.start_ms) == (pytest.approx(factor, rel=0.01), pytest.approx(0, abs=0.02))


def test_an_interval_is_as_wide_as_the_networks_disagree() -> None:
    before = [1.3, 2.1, 3.6, 5.0, 9.0]
    assert drift_of(before, [1.3, 2.4, 3.2, 5.9, 8.0], "").halfwidth_pct > 30
    with pytest.raises(ValueError, match="contradict each other, got 1 to 9 times"):
        drift_of(before[:4], [1.3, 14.7, 14.4, 45.0], "")


def test_a_table_of_few_networks_takes_nothing_away_and_a_later_one_is_fitted_to_all(tmp_path: Path) -> None:
    shipped = load_profile("sa8295p").at("fp16")
    result = api.update_devices(perf_folder(tmp_path / "two", {"resnet18": 2.0, "resnet50": 3.4}), devices=["sa8295p"])
    updated = load_profile("sa8295p").at("fp16")
    assert result.moved[0].factor == 1.0
    assert updated.timings_ms == {"resnet18": 2.0, "resnet50": 3.4}
    assert updated.former_timings_ms == shipped.timings_ms
    assert updated.notes == shipped.notes
    old = api.predict("googlenet", "sa8295p")
    assert (old.basis, old.latency_ms) == ("estimated", shipped.timings_ms["googlenet"])
    assert any("a timing of 1.668 ms carried over from QAIRT 2.50.0 to QAIRT 2.60.0" in line for line in old.notices)
    rest = {name: ms for name, ms in LATENCIES.items() if name not in updated.timings_ms}
    (moved,) = api.update_devices(perf_folder(tmp_path / "rest", rest), devices=["sa8295p"]).moved
    assert (moved.n, moved.carried) == (len(LATENCIES), len(shipped.timings_ms) - len(LATENCIES))
    assert moved.start_ms < -0.05


def test_an_older_build_of_an_sdk_and_the_same_table_change_nothing(tmp_path: Path, own_home: Path) -> None:
    api.update_devices(perf_folder(tmp_path / "new"))
    before = {path: path.read_bytes() for path in own_home.rglob("*.toml")}
    older = {name: 1.1 * ms for name, ms in LATENCIES.items()}
    for folder in (perf_folder(tmp_path / "older", older, sdk="2.60.0.270101000000"), tmp_path / "new"):
        with pytest.raises(DataError, match="nothing to update"):
            api.update_devices(folder)
    assert {path: path.read_bytes() for path in own_home.rglob("*.toml")} == before


def test_a_shipped_profile_that_is_newer_goes_before_an_updated_one(tmp_path: Path) -> None:
    api.update_devices(perf_folder(tmp_path / "new"), devices=["sa8295p"])
    own = find_profile("sa8295p")
    assert own.parent == updates_home()
    own.write_text(own.read_text().replace("QAIRT 2.60.0", "QAIRT 2.10.0").replace("QAIRT 2.50.0", "QAIRT 2.10.0"))
    assert find_profile("sa8295p").parent != updates_home()
    (line,) = [line for line in remarks(load_profile("sa8295p")) if "is newer than its update" in line]
    assert str(own) in line
    assert superseded_updates() == {"sa8295p": own}


def test_two_releases_and_files_of_others_are_refused(tmp_path: Path) -> None:
    perf_folder(tmp_path / "both" / "0.65.0")
    perf_folder(tmp_path / "both" / "0.66.0")
    with pytest.raises(DataError, match="two tables of"):
        api.update_devices(tmp_path / "both")
    good, room = perf_folder(tmp_path / "good"), tmp_path / "room"
    room.mkdir()
    (room / "sa8295p.toml").write_text("mine")
    with pytest.raises(UsageError, match="no update made the file"):
        api.update_devices(good, devices=["sa8295p"], to=room)
    assert (room / "sa8295p.toml").read_text() == "mine"
    with pytest.raises(UsageError, match="not a folder"):
        api.update_devices(good, to=room / "sa8295p.toml")


def test_nothing_is_put_in_place_before_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(device_folder.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        device_folder.write_whole(tmp_path, {"a.toml": b"a", "b.toml": b"b"})
    assert list(tmp_path.iterdir()) == []


def test_who_was_cut_off_between_two_files_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = device_folder.os.replace, []

    def cut_off(source: Path, target: Path) -> None:
        calls.append(target)
        if target.name == "b.toml":
            raise KeyboardInterrupt
        real(source, target)

    (tmp_path / "b.toml").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(device_folder.os, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            device_folder.write_whole(tmp_path, {"a.toml": b"new", "b.toml": b"new"})
    assert ((tmp_path / "a.toml").read_bytes(), (tmp_path / "b.toml").read_bytes()) == (b"new", b"old")
    device_folder.write_whole(tmp_path, {"c.toml": b"new"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(("a.toml", "b.toml", "c.toml"), b"new")
    assert "was cut off while it was written; finished: a.toml, b.toml" in caplog.text


@pytest.mark.parametrize("text", ["{", '{"x": "../out.toml"}'])
def test_a_list_that_nobody_here_wrote_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / ".0.files.json").write_text(text)
    with pytest.raises(NasError, match="Do this: remove it"):
        device_folder.write_whole(tmp_path, {"a.toml": b"a"})
    assert not (tmp_path / "a.toml").exists()


def test_an_older_build_than_the_shipped_one_is_refused(tmp_path: Path) -> None:
    shipped = load_profile("sa8295p").at("fp16")
    assert (shipped.runtime_version, shipped.runtime_built) == ("QAIRT 2.50.0", "2026-08-28")
    with pytest.raises(DataError, match="older than the profiles of sa8295p"):
        api.update_devices(perf_folder(tmp_path / "p", sdk="2.50.0.260701000000"), devices=["sa8295p"])


def test_the_table_of_several_networks_says_what_was_carried_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from nas.report.predictions import print_predictions

    api.update_devices(perf_folder(tmp_path / "p"), devices=["sa8295p"])
    print_predictions([api.predict(name, "sa8295p") for name in ("resnet50", "resnet34")], breakdown=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "resnet34 on sa8295p: an estimate carried over from QAIRT 2.50.0 to QAIRT 2.60.0" in printed
    assert "resnet50 on sa8295p: a timing" not in printed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no wheel, or damaged"),
        (b"PK\x03\x04 cut off", "no wheel, or damaged"),
        ({"qai_hub_models/readme.txt": "nothing"}, "holds no table"),
        ({"m/models/resnet18/perf.yaml": "precisions: ["}, "the table of resnet18 is damaged"),
        ({"m/models/resnet18/perf.yaml": "precisions: {float: 3}"}, "the table of resnet18 is damaged"),
        ({"m/models/resnet18/perf.yaml": "precisions: {}"}, "no timing of a runtime"),
        ("nan", "the table of resnet18 is damaged"),
        ("true", "a latency must be a number of ms, got True"),
        ("1:30", "a latency must be a number of ms, got '1:30'"),
        ({"m/models/resnet18/perf.yaml": "a: &a [1]\nb: [*a, *a]"}, "anchors and aliases are refused"),
        ("huge", "those of sa8295p cannot be true"),
        ("seconds", "Expected milliseconds of the same board"),
        ("older", "older than the profiles"),
        ("strange", "no timing is of a device"),
    ],
)
def test_a_bad_table_leaves_all_as_it_was(tmp_path: Path, own_home: Path, content: bytes | str | dict[str, str], said: str) -> None:
    import zipfile

    from tests.published import perf_yaml

    api.update_devices(perf_folder(tmp_path / "good"))
    before = {path: path.read_bytes() for path in own_home.rglob("*.toml")}
    assert before
    file = tmp_path / "bad.whl"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        made = {
            "nan": perf_yaml("resnet18", float("nan")).replace("nan", ".nan"),
            **{odd: perf_yaml("resnet18", 7.5).replace("7.5", odd) for odd in ("true", "1:30")},
            "huge": perf_yaml("resnet18", 1e30),
            "older": perf_yaml("resnet18", 2.0, "2.30.0.240101000000"),
            "strange": perf_yaml("resnet18", 2.0, devices=("Toaster",)),
        }
        with zipfile.ZipFile(file, "w") as archive:
            made |= {f"s/models/{name}/perf.yaml": perf_yaml(name, ms / 1000) for name, ms in LATENCIES.items()}
            named = {name: made[name] for name in made if name.startswith("s/")} if content == "seconds" else {}
            named |= content if isinstance(content, dict) else {} if named else {"m/models/resnet18/perf.yaml": made[content]}
            for name, text in named.items():
                archive.writestr(name, text)
    with pytest.raises(DataError, match=said) as raised:
        api.update_devices(file)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in own_home.rglob("*.toml")} == before


def test_a_folder_without_tables_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no table"):
        api.update_devices(tmp_path)
    with pytest.raises(UsageError, match="no such file or folder"):
        api.update_devices(tmp_path / "none")
    with pytest.raises(UsageError, match="of another source"):
        api.update_devices(perf_folder(tmp_path / "p"), devices=["rtx-4090"])


def test_layers_off_the_npu_are_no_timing_of_it(tmp_path: Path) -> None:
    from tests.published import perf_yaml

    room = tmp_path / "models" / "resnet18"
    room.mkdir(parents=True)
    (room / "perf.yaml").write_text(perf_yaml("resnet18", 2.0, layers=20))
    with pytest.raises(NasError, match="nothing to update"):
        api.update_devices(tmp_path)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="needs ../shared/data/aihub_wheel_sample.whl")
def test_the_published_format() -> None:
    result = api.update_devices(SAMPLE)
    by = {(row.device, row.precision): row for row in result.moved}
    assert all(any(network.change_pct != 0 for network in row.networks) for row in result.moved)
    for own in (by[device, "fp16"] for device in ("sa8295p", "sa8295p-tflite") if (device, "fp16") in by):
        # the shipped profiles are of the same table: networks that these do not have, and no other
        assert {network.change_pct for network in own.networks} <= {0, None}
        assert (own.factor, own.halfwidth_pct) == (1.0, None)
