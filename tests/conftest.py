"""Lets timm import beside a CPU build of PyTorch."""


def pytest_configure() -> None:
    from nas.spaces.pretrained.libraries import declare_torchvision_operators

    declare_torchvision_operators()
