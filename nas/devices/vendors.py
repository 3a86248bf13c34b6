"""Who makes the chip of a device."""

from __future__ import annotations

_MARKS = {
    "Allwinner": ("allwinner",),
    "AMD": ("amd",),
    "Amlogic": ("amlogic",),
    "Apple": ("apple", "macbook", "iphone", "ipad"),
    "Axera": ("axera",),
    "Broadcom": ("raspberry", "broadcom"),
    "Google": ("pixel", "tensor-g", "coral", "edge-tpu"),
    "Hailo": ("hailo",),
    "Huawei": ("kirin", "ascend"),
    "Intel": ("intel", "i9-", "core-i"),
    "Loongson": ("loongson",),
    "MediaTek": ("mediatek", "dimensity"),
    "NVIDIA": ("nvidia", "rtx", "jetson", "geforce", "tesla", "gtx"),
    "Phytium": ("phytium",),
    "Qualcomm": ("qualcomm", "snapdragon", "dragonwing", "qcs", "qrb", "sa8", "rb3", "rb5"),
    "Renesas": ("renesas",),
    "Rockchip": ("rockchip", "rk1", "rk3", "rv1"),
    "Samsung": ("exynos",),
    "SpacemiT": ("spacemit",),
    "StarFive": ("jh7110", "starfive"),
    "Sunway": ("sunway",),
    "T-Head": ("t-head",),
}
"""Words of titles and names by which a maker is known."""

_FAMILIES = {"hexagon": "Qualcomm", "nvidia": "NVIDIA", "hailo": "Hailo", "rknn": "Rockchip"}
"""A family says more than a name: a phone is called after who sells it."""


def vendor_of(name: str, title: str, family: str = "") -> str:
    """Return who makes the chip; empty where neither name, title nor family says."""
    if family in _FAMILIES:
        return _FAMILIES[family]
    words = f"{title} {name}".lower()
    return next((vendor for vendor, marks in _MARKS.items() if any(mark in words for mark in marks)), "")
