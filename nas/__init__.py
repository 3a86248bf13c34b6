"""Hardware-aware neural architecture search for vision: contracts, registries and the engine.

This package's top level imports no plug-in and nothing heavier than numpy; `search_spaces`, `latency_predictors` and
`hardware_profiles` are known to it by name only and are found through `nas.registry`.
"""

__version__ = "0.1.0"
