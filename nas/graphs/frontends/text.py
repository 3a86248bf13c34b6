"""Text from a file as it may be shown."""

from __future__ import annotations

import re

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: str, longest: int = 200) -> str:
    """Return a name from a file without terminal sequences, control characters and marks of direction, and not endless."""
    text = _CONTROL.sub("", _SEQUENCE.sub("", text))
    return text if len(text) <= longest else f"{text[:longest]}…"
