"""Which recipe of supernet training orders NAS-Bench-201 best for its minutes, and what ten true accuracies add.

    python experiments/029_supernet_ranking/run.py halve --data cifar10_jpeg.tar.xz --images 25000 --name half
    python experiments/029_supernet_ranking/run.py train score --recipe fair --minutes 6 --data half.tar --side 16 --accuracies nasbench201_accuracy.npz --name fair
    python experiments/029_supernet_ranking/run.py free --accuracies nasbench201_accuracy.npz --name free
    python experiments/029_supernet_ranking/run.py compare --accuracies nasbench201_accuracy.npz --scores fair.npz sandwich.npz --free free.npz --to results/recipes.json

`train` gives every recipe as many processor minutes, to which its schedule is cut. `score` takes the first `--drawn` of the architectures that
experiments/020_training_free draws (seed 0) and `--best` of the best tenth of all, on `--pictures` pictures of validation; a training that was stopped starts
again from its last checkpoint with the minutes that are given then, a scoring goes on where it was. `compare` takes what there is: supernets' scores, the training-free
ones, or both; known accuracies are drawn anew a hundred times.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

import nas
from nas.spaces.naming import get_elastic_space, get_space
from nas.training.accuracy_table import read_accuracies
from nas.training.calibration import calibrate
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.zero_cost import VOTERS, ZeroCost
from nas.training.rank import agreements, kendall
from nas.training.score import vote

HERE = Path(__file__).parent
SPACE = "nasbench201-c8n2"
SEED, DRAWN, BEST = 0, 1000, 500
KNOWN, REPEATS, EVERY = 10, 100, 20
AZ_NAS = ("expressivity", "progressivity", "trainability")
KINDS = ("accuracy", "explained")
"""What a supernet says of a member, see `nas.training.supernet.scores.SharedScores`."""

MOST_EPOCHS = 1000
Array = npt.NDArray[np.float64]


def chosen(accuracy: Array) -> npt.NDArray[np.int64]:
    """Return the rows that are scored: those drawn from all, then those drawn from the best tenth by the first column."""
    drawn = np.random.default_rng(SEED).permutation(len(accuracy))[:DRAWN]
    best = np.flatnonzero(accuracy[:, 0] >= np.quantile(accuracy[:, 0], 0.9))
    return np.concatenate([drawn, np.random.default_rng(SEED + 1).permutation(best)[:BEST]])


@cache
def pictures_of(data: str, seed: int, images: int | None) -> Dataset:
    """Return the pictures, which a process reads once."""
    return load_dataset(data, seed=seed, images=images)


def halve(given: argparse.Namespace) -> None:
    """Write a tar of the pictures of train and validation at half their side, each pixel the mean of four."""
    from PIL import Image

    dataset = pictures_of(given.data, given.seed, given.images)
    with tarfile.open(given.name.with_suffix(".tar"), "w") as archive:
        for split in ("train", "validation"):
            pixels = dataset.pixels(split, (32, 32)).reshape(-1, 16, 2, 16, 2, 3).astype(float).mean((2, 4)).round().astype(np.uint8)
            for i, (picture, label) in enumerate(zip(pixels, dataset.labels(split), strict=True)):
                data = io.BytesIO()
                Image.fromarray(picture).save(data, "PNG")
                entry = tarfile.TarInfo(f"train/{dataset.classes[label]}/{split}{i}.png")
                entry.size = len(data.getvalue())
                archive.addfile(entry, io.BytesIO(data.getvalue()))


def train(given: argparse.Namespace) -> None:
    """Train the supernet by a recipe for so many processor minutes."""
    from nas.training.supernet.train import Recipe
    from nas.training.supernet.train import train as train_supernet

    dataset = pictures_of(given.data, given.seed, given.images)
    dataset.pixels("train", (given.side, given.side))  # read before the clock starts, as for every recipe
    recipe = Recipe(epochs=MOST_EPOCHS, batch=given.batch, learning_rate=given.rate, methods=tuple(given.recipe.split(",")))
    began_s = time.process_time()
    trained = train_supernet(
        get_elastic_space(SPACE, num_classes=dataset.num_classes),
        dataset,
        given.name.with_suffix(".safetensors"),
        recipe,
        resolution=(given.side, given.side),
        seed=given.seed,
        left_s=lambda: 60 * given.minutes - (time.process_time() - began_s),
    )
    minutes = (time.process_time() - began_s) / 60
    facts = {"recipe": given.recipe, "side": given.side, "batch": given.batch, "learning_rate": given.rate, "seed": given.seed}
    facts |= {
        "processor_minutes": round(minutes, 2),
        "pictures": dataset.count("train"),
        "history": [dict(entry) for entry in trained.history],
    }
    given.name.with_suffix(".json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    print(f"{given.recipe}: {minutes:.1f} processor minutes; {facts['history'][-1]}")


def score(given: argparse.Namespace) -> None:
    """Score the chosen rows with shared weights; what `--out` has already is not scored again."""
    from nas.training.evaluators.supernet import SupernetEvaluator
    from nas.training.supernet.train import load_supernet

    rows, _, accuracy = read_accuracies(given.accuracies)
    dataset = pictures_of(given.data, given.seed, given.images).thinned("validation", given.pictures)
    space = get_elastic_space(SPACE, num_classes=dataset.num_classes)
    evaluator = SupernetEvaluator(load_supernet(given.name.with_suffix(".safetensors"), space), dataset)
    keep(given, rows, accuracy, KINDS, lambda row: astuple(evaluator.scores(space.parse(row))))


def free(given: argparse.Namespace) -> None:
    """Measure the training-free scores of the same rows, in the benchmark's own network."""
    rows, _, accuracy = read_accuracies(given.accuracies)
    space = get_space("nasbench201")
    names = tuple(given.names.split(","))
    judge = ZeroCost(space, SEED, voters=names)
    keep(given, rows, accuracy, names, lambda row: judge.measure(space.parse(row)))


def keep(
    given: argparse.Namespace, rows: Sequence[str], accuracy: Array, names: Sequence[str], measure: Callable[[str], Sequence[float]]
) -> None:
    """Measure the chosen rows that the file of scores lacks, and write it down now and then."""
    wanted, out = chosen(accuracy), given.name.with_suffix(".npz")
    kept = dict(np.load(out)) if out.exists() else {}
    for name in names:
        kept.setdefault(name, np.full(len(wanted), np.nan))
    begin_s = float(kept.get("processor_s", 0.0))
    todo = [i for i in [*range(given.drawn), *range(DRAWN, DRAWN + given.best)] if np.isnan(kept[names[-1]][i])]
    began_s = time.process_time()
    for done, i in enumerate(todo, 1):
        for name, value in zip(names, measure(str(rows[wanted[i]])), strict=True):
            kept[name][i] = value
        if done % EVERY == 0 or done == len(todo):
            kept["processor_s"] = np.array(begin_s + time.process_time() - began_s)
            part = out.with_suffix(".part.npz")
            np.savez(part, **kept)  # type: ignore[arg-type]
            os.replace(part, out)
            print(f"{done} of {len(todo)}, {time.process_time() - began_s:.0f} processor seconds", flush=True)


def compare(given: argparse.Namespace) -> None:
    """Write how supernets, vote, counting and calibrated scores order the networks."""
    rows, columns, accuracy = read_accuracies(given.accuracies)
    wanted = chosen(accuracy)
    files = {path.stem: dict(np.load(path)) for path in given.scores}
    supernets = {f"{stem} {kind}": kept[kind] for stem, kept in files.items() for kind in KINDS if kind in kept}
    voters = dict(np.load(given.free)) if given.free else {}
    parts = supernets | {name: values for name, values in voters.items() if name != "processor_s"}
    known = np.flatnonzero(~np.isnan(np.stack(list(parts.values()))).any(axis=0))
    space = get_space("nasbench201")
    costs = [space.lower(space.parse(rows[i])).cost for i in wanted[known]]
    scores = {name: finite(values[known]) for name, values in supernets.items()}
    baselines = {"parameters": np.array([float(cost.params) for cost in costs]), "macs": np.array([float(cost.macs) for cost in costs])}
    drawn = known < DRAWN

    def voted(*columns: Array) -> Array:
        values = np.stack(columns, axis=1)
        return vote(values, values[drawn])

    if voters:
        free_scores = {name: values[known] for name, values in voters.items() if name != "processor_s"}
        baselines["vote"] = voted(*(free_scores[name] for name in VOTERS))
        scores |= {f"{name} + vote": voted(values, *(free_scores[voter] for voter in VOTERS)) for name, values in list(scores.items())}
        scores |= {name: finite(values) for name, values in free_scores.items()}
        if set(AZ_NAS) <= set(free_scores):
            scores["AZ-NAS"] = voted(*(free_scores[name] for name in AZ_NAS), baselines["macs"])
            scores["vote and AZ-NAS"] = voted(*(free_scores[name] for name in dict.fromkeys((*VOTERS, *AZ_NAS))))
    report: dict[str, object] = {}
    for at, column in enumerate(columns):
        truth = accuracy[wanted[known], at]
        table: dict[str, object] = {}
        for label, part in (("drawn", drawn), ("of the best tenth", ~drawn)):
            if part.sum() >= 2:
                judged, compared = agreements(
                    truth[part], {n: v[part] for n, v in scores.items()}, {n: v[part] for n, v in baselines.items()}, SEED
                )
                table[label] = {name: entry.dump() for name, entry in (compared | judged).items()}
        votes = [scores[name] for name in VOTERS] if voters else []
        sets = {"vote": votes} if voters else {}
        sets |= {name: [scores[name], *votes] for name in supernets}
        table[f"calibrated by {KNOWN}"] = {name: calibrated(np.stack(own, axis=1), truth, drawn) for name, own in sets.items()}
        report[column] = table
    facts = {
        "version": nas.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread, shared with other work",
        "seed": SEED,
        "networks": {"drawn": int(drawn.sum()), "of the best tenth": int((~drawn).sum())},
        "trained": {stem: json.loads(path.with_suffix(".json").read_text()) for stem, path in trained_of(given.scores).items()},
        "scoring_processor_s": {stem: round(float(kept["processor_s"]), 1) for stem, kept in files.items()},
        "results": report,
    }
    given.to.parent.mkdir(exist_ok=True)
    given.to.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for column, table in report.items():
        print(column)
        for label, entries in table.items():  # type: ignore[attr-defined]
            for name, entry in entries.items():
                print(
                    f"  {label:18} {name:32} {entry['kendall']} {entry.get('kendall_interval', '')} {entry.get('best_tenth_kendall', '')}"
                )


def trained_of(scores: Sequence[Path]) -> dict[str, Path]:
    """Return where `train` has written what it did, by the name of a file of scores, which stands beside it."""
    return {path.stem: path for path in scores if path.with_suffix(".json").exists()}


def finite(values: Array) -> Array:
    """Put what has no score below all others."""
    lowest = float(np.min(values[np.isfinite(values)]))
    return np.where(np.isfinite(values), values, lowest - 1.0)


def calibrated(scores: Array, truth: Array, drawn: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return what `KNOWN` true accuracies make of the scores, means over random choices of the known among the drawn; the others are compared."""
    figures: dict[str, list[float]] = {name: [] for name in ("kendall", "best_tenth_kendall", "regret_points", "covered", "width")}
    rng = np.random.default_rng(SEED)
    at = np.flatnonzero(drawn)
    for _ in range(REPEATS):
        known = rng.permutation(at)[:KNOWN]
        rest = np.setdiff1d(at, known)
        found = calibrate(scores, known, truth[known])
        own, predicted = truth[rest], found.accuracy_pct[rest]
        figures["kendall"].append(kendall(own, predicted) or 0.0)
        figures["best_tenth_kendall"].append(kendall(truth[~drawn], found.accuracy_pct[~drawn]) or 0.0)
        figures["regret_points"].append(float(own.max() - own[int(np.argmax(predicted))]))
        figures["covered"].append(float(((own >= found.lower_pct[rest]) & (own <= found.upper_pct[rest])).mean()))
        figures["width"].append(float(np.median((found.upper_pct - found.lower_pct)[rest])))
    if drawn.all():
        del figures["best_tenth_kendall"]
    means = {name: round(float(np.mean(values)), 4) for name, values in figures.items()}
    return means | {"kendall_sd": round(float(np.std(figures["kendall"])), 4)}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("halve", "train", "score", "free", "compare"), nargs="+")
    parser.add_argument("--accuracies", type=Path)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--recipe", default="sandwich", help="names joined by commas")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--side", type=int, default=32, help="of the pictures")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--images", type=int, default=None, help="of train and validation that are used")
    parser.add_argument("--drawn", type=int, default=DRAWN)
    parser.add_argument("--best", type=int, default=BEST)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--names", default=",".join(VOTERS))
    parser.add_argument("--scores", type=Path, nargs="*", default=[])
    parser.add_argument("--free", type=Path)
    parser.add_argument("--to", type=Path, default=HERE / "results" / "recipes.json")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--name", type=Path, help="of the files of weights and scores, without an ending")
    given = parser.parse_args()
    for what in given.what:
        {"halve": halve, "train": train, "score": score, "free": free, "compare": compare}[what](given)


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
