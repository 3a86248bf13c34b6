"""Find the most accurate published network within a budget; nothing is trained. Half a minute for 1,400 networks.

python experiments/examples/survey_zoo.py sa8295p 5ms
"""

import sys

import nas


def main(device: str = "sa8295p", budget: str = "5ms", space: str = "zoo", out: str | None = None) -> None:
    result = nas.survey(device, budget, space=space, out=out)
    for point in result.front:
        print(f"{point.network}: {point.accuracy_pct:.2f} % by its authors, {point.latency_ms:.3g} ms, at most {point.upper_ms:.3g} ms")
    if result.chosen is not None:
        print(f"choice: {result.chosen.network}; {result.why_not_more}")
    print(f"run: {result.run_dir}")


if __name__ == "__main__":
    main(*sys.argv[1:])
