"""The genotype: what a searcher proposes, a storage keeps and a space understands."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from nas.errors import UsageError

Gene = int | str


@dataclass(frozen=True, slots=True, order=True)
class Architecture:
    """One point of a search space.

    Attributes:
        space: Name of the space, preset included (``hybrid-s``).
        version: Version of the space's encoding; a space refuses versions that it does not know.
        genes: One value per choice of the space, in the space's order. No floats, so equality is exact.
    """

    space: str
    version: int
    genes: tuple[Gene, ...]

    @property
    def key(self) -> str:
        """A 16-hex-digit name that is stable across processes, machines and Python versions."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return canonical JSON (one line, fixed key order)."""
        return json.dumps({"space": self.space, "version": self.version, "genes": list(self.genes)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Architecture":
        """Read what `to_json` wrote; unknown keys, floats and missing keys are errors.

        Raises:
            UsageError: The text is not an architecture.
        """
        try:
            data: Any = json.loads(text)
        except json.JSONDecodeError as error:
            raise UsageError(f"architecture: not JSON ({error}).") from None
        if not isinstance(data, dict) or set(data) != {"space", "version", "genes"}:
            raise UsageError(
                f"architecture: expected the keys space, version and genes, got {sorted(data) if isinstance(data, dict) else data!r}."
            )
        space, version, genes = data["space"], data["version"], data["genes"]
        if not isinstance(space, str) or type(version) is not int or not isinstance(genes, list):
            raise UsageError("architecture: expected a string, an integer and a list for space, version and genes.")
        if bad := [gene for gene in genes if type(gene) not in (int, str)]:
            raise UsageError(f"architecture: a gene is an integer or a string, got {bad[0]!r}.")
        return cls(space, version, tuple(genes))
