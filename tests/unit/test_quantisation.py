"""Simulated and exported quantisation agree, methods help where they should, precisions survive the file."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from nas.errors import ArtifactError, UsageError
from nas.exporting.exporters.onnx_quantised import QuantisedOnnxExporter
from nas.graphs.frontends.onnx_file import read_onnx
from nas.graphs.frontends.torch_module import trace_module
from nas.graphs.onnx_session import onnx_session
from nas.quantisation.learning import Learning
from nas.quantisation.method import Activations, methods, range_of
from nas.quantisation.sensitivity import sensitivity_db
from nas.quantisation.simulate import simulate


class Network(nn.Module):
    """A residual convolution and an attention whose layer norm has two outlier channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 3, padding=1))
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = (x + self.mix(x)).flatten(2).transpose(1, 2)  # (n, 64, 16)
        n, length, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, length, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, c))
        return self.head(x.mean(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.startswith("norm"):
                parameter.uniform_(-0.4, 0.4, generator=generator)
        network.norm.weight[:2] *= 60
        network.qkv.weight[:, :2] /= 60
    return network


@pytest.fixture(scope="module")
def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 16, 16, generator=generator) for _ in range(4)]


def scores(path: Path, pictures: list[torch.Tensor]) -> np.ndarray:
    session = onnx_session(path)
    return np.concatenate([session.run(None, {"input": x[i : i + 1].numpy()})[0] for x in pictures for i in range(len(x))])


def ratio_db(expected: np.ndarray, found: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).mean() / np.square(found - expected).mean()))


@pytest.mark.parametrize(("precision", "floor_db"), [("w8a8", 20.0), ("w8a16", 35.0)])
def test_simulation_equals_the_file(
    network: nn.Module, pictures: list[torch.Tensor], tmp_path: Path, precision: str, floor_db: float
) -> None:
    recipe = ("smoothing", "mse", "bias-correction")
    graph = trace_module(network, (1, 3, 16, 16))
    artifact = QuantisedOnnxExporter(precision, pictures, recipe).export(network, graph, tmp_path / "q.onnx", metadata={"classes": "a"})
    with torch.no_grad():
        expected = torch.cat([network(x) for x in pictures]).numpy()
    simulated = torch.cat([simulate(network, pictures, precision, recipe)(x) for x in pictures]).numpy()
    measured = scores(tmp_path / "q.onnx", pictures)
    assert ratio_db(expected, simulated) > floor_db
    assert abs(ratio_db(expected, simulated) - ratio_db(expected, measured)) < 3
    assert artifact.metadata == {"classes": "a", "precision": precision, "quantisation": " ".join(recipe)}
    read = read_onnx(tmp_path / "q.onnx")
    assert read.cost.macs == graph.cost.macs
    assert {op.precision for op in read.operators if op.op in {"Conv", "Gemm", "MatMul"}} == {precision}
    assert {op.precision for op in read.operators if op.op in {"Softmax", "LayerNormalization"}} <= {None, precision}
    held = {
        tensor.name.partition(".bias")[0]: tensor
        for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer
        if "bias_quantized." in tensor.name
    }
    assert {"qkv", "out", "head"} <= held.keys()
    assert {tensor.data_type for tensor in held.values()} == {onnx.TensorProto.INT32}


def test_smoothing_recovers_what_outlier_channels_cost(network: nn.Module, pictures: list[torch.Tensor]) -> None:
    with torch.no_grad():
        expected = torch.cat([network(x) for x in pictures]).numpy()
    naive, smooth = (
        ratio_db(expected, torch.cat([simulate(network, pictures, "w8a8", recipe)(x) for x in pictures]).numpy())
        for recipe in (("minmax",), ("smoothing", "minmax"))
    )
    assert smooth > naive + 3


def test_learning_answers_as_the_simulation_and_its_gradients_pass_the_rounding(network: nn.Module, pictures: list[torch.Tensor]) -> None:
    simulated = simulate(copy.deepcopy(network), pictures, "w8a8", ("minmax",))
    found = Learning(simulated, pictures[0])(pictures[0])
    assert torch.allclose(found, simulated(pictures[0]), atol=1e-5)
    slopes = []
    for module, answer in ((simulated.module, found), (reference := copy.deepcopy(network), reference(pictures[0]))):
        answer.square().sum().backward()
        slopes.append(torch.cat([p.grad.flatten() for p in module.parameters()]))
    assert nn.functional.cosine_similarity(*slopes, dim=0) > 0.9


def test_training_recovers_what_coarse_weights_cost(network: nn.Module, pictures: list[torch.Tensor]) -> None:
    """Weights that read a dead channel stretch the grids of all the others thirtyfold."""
    hard = copy.deepcopy(network)
    with torch.no_grad():
        for before, layer in ((hard.stem[0], hard.mix[0]), (hard.mix[0], hard.mix[2])):
            layer.weight[:, 0] *= 30
            before.weight[0], before.bias[0] = before.weight[0] / 1e4, 0
    unseen = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = hard(unseen).numpy()
    recipes = (("minmax",), ("mse",), ("quantisation-aware-training",), ("quantisation-aware-training",))
    found = [simulate(copy.deepcopy(hard), pictures, "w8a8", recipe)(unseen).numpy() for recipe in recipes]
    naive, ranged, trained, _ = (ratio_db(expected, scores) for scores in found)
    assert trained > max(naive, ranged) + 5
    assert np.array_equal(found[2], found[3])


class Repeated(nn.Module):
    """One linear layer that is called `times` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.times = nn.Linear(8, 8), times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(2).mean(2)[:, [0, 1, 2, 0, 1, 2, 0, 1]]
        return torch.cat([self.layer(x) for _ in range(self.times)], dim=1)


def test_bias_correction_takes_the_mean_of_all_calls(pictures: list[torch.Tensor]) -> None:
    """Neither a layer that is called twice nor a smaller last batch changes the mean of what it reads."""
    shifted = [x + 1 for x in pictures]
    uneven = [torch.cat(shifted[:2]), *[x[None] for x in torch.cat(shifted[2:])]]
    found = []
    for times, batches in ((1, shifted), (2, shifted), (1, uneven)):
        module = Repeated(times)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.uniform_(-1, 1, generator=torch.Generator().manual_seed(3))
            before = module.layer.bias.clone()
            found.append(methods(["bias-correction"])[0].prepare(module, batches, (1, 3, 16, 16)).layer.bias - before)
    assert found[0].abs().max() > 1e-4
    for other in found[1:]:
        assert torch.allclose(found[0], other, atol=1e-6)


def test_clipping_ranges_are_narrower_and_mse_is_best_in_mse() -> None:
    seen = Activations()
    values = np.random.default_rng(0).standard_t(3, size=50_000).astype(np.float32)
    seen.observe(values)
    wide, cut, fit = (range_of(methods([name]), seen, 8) for name in ("minmax", "percentile", "mse"))
    assert wide[1] - wide[0] > cut[1] - cut[0]
    assert wide[1] - wide[0] > fit[1] - fit[0]


def test_the_sample_meets_every_channel() -> None:
    seen = Activations()
    seen.observe(np.tile(np.arange(16, dtype=np.float32), 16 * 4096))
    assert seen.sample is not None
    assert set(seen.sample.tolist()) == set(range(16))


def test_one_part_in_another_precision(network: nn.Module, pictures: list[torch.Tensor]) -> None:
    with torch.no_grad():
        expected = torch.cat([network(x) for x in pictures]).numpy()
    quality = [
        ratio_db(expected, torch.cat([simulate(network, pictures, "w8a8", ("minmax",), parts)(x) for x in pictures]).numpy())
        for parts in ({}, {"qkv": "w8a16"}, {"": "fp32", **dict.fromkeys(("stem", "mix", "qkv", "out", "head"), "fp32")})
    ]
    assert quality[0] < quality[1] < quality[2]


def test_sensitivity_names_the_outlier(network: nn.Module, pictures: list[torch.Tensor]) -> None:
    found = sensitivity_db(network, {name: [name] for name in ("stem", "mix", "qkv")}, pictures)
    assert min(found, key=lambda block: found[block]) == "qkv"


class Diffuse(nn.Module):
    """Attention, all but even, to the 576 positions of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Conv2d(3, 24, 1), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=3)
        y = nn.functional.scaled_dot_product_attention(q * 0.2, k, v)
        return self.head(y.mean((1, 2)))


def test_wide_softmax_keeps_an_attention_to_many_tokens(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    module = Diffuse().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.5, 0.5, generator=generator)
        shown = [torch.randn(4, 3, 24, 24, generator=generator) + torch.randn(4, 3, 1, 1, generator=generator) for _ in range(4)]
        expected = torch.cat([module(x) for x in shown]).numpy()
    found = {}
    for recipe in (("minmax",), ("minmax", "wide-softmax")):
        path = tmp_path / f"{len(recipe)}.onnx"
        QuantisedOnnxExporter("w8a8", shown, recipe).export(module, trace_module(module, (1, 3, 24, 24)), path)
        simulated = torch.cat([simulate(module, shown, "w8a8", recipe)(x) for x in shown]).numpy()
        found[recipe] = ratio_db(expected, simulated), ratio_db(expected, scores(path, shown))
        read = read_onnx(path)
        assert {op.precision for op in read.operators if op.op == "Softmax"} == {"w8a16" if "wide-softmax" in recipe else "w8a8"}
        assert {op.precision for op in read.operators if op.op == "MatMul"} == {"w8a8"}
    (narrow, narrow_measured), (wide, wide_measured) = found.values()
    assert narrow < 10 < 20 < wide
    assert abs(narrow - narrow_measured) < 1
    assert abs(wide - wide_measured) < 3


def test_training_sees_what_the_rest_of_the_recipe_does(network: nn.Module, pictures: list[torch.Tensor]) -> None:
    """The weights that it learns depend on the ranges of a later method, and on a softmax of 16 bits."""
    found = []
    for recipe in (
        ("quantisation-aware-training",),
        ("quantisation-aware-training", "minmax"),
        ("quantisation-aware-training", "wide-softmax"),
    ):
        trained = methods(recipe)[0].prepare(network, pictures, (1, 3, 16, 16))
        found.append(torch.cat([p.detach().flatten() for p in trained.parameters()]))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_bad_requests(network: nn.Module, pictures: list[torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no quantised precision, got 'fp16'"):
        QuantisedOnnxExporter("fp16", pictures)
    with pytest.raises(UsageError, match="needs calibration pictures"):
        QuantisedOnnxExporter("w8a8", [])
    (tmp_path / "mine.onnx").write_text("mine")
    with pytest.raises(ArtifactError, match="the file exists"):
        QuantisedOnnxExporter("w8a8", pictures).export(network, trace_module(network, (1, 3, 16, 16)), tmp_path / "mine.onnx")


def test_parts_in_a_file(network: nn.Module, pictures: list[torch.Tensor], tmp_path: Path) -> None:
    """Parts at three precisions: the file says what the simulation says, and is read back with them."""
    parts = {"stem": "w8a8", "mix": "w8a16", "norm": "fp16", "qkv": "fp16", "out": "w8a8", "head": "w8a8", "": "fp16"}
    graph = trace_module(network, (1, 3, 16, 16))
    artifact = QuantisedOnnxExporter("fp16", pictures, ("minmax",), parts).export(network, graph, tmp_path / "q.onnx")
    simulated = torch.cat([simulate(network, pictures, "fp16", ("minmax",), parts)(x) for x in pictures]).numpy()
    measured = scores(tmp_path / "q.onnx", pictures)
    assert artifact.precision == "mixed"
    assert ratio_db(measured, simulated) > 35  # what is left is the 8-bit grid of the scores
    read = read_onnx(tmp_path / "q.onnx")
    found = {op.name: op.precision for op in read.operators if op.op in {"Conv", "Gemm", "MatMul"} and op.weights}
    assert sorted(found.values(), key=str) == [None, "w8a16", "w8a16", "w8a8", "w8a8", "w8a8"]
    assert read.cost.macs == graph.cost.macs


CALIBRATION = """
import sys
from pathlib import Path
import torch
from torch import nn
from nas.exporting.exporters.onnx_quantised import QuantisedOnnxExporter
from nas.graphs.frontends.torch_module import trace_module

layers = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU()]
network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()
pictures = list(torch.randn(256, 1, 3, 224, 224, generator=torch.Generator().manual_seed(0)))
QuantisedOnnxExporter("w8a8", pictures).export(network, trace_module(network, (1, 3, 224, 224)), Path(sys.argv[1]))
print(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")).split()[1])
"""
# not ru_maxrss: Linux hands the peak of the process that started this one down to it


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_calibrating_256_pictures_at_224_takes_less_than_3_gb(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]  # a process of its own, since a peak is a process's
    done = subprocess.run([sys.executable, "-c", CALIBRATION, tmp_path / "n.onnx"], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 3e6  # kilobytes
