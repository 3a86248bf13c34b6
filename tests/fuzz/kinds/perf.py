"""Published tables of timings (perf.yaml), down to the rows of a folder of them."""

from pathlib import Path
from tempfile import TemporaryDirectory

from nas.devices.aihub_perf import Published, read_published
from tests.published import perf_yaml

ENDING = ".yaml"
WORDS = (
    *(b"precisions:", b"components:", b"performance_metrics:", b"qnn_dlc:", b"tflite:", b"layer_counts:", b"tool_versions:"),
    *(b"inference_time_milliseconds: ", b".nan", b".inf", b"-1", b"&a", b"*a", b"!!python/object", b"[", b"{", b"null", b"2.60.0."),
)


def read(path: Path) -> Published:
    """What the table says, from a folder that holds it."""
    with TemporaryDirectory() as folder:
        room = Path(folder) / "models" / "resnet18"
        room.mkdir(parents=True)
        (room / "perf.yaml").write_bytes(path.read_bytes())
        return read_published(Path(folder))


def absurd(result: Published) -> str:
    wrong = [row for row in result.timings if not 0 < row.latency_ms < float("inf") or not row.title.isprintable()]
    return f"{wrong[0]}" if wrong or not result.timings else ""


def seeds() -> list[bytes]:
    return [perf_yaml("resnet18", 2.0).encode(), perf_yaml("resnet18", 3.5, layers=20, devices=("SA8295P ADP",)).encode()]
