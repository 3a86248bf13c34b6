"""Every registered evaluator against the contract, on a small space that it can score."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from nas.errors import UsageError
from nas.spaces.naming import get_elastic_space, get_space
from nas.spaces.pretrained.libraries import build_published
from nas.testing import evaluators as suite
from nas.training.dataset import load_dataset
from nas.training.evaluator import Assignment, evaluators
from nas.training.supernet.weights import Supernet


def assignment(name: str, folder: Path) -> Assignment:
    """Return what an evaluator needs, as small as can be."""
    needs = evaluators.get(name).needs
    if name == "probe":
        save_file(build_published("mobileone_s0").state_dict(), folder / "mobileone_s0.safetensors")
        return Assignment(
            get_space("zoo-of-mobileone_s0", num_classes=10, weights_dir=folder, resolution=(64, 64)),
            dataset=load_dataset("digits", images=80),
        )
    if "supernet" in needs:
        space = get_elastic_space("vit-n", num_classes=10)
        return Assignment(
            space,
            precision="w8a8" if name == "quantised" else "fp32",
            dataset=load_dataset("digits", images=80),
            supernet=Supernet(space, 10, (16, 16)),
        )
    if "table" in needs:
        space = get_space("nasbench201")
        members = [space.sample(np.random.default_rng(i)) for i in range(4)]
        path = folder / "table.npz"
        np.savez(path, arch=[space.write(m) for m in members], columns=["a", "b"], accuracy=np.arange(8.0).reshape(4, 2))  # type: ignore[attr-defined]
        return Assignment(space, table=path, column="b")
    if "data" in needs:
        space = get_elastic_space("vit-n", num_classes=10)
        return Assignment(space, dataset=load_dataset("digits", images=80))
    return Assignment(get_space("zoo" if evaluators.get(name).surveys else "vit-n"))


@pytest.mark.parametrize("name", evaluators.names())
def test_contract(name: str, tmp_path: Path) -> None:
    kind, task = evaluators.get(name), assignment(name, tmp_path)
    evaluator = kind.make(task)
    if task.table is not None:
        members = [task.space.parse(row) for row in np.load(task.table)["arch"]]
    else:
        rng = np.random.default_rng(0)
        members = [task.space.sample(rng) for _ in range(2)]
    suite.check_scores(evaluator, members)
    suite.check_key(kind, task)
    suite.check_pictures(evaluator, members)
    suite.check_module(evaluator, members[0], (64, 64) if name == "probe" else (16, 16))


@pytest.mark.parametrize("name", evaluators.names())
def test_what_it_needs_is_asked_for(name: str) -> None:
    """Without what it needs it says which option gives it."""
    if needs := evaluators.get(name).needs:
        with pytest.raises(UsageError, match=r"--data|--table"):
            evaluators.get(name).make(Assignment(get_space("zoo")))
        assert needs <= {"data", "supernet", "table"}
