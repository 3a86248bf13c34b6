"""``nas doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.cli._options import Format, write

if TYPE_CHECKING:
    from nas.results.listings import Installation


def command(form: Format = "table") -> None:
    """Check this installation: versions, processors, plug-ins and profiles."""
    import os
    import platform

    import nas
    from nas.cli._extras import packages as needed
    from nas.devices.names import config_home
    from nas.devices.predictor import predictors
    from nas.exporting.exporter import exporters
    from nas.results.listings import Installation
    from nas.searching.searcher import searchers
    from nas.spaces.operator_family import channel_mixers, mixers
    from nas.spaces.space import spaces
    from nas.training.evaluator import evaluators

    extras = needed()
    looked_at = {name: extra for name, extra in extras.items() if extra in _LISTED or _is_installed(name)}
    packages = {name: _version(name) for name in looked_at}
    faults = [fault for name in looked_at if (fault := _fault_of(name, packages[name], extras[name]))]
    registries = (spaces, mixers, channel_mixers, predictors, searchers, evaluators, exporters)
    profiles, broken = _profiles()
    result = Installation(
        nas=nas.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cores=os.cpu_count(),
        gpus=_gpus() if packages.get("torch") else (),
        packages=packages,
        extras=looked_at,
        config_home=str(config_home()),
        plugins={registry.kind: tuple(registry.names()) for registry in registries},
        devices=profiles,
        faults=(*faults, *broken),
    )
    write(result, form, _render)
    if result.faults:
        raise SystemExit(1)


_LISTED = ("", "measure", "search")
"""Extras whose packages are listed whether they are there or not; of the others only what is installed."""


def _is_installed(distribution: str) -> bool:
    return _version(distribution) is not None


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _fault_of(distribution: str, installed: str | None, extra: str) -> str:
    """Return what is wrong with a package: it is missing from the base, or it is there and cannot be imported; else the empty string."""
    from importlib import import_module

    from nas.cli._extras import module_of
    from nas.errors import one_line

    if installed is None:
        return "" if extra else f"{distribution} is not installed. Do this: pip install {distribution}."
    try:
        if distribution in ("timm", "torchvision"):
            from nas.spaces.pretrained.libraries import declare_torchvision_operators

            declare_torchvision_operators()
        import_module(module_of(distribution))
    except Exception as error:  # noqa: BLE001 - a package may raise anything while it is imported, and that is what is asked for
        why = f"{type(error).__name__}: {one_line(error)}"
        return f"{distribution} {installed} is installed and cannot be imported ({why}). Do this: pip install --force-reinstall {distribution}."
    return ""


def _gpus() -> tuple[str, ...]:
    import torch

    return tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _profiles() -> tuple[int, list[str]]:
    """Return the number of valid profiles and what is wrong with the others and with their artifacts."""
    from nas.devices.names import clash_text, clashes, profile_files
    from nas.devices.predictor import load_predictor
    from nas.devices.profile import read_profile
    from nas.errors import NasError

    valid, faults = 0, [clash_text(name, paths) for name, paths in clashes().items()]
    for path in profile_files().values():
        try:
            profile = read_profile(path)
            for precision, facts in profile.precisions.items():
                if facts.predictor:
                    load_predictor(profile, precision, path.parent)
            valid += 1
        except NasError as error:
            faults.append(str(error))
    return valid, faults


def _render(result: Installation) -> None:
    from nas.report.tables import print_lines

    print_lines([f"nas {result.nas}, Python {result.python}, {result.platform}, {result.cores} cores"])
    print_lines([f"GPUs: {', '.join(result.gpus) or 'none; everything runs on the CPU'}"])
    for package, installed in result.packages.items():
        extra = result.extras[package]
        missing = f"not installed: extra [{extra}]" if extra else "MISSING"
        print_lines([f"  {package:20} {installed or missing}"])
    for kind, names in result.plugins.items():
        print_lines([f"{kind}: {', '.join(names) or 'none'}"])
    print_lines([f"devices: {result.devices} valid profiles; yours are looked for in {result.config_home}/devices"])
    print_lines(f"FAULT {fault}" for fault in result.faults)
    print_lines(["Nothing is wrong." if not result.faults else f"{len(result.faults)} faults."])
