"""Does a search spend its budget? Its answer within .7, 1 and 2 ms beside five networks spread over the latencies that are within each, fine-tuned for the same time.

    python experiments/021_own_pictures/subset.py --data cifar10_jpeg.tar.xz --each 100 --tests 200 --out /tmp/cifar-100
    python experiments/021_own_pictures/budgets.py --data /tmp/cifar-100 --work /tmp/budgets --minutes 3 --tested /tmp/cifar-1000

Each of the five (a network at a size; the slowest within the budget is always one of them) starts from its own probe, as the search's contestants do, and has as many processor
minutes as the whole search has by its limit on one thread, in which the search tests its file, too: give few test pictures. All are compared on the same ones, of `--tested`. A network that is among the five of two budgets is
trained once. What is done is in `--work`, and the same command goes on from there. Needs the weights of the extra ``anchors``.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from equal_seconds import tune

import nas
from nas.runs.problem import Problem, make_problem
from nas.runs.request import Request
from nas.runs.transfer_candidates import sizes
from nas.spaces.architecture import Architecture
from nas.training.dataset import Dataset, load_dataset
from nas.training.evaluators.probe import ProbeEvaluator
from nas.training.memory import keep_freed_memory
from nas.training.note import noted
from nas.training.supernet.batches import Batches
from nas.training.supernet.finetune import load_member
from nas.training.supernet.statistics import predictions
from nas.training.transfer.recipe import transfer_recipe
from nas.training.transfer.tuning import Tuning, keeps_norms
from nas.units import write_resolution

HERE = Path(__file__).parent
BUDGETS = ("0.7ms", "1ms", "2ms")
PEERS = 5
TEST_PICTURES = 2000
Row = dict[str, Any]


def main() -> None:
    """Search within each budget, train the peers, and write ``results/budgets-DATA-MINUTES-SEED.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tested", type=Path, help="folder on whose test pictures all are compared; default: the same")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0, help="limit of a search, and processor minutes of each peer")
    parser.add_argument("--device", default="sa8295p")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    keep_freed_memory()
    searched = {budget: _search(options, budget) for budget in BUDGETS}
    posed = {b: make_problem(Request(devices=(options.device,), budgets=(b,), space="zoo", data=str(options.data))) for b in BUDGETS}
    peers = {budget: _peers(problem) for budget, problem in posed.items()}
    widest = posed[BUDGETS[-1]]
    trained: dict[str, Row] = {}
    for member in {m.key: m for members in peers.values() for m in members}.values():
        trained[member.key] = noted(options.work / f"peer-{member.key}.json", lambda member=member: _train(options, widest, member))
        print(trained[member.key], flush=True)
    rows = []
    for budget in BUDGETS:
        own = [trained[member.key] for member in peers[budget]]
        best = max(own, key=lambda row: row["test_pct"])
        rows.append(
            {"budget": budget, "searched": searched[budget], "peers": own, "lost_pct": best["test_pct"] - searched[budget]["test_pct"]}
        )
    report: Row = {"rows": rows, "minutes": options.minutes, "data": options.data.name, "device": options.device, "seed": options.seed}
    report |= {"test_pictures": TEST_PICTURES, "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    report |= {"load": os.getloadavg()[0], "when": datetime.now(UTC).isoformat(timespec="seconds")}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"budgets-{options.data.name}-{options.minutes:g}min-{options.seed}.json").write_text(
        json.dumps(report, indent=1) + "\n"
    )


def _search(options: argparse.Namespace, budget: str) -> Row:
    run = options.work / f"run-{budget}"
    note = options.work / f"searched-{budget}.json"

    def searched() -> Row:
        began_s = time.process_time()
        limit = f"{60 * options.minutes:g}s"
        found = nas.search(options.device, budget, space="zoo", data=options.data, time_limit=limit, seed=options.seed, out=run)
        took_s = time.process_time() - began_s
        assert found.chosen is not None
        problem = make_problem(Request(devices=(options.device,), budgets=(budget,), space="zoo", data=str(options.data)))
        member, module, size = load_member(run / "finetuned.safetensors", problem.space)
        row = {"network": found.chosen.network, "resolution": found.chosen.resolution, "latency_ms": found.chosen.latency_ms}
        row |= {
            "budget_used_pct": 100 * found.chosen.upper_ms / float(budget.removesuffix("ms")),
            "whole_test_pct": found.chosen.accuracy_pct,
        }
        expected = problem.space.normalisation(member)
        assert expected is not None
        tested = load_dataset(str(options.tested or options.data), seed=options.seed)
        return row | {"test_pct": _test(module, tested.normalised_by(*expected), size), "processor_s": round(took_s, 1)}

    return noted(note, searched)


def _peers(problem: Problem) -> list[Architecture]:
    """Return networks evenly spread over the ranks of latency among all that are within the budget, the slowest included."""
    members = [m for network in problem.space.choices[0].values for m in sizes(problem.space, str(network))]
    priced = sorted(
        (verdict.values[f"latency_ms/{problem.device}"], i) for i, verdict in enumerate(problem.judge.verdicts(members)) if verdict.feasible
    )
    places = np.unique(np.linspace(0, len(priced) - 1, PEERS).round().astype(int))
    return [members[priced[place][1]] for place in places]


def _test(module: torch.nn.Module, dataset: Dataset, size: tuple[int, int]) -> float:
    few = dataset.thinned("test", TEST_PICTURES)
    batches = Batches(few, "test", size, torch.device("cpu"))
    return 100 * float(np.mean(predictions(module.eval(), batches, 64) == few.labels("test")))


def _train(options: argparse.Namespace, problem: Problem, member: Architecture) -> Row:
    """Fine-tune a network from its probe for the processor minutes, its probe included."""
    began_s, began_wall_s = time.process_time(), time.monotonic()
    evaluator = problem.evaluator.make(problem.assignment())
    assert isinstance(evaluator, ProbeEvaluator)
    size, dataset = evaluator.space.size_of(member), evaluator.pictures_of(member)
    probe_pct = evaluator.probe(member).accuracy_pct
    recipe = transfer_recipe(dataset.count("train"), 6)
    frozen = keeps_norms(evaluator.module(member, size), dataset, size, evaluator.right(member))
    path = options.work / "tuning.safetensors"
    path.unlink(missing_ok=True)
    tuning = Tuning(evaluator.module(member, size), dataset, size, path, replace(recipe, frozen_norms=frozen), 10_000, "peer", options.seed)
    tune(tuning, 60 * options.minutes, began_s, began_wall_s)
    latency_ms = problem.judge.verdicts([member])[0].values[f"latency_ms/{problem.device}"]
    took_s, epochs = time.process_time() - began_s, tuning.step / tuning.epoch_steps
    row: Row = {"network": member.genes[0], "resolution": write_resolution(size), "latency_ms": latency_ms, "probe_pct": probe_pct}
    row |= {"frozen_norms": frozen, "epochs": round(epochs, 2), "processor_s": round(took_s, 1)}
    expected = evaluator.space.normalisation(member)
    assert expected is not None
    tested = load_dataset(str(options.tested or options.data), seed=options.seed)
    row["test_pct"] = _test(tuning.averaged(), tested.normalised_by(*expected), size)
    path.unlink(missing_ok=True)
    return row


if __name__ == "__main__":
    from nas.errors import run_script

    run_script(main)
