"""``nas doctor``."""


def command() -> None:
    """Say what this installation has: versions, devices, optional tools."""
    import platform
    import sys
    from importlib.metadata import PackageNotFoundError, version

    sys.stdout.write(f"python {platform.python_version()} on {platform.platform()}\n")
    for package in ("torch", "optuna", "onnx", "onnxruntime", "onnxscript", "numpy", "networkx", "rich", "nni", "timm"):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "not installed"
        sys.stdout.write(f"{package} {found}\n")
