"""Results that took long, each in a small JSON file: made once, read from then on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.errors import ArtifactError


def noted(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a file holds, making it first where it is absent; it is written in one step.

    Raises:
        ArtifactError: It cannot be read.
    """
    if not path.is_file():
        text = json.dumps(make(), default=str)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"note {path}: cannot be read ({error!r}). Do this: remove it; what it holds is made again.") from None
