"""Tables of published accuracies (npz), down to the evaluator that looks them up."""

import io
from pathlib import Path

import numpy as np

from nas.spaces.naming import get_space
from nas.training.accuracy_table import holds_accuracies
from nas.training.evaluators.table import TableAccuracy

ENDING = ".npz"
WORDS = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x93NUMPY",
    b"'shape': (",
    b"'descr': '<f8'",
    b"arch.npy",
    b"columns.npy",
    b"accuracy.npy",
    b"cifar10",
)


def read(path: Path) -> list[float]:
    """What each row's network is looked up to have."""
    holds_accuracies(path)
    space = get_space("nasbench201")
    table = TableAccuracy(space, path, "cifar10")
    return [table.evaluate(space.parse(row)).accuracy_pct for row in _ROWS[:1]]


def absurd(result: list[float]) -> str:
    return "" if all(0 <= each <= 100 for each in result) else f"accuracies of {result} %"


_ROWS = (
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|",
    "|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
)


def seeds() -> list[bytes]:
    made = []
    for columns in (["cifar10"], ["cifar10", "cifar100"]):
        file = io.BytesIO()
        np.savez(file, arch=np.array(_ROWS), columns=np.array(columns), accuracy=np.linspace(60, 90, 2 * len(columns)).reshape(2, -1))
        made.append(file.getvalue())
    return made
