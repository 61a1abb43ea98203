"""What a benchmark finds: for each piece of work, who took how long, and what is missing."""

from typing import Any, NamedTuple

from npbert.bench.contest import Outcome, Summary, ratios, summarize
from npbert.bench.machine import Machine

FLOOR = "floor: SGEMM alone"


class Comparison(NamedTuple):
    """One piece of work, done by several contenders.

    Attributes
    ----------
    title : str
    facts : dict
        What the work is: sizes by name.
    outcomes : tuple of Outcome
        Of npbert's engines, of the peers, and of the floor.
    base : str
        The contender that the others are compared with.
    tokens : int
        How many tokens the work has; 0: speed is not counted in tokens.
    flops : int
        Operations of the matrix products alone; 0: there are none worth counting.
    peak_bytes : dict of str to int
        The most memory that a contender's process took, by contender, where that was measured.
    """

    title: str
    facts: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    base: str
    tokens: int = 0
    flops: int = 0
    peak_bytes: dict[str, int] = {}  # noqa: RUF012 (never written)

    def summary(self, outcome: Outcome) -> Summary | None:
        """Return a contender's seconds in short; None if it was not timed."""
        return summarize(outcome.seconds) if outcome.seconds else None

    def ratio(self, outcome: Outcome) -> Summary | None:
        """Return a contender's time over that of the base, round by round; None if one was not timed."""
        base = next((one for one in self.outcomes if one.name == self.base), None)
        return None if base is None else ratios(outcome, base)


class Report(NamedTuple):
    """All that one run of a benchmark finds.

    Attributes
    ----------
    benchmark : str
        The name of the command.
    machine : Machine
    method : str
        How it was measured.
    comparisons : list of Comparison
    missing : dict of str to str
        By the name of a contender that could not take part: what to install.
    """

    benchmark: str
    machine: Machine
    method: str
    comparisons: list[Comparison]
    missing: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as what JSON can hold; times in seconds."""
        return {
            "benchmark": self.benchmark,
            "machine": self.machine.as_dict(),
            "method": self.method,
            "missing": self.missing,
            "comparisons": [_comparison_dict(comparison) for comparison in self.comparisons],
        }


def _comparison_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "title": comparison.title,
        "facts": comparison.facts,
        "base": comparison.base,
        "tokens": comparison.tokens or None,
        "flops": comparison.flops or None,
        "contenders": [_outcome_dict(comparison, outcome) for outcome in comparison.outcomes],
    }


def _outcome_dict(comparison: Comparison, outcome: Outcome) -> dict[str, Any]:
    seconds, ratio = comparison.summary(outcome), comparison.ratio(outcome)
    return {
        "name": outcome.name,
        "failure": outcome.failure or None,
        "seconds": None if seconds is None else seconds._asdict(),
        "over_base": None if ratio is None else ratio._asdict(),
        "rounds": list(outcome.seconds),
        "peak_bytes": comparison.peak_bytes.get(outcome.name),
    }
