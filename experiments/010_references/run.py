"""Compare every reference with the counted table: parameters to the printed digit, MACs within 0.5 %.

    python experiments/010_references/run.py --counted ../shared/catalogue/reference_models.csv

Writes results/references.json: each row of the table that belongs to a system in search_spaces/references (or to one of
priority A without a reference), with the network that equals it, or the reason why none does. Nothing is random.
"""

import argparse
import csv
import json
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from nas.spaces import reference
from nas.testing.operators import count
from nas.testing.references import build_without_weights

OUT = Path(__file__).parent / "results" / "references.json"

# rows of priority-A systems that no reference equals, by the beginning of the system's name: why
OUT_OF_REACH = {
    "FMViT": "the official repository is an empty placeholder: no configuration is published",
}

# systems of priority A without a row: why nothing can be compared
WITHOUT_ROWS = {
    "S2AFormer": "no code is public and no configuration is stated: the operator alone is a choice",
}

# systems whose training form works out multiply-adds that are constants of the deploy form
BAKED = ("Swin V2",)

# systems whose figures were never counted, only printed
_PRINTED = "printed to one decimal, so neither an integer nor 0.5 % can be asked of it"
PRINTED_ONLY = dict.fromkeys(
    ("AFFNet", "CvT", "T2T-ViT", "MS-MLP", "NAT (base of DiNAT)", "TransNeXt", "GLMix/GLNet", "SOFT", "FcaFormer", "OverLoCK"), _PRINTED
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counted", type=Path, required=True)
    parser.add_argument(
        "--counts", type=Path, default=Path("runs/references/counts.json"), help="what was counted so far, so that a cut loses one network"
    )
    arguments = parser.parse_args()
    rows = list(csv.DictReader(arguments.counted.open()))
    variants = reference.variants()
    counts = counts_of(variants, arguments.counts)
    systems = tuple({variant.system for variant in variants.values()} | set(OUT_OF_REACH))
    known = {variant.timm_name for variant in variants.values() if variant.timm_name}
    found = [compare(row, counts) for row in rows if belongs(row["system"], systems) or row["timm_name"] in known]
    used = {row["network"] for row in found if row["network"]}
    data = {
        "command": f"python {Path(__file__).relative_to(Path(__file__).parents[2])} --counted reference_models.csv",
        "torch": torch.__version__,
        "machine": platform.platform(),
        "networks": len(variants),
        "networks_equal_to_a_row": len({row["network"] for row in found if row["equal"]}),
        "networks_without_a_row": sorted(set(variants) - used),
        "rows": len(found),
        "rows_equal": sum(row["equal"] for row in found),
        "rows_as_printed": sum(bool(row.get("as_printed")) for row in found),
        "networks_as_printed": {name: variant.printed for name, variant in variants.items() if variant.printed},
        "rows_equal_up_to_30M": sum(row["equal"] and row["published_params_M"] <= 30 for row in found),
        "systems_without_a_row": WITHOUT_ROWS,
        "table": found,
    }
    OUT.write_text(json.dumps(data, indent=1) + "\n")
    print(f"{data['rows_equal']} of {data['rows']} rows equal, {data['rows_equal_up_to_30M']} of them up to 30 M parameters")
    print(f"{data['networks_equal_to_a_row']} networks equal a row; {data['rows_as_printed']} rows agree with what is printed alone")
    print(f"{len(data['networks_as_printed'])} networks round to the figures that a README prints")
    for system, reason in WITHOUT_ROWS.items():
        print(f"  {system}: {reason}")
    for row in found:
        if not row["equal"]:
            print(f"  {row['system']} {row['variant']}: {row['reason']}")


def belongs(system: str, systems: tuple[str, ...]) -> bool:
    return any(system == mine or system.startswith(f"{mine} (") for mine in systems)


def counts_of(variants: Mapping[str, reference.Variant], path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """Return parameters and MACs of each network by its form, those that `path` holds uncounted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text()) if path.is_file() else {}
    for name, variant in variants.items():
        if name not in found:
            found[name] = counted(variant)
            path.write_text(json.dumps(found))
    return {name: {form: (p, m) for form, (p, m) in found[name].items()} for name in variants}


def counted(variant: reference.Variant) -> dict[str, tuple[int, int]]:
    """Return what the contract suite holds the network to; of a training form that costs more, also what PyTorch counts."""
    stated = (variant.params, variant.macs)
    if variant.train_params is None and variant.system not in BAKED:
        return {"as built": stated}
    return {"as built": count(build_without_weights(variant.name), (1, 3, *variant.resolution)), "deploy form": stated}


def compare(row: dict[str, str], counts: dict[str, dict[str, tuple[int, int]]]) -> dict[str, object]:
    """Return the row with the network whose printed parameters equal it and whose MACs are nearest."""
    params, macs = row["params_M"], row["macs_G"]
    places = len(params.partition(".")[2])
    near = []
    for name, variant in reference.variants().items():
        if row["timm_name"] != variant.timm_name if row["timm_name"] else not belongs(row["system"], (variant.system,)):
            continue
        if int(row["resolution"] or 0) != variant.resolution[0]:
            continue
        for form, (p, m) in counts[name].items():
            error_pct = 100 * abs(m / 1e9 - float(macs)) / float(macs) if macs else None
            near.append((abs(round(p / 1e6, places) - float(params or 0)), error_pct or 0.0, name, form, p, m, error_pct))
    plain = {key: row[key] for key in ("system", "variant")} | {
        "published_params_M": float(params or 0),
        "published_macs_G": float(macs) if macs else None,
        "network": "",
        "equal": False,
    }
    best = min(near, default=None)
    if best is None or round(best[4] / 1e6, places if row["system"] in PRINTED_ONLY else 3) != float(params):
        reason = next((why for system, why in OUT_OF_REACH.items() if why and belongs(row["system"], (system,))), "")
        nearest = f"nearest is {best[2]} with {best[4] / 1e6:.3f} M" if best else "no reference of this system and resolution"
        return plain | {"reason": reason or nearest}
    _, _, name, form, p, m, error_pct = best
    exact = {"network": name, "form": form, "params": p, "macs": m, "macs_error_pct": error_pct}
    if row["system"] in PRINTED_ONLY:
        agrees = f"{p / 1e6:.{places}f}" == params and f"{m / 1e9:.{len(macs.partition('.')[2])}f}" == macs
        said = "both agree as printed" if agrees else "the MACs differ as printed"
        return plain | exact | {"as_printed": agrees, "reason": f"{PRINTED_ONLY[row['system']]}; {said}"}
    if error_pct is not None and error_pct > 0.5:
        return plain | exact | {"reason": f"parameters equal, MACs differ by {error_pct:.1f} %"}
    return plain | exact | {"equal": True}


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
