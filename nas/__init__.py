"""Hardware-aware neural architecture search for vision: contracts, registries and the engine.

`nas.search`, `nas.predict` and the other functions of `nas.api` are handed out from here when they are first asked for; importing this
package imports nothing else. `search_spaces`, `latency_predictors` and `hardware_profiles` are known to it by name only and are found
through `nas.registry`.
"""

from typing import Any

__version__ = "0.2.0"

__all__ = [
    "calibrate",
    "compare",
    "export",
    "list_devices",
    "list_references",
    "list_spaces",
    "list_systems",
    "load_run",
    "measure",
    "predict",
    "predict_all",
    "rank",
    "search",
    "survey",
    "train",
    "update_devices",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from nas import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
