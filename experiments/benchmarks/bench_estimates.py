"""Estimates a second on one core: members of an elastic space, priced in batches as a search does.

    python experiments/benchmarks/bench_estimates.py [--device sa8295p] [--space hybrid-s] [--count 20000]

Processor time of this process alone. Three rounds of fresh members: pricing (the predictor on chained segments, as the search hands them over), and with the
lowering of each member to its segments; the first rounds price segments that later ones know. Then the last round's members again, all of whose segments
are known. Writes results/estimates.json and prints it.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

from nas.devices.names import find_profile
from nas.devices.predictor import load_predictor
from nas.devices.profile import load_profile
from nas.spaces.naming import get_space

BATCH, ROUNDS = 2000, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--space", default="hybrid-s")
    parser.add_argument("--count", type=int, default=20000, help="members a round")
    options = parser.parse_args()
    profile, space = load_profile(options.device), get_space(options.space)
    precision = profile.default_precision
    predictor = load_predictor(profile, precision, find_profile(options.device).parent)
    rng = np.random.default_rng(0)
    lowering, pricing = [], []
    for _ in range(ROUNDS):
        members = [space.sample(rng) for _ in range(options.count)]
        began_s = time.process_time()
        segments = [space.segments(member, None) for member in members]
        lowering.append(time.process_time() - began_s)
        began_s = time.process_time()
        for start in range(0, options.count, BATCH):
            predictor.estimate_batch(segments[start : start + BATCH], profile, precision)
        pricing.append(time.process_time() - began_s)
    again = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for start in range(0, options.count, BATCH):
            predictor.estimate_batch(segments[start : start + BATCH], profile, precision)
        again.append(time.process_time() - began_s)
    result = {
        "command": f"python experiments/benchmarks/bench_estimates.py --device {options.device} --space {options.space} --count {options.count}",
        "device": profile.name,
        "precision": precision,
        "space": options.space,
        "members_a_round": options.count,
        "priced_again_a_second": [round(options.count / s) for s in again],
        "priced_a_second": [round(options.count / s) for s in pricing],
        "lowered_and_priced_a_second": [round(options.count / (a + b)) for a, b in zip(lowering, pricing, strict=True)],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.processor() or platform.machine(),
    }
    (Path(__file__).parent / "results" / "estimates.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
