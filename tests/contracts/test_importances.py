"""The contract of an importance of channels, for each that is registered."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nas.errors import UnknownNameError
from nas.spaces.chain import ChainSpace
from nas.spaces.naming import get_space
from nas.spaces.surgery.narrowing import coupled_channels
from nas.training.dataset import load_dataset
from nas.training.importance import importances, slopes
from nas.training.supernet.batches import Batches
from nas.training.supernet.fitting import anchor_path, fit
from nas.training.supernet.weights import Supernet
from tests.unit.test_chain_space import NETWORKS
from tests.unit.test_narrowing import Gated, traced

DEAD = [1, 5, 9, 13, 17, 21, 25, 29]


@pytest.mark.parametrize("name", importances.names())
def test_channels_that_nothing_makes_weigh_least(name: str) -> None:
    segment = traced(Gated())
    for weights in (
        segment.expand.weight,
        segment.norm1.weight,
        segment.norm1.bias,
        segment.depthwise.weight,
        segment.norm2.weight,
        segment.norm2.bias,
    ):
        with torch.no_grad():
            weights[DEAD] = 0
    with torch.no_grad():
        segment.project.weight[:, DEAD] = 0
        segment.squeeze.weight[:, DEAD] = 0
        segment.excite.weight[DEAD] = 0
        segment.excite.bias[DEAD] = 0
    x = torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(0))
    segment(x).square().mean().backward()
    tensors = dict([*segment.named_parameters(), *segment.named_buffers()])
    gradients = {key: p.grad for key, p in segment.named_parameters() if p.grad is not None}
    inner = next(channels for channels in coupled_channels(segment) if channels.size == 32)
    method = importances.get(name)()
    scores = method.scores(tensors, {} if method.follows == "nothing" else gradients, inner)
    assert scores.shape == (32,)
    assert scores.dtype == torch.float64
    assert bool(scores.isfinite().all())
    others = [i for i in range(32) if i not in DEAD]
    assert float(scores[DEAD].max()) <= float(scores[others].min())  # a ReLU that never fires leaves nothing either
    assert float(scores[others].max()) > 0
    assert method.source.title
    assert method.source.reference


def test_slopes_are_the_change_to_first_order() -> None:
    """Scaling all weights that make and read a channel by 1 + t changes the loss by t times its slope."""
    segment = traced(Gated()).double()
    x = torch.randn(4, 8, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    segment(x).square().mean().backward()
    tensors = dict([*segment.named_parameters(), *segment.named_buffers()])
    gradients = {key: p.grad.clone() for key, p in segment.named_parameters() if p.grad is not None}
    inner = next(channels for channels in coupled_channels(segment) if channels.size == 32)
    found, step = slopes(tensors, gradients, inner), 1e-6
    for channel in (0, 7, 31):
        values = []
        for sign in (1, -1):
            moved = {key: p.detach().clone() for key, p in segment.named_parameters()}
            for key, axis in inner.axes:
                if key in moved:
                    moved[key].movedim(axis, 0)[channel] *= 1 + sign * step
            values.append(float(torch.func.functional_call(segment, moved, (x,)).square().mean()))
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(found[channel]), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", importances.names())
def test_anchors_compute_what_they_computed(tmp_path: Path, name: str) -> None:
    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    dataset = load_dataset("digits", images=200)
    train = Batches(dataset, "train", (32, 32), torch.device("cpu"))
    found = []
    for importance in ("norms", name):
        space = get_space("chain", anchors=[f"{file}:small"], num_classes=10, resolution=(32, 32), importance=importance)
        assert isinstance(space, ChainSpace)
        supernet = Supernet(space, 10, (32, 32))
        fit(supernet, lambda _size: train)
        x = next(train.plain(64))[0]
        found.append(anchor_path(supernet, space.member("small"), train)[0](x))
        narrow = [i for i, choice in enumerate(space.choices) if "0.5" in choice.values]
        genes = [("0.5" if i in narrow else gene) for i, gene in enumerate(space.member("small").genes)]
        assert bool(F.softmax(supernet.path(space.architecture(genes)).train()(x), 1).isfinite().all())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_an_unknown_one_is_refused_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nas

    file = tmp_path / "networks.py"
    file.write_text(NETWORKS)
    with pytest.raises(UnknownNameError, match="Did you mean 'taylor'"):
        nas.search("sa8295p", "5ms", space="chain", anchor=f"{file}:small", importance="tailor", data="digits", out=tmp_path / "run")
    with pytest.raises(UnknownNameError, match="Did you mean 'width'"):
        nas.search("sa8295p", "5ms", space="chain", anchor=f"{file}:small", edits=("widht",), data="digits", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
