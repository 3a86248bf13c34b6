"""Which families of networks are chains: traced, cut at every point, put together again and compared in float32.

    python experiments/019_anchors/families.py --names ../shared/design/chain_families.txt

Networks have fresh weights: what is shown is that the segments are the network, whatever its weights are. timm is needed.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from nas.errors import NasError
from nas.graphs.frontends.cuts import cut
from nas.spaces.chain import Chain
from nas.spaces.pretrained.libraries import build_published, resolution_of

HERE = Path(__file__).parent
TOLERANCE = 1e-5


def row(name: str) -> dict[str, object]:
    """Return what is known of one network."""
    began_s = time.monotonic()
    try:
        network, (height, width) = build_published(name).eval(), resolution_of(name)
        chain = Chain(name, cut(network, (1, 3, height, width), name))
        x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            y = x
            for segment in chain.between(range(len(chain.points))):
                y = segment.build()(y)
            expected = network(x)
        difference = float((y - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    except NasError as error:
        return {"name": name, "equal": False, "reason": str(error)}
    return {
        "name": name,
        "points": len(chain.points),
        "block_ends": len(chain.ends),
        "difference": difference,
        "equal": difference <= TOLERANCE,
        "seconds": round(time.monotonic() - began_s, 1),
    }


def main() -> None:
    """Write ``results/families.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", type=Path, required=True, help="file with one timm name a line")
    args = parser.parse_args()
    names = [line.strip() for line in args.names.read_text().splitlines() if line.strip() and not line.startswith("#")]
    rows = []
    for name in names:
        rows.append(row(name))
        print(rows[-1], flush=True)
    report = {
        "command": "python experiments/019_anchors/families.py --names ../shared/design/chain_families.txt",
        "made": datetime.now(UTC).date().isoformat(),
        "versions": {package: version(package) for package in ("torch", "timm", "torchvision")},
        "tolerance": TOLERANCE,
        "networks": len(rows),
        "equal": sum(bool(found["equal"]) for found in rows),
        "rows": rows,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "families.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
