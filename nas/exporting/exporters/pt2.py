"""Exported programs of PyTorch (``.pt2``): fused, written by ``torch.export``, reloaded and compared."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.errors import ArtifactError
from nas.exporting.exporter import Artifact, Exporter, Scores, artifact_of, checked_difference, exporters, refuse_existing
from nas.graphs.graph import Graph

if TYPE_CHECKING:
    from torch import nn

_FACTS = "metadata.json"
TOLERANCE = 1e-4
"""As of ONNX files."""


@exporters.register("pt2")
class ProgramExporter(Exporter):
    """Writes fp32 programs at batch 1, with static shapes; metadata lie in the archive's extra files."""

    suffix = ".pt2"

    def export(self, module: nn.Module, graph: Graph, path: Path, *, metadata: Mapping[str, str] | None = None) -> Artifact:
        """See `Exporter.export`."""
        import torch

        from nas.spaces.operator_family import fuse

        refuse_existing(path)
        deployed = fuse(module).to("cpu").float().eval()
        probe = torch.from_numpy(np.random.default_rng(0).standard_normal(graph.inputs[0].shape).astype(np.float32))
        with torch.no_grad():
            expected = deployed(probe).numpy()
            program = torch.export.export(deployed, (probe,))
        _remove_origins(program)
        facts = {"precision": "fp32"} | dict(metadata or {})
        part = path.with_name(f".{path.stem}.part.pt2")
        try:
            part.write_bytes(_saved(program, facts))
            difference = checked_difference(path, self.reload(part)(probe.numpy()), expected, TOLERANCE)
            part.replace(path)
        except OSError as error:
            raise ArtifactError(f"export: cannot be written, got {str(path)!r} ({error.strerror}).") from None
        finally:
            part.unlink(missing_ok=True)
        kinds = Counter(str(node.target).removeprefix("aten.") for node in program.graph.nodes if node.op == "call_function")
        return artifact_of(ProgramExporter, path, "pt2", "fp32", difference, kinds, facts)

    @classmethod
    def reload(cls, path: Path) -> Scores:
        """Return what a program answers in PyTorch."""
        import torch

        module = torch.export.load(str(path)).module()

        def scores(picture: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                answer: np.ndarray = module(torch.from_numpy(picture)).numpy()
            return answer

        return scores

    @classmethod
    def read_metadata(cls, path: Path) -> dict[str, str] | None:
        """Return the archive's own file of metadata, without PyTorch."""
        try:
            with zipfile.ZipFile(path) as archive:
                name = next((name for name in archive.namelist() if name.endswith(f"extra/{_FACTS}")), None)
                return None if name is None else {str(key): str(value) for key, value in json.loads(archive.read(name)).items()}
        except (OSError, zipfile.BadZipFile, ValueError, AttributeError) as error:
            raise ArtifactError(f"model {path}: cannot be read ({error}).") from None

    @classmethod
    def annotate(cls, artifact: Artifact, facts: Mapping[str, str]) -> Artifact:
        """Write the program again with further facts."""
        import torch

        known = dict(artifact.metadata) | dict(facts)
        part = artifact.path.with_name(f".{artifact.path.stem}.part.pt2")
        part.write_bytes(_saved(torch.export.load(str(artifact.path)), known))
        part.replace(artifact.path)
        return artifact_of(cls, artifact.path, "pt2", artifact.precision, artifact.max_difference, artifact.operators, known)


def _saved(program: Any, facts: Mapping[str, str]) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={_FACTS: json.dumps(dict(facts), ensure_ascii=False)})
    return buffer.getvalue()


def _remove_origins(program: Any) -> None:
    """Take out the stack traces, which name paths of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.meta.pop("stack_trace", None)
