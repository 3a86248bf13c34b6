"""Write search_spaces/zoo.csv: the published accuracy of every weight whose network has a workload at the same resolution.

    python experiments/002_zoo_facts/run.py --results results-imagenet.csv

`results-imagenet.csv` is timm's own evaluation of its weights (huggingface/pytorch-image-models, `results/`, Apache-2.0).
"""

import argparse
import csv
import re
import sys
from pathlib import Path

from nas import workloads

OUT = Path(__file__).parents[2] / "search_spaces" / "zoo.csv"
COLUMNS = ["network", "workload", "weights", "resolution", "top1_pct", "pretraining", "distilled", "source"]

# what the parts of a timm tag say of the data that a weight has seen before (or beside) ImageNet-1k; the first match counts
PRETRAINING = [
    (r"laion|openai|clip|dfn|webli|metaclip|siglip|datacomp|merged2b|merged_2b", "image-text pairs"),
    (r"ig1b|wsl|swag|seer", "Instagram"),
    (r"jft", "JFT-300M"),
    (r"yfcc", "YFCC100M"),
    (r"lvd", "LVD"),
    (r"m30m|m38m", "merged 30M images"),
    (r"ssld_6m", "6M images"),
    (r"in22k|in21k|ssld_stage", "ImageNet-22k"),
    (r"in12k", "ImageNet-12k"),
]


def pretraining(tag: str) -> str:
    return next((data for pattern, data in PRETRAINING if re.search(pattern, tag)), "ImageNet-1k")


def distilled(tag: str) -> bool:
    return bool(re.search(r"dist|ssld|usi|(^|_)ns_jft|swsl|ssl_yfcc", tag))


def timm_rows(path: Path) -> list[dict[str, str]]:
    by_shape = {}
    for name in workloads.names():
        work = workloads.describe(name)
        if work.library == "timm" and len(work.input) == 4:
            by_shape[work.model, work.input[2:]] = name
    rows = []
    for row in csv.DictReader(path.open()):
        network, _, tag = row["model"].partition(".")
        side = int(row["img_size"])
        workload = by_shape.get((network, (side, side)))
        if workload is None or network.startswith("test_"):
            continue
        if unknown := workloads.load(workload).unknown:
            sys.stdout.write(f"left out: {workload} has operators outside the vocabulary: {', '.join(unknown)}\n")
            continue
        facts = [network, workload, tag, row["img_size"], row["top1"], pretraining(tag), str(int(distilled(tag))), "timm results-imagenet"]
        rows.append(dict(zip(COLUMNS, facts, strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    rows = timm_rows(arguments.results)
    rows.sort(key=lambda row: (row["network"], row["weights"], row["resolution"]))
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(f"{len(rows)} weights of {len({row['network'] for row in rows})} networks -> {OUT.name}\n")


if __name__ == "__main__":
    main()
