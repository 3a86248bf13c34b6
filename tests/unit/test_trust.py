"""Grades follow held-out errors, families and coverage, and an interval is not called wider than it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.devices.names import profile_files, slug
from nas.devices.predictor import load_predictor
from nas.devices.profile import Profile, load_profile, read_profile
from nas.devices.trust import grade_of, stated_confidence
from nas.graphs import workloads


@pytest.mark.parametrize(
    ("error", "families", "coverage", "grade"),
    [
        (9.9, 12, 91.0, "A"),
        (10.1, 12, 91.0, "B"),
        (20.1, 12, 91.0, "C"),
        (35.1, 12, 91.0, "D"),
        (9.9, 4, 91.0, "C"),
        (9.9, None, 91.0, "C"),
        (9.9, 12, 84.9, "C"),
        (36.0, 4, 91.0, "D"),
        (None, None, None, "D"),
    ],
)
def test_grades(error: float | None, families: int | None, coverage: float | None, grade: str) -> None:
    assert grade_of(fitted=True, mean_error_pct=error, families=families, coverage_pct=coverage) == grade
    assert grade_of(fitted=False, mean_error_pct=error, families=families, coverage_pct=coverage) == "D"


def test_an_interval_that_covered_too_little_loses_its_confidence() -> None:
    assert stated_confidence(0.9, 90.0) == stated_confidence(0.9, 85.0) == stated_confidence(0.9, None) == 0.9
    assert stated_confidence(0.9, 72.0) == pytest.approx(0.72)


def test_a_fit_that_was_not_checked_has_grade_d() -> None:
    placed = [at for name in profile_files() for at in load_profile(name).precisions.values()]
    assert len(placed) > 200
    assert {at.grade for at in placed if at.held_out is None} == {"D"}
    assert all(at.held_out is not None for at in placed if at.predictor not in ("", "roofline"))


def test_a_profile_without_a_model_has_grade_d() -> None:
    assert load_profile("rk1808").at(None).grade == "D"


def test_what_people_type_names_one_device() -> None:
    owner: dict[str, str] = {}
    for name in profile_files():
        for alias in load_profile(name).aliases:
            assert owner.setdefault(slug(alias), name) == name, alias
            assert slug(alias) not in profile_files() or slug(alias) == name, alias
    for typed, device in (("rpi5", "ncnn-raspberry-pi-5"), ("orin-nano", "jetson-orin-nano"), ("n6", "stm32n6"), ("x5", "rdk-x5")):
        assert load_profile(typed).name.startswith(device)


def test_facts_alone_predict_and_say_so(tmp_path: Path) -> None:
    file = tmp_path / "board.toml"
    file.write_text(
        'title = "Board"\nkind = "npu"\nruntime = "x"\ndefault_precision = "w8a8"\n[origin]\ntitle = "data sheet"\n'
        "[precisions.w8a8]\npeak_gmacs = 1000\nbandwidth_gb_s = 10\n"
    )
    profile = read_profile(file)
    found = load_predictor(profile).estimate(workloads.load("resnet50"), profile, "w8a8")
    assert 4.1 / 1000 * 1e3 < found.latency_ms < 1000
    assert found.upper_ms > 2 * found.latency_ms
    assert found.extrapolated
    assert profile.at(None).grade == "D"


def test_facts_that_no_page_of_the_maker_was_read_for_say_so() -> None:
    graph = workloads.load("resnet18")
    for device, doubt in (("imx8mp", "as others report them"), ("genio-700", "unverified")):
        profile = load_profile(device)
        estimate = load_predictor(profile).estimate(graph, profile, profile.default_precision)
        assert doubt in estimate.extrapolated[1]
        data = profile.model_dump()
        data["precisions"]["w8a8"]["facts"] = "verified"
        known = Profile.model_validate(data)
        assert len(load_predictor(profile).estimate(graph, known, "w8a8").extrapolated) == 1
