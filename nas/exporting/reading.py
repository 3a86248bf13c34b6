"""What a model file says of itself: which exporter wrote it decides how it is read."""

from __future__ import annotations

from pathlib import Path

from nas.errors import ArtifactError
from nas.exporting.exporter import exporter_for, exporters
from nas.results import ModelFile


def read_model_file(path: Path) -> ModelFile:
    """Return the facts that a model file carries.

    Raises:
        UsageError: No format has its ending.
        ArtifactError: It is missing or damaged, or carries nothing of ours.
    """
    if not path.is_file():
        raise ArtifactError(f"model {path}: no such file.")
    form = exporter_for(path)
    kind = exporters.get(form)
    facts = kind.read_metadata(path)
    if facts is None:
        raise ArtifactError(f"model {path}: carries no facts, so it was not written here. Do this: nas predict {path} --device D.")
    size = sum(file.stat().st_size for file in kind.files(path) if file.is_file())
    return ModelFile(path=str(path), format=form, size_bytes=size, facts=facts)
