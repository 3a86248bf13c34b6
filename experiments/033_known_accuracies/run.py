"""What a few true accuracies add to training-free scores, and what minutes are best spent on, on NAS-Bench-201.

    python experiments/033_known_accuracies/run.py known --accuracies nasbench201_accuracy.npz --scores scores.npz
    python experiments/033_known_accuracies/run.py replay --accuracies nasbench201_accuracy.npz --scores scores.npz --latencies latency_nasbench201.npz

`scores.npz` is that of experiments/020_training_free: a thousand architectures drawn once. `known` calibrates their scores by accuracies of some of them, drawn at
random as `nas rank --known` does, 100 times over. `replay` spends minutes: training a network alone takes one, its accuracy is then the published one, and looking at
networks by training-free scores takes the processor time that was measured. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

import nas
from nas.bench.search import Enough, Meter, Table, run_searcher
from nas.spaces.naming import get_space
from nas.training.accuracy_table import read_accuracies
from nas.training.calibration import COVERAGE, calibrate
from nas.training.evaluators.zero_cost import VOTERS
from nas.training.score import vote

HERE = Path(__file__).parent
SEED, DRAWN = 0, 1000
DRAWS, KNOWN = 100, (5, 10, 20)
SEEDS, MINUTES = 100, (5, 10, 20, 40, 80)
DEVICE = "pixel3"
"""Whose latencies the table of the guided searcher has; all networks are within the budget."""

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def drawn(count: int) -> Rows:
    """Return the rows that experiments/020_training_free scored."""
    return np.random.default_rng(SEED).permutation(count)[:DRAWN]


def scored(path: Path) -> tuple[Array, float]:
    """Return networks × scores of the product's voters, and the processor seconds that a network takes."""
    kept = np.load(path)
    return np.stack([kept[name] for name in VOTERS], axis=1), sum(float(np.nanmean(kept[f"{name} s"])) for name in VOTERS)


# Known accuracies -----------------------------------------------------------------------------------------------------


def order(truth: Array, predicted: Array) -> dict[str, float]:
    """Return how an order agrees with the truth."""
    top = truth >= np.quantile(truth, 0.9)
    return {
        "kendall": float(kendalltau(truth, predicted).statistic),
        "top_tenth_kendall": float(kendalltau(truth[top], predicted[top]).statistic),
        "regret_points": float(truth.max() - truth[int(np.argmax(predicted))]),
    }


def figures_of_a_draw(scores: Array, voted: Array, truth: Array, known: Rows) -> dict[str, float]:
    """Return what the accuracies of `known` make of the scores; the others are compared."""
    rest = np.setdiff1d(np.arange(len(truth)), known)
    found, own = calibrate(scores, known, truth[known]), truth[rest]
    held = (own >= found.lower_pct[rest]) & (own <= found.upper_pct[rest])
    top = own >= np.quantile(own, 0.9)
    return order(own, found.accuracy_pct[rest]) | {
        "vote_kendall": float(kendalltau(own, voted[rest]).statistic),
        "covered": float(held.mean()),
        "top_tenth_covered": float(held[top].mean()),
        "median_width_points": float(np.median((found.upper_pct - found.lower_pct)[rest])),
    }


def spread(values: list[float]) -> list[float]:
    """Return the mean, and the 5th and the 95th percentile."""
    return [round(float(v), 4) for v in (np.mean(values), *np.quantile(values, [0.05, 0.95]))]


def known(given: argparse.Namespace) -> dict[str, object]:
    """Return means and percentiles over draws of the known accuracies, by column and by how many are known."""
    rows, columns, accuracy = read_accuracies(given.accuracies)
    at = drawn(len(rows))
    scores, _ = scored(given.scores)
    voted = vote(scores)
    report: dict[str, object] = {}
    for column, label in enumerate(columns):
        truth = np.asarray(accuracy[at, column], dtype=float)
        table: dict[str, object] = {"vote alone": {name: round(value, 4) for name, value in order(truth, voted).items()}}
        for count in KNOWN:
            rng = np.random.default_rng([SEED, count])
            made = [figures_of_a_draw(scores, voted, truth, rng.permutation(len(truth))[:count]) for _ in range(DRAWS)]
            table[f"{count} known"] = {name: spread([one[name] for one in made]) for name in made[0]} | {
                "above_the_vote": round(float(np.mean([one["kendall"] > one["vote_kendall"] for one in made])), 3)
            }
        report[str(label)] = table
    return {"draws": DRAWS, "nominal_coverage": COVERAGE, "results": report}


# Equal minutes --------------------------------------------------------------------------------------------------------


class Spending:
    """Ways of spending minutes; each returns the accuracies of what it trained.

    Args:
        scores: Drawn networks × scores.
        params: Of the drawn networks.
        truth: Of the drawn networks, %.
        everyone: Accuracies of the whole space.
        look_minutes: What the scores of one network take.
    """

    def __init__(self, scores: Array, params: Array, truth: Array, everyone: Array, look_minutes: float) -> None:
        self.scores, self.params, self.truth, self.everyone, self.look = scores, params, truth, everyone, look_minutes

    def random(self, minutes: int, rng: np.random.Generator) -> Array:
        """Train members drawn at random."""
        return self.everyone[rng.permutation(len(self.everyone))[:minutes]]

    def by_params(self, minutes: int, rng: np.random.Generator) -> Array:
        """Count parameters of the drawn thousand, and train the largest."""
        pool = rng.permutation(len(self.truth))
        return self.truth[pool[np.argsort(-self.params[pool], kind="stable")[:minutes]]]

    def by_vote(self, minutes: int, rng: np.random.Generator) -> Array:
        """Look at members for half of the minutes, and train the first by the vote."""
        pool, left = self._looked_at(minutes / 2, minutes, rng)
        return self.truth[pool[np.argsort(-vote(self.scores[pool]))[:left]]]

    def by_vote_and_known(self, minutes: int, rng: np.random.Generator) -> Array:
        """Look at members for a quarter of the minutes, train a quarter of them at random, five at least, and then the first by the calibrated scores."""
        pool, left = self._looked_at(minutes / 4, minutes, rng)
        count = max(5, minutes // 4)
        if left <= count:
            return self.truth[pool[:left]]
        chosen = np.arange(count)  # of a pool in random order
        predicted = calibrate(self.scores[pool], chosen, self.truth[pool[chosen]]).accuracy_pct
        predicted[chosen] = -np.inf
        return self.truth[np.concatenate([pool[chosen], pool[np.argsort(-predicted)[: left - count]]])]

    def _looked_at(self, share: float, minutes: int, rng: np.random.Generator) -> tuple[Rows, int]:
        pool = rng.permutation(len(self.truth))[: max(1, int(share / self.look))]
        return pool, int(minutes - len(pool) * self.look)


def guided(table: Table, seed: int) -> Array:
    """Train what the product's guided searcher proposes from the accuracies that it has seen; the first of them are those of fewer minutes."""
    task = table.task(DEVICE, 1.0)
    meter = Meter(task, max(MINUTES))
    with suppress(Enough):
        run_searcher("guided", meter, task.goal(1), seed)
    return np.array([table.accuracy_pct[member] for member in meter.evaluated])


def params_of(rows: list[str]) -> Array:
    """Return parameters, which follow from how many convolutions of each kind a cell has."""
    space, known = get_space("nasbench201"), dict[tuple[int, ...], float]()
    values = []
    for row in rows:
        counts = tuple(row.count(kind) for kind in ("nor_conv_3x3", "nor_conv_1x1"))
        if counts not in known:
            known[counts] = float(space.lower(space.parse(row)).cost.params)
        values.append(known[counts])
    return np.array(values)


def replay(given: argparse.Namespace) -> dict[str, object]:
    """Return how far the best trained network is from the best of the space, by column, way and minutes."""
    rows, columns, accuracy = read_accuracies(given.accuracies)
    at = drawn(len(accuracy))
    scores, seconds = scored(given.scores)
    params, report = params_of([str(rows[i]) for i in at]), dict[str, object]()
    for column, label in enumerate(columns):
        everyone = np.asarray(accuracy[:, column], dtype=float)
        searched: list[Array] = []
        if given.latencies:
            table = Table.load(given.latencies, given.accuracies, str(label), [DEVICE], raw=True)
            searched = [guided(table, seed) for seed in range(given.guided_seeds)]
        report[str(label)] = compared(Spending(scores, params, everyone[at], everyone, seconds / 60), searched)
    return {"seeds": SEEDS, "guided_seeds": given.guided_seeds, "vote_seconds_a_network": round(seconds, 3), "results": report}


def compared(ways: Spending, searched: list[Array]) -> dict[str, object]:
    """Return regrets by minutes and way, and how often a way ends above random members."""
    best, report = float(ways.everyone.max()), dict[str, object]()
    named = {"random": ways.random, "params": ways.by_params, "vote": ways.by_vote, "vote and known": ways.by_vote_and_known}
    for minutes in MINUTES:
        regrets = {
            name: np.array([best - float(way(minutes, np.random.default_rng([SEED, seed])).max()) for seed in range(SEEDS)])
            for name, way in named.items()
        }
        if searched:
            regrets["guided on true accuracies"] = np.array([best - float(one[:minutes].max()) for one in searched])
        report[f"{minutes} minutes"] = {name: row(values, regrets["random"][: len(values)]) for name, values in regrets.items()}
    return report


def row(values: Array, random: Array) -> dict[str, object]:
    """Return the figures of one way: regrets, and how often it ends above random members of the same seed."""
    return {
        "regret_points": spread(list(values)),
        "standard_error": round(float(values.std(ddof=1) / np.sqrt(len(values))), 4),
        "better_than_random": round(float(np.mean(values < random) + np.mean(values == random) / 2), 3),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("known", "replay"))
    parser.add_argument("--accuracies", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--latencies", type=Path, help="for replay: with them the guided searcher is run, too")
    parser.add_argument("--guided-seeds", type=int, default=30)
    given = parser.parse_args()
    facts = {"version": nas.__version__, "seed": SEED, "voters": VOTERS} | (known if given.what == "known" else replay)(given)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{given.what}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for label, table in facts["results"].items():
        print(label)
        for name, row in table.items():
            print(f"  {name}")
            for key, value in row.items():
                print(f"    {key:26} {value}")


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
