"""Tables of a user's timings: CSV, as spreadsheets write it."""

from pathlib import Path

from nas.devices.timings import UserTiming, read_timings

ENDING = ".csv"
WORDS = (
    b";",
    b",",
    b"\t",
    b'"',
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"latency_ms",
    b"network",
    b" ms",
    b"nan",
    b"-1",
    b"1e308",
    b"w8a8",
    b"\0",
)


def read(path: Path) -> list[UserTiming]:
    return read_timings(path, "fp16")


def absurd(result: list[UserTiming]) -> str:
    return "" if all(1e-6 <= t.latency_ms <= 1e7 for t in result) else f"latencies {result[:3]}"


def seeds() -> list[bytes]:
    body = "resnet18,1.9\nresnet50,4.1\nmobilenetv2_100,1.5\n"
    return [
        f"network,latency_ms\n{body}".encode(),
        f"network,latency_ms\n{body}".encode("utf-16"),
        "\ufeffnetwork;latency_ms;precision\nresnet18;1,9;fp16\nresnet50;4,1;w8a8\n".encode(),
        b'"Network","Latency (ms)"\r\nresnet18,"1,9 ms"\r\n',
    ]
