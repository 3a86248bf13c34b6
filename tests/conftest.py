"""Lets timm import beside a CPU build of PyTorch, and PyTorch read its table of ONNX operators once a process instead of once an export."""

import functools
import sys


def pytest_configure() -> None:
    from nas.spaces.pretrained.libraries import declare_torchvision_operators

    declare_torchvision_operators()


def pytest_runtest_setup() -> None:
    table = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "ONNXRegistry", None)
    if table is not None and not hasattr(table.from_torchlib, "cache_info"):
        table.from_torchlib = staticmethod(functools.cache(table.from_torchlib))
