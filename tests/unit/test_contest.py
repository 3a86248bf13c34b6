"""Kinds of search that share a time limit: who is tried how long, who is left behind, what a killed run takes up again."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nas.errors import ArtifactError, GraphError, InfeasibleError, NasError, UsageError
from nas.events import EventBus
from nas.report.results import result_text
from nas.results import Contender, Result
from nas.runs.contest import Arm, Contest, Standing, _Tried, settled, share
from nas.runs.default_space import Kind, kinds_beside
from nas.runs.directory import RunDirectory
from nas.runs.request import Request
from nas.spaces.architecture import Architecture
from search_spaces._published_networks import PublishedNetworks

PICTURES = 100


class StubArm:
    """An arm that names so many of 100 pictures after each trial."""

    def __init__(self, name: str, *right: int | BaseException) -> None:
        self.name, self._right, self.tried = name, right, []

    def advance(self, rung: int, until_s: float) -> Standing:
        self.tried.append((rung, until_s))
        found = self._right[rung]
        if isinstance(found, BaseException):
            raise found
        return Standing(right="1" * found + "0" * (PICTURES - found))


def contest_of(*arms: Arm) -> Contest:
    return Contest(kinds=tuple(Kind(space=arm.name, tried=True, why="") for arm in arms))


def shared(*arms: Arm, contest: Contest | None = None) -> tuple[Contest, list[Contest], list[str]]:
    kept, told = [], []
    bus = EventBus([lambda event: told.append(event.text)])
    return share(arms, 800.0, contest or contest_of(*arms), kept.append, bus), kept, told


def test_of_two_each_has_a_quarter_of_the_limit() -> None:
    a, b = StubArm("zoo", 70), StubArm("chain", 80)
    found, kept, told = shared(a, b)
    assert found.winner == "chain"
    assert a.tried == b.tried == [(0, 200.0)]
    assert [len(state.standings) for state in kept] == [1, 2, 2]
    assert told == [
        "kinds: chain 80.0 ± 7.8 %, zoo 70.0 ± 8.8 % on 100 validation pictures after 3 min each (McNemar p = 0.002 between the first two)"
    ]
    assert found.why == told[0]


def test_of_four_the_better_two_are_tried_again() -> None:
    arms = [StubArm("zoo", 60, 90), StubArm("chain", 50), StubArm("hybrid", 61, 70), StubArm("vit-t", 10)]
    found, _, _ = shared(*arms)
    assert found.winner == "zoo"
    assert [arm.tried for arm in arms] == [[(0, 50.0), (1, 150.0)], [(0, 50.0)], [(0, 50.0), (1, 150.0)], [(0, 50.0)]]


def test_what_is_as_good_does_not_overtake() -> None:
    assert shared(StubArm("hybrid", 50), StubArm("zoo", 50))[0].winner == "hybrid"


def test_a_killed_contest_goes_on_with_what_is_lacking() -> None:
    a, b = StubArm("zoo", 70), StubArm("chain", KeyboardInterrupt())
    kept: list[Contest] = []
    with pytest.raises(KeyboardInterrupt):
        share([a, b], 800.0, contest_of(a, b), kept.append, EventBus())
    again = StubArm("chain", 60)
    found = share([a, again], 800.0, Contest.model_validate(kept[-1].dump()), kept.append, EventBus())
    assert a.tried == [(0, 200.0)]
    assert again.tried == [(0, 200.0)]
    assert found.winner == "zoo"


def test_a_kind_that_cannot_go_on_is_given_up() -> None:
    found, _, told = shared(StubArm("zoo", InfeasibleError("search: nothing fits.")), StubArm("chain", 20))
    assert found.winner == "chain"
    assert told[0] == "kind zoo: given up: search: nothing fits."
    assert "no other could be tried" in found.why
    with pytest.raises(InfeasibleError, match="not this one"):
        shared(StubArm("zoo", InfeasibleError("nothing fits.")), StubArm("chain", InfeasibleError("not this one.")))


@pytest.mark.parametrize("fault", [ArtifactError("weights small.safetensors: damaged."), GraphError("small: cannot be cut.")])
def test_a_kind_whose_weights_cannot_be_used_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: NasError) -> None:
    def make_problem(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("nas.runs.contest.make_problem", make_problem)
    run = RunDirectory.create(tmp_path / "run", "label", {"space": "zoo"}, {})
    first = SimpleNamespace(request=Request(devices=("sa8295p",), space="zoo"), dataset=None)
    kind = Kind(space="chain", tried=True, why="", anchors=("small", "large"))
    found, _, told = shared(StubArm("zoo", 70), _Tried(run, first, kind, EventBus()))
    assert found.winner == "zoo"
    assert told[0] == f"kind chain: given up: {fault}"


def test_the_winners_files_move_up_once_its_manifest_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path / "run", "label", {"space": "zoo"}, {})
    own = RunDirectory.create(run.path / "kinds" / "chain", "label", {"space": "chain"}, {})
    for name in ("decision.json", "clock.json", "status.json"):
        own.write(name, {"of": "chain"})
    run.write("status.json", {"of": "run"})
    kinds = (Kind(space="zoo", tried=True, why=""), Kind(space="chain", tried=True, why="", anchors=("a", "b")))
    run.write("contest.json", Contest(kinds=kinds, winner="chain").dump())
    first = SimpleNamespace(request=Request(devices=("sa8295p",), space="zoo"), dataset=None)
    posed = SimpleNamespace(request=Request(devices=("sa8295p",), space="chain", anchors=("a", "b")), dataset=None)
    monkeypatch.setattr(
        "nas.runs.contest.make_problem", lambda request, decoder: posed if request == posed.request and decoder is None else None
    )
    for problem in (first, posed):  # the second time nothing is left to do
        assert settled(run, problem, EventBus()) is posed
        assert run.manifest.request == {"space": "chain"}
        assert run.read("decision.json") == {"of": "chain"}
        assert run.read("status.json") == {"of": "run"}
        assert run.read("clock.json") is None
    run.write("contest.json", Contest(kinds=kinds[:1], winner="chain").dump())
    with pytest.raises(ArtifactError, match=r"contest\.json is damaged, got the winner 'chain'"):
        settled(run, posed, EventBus())


def posed(
    pictures: int, limit: str | None, *, networks: tuple[str, ...] = ("small", "large"), fits: tuple[str, ...] = (), **asked: object
) -> SimpleNamespace:
    """Return what `kinds_beside` looks at: published networks of which some are within the budget whole."""
    macs = {name: 1e8 * (i + 1) for i, name in enumerate(networks)}
    space = SimpleNamespace(choices=[SimpleNamespace(values=networks)], member=lambda name, _size: name, own_size=lambda _name: (224, 224))
    judge = SimpleNamespace(verdicts=lambda names: [SimpleNamespace(values={"macs": macs[n]}, feasible=n in fits) for n in names])
    request = Request(devices=("sa8295p",), data="photos", time_limit=limit, space="zoo", **asked)
    dataset = SimpleNamespace(count=lambda _split: pictures)
    return SimpleNamespace(request=request, dataset=dataset, space=space, judge=judge, evaluator=SimpleNamespace(transfers=True))


def lines(problem: SimpleNamespace) -> dict[str, Kind]:
    return {kind.space: kind for kind in kinds_beside(problem)}


def test_few_pictures_and_little_time_leave_published_networks_alone() -> None:
    found = lines(posed(8000, "12min", fits=("small",)))
    assert [kind.tried for kind in found.values()] == [False] * 3
    assert "a trial of 3 min is too short" in found["chain"].line
    assert found["hybrid"].line.startswith("kind hybrid: not tried, since a trial of 3 min shows it 8,000 training pictures about 13 times")
    assert all("no --time-limit" in kind.line for kind in lines(posed(8000, None)).values())


def test_a_budget_between_two_networks_makes_a_chain_worth_trying() -> None:
    found = lines(posed(8000, "30min", networks=("large", "small", "middle"), fits=("large", "small")))["chain"]
    assert found.tried
    assert found.anchors == ("small", "middle")
    assert not lines(posed(8000, "30min", fits=("small", "large")))["chain"].tried
    assert lines(posed(8000, "30min"))["chain"].anchors == ("small", "large")
    assert "those of 1 are here" in lines(posed(8000, "30min", networks=("small",)))["chain"].line


def test_networks_are_priced_at_the_size_that_is_asked_for() -> None:
    problem, names = posed(8000, "30min", resolution="224"), ("efficientnet_lite0", "efficientnet_lite1")
    problem.space, priced = PublishedNetworks(names, num_classes=3, resolution=(224, 224)), []
    assert problem.space.own_size("efficientnet_lite1") == (240, 240)

    def verdicts(members: list[Architecture]) -> list[SimpleNamespace]:
        priced.extend(problem.space.size_of(member) for member in members)
        return [SimpleNamespace(values={"macs": 1.0}, feasible=True) for _ in members]

    problem.judge = SimpleNamespace(verdicts=verdicts)
    assert "within the budgets whole, at 224 px" in lines(problem)["chain"].line
    assert priced == [(224, 224)] * 2


def test_a_network_that_takes_no_other_classes_is_passed_over() -> None:
    problem = posed(8000, "30min", networks=("small", "odd", "large"), fits=("small",))
    whole = problem.judge.verdicts

    def verdicts(names: list[str]) -> list[SimpleNamespace]:
        if names == ["odd"]:
            raise UsageError("network odd: its last operator is no linear layer.")
        return whole(names)

    problem.judge = SimpleNamespace(verdicts=verdicts)
    assert lines(problem)["chain"].anchors == ("small", "large")


def test_many_pictures_and_much_time_make_training_from_nothing_worth_trying() -> None:
    assert lines(posed(100_000, "8h"))["hybrid"].tried
    assert not lines(posed(100_000, "8h"))["vit-t"].tried
    assert lines(posed(100_000, "48h"))["vit-t"].tried
    assert lines(posed(100_000, "8h", weights_dir="w"))["hybrid"].tried  # from nothing, taught by one of the weights
    assert "--anchor has no effect with --space hybrid" in lines(posed(100_000, "8h", anchors=("a",)))["hybrid"].line


def test_a_space_that_is_trained_alone_is_not_a_kind_beside_itself() -> None:
    problem = posed(100_000, "8h")
    problem.request = problem.request.model_copy(update={"space": "hybrid"})
    problem.evaluator = SimpleNamespace(transfers=False, fresh=True)  # as under a time limit
    assert list(lines(problem)) == ["vit-t"]


def test_one_table_has_every_kind_under_the_same_heads() -> None:
    common = {"resolution": 96, "latency_ms": 1.0, "upper_ms": 1.2, "pictures": 408}
    rows = (
        Contender(key="a", kind="zoo", network="net", probe_accuracy_pct=70.0, raced_accuracy_pct=(60.0, 75.0), **common),
        Contender(key="b", kind="hybrid", network="b", supernet_accuracy_pct=33.333, scored_pictures=2000, **common),
    )
    [title, *table] = result_text(Result(run_dir="run", status="finished", contenders=rows)).splitlines()
    assert title == "Networks of every kind that was tried on these pictures (with 95 % intervals)"
    [head, zoo, hybrid] = [row for row in table if "kind" in row or "zoo" in row or "hybrid" in row]
    assert "probe %" in head
    assert "shared weights, val. %" in head
    assert "70.0 ± 4.4" in zoo
    assert "75.0 ± 4.2" in zoo
    assert "33.3 ± 2.1" in hybrid
    assert hybrid.index("33.3") > head.index("probe %") + len("probe %")
