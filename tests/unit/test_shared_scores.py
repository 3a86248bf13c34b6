"""What shared weights say of a member: the accuracy of a search, and a closed-form classifier on its features, held against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from nas.spaces.elastic import ElasticSpace
from nas.spaces.naming import get_elastic_space
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.supernet import SupernetEvaluator
from nas.training.supernet.batches import Batches
from nas.training.supernet.scores import classifier_of, ridge
from nas.training.supernet.weights import Supernet

SIDE = (32, 32)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset("digits", images=400)


@pytest.fixture(scope="module", params=["hybrid-s", "vit-n", "nasbench201-c8n2"])
def space(request: pytest.FixtureRequest) -> ElasticSpace:
    return get_elastic_space(request.param, num_classes=10)


def test_ridge_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (50, 6)), rng.normal(-1, 1, (50, 4))
    weight, bias = ridge(torch.from_numpy(x), torch.from_numpy(y), 0.1)
    known = Ridge(alpha=0.1 * 50 * float(np.mean(x.var(axis=0)))).fit(x, y)
    assert np.allclose(weight.numpy().T, known.coef_)
    assert np.allclose(bias.numpy(), known.intercept_)


def test_scores_are_those_of_the_member_itself(space: ElasticSpace, data: Dataset) -> None:
    supernet = Supernet(space, 10, SIDE, seed=1)
    evaluator, member = SupernetEvaluator(supernet, data), space.sample(np.random.default_rng(0))
    found = evaluator.scores(member)
    assert found.accuracy_pct == evaluator.evaluate(member).accuracy_pct
    path, scored = evaluator._path(member)
    assert classifier_of(path).weight.shape[0] == 10
    features, answers, labels = {}, {}, {}
    for split in ("train", "validation"):
        batches = Batches(data, split, scored.resolution, torch.device("cpu"))
        given: list[torch.Tensor] = []
        handle = classifier_of(path).register_forward_hook(lambda _layer, args, _out, given=given: given.append(args[0].flatten(1)))
        with torch.no_grad():
            answers[split] = torch.cat([path(x) for x, _ in batches.plain(64)]).numpy()
        handle.remove()
        features[split], labels[split] = torch.cat(given).numpy().astype(float), batches.labels.numpy()
    mean, spread = features["train"].mean(axis=0), features["train"].std(axis=0, ddof=1).clip(min=1e-6)
    x = {split: (values - mean) / spread for split, values in features.items()}
    model = Ridge(alpha=1e-2 * len(x["train"]) * x["train"].var(axis=0).mean()).fit(x["train"], np.eye(10)[labels["train"]])
    truth = np.eye(10)[labels["validation"]]
    error = ((model.predict(x["validation"]) - truth) ** 2).sum() / ((truth - truth.mean(axis=0)) ** 2).sum()
    assert found.explained == pytest.approx(1 - error, abs=1e-3)


def test_features_count_whatever_the_shared_classifier_is_worth(data: Dataset) -> None:
    space = get_elastic_space("nasbench201-c8n2", num_classes=10)
    supernet = Supernet(space, 10, SIDE, seed=1)
    evaluator, member = SupernetEvaluator(supernet, data), space.extreme(True)
    before = evaluator.scores(member)
    for tensor in (tensor for name, tensor in supernet.tensors.items() if tuple(tensor.shape)[:1] == (10,)):
        nn.init.zeros_(tensor)
    after = SupernetEvaluator(supernet, data).scores(member)
    assert after.explained == pytest.approx(before.explained, abs=1e-9)
    assert after.accuracy_pct == pytest.approx(100 * float(np.mean(data.labels("validation") == 0)))
    assert after.explained > 0
