"""Profiles beside each other: a stand-in names the real chip, an old profile says so; a wide interval says why and what to time."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas import api
from nas.devices.alike import networks_alike, shares_of
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.devices.trust import model_error
from nas.devices.twins import remarks
from nas.graphs import workloads

PROFILE = """title = "{title}"
kind = "npu"
runtime = "x"
default_precision = "fp16"
{head}
[origin]
title = "a bench"
retrieved = "{until}"
[precisions.fp16.timings_ms]
a = {a}
b = {b}
c = {c}
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAS_CONFIG_HOME", str(tmp_path))
    (tmp_path / "devices").mkdir()
    return tmp_path / "devices"


def write(room: Path, name: str, *, head: str = "", until: str = "2026-10-21", factor: float = 1.0) -> None:
    text = PROFILE.format(title=name, head=head, until=until, a=factor, b=2 * factor, c=5 * factor)
    (room / f"{name}.toml").write_text(text, encoding="utf-8")


def test_a_stand_in_and_the_real_chip_say_that_they_differ(room: Path) -> None:
    write(room, "chip9", factor=1.37)
    write(room, "phone", head='proxy = "CHIP9, by a phone"')
    write(room, "twin", head='proxy = "CHIP9, by another"', factor=1.36)
    assert remarks(load_profile("phone")) == (
        "of the same chip the real one, chip9, takes 1.37 times as long at fp16 (median of 3 networks). Do this: --device chip9",
    )
    assert remarks(load_profile("chip9")) == (
        "of the same chip phone, a stand-in, takes 0.73 times as long at fp16 (median of 3 networks)",
    )
    assert remarks(load_profile("twin")) == ()


def test_a_profile_older_than_its_sources_newest_data_says_so(room: Path) -> None:
    write(room, "old", until="2026-05-01")
    write(room, "new")
    assert remarks(load_profile("new")) == ()
    assert len(found := remarks(load_profile("old"))) == 1
    assert found[0].startswith(
        "older than the newest data: its timings end on 2026-05-01, those of other devices of this source on 2026-10-21"
    )


def test_an_error_says_on_what_it_was_found() -> None:
    figures = {"networks": 86, "families": 22, "mean_error_pct": 16.7, "median_error_pct": 12.3, "above_upper_pct": 5.0}
    later = {"networks": 17, "mean_error_pct": 20.5, "median_error_pct": 17.2}
    found = model_error(figures, later)
    assert found is not None
    assert found.line == (
        "the latency model is off by 16.7 % in the mean (median 12.3 %) on 86 networks of 22 lineages, each lineage left out; "
        "by 20.5 % in the mean (median 17.2 %) on 17 networks that were first timed later; 5 % take longer than the upper end"
    )
    alone = model_error({**figures, "families": None})
    assert alone is not None
    assert "each left out alone (kinds of network that nobody has timed err more)" in alone.line
    assert model_error(None) is None


def test_a_wide_interval_says_why_and_what_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "names", lambda: ("resnet18", "resnet34", "vgg16", "mobilenetv2_100"))
    found = api.predict("resnet34", "jetson-agx-orin")
    assert found.upper_ms > 9 * found.lower_ms
    assert "no network was timed on this device; its facts are as others report them" in found.width_why
    assert " Do this: time " in found.width_why
    assert api.predict("resnet34", "sa8295p").width_why == ""


def test_networks_alike_are_untimed_and_spend_their_time_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("vit_small_patch16_224", "deit_small_patch16_224", "vgg16", "mobilenetv2_100")
    monkeypatch.setattr(workloads, "names", lambda: names)
    profile = load_profile("sa8295p")
    predictor = load_predictor(profile)
    graph = workloads.load("vit_tiny_patch16_224")
    shares = shares_of(predictor.estimate(graph, profile, "fp16").operators)
    assert sum(shares.values()) == pytest.approx(1)
    first, *others = networks_alike(shares, graph.cost.macs, predictor, profile, "fp16")
    assert first in ("vit_small_patch16_224", "deit_small_patch16_224")
    assert "mobilenetv2_100" not in (first, *others)  # it is timed
