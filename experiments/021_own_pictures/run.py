"""A search among published networks on the user's pictures, as the protocol says; the results are kept without the weights.

    python experiments/021_own_pictures/run.py --data /tmp/cifar-1000 --time-limit 25min [--precision w8a8] [--also w8a8] [--seed 0] [--name cifar-1000]
    python experiments/021_own_pictures/run.py --data /tmp/cifar-1000 --time-limit 25min --from-scratch

Needs the weights of the extra ``anchors``, unless all is trained from nothing. With ``--also`` the choice is written and tested at another precision, too, after the search. Limits are by the clock; the file says the processor seconds too, and how loaded the machine was.
"""

import argparse
import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

import nas
from nas.cli._options import progress
from nas.results import Export
from nas.runs.lifecycle import resume

HERE = Path(__file__).parent


def main() -> None:
    """Search, and write ``results/NAME-LIMIT[-PRECISION][-from-scratch][-BUDGET]-SEED.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--time-limit", default="25min")
    parser.add_argument("--precision")
    parser.add_argument("--also")
    parser.add_argument("--budget", default="5ms")
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name")
    parser.add_argument("--run", type=Path, help="the run directory; resumed where it exists")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    run = given.run or Path(tempfile.mkdtemp()) / "run"
    with progress() as bus:
        if run.exists():
            found = resume(run, bus)
        else:
            found = nas.search(
                given.device,
                given.budget,
                **({"from_scratch": True} if given.from_scratch else {"space": "zoo"}),
                data=given.data,
                time_limit=given.time_limit,
                precision=given.precision,
                seed=given.seed,
                out=run,
                bus=bus,
            )
    assert found.chosen is not None
    assert found.ledger is not None
    also = {}
    if given.also:
        written = nas.export(run, run / f"also-{given.also}.onnx", precision=given.also)
        assert isinstance(written, Export)
        also = {"precision": given.also, "accuracy_pct": written.accuracy_pct, "size_bytes": written.size_bytes}
    row = {
        "data": given.name or given.data.name,
        "device": given.device,
        "budget": given.budget,
        "seed": given.seed,
        "chosen": found.chosen.dump(),
        "why": found.why,
        "also": also,
        "contenders": [contender.dump() for contender in found.contenders],
        "ledger": found.ledger.dump(),
        "by_class": found.by_class.dump() if found.by_class else None,
        "seconds": found.seconds,
        "notices": [line for line in found.notices if line.startswith(("forecast", "test accuracy", "space", "size", "resolution"))],
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "timm")},
        "machine": platform.processor() or platform.machine(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if not given.from_scratch:
        row["chosen"].pop("architecture", None)
    given.out.mkdir(parents=True, exist_ok=True)
    kind = "".join(
        f"-{word}" for word in (given.precision, given.from_scratch and "from-scratch", given.budget != "5ms" and given.budget) if word
    )
    (given.out / f"{row['data']}-{given.time_limit}{kind}-{given.seed}.json").write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
