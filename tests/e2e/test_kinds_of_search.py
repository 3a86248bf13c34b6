"""Two kinds of search share a time limit, on files of weights and pictures that the test makes: whichever wins becomes the run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from nas.events import Event, EventBus, PhaseAdvanced
from nas.runs.directory import RunDirectory
from nas.runs.lifecycle import resume
from nas.spaces.pretrained.libraries import build_published
from nas.spaces.pretrained.origins import Origin
from tests.e2e.conftest import Result

NETWORK = "mobileone_s0"


class Killed(BaseException):
    """Ends a run as a kill does: nothing that the run would do at the end is done."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of weights and a folder of pictures of three colours."""
    found, rng = tmp_path_factory.mktemp("contest"), np.random.default_rng(0)
    (found / "weights").mkdir()
    save_file(build_published(NETWORK).state_dict(), found / "weights" / f"{NETWORK}.safetensors")
    for split, count in (("train", 15), ("test", 4)):
        for name, colour in (("amber", (200, 140, 40)), ("blue", (40, 60, 200)), ("grey", (120, 120, 120))):
            (found / "photos" / split / name).mkdir(parents=True)
            for j in range(count):
                pixels = np.clip(np.array(colour) + rng.normal(0, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(found / "photos" / split / name / f"{j}.png")
    return found


@pytest.fixture(autouse=True)
def _shared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make both kinds worth trying, keep no time for a large test, and let nothing that is installed here play a part."""
    monkeypatch.setenv("NAS_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setattr("nas.spaces.pretrained.at_hand.PACKAGES", {})
    origin = Origin(folder / "weights" / f"{NETWORK}.safetensors", "timm cache")
    monkeypatch.setattr("nas.spaces.pretrained.origins._cached", lambda name: iter([origin] if name.partition(".")[0] == NETWORK else ()))
    monkeypatch.setattr("nas.runs.default_space.WORTH", {"hybrid": (0, 0)})
    for name in ("nas.runs.transfer_times._EXPORT_S", "nas.runs.delivery.EXPORT_S"):
        monkeypatch.setattr(name, 0.0)


@pytest.mark.slow
def test_the_winner_becomes_the_run(nas: Callable[..., Result], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nas as product
    from nas.runs.contest import try_published, try_study
    from nas.training.supernet.finetune import finetune

    trained: list[bool] = []
    finetune_as = "nas.training.supernet.finetune.finetune"
    monkeypatch.setattr(finetune_as, lambda *args, **named: trained.append(named["keep_start"]) or finetune(*args, **named))
    monkeypatch.setattr("nas.runs.contest.try_published", lambda *args: (np.zeros(9, bool), try_published(*args)[1]))
    monkeypatch.setattr("nas.runs.contest.try_study", lambda *args: (np.ones(9, bool), try_study(*args)[1]))
    winner = "hybrid"
    run, options = tmp_path / "run", {"data": folder / "photos", "resolution": 64, "time_limit": "8s"}

    def kill(event: Event) -> None:
        if isinstance(event, PhaseAdvanced) and event.phase == "search" and (run / "kinds" / "hybrid" / "study.journal").exists():
            raise Killed

    with pytest.raises(Killed):
        product.search("sa8295p", "5ms", out=run, bus=EventBus([kill]), **options)
    before = json.loads((run / "contest.json").read_text())
    assert list(before["standings"]) == ["zoo/0"]
    found = resume(run, EventBus())
    after = json.loads((run / "contest.json").read_text())
    assert after["standings"]["zoo/0"] == before["standings"]["zoo/0"]
    assert after["winner"] == winner
    assert {row.kind for row in found.contenders} == {"zoo", "hybrid"}
    [chosen] = [row for row in found.contenders if row.accuracy_pct is not None]
    assert chosen.kind == winner
    assert trained == [False, True]  # the trial from nothing, the run from where that ended
    assert chosen.key == found.chosen.key
    assert chosen.accuracy_pct == found.chosen.accuracy_pct
    assert all(row.supernet_accuracy_pct is None for row in found.contenders if row.kind == "zoo")
    assert all(row.probe_accuracy_pct is None for row in found.contenders if row.kind == "hybrid")
    assert Path(found.model).is_file()
    assert any(text.startswith("kinds: ") for text in found.notices)
    assert found.ledger.limit_s == 8.0
    assert RunDirectory.open(run).manifest.request["space"] == winner
    assert not (run / "kinds" / winner / "manifest.json").exists()
    shown = nas("show", run)
    assert shown.code == 0
    assert "Networks of every kind that was tried on these pictures" in shown.out
    again = nas("export", run, "--to", tmp_path / "again.onnx")
    assert again.code == 0, again.err
