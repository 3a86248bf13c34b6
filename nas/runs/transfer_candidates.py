"""Published networks priced and probed on the user's pictures: which are worth fine-tuning, at which size."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nas.errors import ArtifactError, GraphError, UsageError
from nas.events import EventBus, Notice, PhaseAdvanced, PhaseFinished, PhaseStarted
from nas.results import Contender
from nas.runs.directory import RunDirectory
from nas.runs.problem import nearest_miss
from nas.runs.transfer_times import Times
from nas.searching.judge import Verdict
from nas.spaces.architecture import Architecture
from nas.spaces.space import SearchSpace
from nas.units import write_resolution

if TYPE_CHECKING:
    from nas.training.transfer.probe import Probe

Right = npt.NDArray[np.bool_]

PROBE_SHARE = 0.15
"""Of the time limit that probes may take, all together. Set by hand."""

_PROBE_MACS = 4e12
"""Multiply-adds that probes may take where there is no limit, the first of each network aside: some minutes of two cores. Set by hand."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network at a size, priced and probed.

    Attributes:
        architecture: Which.
        verdict: Of the judge.
        probe: Of its features.
        picture_s: Seconds of a forward run, a picture.
    """

    architecture: Architecture
    verdict: Verdict
    probe: Probe
    picture_s: float

    @property
    def right(self) -> Right:
        """For each compared validation picture, whether its probe names the class."""
        return self.probe.right

    @property
    def key(self) -> str:
        """Of its architecture."""
        return self.architecture.key

    @property
    def network(self) -> str:
        """Its name."""
        return str(self.architecture.genes[0])

    @property
    def accuracy_pct(self) -> float:
        """Of its probe, on all pictures to which it, or the fit of a fold, was not fitted: few of validation alone would tell little."""
        return 100 * float(np.concatenate([self.probe.right, self.probe.crossed]).mean())


def sizes(space: SearchSpace, network: str) -> list[Architecture]:
    """Return a network of `space` at every size that is offered, the smallest first."""
    return [space.architecture((network, side)) for side in space.choices[1].values if space.admits((network, side))]


def first_sizes(space: SearchSpace, network: str) -> list[Architecture]:
    """Return a network at the sizes up to about half its own, the smallest first: what costs a quarter says most of what it is worth."""
    members = sizes(space, network)
    own = max(space.own_size(network))  # type: ignore[attr-defined]
    middle = min(range(len(members)), key=lambda i: abs(max(space.size_of(members[i])) - 0.5 * own))  # type: ignore[attr-defined]
    return members[: middle + 1]


class Candidates:
    """The networks of a run, priced and probed as far as that pays.

    Args:
        run: Keeps the probes.
        times: Of the run.
        bus: Told of the progress.

    Attributes:
        rows: What is known of each that was probed, by key.
        priced: All that the judge has seen, by key.
    """

    def __init__(self, run: RunDirectory, times: Times, bus: EventBus) -> None:
        self.run, self.times, self.bus = run, times, bus
        self.problem, self.evaluator, self.clock = times.problem, times.evaluator, times.clock
        self.rows: dict[str, Contender] = {}
        self.priced: dict[str, tuple[Architecture, Verdict]] = {}
        self._left_out: set[tuple[object, ...]] = set()

    def fits(self, architecture: Architecture) -> Verdict | None:
        """Return what the judge says of a member within the budgets; None where it is not, or does not run at that size."""
        try:
            verdict = self.problem.judge.verdicts([architecture])[0]
        except GraphError:
            return None
        except UsageError as error:  # it takes no other classes
            if error.args not in self._left_out:
                self._left_out.add(error.args)
                self.bus.emit(Notice(f"left out: {error}"))
            return None
        self.priced[architecture.key] = architecture, verdict
        return verdict if verdict.feasible else None

    def _first(self, members: Sequence[Architecture], probed: Sequence[Candidate]) -> Architecture:
        """Return the size that is probed first: the largest of those up to half the network's own at which it could be trained often enough.

        Args:
            members: Those sizes, within the budgets, the largest first.
            probed: What was probed before, which tells the speed of the machine.
        """
        if not probed:
            return members[0]
        return next((member for member in members if self._trainable(member, probed)), members[-1])

    def _trainable(self, member: Architecture, probed: Sequence[Candidate]) -> bool:
        if self.clock.limit_s is None:
            return True
        second_macs = sum(one.verdict.values["macs"] for one in probed) / sum(one.picture_s for one in probed)
        return self.times.trainable(member, self.priced[member.key][1].values["macs"] / second_macs)

    def probed(self) -> list[Candidate]:
        """Probe every network at one size, then the best two at the sizes beside it, as long as that pays, they can be trained, and there is time."""
        began_s, record = time.monotonic(), self.run.read("probed.json")
        names = [str(name) for name in self.problem.space.choices[0].values]
        self.bus.emit(PhaseStarted("search", detail=f"frozen features of {len(names)} networks with weights at hand"))
        if record is not None:
            members = [self.problem.space.architecture(genes) for genes in record["members"]]
            candidates = {member.key: one for member in members if self.fits(member) and (one := self.candidate(member))}
        else:
            candidates = self._explored(names, PROBE_SHARE * self.clock.limit_s if self.clock.limit_s is not None else math.inf)
            self.run.write("probed.json", {"members": [list(one.architecture.genes) for one in candidates.values()]})
        self.bus.emit(PhaseFinished("search", time.monotonic() - began_s))
        return sorted(candidates.values(), key=lambda c: -c.accuracy_pct)

    def _explored(self, networks: Sequence[str], allowed_s: float) -> dict[str, Candidate]:
        candidates: dict[str, Candidate] = {}
        until_s = self.clock.spent_s + allowed_s
        starts = {network: [m for m in reversed(first_sizes(self.problem.space, network)) if self.fits(m)] for network in networks}
        starts = {network: members for network, members in starts.items() if members}
        if not self.priced:
            size = self.problem.request.resolution or "any size"
            raise UsageError(
                f"search: none of {', '.join(networks)} runs at {size}. Do this: leave --resolution out, or give other weights."
            )
        by_macs = sorted(starts, key=lambda network: self.priced[starts[network][0].key][1].values["macs"])
        for network in dict.fromkeys((*by_macs[:1], *starts)):  # the quickest first: it tells the speed of the machine
            if candidates and self.clock.spent_s >= until_s:
                break
            if one := self.candidate(self._first(starts[network], list(candidates.values()))):
                candidates[one.key] = one
        if not candidates:
            raise nearest_miss(self.problem, list(self.priced.values()))
        left_macs = _PROBE_MACS
        for start in sorted(candidates.values(), key=lambda c: -c.accuracy_pct)[:2]:
            members = sizes(self.problem.space, start.network)
            at = members.index(start.architecture)
            for step in (1, -1):
                i, last = at + step, start
                while 0 <= i < len(members) and (verdict := self.fits(members[i])):
                    if step > 0 and not self._trainable(members[i], list(candidates.values())):
                        break
                    share = verdict.values["macs"] / last.verdict.values["macs"]
                    left_macs -= verdict.values["macs"] * self.evaluator.looks
                    late = self.clock.spent_s + last.picture_s * share * self.evaluator.looks > until_s
                    if (late if allowed_s < math.inf else left_macs < 0) or (one := self.candidate(members[i])) is None:
                        break
                    candidates[one.key] = one
                    if one.accuracy_pct < last.accuracy_pct:
                        break
                    last, i = one, i + step
        return candidates

    def candidate(self, member: Architecture) -> Candidate | None:
        """Probe a member, or take up what an earlier session found; None where its weights do not fit, which a notice says."""
        from nas.training.transfer.probe import read_probe, write_probe

        path = self.run.path / "probes" / f"{member.key}.safetensors"
        if path.is_file():
            self.evaluator.know(member, read_probe(path))
        try:
            known = self.evaluator.probe(member)
        except ArtifactError as error:  # weights that do not fit
            self.bus.emit(Notice(f"left out: {error}"))
            return None
        if not path.is_file():
            write_probe(path, known)
        verdict = self.problem.judge.verdicts([member])[0]
        one = Candidate(member, verdict, known, known.seconds / self.evaluator.looks)
        self.bus.emit(PhaseAdvanced("search", len(self.rows) + 1, {"probe_pct": one.accuracy_pct, "px": float(max(verdict.resolution))}))
        self.rows[member.key] = Contender(
            key=member.key,
            network=str(member.genes[0]),
            resolution=write_resolution(verdict.resolution),
            latency_ms=verdict.values[f"latency_ms/{self.problem.device}"],
            upper_ms=verdict.estimates[self.problem.device].upper_ms,
            probe_accuracy_pct=one.accuracy_pct,
            probe_pictures=len(known.right) + len(known.crossed),
            pictures=len(known.right),
            outcome="probed",
        )
        return one
