"""Read a run, finished or not: its choice, its front and what it cost.

python experiments/examples/read_run.py runs/zoo
"""

import sys

import nas


def main(path: str) -> None:
    run = nas.load_run(path)
    print(f"{run.run_dir}: {run.status}, {run.evaluations} evaluations, {sum(run.seconds.values()):.1f} s")
    for point in run.front:
        mark = "→" if run.chosen is not None and point.key == run.chosen.key else " "
        for device, latency in point.devices.items():
            print(
                f"{mark} {point.network or point.key}: {latency.latency_ms:.3g} ms {latency.basis} on {device}, grade {latency.grade or 'unknown'}"
            )
    print(f"model: {run.model or run.model_reason}")


if __name__ == "__main__":
    main(sys.argv[1])
