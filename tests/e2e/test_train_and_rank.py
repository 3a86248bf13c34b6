"""`nas train` and `nas rank` from the command line, on a few digits."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.training.supernet.checkpoint import read_checkpoint
from tests.e2e.conftest import Result
from tests.e2e.test_design import write_pictures

ROOT = Path(__file__).parents[2]
FEW = ["--data", "digits", "--images", "80", "--batch", "32"]
SMALL = ["--space", "hybrid-xs"]
"""What is trained; the default is a space four times as large."""


@pytest.mark.slow
def test_train_then_rank(nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.results import Fronts
    from nas.runs import trained_search

    monkeypatch.setattr(trained_search, "published_front", lambda _problem: Fronts(front=()))

    def answer(*words: object) -> Any:
        result = nas(*words, "--format", "json")
        assert result.code == 0, result.err
        return json.loads(result.out)

    weights = tmp_path / "w.safetensors"
    told = answer("train", *FEW, *SMALL, "--epochs", "1", "--out", weights)
    assert (told["kind"], told["space"], told["resolution"]) == ("supernet", "hybrid-xs", [32, 32])
    assert set(told["validation_accuracy_pct"]) == {"smallest", "largest"}
    words = ["rank", "--supernet", weights, *SMALL, *FEW[:4], "--n", "3", "--epochs", "1", "--out", tmp_path / "rank"]
    found = answer(*words)
    assert found["n"] == len(found["networks"]) == 3
    assert set(found["scores"]) == {"supernet", "features"}
    assert set(found["baselines"]) == {"params", "macs", "vote"}
    assert json.loads((tmp_path / "rank" / "ranking.json").read_text()) == found
    assert answer(*words) == found
    other = "trained on other pictures or splits, got data"  # another seed draws test pictures that the weights have seen
    assert other in nas(*words[:-2], "--seed", "1", "--out", tmp_path / "other").err
    searched = ("search", *SMALL, "--device", "sa8295p", "--budget", "5ms", "--data", "digits", "--supernet", weights)
    assert other in nas(*searched, "--seed", "1", "--out", tmp_path / "searched").err
    assert not (tmp_path / "searched").exists()
    again = answer(*words, "--ceiling", "3", "--device", "sa8295p")
    assert [n["accuracy_pct"] for n in again["networks"]] == [n["accuracy_pct"] for n in found["networks"]]
    assert again["ceiling"]["n"] == 3
    assert set(again["baselines"]) == {"params", "macs", "vote", "latency_ms/sa8295p"}
    architecture = tmp_path / "a.json"
    architecture.write_text(found["networks"][0]["architecture"])
    member = tmp_path / "m.safetensors"
    alone = answer("train", architecture, *FEW, "--resolution", "32", "--epochs", "1", "--out", member)
    assert alone["kind"] == "member"
    assert member.is_file()
    refused = nas("rank", "--supernet", member, *SMALL, *FEW[:4])
    assert refused.code == 1
    assert "foreign, got format 'nas-member'" in refused.err
    assert nas("rank", "--supernet", weights, *SMALL, *FEW[:4], "--n", "2").code == 2


@pytest.mark.slow
def test_a_report_says_how_far_its_scores_can_be_trusted(
    nas: Callable[..., Result], refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.results import Fronts
    from nas.runs import trained_search

    monkeypatch.setattr(trained_search, "published_front", lambda _problem: Fronts(front=()))
    run = tmp_path / "run"
    data = write_pictures(tmp_path / "data", levels=(118, 124))  # some candidates name more of them than others
    words = ["search", *SMALL, "--device", "sa8295p", "--budget", "5ms", "--data", data, "--out", run]
    assert nas(*words, "--searcher", "random", "--evals", "12", "--epochs", "1", "--finetune-epochs", "1", "--resolution", "32").code == 0
    found = json.loads((run / "results.json").read_text())
    assert set(found["counting"]) == {"params", "macs", "latency_ms/sa8295p"}
    page = (run / "report.html").read_text()
    assert f"multiply-adds {found['counting']['macs']:.2f}" in page
    assert "was not measured" in page
    assert "has no effect, since the run says it" in refused("rank", run, "--space", "hybrid-s")
    told = nas("rank", run, "--n", "5", "--epochs", "1", "--format", "json")
    assert told.code == 0, told.err
    ranking = json.loads(told.out)
    assert set(ranking["scores"]) == {"supernet", "features"}
    assert set(ranking["baselines"]) == {"params", "macs", "vote", "latency_ms/sa8295p"}
    assert json.loads((run / "rank" / "ranking.json").read_text()) == ranking
    page = (run / "report.html").read_text()
    assert "was not measured" not in page
    assert "vote of training-free scores" in page
    assert {network["key"] for network in ranking["predicted"]} == {point["key"] for point in found["front"]}
    for network in ranking["predicted"]:
        assert network["interval_pct"][0] <= network["accuracy_pct"] <= network["interval_pct"][1]
        assert "{:.1f}–{:.1f}".format(*network["interval_pct"]) in page
    assert f"{ranking['n']} networks of hybrid-xs; validation accuracy of networks trained alone, 1 epochs" in page
    assert json.loads((run / "results.json").read_text()) == found  # the answer itself is left alone
    (run / "results.json").unlink()
    assert "is not finished" in refused("rank", run, code=1)


KILLED = """
import os, signal, sys
from nas.training.supernet import epoch as written
write = written.write_checkpoint

def dying(path, checkpoint):
    if checkpoint.progress["epoch"] > int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, checkpoint)

written.write_checkpoint = dying
from nas.cli import main
main(sys.argv[2:])
"""
"""The command line, killed at the end of an epoch, before it is on disk; the epochs before are."""


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_weights(nas: Callable[..., Result], tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.safetensors", tmp_path / "torn.safetensors"
    words = ["train", *FEW, *SMALL, "--epochs", "3", "--out"]
    assert nas(*words, whole).code == 0
    for epoch in (1, 2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(epoch), *words, str(torn)], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert read_checkpoint(torn, "supernet").progress["epoch"] == epoch
    assert nas(*words, torn).code == 0
    a, b = (read_checkpoint(path, "supernet") for path in (whole, torn))
    assert a.progress == b.progress
    assert all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".whole")]
