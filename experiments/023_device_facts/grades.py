"""Count how far profiles may be believed: grades of those with twelve networks or more, and whether any says 90 % of intervals that cover less than 85 %.

    python experiments/023_device_facts/grades.py

Reads the committed profiles at their default precision; writes results/grades.json.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from nas.devices.names import profile_files
from nas.devices.profile import load_profile
from nas.devices.trust import LEAST_COVERAGE_PCT

FEWEST = 12


def main() -> None:
    """Count, write and print."""
    every, judged = [load_profile(name) for name in sorted(profile_files())], []
    for profile in every:
        at = profile.at(profile.default_precision)
        if at.held_out and at.held_out.networks >= FEWEST:
            judged.append((profile, at))
    narrow = {p.name: at for p, at in judged if at.held_out and (at.held_out.coverage_pct or 0) < LEAST_COVERAGE_PCT}
    by_family = [(p, at) for p, at in judged if at.held_out and at.held_out.families]
    report = {
        "profiles": len(every),
        f"with {FEWEST} networks or more": len(judged),
        "of these families or lineages left out": len(by_family),
        "grades": dict(sorted(Counter(at.grade for _, at in judged).items())),
        "A or B, families left out": sum(at.grade in ("A", "B") for _, at in by_family),
        "A or B by table": dict(Counter(_table(p.name, at.artifact) for p, at in by_family if at.grade in ("A", "B"))),
        f"cover less than {LEAST_COVERAGE_PCT:g} %": sorted(narrow),
        "of these called 90 %": sorted(name for name, at in narrow.items() if at.stated_confidence(0.9) >= 0.9),
        "C or D": {
            p.name: [at.held_out.mean_error_pct, at.held_out.coverage_pct] for p, at in judged if at.held_out and at.grade in ("C", "D")
        },
    }
    (Path(__file__).parent / "results" / "grades.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def _table(name: str, artifact: str) -> str:
    return "tflite" if name.endswith("-tflite") else artifact.removesuffix(".npz")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
