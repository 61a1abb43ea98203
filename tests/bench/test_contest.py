"""The protocol of all benchmarks: with a clock that the tests move."""

import gc

import pytest

from npbert.bench.comparison import Comparison, Report
from npbert.bench.contest import Contender, Outcome, Summary, contest, ratios, summarize
from npbert.bench.machine import Machine


class Clock:
    """A clock that stands still unless somebody works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def worker(self, name: str, *seconds: float):
        """Return work that takes these times, one after the other, and then over again."""
        state = {"calls": 0}

        def work() -> str:
            self.log.append(name)
            self.now += seconds[state["calls"] % len(seconds)]
            state["calls"] += 1
            return name

        return work


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nobody's threads are in the way here."""
    monkeypatch.setattr("npbert.bench.contest.PAUSE", 0.0)


def test_they_take_turns_and_another_one_begins_each_round():
    clock = Clock()
    contenders = [Contender(name, clock.worker(name, 1.0)) for name in "abc"]
    outcomes = contest(contenders, rounds=3, clock=clock)
    checks, warm_ups, rounds = clock.log[:3], clock.log[3:6], clock.log[6:]
    assert checks == warm_ups == ["a", "b", "c"]
    assert rounds == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert outcomes == [Outcome(name, (1.0, 1.0, 1.0)) for name in "abc"]


def test_seconds_belong_to_their_round():
    clock = Clock()
    # The first two calls are the check and the warm-up.
    changing = Contender("changing", clock.worker("changing", 9.0, 8.0, 1.0, 2.0, 3.0))
    steady = Contender("steady", clock.worker("steady", 0.5))
    changed, same = contest([changing, steady], rounds=3, clock=clock)
    assert changed.seconds == (1.0, 2.0, 3.0)
    assert ratios(changed, same) == summarize([2.0, 4.0, 6.0])
    assert ratios(same, changed).median == 0.25


def test_who_is_wrong_or_fails_is_not_timed():
    clock = Clock()

    def fail():
        raise RuntimeError("no such thing")

    contenders = [
        Contender("wrong", clock.worker("wrong", 1.0), lambda result: f"{result} is not right"),
        Contender("failing", fail),
        Contender("right", clock.worker("right", 1.0), lambda result: "" if result == "right" else "wrong"),
    ]
    wrong, failing, right = contest(contenders, rounds=2, clock=clock)
    assert wrong == Outcome("wrong", (), "wrong is not right")
    assert failing == Outcome("failing", (), "RuntimeError: no such thing")
    assert right == Outcome("right", (1.0, 1.0))
    assert clock.log.count("wrong") == 1
    assert ratios(wrong, right) is ratios(right, wrong) is None


def test_they_rest_before_each_measurement(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("npbert.bench.contest.PAUSE", 0.125)
    monkeypatch.setattr("time.sleep", lambda seconds: clock.log.append(seconds))
    outcomes = contest([Contender(name, clock.worker(name, 1.0)) for name in "ab"], rounds=1, clock=clock)
    assert clock.log[-4:] == [0.125, "a", 0.125, "b"]
    assert outcomes[0].seconds == (1.0,)


def test_nobody_is_right():
    assert contest([Contender("a", lambda: 1, lambda _: "wrong")], rounds=2)[0].seconds == ()


def test_short_work_is_repeated():
    clock = Clock()
    [outcome] = contest([Contender("a", clock.worker("a", 0.25))], rounds=2, min_seconds=1.0, clock=clock)
    assert outcome.seconds == (0.25, 0.25)
    assert clock.log.count("a") == 2 + 2 * 4


def test_what_must_be_fresh_is_made_outside_of_the_time():
    clock = Clock()
    making = clock.worker("make", 100.0)
    [outcome] = contest([Contender("a", clock.worker("a", 1.0), before=making)], rounds=2, clock=clock)
    assert outcome.seconds == (1.0, 1.0)
    assert clock.log == ["make", "a"] * 4


def test_the_garbage_collector_rests_while_time_is_taken():
    seen = []
    contest([Contender("a", lambda: seen.append(gc.isenabled()))], rounds=2)
    assert seen[-2:] == [False, False]
    assert gc.isenabled()


def test_summary():
    assert summarize([1.0]) == Summary(1.0, 1.0, 1.0)
    found = summarize([float(value) for value in range(101)])
    assert found == pytest.approx((50.0, 10.0, 90.0))


MACHINE = Machine("some processor", 2, 2, 0.5, ("openblas 1",), {"python": "3"}, "2026-01-01T00:00:00")


def some_report() -> Report:
    outcomes = (Outcome("npbert cpu", (1.0, 2.0)), Outcome("peer", (3.0, 4.0)), Outcome("bad", (), "wrong"))
    comparison = Comparison(
        "work", {"grows": "tokens", "tokens": 8}, outcomes, "npbert cpu", tokens=8, peak_bytes={"peer": 5}
    )
    return Report("inference", MACHINE, "how", [comparison], {"absent": "not installed: pip install absent"})


def test_what_is_in_the_json():
    content = some_report().as_dict()
    assert content["machine"]["cpu"] == "some processor"
    assert content["missing"] == {"absent": "not installed: pip install absent"}
    [comparison] = content["comparisons"]
    engine, peer, bad = comparison["contenders"]
    assert engine["over_base"]["median"] == 1
    assert peer["rounds"] == [3.0, 4.0]
    assert peer["seconds"]["median"] == 3.5
    assert peer["over_base"]["median"] == 2.5  # of 3 / 1 and 4 / 2
    assert (peer["peak_bytes"], engine["peak_bytes"]) == (5, None)
    assert (bad["failure"], bad["seconds"], bad["over_base"]) == ("wrong", None, None)


def test_without_the_base_there_are_no_ratios():
    [comparison] = some_report().comparisons
    assert comparison._replace(base="nobody").ratio(comparison.outcomes[1]) is None


@pytest.mark.parametrize("kind", ["report", "growth", "rows"])
def test_plots(tmp_path, kind):
    pytest.importorskip("matplotlib")
    from npbert.bench import plot

    path = tmp_path / "plot.png"
    report = some_report()
    if kind == "report":
        plot.plot_report(report, path)
    elif kind == "growth":
        plot.plot_growth(report, path, ["tokens"])
    else:
        plot.plot_rows(report, path, "grows")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="gift"):
        plot.plot_report(report, tmp_path / "plot.gift")
    assert list(tmp_path.iterdir()) == [path]
