"""``nas doctor``."""

from __future__ import annotations

from typing import Any

from nas.cli._options import Format, write


def command(form: Format = "table") -> None:
    """Say what this installation has and what is wrong with it: versions, processors, plug-ins, profiles."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import nas
    from nas.devices.predictor import predictors
    from nas.devices.profile import config_home
    from nas.exporting.exporter import exporters
    from nas.searching.searcher import searchers
    from nas.spaces.operator_family import channel_mixers, mixers
    from nas.spaces.space import spaces
    from nas.training.evaluator import evaluators

    packages: dict[str, str | None] = {}
    for package in (*_REQUIRED, *_OPTIONAL):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    faults = [f"{package} is not installed. Do this: pip install {package}." for package in _REQUIRED if packages[package] is None]
    registries = (spaces, mixers, channel_mixers, predictors, searchers, evaluators, exporters)
    profiles, broken = _profiles()
    result = {
        "nas": nas.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "gpus": _gpus() if packages["torch"] else [],
        "packages": packages,
        "config_home": str(config_home()),
        "plugins": {registry.kind: list(registry.names()) for registry in registries},
        "devices": profiles,
        "faults": faults + broken,
    }
    write(result, form, _render)
    if result["faults"]:
        raise SystemExit(1)


_REQUIRED: tuple[str, ...] = (
    *("torch", "optuna", "onnx", "onnxruntime", "onnxscript", "numpy", "scipy", "scikit-learn", "networkx", "pydantic"),
    *("safetensors", "accelerate", "matplotlib", "pillow", "rich", "typer"),
)
_OPTIONAL = ("timm", "torchvision", "nni")


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _profiles() -> tuple[int, list[str]]:
    """Return the number of valid profiles and what is wrong with the others and with their artifacts."""
    from nas.devices.predictor import load_predictor
    from nas.devices.profile import clash_text, clashes, profile_files, read_profile
    from nas.errors import NasError

    valid, faults = 0, [clash_text(name, paths) for name, paths in clashes().items()]
    for path in profile_files().values():
        try:
            profile = read_profile(path)
            for precision, found in profile.precisions.items():
                if found.predictor:
                    load_predictor(profile, precision, path.parent)
            valid += 1
        except NasError as error:
            faults.append(str(error))
    return valid, faults


def _render(result: dict[str, Any]) -> None:
    from nas.report.tables import print_lines

    print_lines([f"nas {result['nas']}, Python {result['python']}, {result['platform']}, {result['cores']} cores"])
    print_lines([f"GPUs: {', '.join(result['gpus']) or 'none; everything runs on the CPU'}"])
    for package, found in result["packages"].items():
        missing = "not installed (optional)" if package in _OPTIONAL else "MISSING"
        print_lines([f"  {package:14} {found or missing}"])
    for kind, names in result["plugins"].items():
        print_lines([f"{kind}: {', '.join(names) or 'none'}"])
    print_lines([f"devices: {result['devices']} valid profiles; yours are looked for in {result['config_home']}/devices"])
    print_lines(f"FAULT {fault}" for fault in result["faults"])
    print_lines(["Nothing is wrong." if not result["faults"] else f"{len(result['faults'])} faults."])
