"""The contract of a recipe of supernet training, for each that is registered, and what each of them is for."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from nas.errors import ArtifactError, NasError, UsageError
from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space
from nas.spaces.space import Choice
from nas.training.dataset import Dataset, load_dataset
from nas.training.recipe import Moment, Seen, compose, recipes
from nas.training.recipes.data_importance import DataImportance
from nas.training.recipes.few_shot import FewShot, split_gene
from nas.training.recipes.path_importance import PathImportance
from nas.training.supernet.batches import Batches
from nas.training.supernet.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from nas.training.supernet.draws import fair_members
from nas.training.supernet.epoch import Begun
from nas.training.supernet.footprint import predicted_memory_bytes
from nas.training.supernet.train import Recipe, Training, load_supernet, train
from nas.training.supernet.weights import Supernet

SIDE = (16, 16)
TINY = Recipe(epochs=2, batch=16, learning_rate=1e-3, random_members=1)


class StoppedError(Exception):
    """A training is interrupted."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", images=80)


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return get_elastic_space("nasbench201-c8n2", num_classes=10)


def begun(space: ElasticSpace, data: Dataset, methods: Sequence[str]) -> Training:
    recipe = replace(TINY, methods=tuple(methods))
    plan = compose(methods)
    supernet = Supernet(space, 10, SIDE, seed=1, sharing=plan.sharing)
    return Training(supernet, Batches(data, "train", SIDE, torch.device("cpu")), recipe, 0, Accelerator(cpu=True), plan=plan)


def needed(name: str) -> tuple[str, ...]:
    return (name, "sandwich") if name in ("distillation", "ssld") else (name,)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_trains_and_goes_on_inside_an_epoch_to_the_same_bits(space: ElasticSpace, data: Dataset, name: str) -> None:
    whole, first, second = (begun(space, data, needed(name)) for _ in range(3))
    start = whole.supernet.flat.clone()
    numbers = [whole.epoch(epoch) for epoch in range(2)]
    assert all(np.isfinite(list(entry.values())).all() for entry in numbers)
    assert not torch.equal(whole.supernet.flat, start)

    first.epoch(0)
    stopped: list[Begun] = []

    def watch(at: Begun) -> None:
        if at.step == 2:
            stopped.append(at)
            raise StoppedError

    with pytest.raises(StoppedError):
        first.epoch(1, watch=watch)
    second.supernet.flat.copy_(first.supernet.flat)
    second.restore({key: tensor.clone() for key, tensor in first.state().items()})
    second.epoch(1, stopped[0])
    assert torch.equal(second.supernet.flat, whole.supernet.flat)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_says_where_it_is_from_and_what_it_decides(name: str) -> None:
    recipe = recipes.get(name)
    assert recipe.source.title
    assert recipe.source.reference
    assert recipe.aspect in ("members", "teaching", "pictures", "order", "sharing")
    assert (recipe.__doc__ or "").strip()


def test_recipes_of_every_aspect_go_together_and_a_file_has_all_that_they_keep(space: ElasticSpace, data: Dataset, tmp_path: Path) -> None:
    recipe = replace(TINY, methods=("path-importance", "data-importance", "few-shot", "low-resolution"))
    whole = train(space, data, tmp_path / "a", recipe, resolution=SIDE, seed=1, device="cpu")
    train(space, data, tmp_path / "b", recipe, resolution=SIDE, seed=1, device="cpu", stop_after=1)
    kept = read_checkpoint(tmp_path / "b", "supernet").tensors
    assert {"apart", "recipe/members/norms", "recipe/members/counts", "recipe/order/norms", "recipe/order/probabilities"} <= kept.keys()
    with pytest.raises(ArtifactError, match="unfinished"):
        load_supernet(tmp_path / "b", space)
    gone_on = train(space, data, tmp_path / "b", recipe, resolution=SIDE, seed=1, device="cpu")
    assert torch.equal(gone_on.supernet.flat, whole.supernet.flat)
    found = load_supernet(tmp_path / "a", space)
    assert torch.equal(found.flat, whole.supernet.flat)
    member = space.sample(np.random.default_rng(3))
    x = torch.randn(4, 3, *SIDE)
    torch.testing.assert_close(found.path(member)(x), whole.supernet.path(member)(x))
    write_checkpoint(tmp_path / "b", _without(read_checkpoint(tmp_path / "a", "supernet"), "sandwhich"))
    with pytest.raises(ArtifactError, match="trained by a recipe that is not here"):
        load_supernet(tmp_path / "b", space)


def _without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    identity = dict(checkpoint.identity) | {"recipe": {"methods": [name]}}
    return Checkpoint(checkpoint.kind, identity, checkpoint.progress, checkpoint.tensors)


def moment(space: ElasticSpace, step: int, steps: int = 100) -> Moment:
    return Moment(space, step, steps, 3, 2, partial(fair_members, space, 3), lambda member: float(space.lower(member).cost.params))


def test_settings_with_steeper_losses_are_drawn_more_often(space: ElasticSpace) -> None:
    recipe = PathImportance()
    recipe.begin(space, 16)
    settings = len(space.choices[0].values)
    assert recipe.probabilities(0, settings, 1.0) == pytest.approx(1 / settings)
    members = [space.sample(np.random.default_rng(i)) for i in range(200)]
    steep = space.choices[0].values[1]
    for member in members:
        recipe.watch(Seen([member], torch.tensor([4.0 if member.genes[0] == steep else 1.0]), torch.arange(2), torch.ones(2), False))
    late, early = recipe.probabilities(0, settings, 1.0), recipe.probabilities(0, settings, 0.0)
    assert early == pytest.approx(1 / settings)
    assert late[1] == pytest.approx(0.5 / settings + 0.5 * 4 / (4 + settings - 1))
    assert late.sum() == pytest.approx(1)
    assert recipe.probabilities(1, settings, 1.0) == pytest.approx(1 / settings, rel=0.4)
    drawn = [recipe.members(moment(space, step, 10**6 + 1))[0].genes[0] for step in range(10**6 - 400, 10**6)]
    assert np.mean([gene == steep for gene in drawn]) == pytest.approx(late[1], abs=0.07)


def test_pictures_that_are_answered_wrong_are_drawn_more_often_and_count_less() -> None:
    recipe = DataImportance()
    recipe.begin(get_elastic_space("nasbench201-c8n2"), 1000)
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert recipe.order(shuffled, 0, 0) is shuffled
    residuals = torch.where(torch.arange(1000) < 500, 1.0, 0.0)
    recipe.watch(Seen([], torch.ones(0), torch.arange(1000), residuals, False))
    assert recipe.order(shuffled, 0, 0) is shuffled  # until the epoch is over
    recipe.watch(Seen([], torch.ones(0), torch.arange(1000), residuals, True))
    drawn = torch.cat([recipe.order(shuffled, 0, epoch) for epoch in range(20)])
    assert float((drawn < 500).float().mean()) == pytest.approx(0.75, abs=0.02)
    weights = recipe.weights(drawn)
    assert float(weights.max()) == pytest.approx(2)
    assert float(weights.mean()) == pytest.approx(1, abs=0.02)  # the mean of anything is that of all pictures alike
    assert float((weights * (drawn < 500)).mean()) == pytest.approx(0.5, abs=0.02)


def test_members_of_one_setting_share_and_no_others(space: ElasticSpace, data: Dataset) -> None:
    training = begun(space, data, ("few-shot", "single-path"))
    supernet, recipe = training.supernet, FewShot()
    gene = split_gene(space)
    assert gene is not None
    assert recipe.copies(space) == supernet.copies == len(space.choices[gene].values) == 5
    assert not supernet.apart
    training.epoch(0)
    supernet.apart = True
    rows = supernet.flat[: supernet.decayed].view(5, -1)
    weights = training.optimizer.param_groups[0]["weight_decay"]
    assert weights > 0
    assert not any(torch.equal(rows[0], row) for row in rows[1:])  # the first alone has trained
    supernet.apart = False
    training.part()
    assert supernet.apart
    assert all(torch.equal(rows[0], row) for row in rows[1:])
    moments = training.optimizer.state_dict()["state"][0]["exp_avg"].view(5, -1)
    assert float(moments.abs().max()) > 0
    assert all(torch.equal(moments[0], row) for row in moments[1:])
    alike = [
        space.architecture([*space.extreme(False).genes[:gene], value, *space.extreme(False).genes[gene + 1 :]])
        for value in space.choices[gene].values
    ]
    assert [recipe.copy_of(space, member) for member in alike] == [0, 1, 2, 3, 4]
    one = alike[2]
    before = supernet.flat.clone()
    path = supernet.path(one, gradients=True).train()
    supernet.gradient.zero_()
    path(torch.randn(4, 3, *SIDE)).sum().backward()
    path.add_gradients()
    touched = supernet.gradient[: supernet.decayed].view(5, -1).abs().sum(1) > 0
    assert touched.tolist() == [False, False, True, False, False]
    assert torch.equal(before, supernet.flat)
    fewer = predicted_memory_bytes(space, 10, 16, SIDE)
    assert predicted_memory_bytes(space, 10, 16, SIDE, copies=5) > fewer


def test_neighbouring_settings_share_a_copy_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    space = get_elastic_space("hybrid-s")
    gene = split_gene(space)
    assert gene is not None
    assert not space.choices[gene].ordered
    member = space.extreme(False)
    many = [*space.choices]
    many[gene] = Choice(many[gene].name, tuple("abcdefgh"))
    monkeypatch.setattr(space, "choices", tuple(many))
    recipe, genes = FewShot(), list(member.genes)
    copies = []
    for value in "abcdefgh":
        genes[gene] = value
        copies.append(recipe.copy_of(space, replace(member, genes=tuple(genes))))
    assert copies == [0, 0, 1, 1, 2, 3, 3, 4]


def test_a_supernet_of_another_recipe_is_refused(space: ElasticSpace, data: Dataset) -> None:
    batches, recipe = Batches(data, "train", SIDE, torch.device("cpu")), replace(TINY, methods=("few-shot",))
    with pytest.raises(NasError, match="has 1 copies of its weights"):
        Training(Supernet(space, 10, SIDE), batches, recipe, 0, Accelerator(cpu=True))


def test_a_chain_has_one_set_of_weights(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nas.training.supernet.train as module

    space = get_elastic_space("nasbench201-c8n2")
    monkeypatch.setattr(module, "ChainSpace", type(space))
    with pytest.raises(UsageError, match="a chain has the weights of its anchors"):
        train(space, data, tmp_path / "a", replace(TINY, methods=("few-shot",)), resolution=SIDE, device="cpu")
