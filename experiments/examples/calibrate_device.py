"""Make a profile of your own device from a few timings, and price a network that was not among them.

python experiments/examples/calibrate_device.py experiments/examples/timings.csv

The timings in `timings.csv` are invented: they show the form of the file, and the errors that are printed mean nothing.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nas

TIMINGS = Path(__file__).with_name("timings.csv")


def main(timings: str | Path = TIMINGS) -> None:
    with TemporaryDirectory() as folder:
        made = nas.calibrate("my-board", timings, base="sa8295p", to=folder)
        print(made)
        estimate = nas.predict("efficientnet_b0", f"{folder}/my-board.toml")
        print(f"efficientnet_b0: {estimate.latency_ms:.2f} ms {estimate.basis}, at most {estimate.upper_ms:.2f} ms, grade {estimate.grade}")


if __name__ == "__main__":
    main(*sys.argv[1:])
