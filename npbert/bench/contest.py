"""Who is faster: contenders that do the same work take turns, once their results have been checked."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

WARM_UPS: Final = 1  # timed runs that do not count, after the run whose result is checked
# Seconds of rest before each measurement: the threads of whoever was measured before still wait for work, and
# take a core while they do (OpenBLAS's for 2^26 cycles, 26 ms at 2.6 GHz).
PAUSE = 0.05
MOST_CALLS: Final = 10_000  # of a contender in one round


class Contender(NamedTuple):
    """Someone who can do the work.

    Attributes
    ----------
    name : str
    run : callable
        Does all of the work once, and returns the result.
    check : callable
        Takes that result and returns what is wrong with it, "" for nothing. Who is wrong is not timed.
    before : callable
        Called before each measurement, outside of it: what must be fresh is made here.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], str] = lambda result: ""
    before: Callable[[], object] = lambda: None


class Outcome(NamedTuple):
    """How long a contender took for the work, in each round; or why it was not timed."""

    name: str
    seconds: tuple[float, ...]
    failure: str = ""


class Summary(NamedTuple):
    """The median of some numbers, and between which values the middle 80 % of them are."""

    median: float
    p10: float
    p90: float


def contest(
    contenders: Sequence[Contender],
    rounds: int,
    min_seconds: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Outcome]:
    """Check, warm up, and time contenders in turns.

    Parameters
    ----------
    contenders : sequence of Contender
    rounds : int
        In each of them every contender does the work; another one begins each time.
    min_seconds : float
        Work that takes less is repeated until a round takes about as long; the seconds are those of one
        repetition.
    clock : callable
        Returns seconds.

    Returns
    -------
    list of Outcome
        In the order of the contenders.

    Examples
    --------
    >>> [outcome] = contest([Contender("nobody", lambda: 1, lambda result: f"{result} is wrong")], rounds=3)
    >>> outcome
    Outcome(name='nobody', seconds=(), failure='1 is wrong')
    """
    failures = [_failure(contender) for contender in contenders]
    racing = [index for index, failure in enumerate(failures) if not failure]
    calls = {index: _calls_needed(contenders[index], min_seconds, clock) for index in racing}
    seconds: dict[int, list[float]] = {index: [] for index in racing}
    was_enabled = gc.isenabled()
    try:
        for number in range(rounds):
            first = number % len(racing) if racing else 0
            for index in (*racing[first:], *racing[:first]):
                gc.collect()  # what one leaves behind is not cleared away in another's time
                time.sleep(PAUSE)
                gc.disable()
                seconds[index].append(_time(contenders[index], calls[index], clock))
                if was_enabled:
                    gc.enable()
    finally:
        if was_enabled:
            gc.enable()
    return [
        Outcome(contender.name, tuple(seconds.get(index, ())), failure)
        for index, (contender, failure) in enumerate(zip(contenders, failures, strict=True))
    ]


def summarize(values: Sequence[float]) -> Summary:
    """Return the median and the 10th and 90th percentile.

    Examples
    --------
    >>> summarize([4.0, 1.0, 2.0])
    Summary(median=2.0, p10=1.2, p90=3.6)
    """
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    return Summary(float(median), float(p10), float(p90))


def ratios(outcome: Outcome, base: Outcome) -> Summary | None:
    """Compare two contenders round by round.

    Parameters
    ----------
    outcome, base : Outcome
        Of one contest.

    Returns
    -------
    Summary or None
        Of the time of one over the time of the other, in each round. None: one of them was not timed.
    """
    if not outcome.seconds or not base.seconds:
        return None
    return summarize([one / other for one, other in zip(outcome.seconds, base.seconds, strict=True)])


def _failure(contender: Contender) -> str:
    """Let a contender do the work for the first time; say what is wrong."""
    try:
        contender.before()
        return contender.check(contender.run())
    except Exception as error:  # of a library: the others can still be compared
        return f"{type(error).__name__}: {error}"


def _calls_needed(contender: Contender, min_seconds: float, clock: Callable[[], float]) -> int:
    taken = min(_time(contender, 1, clock) for _ in range(WARM_UPS))
    return min(MOST_CALLS, max(1, math.ceil(min_seconds / max(taken, 1e-9))))


def _time(contender: Contender, calls: int, clock: Callable[[], float]) -> float:
    """Return the seconds that the work takes, on average."""
    contender.before()
    run = contender.run
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls
