"""What was learnt from published jobs beside latency, in files of the package of hardware profiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nas.errors import ArtifactError


def read_learnt(name: str, what: str, key: str, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return what stands under a key of a file of ``hardware_profiles``.

    Args:
        name: Of the file.
        what: It holds, for messages.
        key: At the top of the file.
        check: Raises an error where a value cannot be true.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    spec = find_spec("hardware_profiles")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(f"{what}: the package hardware_profiles is missing. Do this: install the whole distribution.")
    file = Path(next(iter(spec.submodule_search_locations))) / name
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))[key]
        check(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{what}: damaged file {str(file)!r} ({error}).") from None
    return content
