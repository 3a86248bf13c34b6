"""Which extra of the distribution brings a package, as its own metadata say; not a command itself."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

from nas.errors import DISTRIBUTION

_MODULES = {"pillow": "PIL", "pytest-xdist": "xdist", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Distributions whose module has another name."""

_ORDER = ("measure", "search", "anchors")
"""The smallest extra that brings a package is named."""


def module_of(distribution: str) -> str:
    """Return the module that a distribution is imported as."""
    return _MODULES.get(distribution, distribution.replace("-", "_"))


def packages() -> dict[str, str]:
    """Return every distribution that ours may need, with the extra that brings it; empty for the base."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # a checkout that was never installed
        return {}
    brought: dict[str, set[str]] = {}
    for line in lines:
        name = re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0].lower()
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
        if name != DISTRIBUTION:
            brought.setdefault(name, set()).add(extra[1] if extra else "")
    return {name: min(extras, key=_rank) for name, extras in brought.items()}


def _rank(extra: str) -> tuple[int, str]:
    order = ("", *_ORDER)
    return (order.index(extra) if extra in order else len(order), extra)


def extra_of(module: str) -> str | None:
    """Return the extra that brings a module; None where none does."""
    top = module.partition(".")[0]
    return next((extra for name, extra in packages().items() if top in (name, module_of(name)) and extra), None)
