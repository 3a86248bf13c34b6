"""Write search_spaces/zoo.csv: the published accuracy of every weight whose network has a workload at the same resolution.

    python experiments/002_zoo_facts/run.py --results results-imagenet.csv --counted ../shared/catalogue/reference_models.csv

`results-imagenet.csv` is timm's own evaluation of its weights (huggingface/pytorch-image-models, `results/`, Apache-2.0). The
counted table has what the authors of the systems in search_spaces/references state of weights that timm has not evaluated.
"""

import argparse
import csv
import json
import re
import sys
from pathlib import Path

from nas.graphs import workloads
from nas.spaces import reference

ROOT = Path(__file__).parents[2]
OUT = ROOT / "search_spaces" / "zoo.csv"
MATCHED = ROOT / "experiments" / "010_references" / "results" / "references.json"
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
    return bool(re.search(r"dist|ssld|usi|(^|_)ns_jft|swsl|ssl_yfcc|token_label", tag))


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


def authors_rows(path: Path, taken: set[str]) -> list[dict[str, str]]:
    """Return the weights of references that are not `taken`, as their authors state them.

    Which network a row of the counted table describes was settled by its integers in study 010; what the table lacks stands with the reference.
    """
    stated = {(row["system"], row["variant"]): row for row in csv.DictReader(path.open())}
    variants, known = reference.variants(), set(workloads.names())
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for match in json.loads(MATCHED.read_text())["table"]:
        row, network = stated[match["system"], match["variant"]], match["network"]
        if network not in known or network in taken or not row["top1"]:
            continue
        tag = authors_tag(variants[network], row)
        source = (
            f"its authors: {row['source'].partition('top1 ')[2].partition(';')[0].partition(' (')[0] or row['source'].partition(';')[0]}"
        )
        if "timm results-imagenet" in source:
            source = "timm results-imagenet"
        facts = [network, network, tag, str(variants[network].resolution[0]), f"{float(row['top1']):.3f}", pretraining(tag)]
        rows[network, tag] = dict(zip(COLUMNS, [*facts, str(int(distilled(tag))), source], strict=True))
    described = {network for network, _ in rows}
    for network, variant in variants.items():
        if network not in known or network in taken | described or variant.top1_pct is None:
            continue
        facts = [network, network, "in1k", str(variant.resolution[0]), f"{variant.top1_pct:.3f}", pretraining("in1k"), "0"]
        rows[network, "in1k"] = dict(zip(COLUMNS, [*facts, f"its authors: {variant.source}"], strict=True))
    for network in sorted({network for network, _ in rows}):
        if unknown := workloads.load(network).unknown:
            sys.stdout.write(f"left out: {network} has operators outside the vocabulary: {', '.join(unknown)}\n")
            rows = {key: row for key, row in rows.items() if key[0] != network}
    return list(rows.values())


def authors_tag(variant: reference.Variant, row: dict[str, str]) -> str:
    """Return a tag in timm's manner: none of these weights has seen more than ImageNet-1k."""
    if "token labeling" in row["source"]:
        return "token_label_in1k"
    return "dist_in1k" if "distil" in f"{row['variant']} {variant.source}" else "in1k"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--counted", type=Path, required=True)
    arguments = parser.parse_args()
    rows = timm_rows(arguments.results)
    rows += authors_rows(arguments.counted, {row["network"] for row in rows})
    rows.sort(key=lambda row: (row["network"], row["weights"], row["resolution"]))
    with OUT.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    sys.stdout.write(f"{len(rows)} weights of {len({row['network'] for row in rows})} networks -> {OUT.name}\n")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
