"""Every registered operator keeps the contract, whoever wrote it."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from nas.errors import UsageError
from nas.spaces.naming import get_space
from nas.spaces.operator_family import OperatorFamily, channel_mixers, fuse, mixers, reparam
from nas.spaces.space import Resolution
from nas.testing import operators as contract

KINDS = {"mixer": mixers, "channel-mixer": channel_mixers, "reparam": reparam}
NAMES = [f"{kind}/{name}" for kind, registry in KINDS.items() for name in registry.names()]
SIZE: Resolution = (14, 14)
FOURIER = ("mixer/affnet", "mixer/spectral")
"""Families whose default needs the operator DFT, which PyTorch's exporter of traced scripts cannot write."""


def family(name: str) -> type[OperatorFamily]:
    kind, plain = name.split("/")
    return KINDS[kind].get(plain)


def drawn(name: str, count: int) -> tuple[OperatorFamily, ...]:
    return contract.settings(family(name), np.random.default_rng(zlib.crc32(name.encode())), count)


@pytest.mark.parametrize("name", NAMES)
def test_operator(name: str, tmp_path: Path) -> None:
    for i, operator in enumerate(drawn(name, 2)):
        contract.check_shape_and_counts(operator, resolutions=((14, 14), (9, 13)) if i else contract.RESOLUTIONS)
        uneven = (9, 13) if contract.accepts(operator, contract.CHANNELS, (9, 13)) else SIZE
        contract.check_fuse(operator, contract.CHANNELS, SIZE)
        contract.check_gradients(operator, contract.CHANNELS, uneven)
        contract.check_batch_independence(operator, contract.CHANNELS, uneven)
        contract.check_memory_format(operator, contract.CHANNELS, SIZE)
        contract.check_graph_runs(operator, contract.CHANNELS, (9, 13), tmp_path / f"{i}.onnx")
        contract.check_elastic(operator, contract.CHANNELS, SIZE)
        assert hash(operator) == hash(type(operator)(**vars(operator)))


@pytest.mark.parametrize("name", NAMES)
def test_grade_and_source_are_stated(name: str) -> None:
    kind = family(name)
    assert kind.npu_grade in ("green", "amber", "red")
    assert kind.source.title
    assert kind.source.reference
    fields = set(kind.__dataclass_fields__)
    assert set(kind.choices()) <= fields
    assert all(len(set(values)) == len(values) > 0 for values in kind.choices().values())
    contract.check_searched(kind)


def fourier(operator: OperatorFamily) -> bool:
    return any(op.op == "DFT" for op in contract.lower(operator, contract.CHANNELS, SIZE).operators)


def test_exported_green_operators_are_plain_and_agree_with_torch(tmp_path: Path) -> None:
    green = {name: operator for name in NAMES if (operator := drawn(name, 1)[0]).grade == "green"}
    contract.check_onnx({name: (operator, contract.CHANNELS, SIZE) for name, operator in green.items()}, tmp_path / "green.onnx")


def check_sizes(name: str, sizes: Sequence[Resolution], path: Path) -> None:
    every = {str(size): (drawn(name, 1)[0], contract.CHANNELS, size) for size in sizes}
    cases = {label: case for label, case in every.items() if contract.accepts(*case)}
    assert cases, f"{name} takes none of {sizes}"
    contract.check_onnx(cases, path, scripted=name not in FOURIER)


@pytest.mark.parametrize("name", NAMES)
def test_exported_operator_agrees_with_torch(name: str, tmp_path: Path) -> None:
    assert fourier(drawn(name, 1)[0]) is (name in FOURIER)
    check_sizes(name, [SIZE, (9, 13)], tmp_path / "sizes.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exported_operator_agrees_with_torch_at_every_other_size(name: str, tmp_path: Path) -> None:
    check_sizes(name, [size for size in contract.RESOLUTIONS if size not in (SIZE, (9, 13))], tmp_path / "sizes.onnx")


@pytest.mark.slow
def test_exported_further_settings_agree_with_torch(tmp_path: Path) -> None:
    drawings = {f"{name} {op}": op for name in NAMES for op in drawn(name, 2)[-1:] if not fourier(op) and op.grade != "green"}
    contract.check_onnx({label: (op, contract.CHANNELS, SIZE) for label, op in drawings.items()}, tmp_path / "gallery.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_pair_of_values(name: str) -> None:
    for operator in contract.pairs(family(name)):
        contract.check_shape_and_counts(operator, resolutions=((14, 14), (9, 13)), traced=False)
        contract.check_fuse(operator, contract.CHANNELS, (7, 7))


@pytest.mark.parametrize("preset", ["hybrid-npu-s", "hybrid-npu-m", "hybrid-npu-l"])
def test_npu_architectures_are_plain(preset: str) -> None:
    space, rng = get_space(preset), np.random.default_rng(1)
    for _ in range(10):
        assert {op.op for op in space.lower(space.sample(rng), (64, 64)).operators} <= contract.PLAIN


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_exported_npu_architectures_are_plain(seed: int, tmp_path: Path) -> None:
    import onnx
    import torch

    space = get_space("hybrid-npu-s")
    module = fuse(space.build(space.sample(np.random.default_rng(seed)), num_classes=10, resolution=(64, 64)))
    torch.onnx.export(module, (torch.zeros(1, 3, 64, 64),), str(tmp_path / "npu.onnx"), dynamo=True, opset_version=18, verbose=False)
    assert {node.op_type for node in onnx.load(str(tmp_path / "npu.onnx")).graph.node} <= contract.PLAIN


def test_too_narrow_an_input_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="got 4"):
        mixers.get("inception-next")().build(4, SIZE)
