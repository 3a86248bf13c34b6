"""What every test process needs before it imports anything: one thread, compiled modules, timm beside a CPU build of PyTorch, one table of operators.

PyTorch reads its table of ONNX operators once a process instead of once an export. What is imported is no garbage and is not searched for it again: graphs and
modules are hundreds of thousands of objects, and by default a search for circles among them took half the time of reading and pricing a network.
"""

import functools
import gc
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes share the cores: more threads each only wait for one another
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start hundreds of processes: each would compile the packages again
sys.dont_write_bytecode = False


def pytest_configure() -> None:
    from nas.cli import COLLECTED
    from nas.spaces.pretrained.libraries import declare_torchvision_operators

    declare_torchvision_operators()
    gc.set_threshold(*COLLECTED)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    table = getattr(sys.modules.get("torch.onnx._internal.exporter._registration"), "ONNXRegistry", None)
    if table is not None and not hasattr(table.from_torchlib, "cache_info"):
        table.from_torchlib = staticmethod(functools.cache(table.from_torchlib))
