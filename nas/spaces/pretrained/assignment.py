"""Weights of a file given to a module: by name, or by order where the sequence of shapes and kinds is the same; never in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.errors import ArtifactError
from nas.spaces.pretrained.files import read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNTERS = ("num_batches_tracked",)
"""Counters that say nothing of what a network computes."""


@dataclass(frozen=True)
class Assignment:
    """Which tensor of a file became which of a module.

    Attributes:
        by: ``name`` where the names agree, else ``order``.
        names: Pairs (of the module, of the file), in the module's order.
    """

    by: Literal["name", "order"]
    names: tuple[tuple[str, str], ...]


def assign(module: nn.Module, tensors: Mapping[str, Tensor], where: str = "weights") -> Assignment:
    """Copy tensors into a module, all of them or none.

    Where the names differ, tensors are taken in order, if as many of each kind (``weight``, ``bias``, ``running_mean`` …) and shape follow one
    another. Batch counters are left out on both sides.

    Args:
        module: Left as it was where the tensors are refused.
        tensors: By name, in the order of the layers.
        where: For messages.

    Raises:
        ArtifactError: A tensor too many, too few, of another shape or kind; the message names the first.
    """
    import torch

    own = {name: value for name, value in module.state_dict().items() if not _counts(name)}
    weights = {name: value for name, value in tensors.items() if not _counts(name)}
    by: Literal["name", "order"] = "name" if own.keys() == weights.keys() else "order"
    pairs = [(name, name) for name in own] if by == "name" else list(zip(own, weights, strict=False))
    _check(own, weights, pairs, by, where)
    with torch.no_grad():
        for name, source in pairs:
            own[name].copy_(weights[source])
    return Assignment(by, tuple(pairs))


def _check(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], pairs: Sequence[tuple[str, str]], by: str, where: str) -> None:
    for name, source in pairs:
        mine, theirs = own[name], weights[source]
        if mine.shape != theirs.shape or _kind(name) != _kind(source):
            actual, expected = f"{_kind(source)} {tuple(theirs.shape)}", f"{_kind(name)} {tuple(mine.shape)}"
            raise ArtifactError(f"{where}: {source} does not fit {name}, got {actual}. Expected {expected}.{_hint(own, weights, by)}")
        if mine.is_floating_point() and not bool(theirs.isfinite().all()):
            raise ArtifactError(f"{where}: {source} holds numbers that are not finite.")
    if len(own) != len(weights):
        raise ArtifactError(f"{where}: another number of tensors, got {len(weights)}. Expected {len(own)}.{_hint(own, weights, by)}")


def _hint(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], by: str) -> str:
    """Return what the names say, where they almost agree."""
    common = own.keys() & weights.keys()
    if by == "name" or 2 * len(common) < len(own):
        return ""
    lacking, more = sorted(own.keys() - common), sorted(weights.keys() - common)
    return f" By name, the file lacks {lacking[0]!r}." if lacking else f" By name, the file has {more[0]!r} beside." if more else ""


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _counts(name: str) -> bool:
    return _kind(name) in _COUNTERS


def verify(module: nn.Module, input_shape: Sequence[int], where: str = "weights") -> None:
    """Run a module once on noise of mean 0 and deviation 1, in evaluation mode; it is left in the mode in which it was.

    Raises:
        ArtifactError: It does not run, gives numbers that are not finite, or the same for different pictures.
    """
    import torch

    x = torch.randn(2, *input_shape[1:], generator=torch.Generator().manual_seed(0))
    training = module.training
    try:
        with torch.no_grad():
            scores = module.eval()(x)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ArtifactError(f"{where}: the network does not run on an input of {tuple(input_shape)}, got: {reason}.") from None
    finally:
        module.train(training)
    if not isinstance(scores, torch.Tensor):
        raise ArtifactError(f"{where}: the network gives {type(scores).__name__}. Expected one tensor.")
    if not bool(scores.isfinite().all()):
        raise ArtifactError(f"{where}: the network gives numbers that are not finite: the weights are damaged, or not its own.")
    if bool((scores[0] == scores[1]).all()):
        raise ArtifactError(f"{where}: the network gives the same for different pictures: the weights are damaged, or not its own.")


def load_weights(
    module: nn.Module,
    path: Path,
    input_shape: Sequence[int] | None = None,
    change: Callable[[nn.Module, Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None,
) -> Assignment:
    """Read a file, give its tensors to a module, and run it once.

    Args:
        module: Left as it was where the file is refused.
        path: See `nas.spaces.pretrained.files.read_tensors`.
        input_shape: (1, 3, h, w) of the trial run; None leaves it out.
        change: Returns the file's tensors as the module takes them; None for as they are.

    Raises:
        ArtifactError: See `read_tensors`, `assign` and `verify`.
    """
    tensors: Mapping[str, Tensor] = read_tensors(path)
    pairs = assign(module, change(module, tensors) if change else tensors, f"weights {path}")
    if input_shape is not None:
        verify(module, input_shape, f"weights {path}")
    return pairs
