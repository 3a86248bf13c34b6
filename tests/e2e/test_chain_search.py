"""A search that starts from two networks of the user's: every phase, on a handful of pictures."""

import json
import re
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from tests.e2e.conftest import Result
from tests.e2e.test_design import write_pictures
from tests.unit.test_chain_space import NETWORKS


@pytest.mark.slow
def test_two_anchors_become_one_file(nas: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    from nas.results import Fronts
    from nas.runs import trained_search

    monkeypatch.setattr(trained_search, "published_front", lambda _problem: Fronts(front=()))
    (tmp_path / "mine.py").write_text(NETWORKS)
    anchors = [word for name in ("small", "large") for word in ("--anchor", f"{tmp_path / 'mine.py'}:{name}")]
    words = ["search", "--space", "chain", *anchors, "--device", "sa8295p", "--budget", "5ms", "--data", write_pictures(tmp_path / "data")]
    words += ["--resolution", "32", "--evals", "6", "--searcher", "random", "--finetune-epochs", "1", "--out", tmp_path / "run"]
    result = nas(*words, "--format", "json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["status"] == "finished"
    assert found["chosen"]["architecture"]["space"].startswith("chain-")
    assert "small" in found["chosen"]["chain"] or "large" in found["chosen"]["chain"]
    assert found["chosen"]["accuracy_pct"] is not None
    assert "beside the anchors that are within the budgets" in found["why"]
    assert {"small 0–5 at 32 px", "large 0–6 at 32 px"} <= set(re.findall(r"(?:small|large) 0–\d at 32 px", found["why"]))
    sizes = [prod(weight.dims) for weight in onnx.load(found["model"]).graph.initializer if weight.data_type == onnx.TensorProto.FLOAT]
    assert sum(sizes) == pytest.approx(found["chosen"]["params"], rel=0.01)  # nothing of what is not run; constants of resizing beside
    assert (tmp_path / "run" / "chain.png").read_bytes().startswith(b"\x89PNG")
    for name in ("results.json", "export.json", "decision.json"):  # as if it had been killed after the search
        (tmp_path / "run" / name).unlink()
    again = nas("resume", tmp_path / "run", "--format", "json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["chosen"] == found["chosen"]
    assert found["chosen"]["chain"] in nas("show", tmp_path / "run").out.replace("\n", " ")


@pytest.mark.slow
def test_pairs_are_chosen_by_what_both_networks_make_of_the_pictures(
    nas: Callable[..., Result], refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.results import Fronts
    from nas.runs import trained_search
    from nas.runs.directory import RunDirectory

    monkeypatch.setattr(trained_search, "published_front", lambda _problem: Fronts(front=()))
    (tmp_path / "mine.py").write_text(NETWORKS)
    one, other = (("--anchor", f"{tmp_path / 'mine.py'}:{name}") for name in ("small", "large"))
    words = ["search", "--space", "chain", "--device", "sa8295p", "--budget", "5ms", "--data", write_pictures(tmp_path / "data")]
    words += ["--resolution", "32", "--evals", "3", "--searcher", "random", "--finetune-epochs", "1", "--edits", "out", *one]
    assert "--pairs has no effect" in refused(*words, "--pairs", "similar")
    assert "Did you mean 'small:0>large:" in refused(*words, *other, "--pairs", "small:0>large")
    assert "aligned, all, near, none, similar, window" in refused(*words, *other, "--pairs", "xyz")
    result = nas(*words, *other, "--pairs", "similar", "--out", tmp_path / "run", "--format", "json")
    assert result.code == 0, result.err
    assert "training pictures" in result.err
    pairs = RunDirectory.open(tmp_path / "run").manifest.request["pairs"]
    assert len(pairs) > 3
    assert all(">" in pair for pair in pairs), "kept by name, so that nothing is chosen anew elsewhere"
    chosen = json.loads(result.out)["chosen"]["architecture"]
    assert ":pairs=all" in chosen["space"]
    named = nas("predict", tmp_path / "run" / "architecture.json", "--device", "sa8295p", "--format", "json")
    assert named.code == 0, named.err


def test_anchors_without_their_space_are_refused(refused: Callable[..., str]) -> None:
    assert "--anchor has no effect" in refused("search", "--device", "sa8295p", "--budget", "5ms", "--anchor", "mobilenetv2_100")
    assert "--anchor" in refused("search", "--device", "sa8295p", "--budget", "5ms", "--space", "chain")
