"""Checkers of gradients side by side: the same wrong backward passes, the same inputs, in one run.

    pip install ".[peers]"
    python benchmarks/bench_checkers.py [--draws 2] [--inputs rich bland summed] [--only 'layernorm-*']
                                        [--budget SECONDS] [--verbose] [--json [FILE]]

Every mistake of tests/mutants/catalogue in a forward or backward of npbert.ops is made, one at a time, and
`npbert.gradcheck.check` and whichever of these is installed is asked about the pair: torch.autograd.gradcheck
(slow and fast mode), jax.test_util.check_grads, autograd.test_util.check_grads. Each is called as its own
documentation recommends, with its own default tolerances, in float64 and on one thread; integer arguments,
masks and options are closed over, so each of them can be asked about every op.

The inputs are of three kinds (op_pairs.py says which): rich, bland, and bland with the sum as the loss.
Nobody is asked about a mistake on inputs on which it changes no value and no gradient: one that no draw of a
kind shows is missed by all of them there, and one that shows nowhere is left out. A mistake that leaves the
forward as it is makes the pair wrong for certain: these are "backward". One that changes the forward may
leave a consistent pair, the right gradient of a wrong function, at which a checker of pairs takes no offence;
under "forward" are those of them that two of the libraries, at least, find inconsistent.

- killed: found wrong in at least one draw in which the same checker accepts the right pair.
- per check: the fraction of single checks of backward mistakes that are found, as one draw is all that a
  checker usually gets.
- false alarms: the right pair was found wrong. Inconclusive (npbert only) is neither right nor wrong.
- time: median and middle half, of checks of right pairs and of mistakes. npbert's include the diagnosis.

The checkers take turns on each pair, after a warm-up on each op and a test that each accepts a right linear
layer and rejects one with a wrong sign.
"""

import argparse
import importlib
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the catalogue is part of the tests, which are not installed

from benchmarks import op_pairs  # noqa: E402
from benchmarks.op_pairs import OpPair  # noqa: E402
from npbert import __version__  # noqa: E402
from npbert.gradcheck import check  # noqa: E402
from npbert.progress import progress_bar  # noqa: E402
from tests.mutants.catalogue import Mutant, load  # noqa: E402

PEERS = {"torch": "torch_gradcheck", "jax": "jax_check_grads", "autograd": "autograd_check_grads"}
NPBERT = "npbert.gradcheck"

Checker = Callable[[OpPair], str]  # returns "right", "wrong" or "inconclusive"


class Answer(NamedTuple):
    """What one checker said about one pair."""

    inputs: str
    case: str
    seed: int
    mutant: str | None  # None: the right pair
    checker: str
    verdict: str
    seconds: float


def ask_npbert(pair: OpPair) -> str:
    """Ask npbert's own checker, with the exact zeros that the problem declares."""
    problem = pair.problem
    report = check(
        problem.fn,
        problem.backward,
        problem.args,
        seed=pair.seed,
        structural_zeros=problem.structural_zeros,
    )
    return {"passed": "right", "failed": "wrong"}.get(report.status, report.status)


def asking(peer: Callable[[OpPair], None]) -> Checker:
    """Return a checker from one that raises: an exception of any kind is seen by whoever asks."""

    def ask(pair: OpPair) -> str:
        try:
            peer(pair)
        except Exception:
            return "wrong"
        return "right"

    return ask


def find_checkers(wanted: Sequence[str]) -> tuple[dict[str, Checker], list[str], list[str]]:
    """Return the checkers by name, their versions, and the peers that are not installed."""
    checkers: dict[str, Checker] = {NPBERT: ask_npbert}
    versions, missing = [f"npbert {__version__}", f"NumPy {np.__version__}"], []
    for library in wanted:
        if importlib.util.find_spec(library) is None:
            missing.append(library)
            continue
        peer = importlib.import_module(f"benchmarks.peers.{PEERS[library]}")
        checkers |= {name: asking(function) for name, function in peer.CHECKERS.items()}
        versions.append(peer.VERSION)
    return checkers, versions, missing


def require_that_they_work(checkers: dict[str, Checker], mutants: Sequence[Mutant]) -> None:
    """Make sure that each checker tells a right linear layer from one with a wrong sign."""
    wrong_sign = next(mutant for mutant in mutants if mutant.id == "linear-dx-wrong-sign")
    for mutant, expected in ((None, "right"), (wrong_sign, "wrong")):
        with op_pairs.installed(mutant):
            pair = op_pairs.draw("linear", "rich", "linear (bias)", 0)
            for name, ask in checkers.items():
                if (verdict := ask(pair)) != expected:
                    raise SystemExit(
                        f"{name} calls a {expected} linear layer {verdict}: it is not set up right"
                    )


def module_of(mutant: Mutant) -> str:
    """Return the name of the module that a mutant changes, "" if it is none with ops."""
    path = Path(mutant.file)
    is_op = path.parent.as_posix() == "npbert/ops" and path.stem in op_pairs.CASES_OF
    return path.stem if is_op else ""


class Run:
    """All answers of a run, and what is known of the mutants without asking anyone."""

    def __init__(self, checkers: dict[str, Checker], mutants: Sequence[Mutant], seconds: float) -> None:
        self.checkers = checkers
        self.mutants: dict[str, list[Mutant]] = defaultdict(list)
        for mutant in mutants:
            self.mutants[module_of(mutant)].append(mutant)
        self.deadline = time.monotonic() + seconds
        self.answers: list[Answer] = []
        self.visible: dict[str, set[str]] = defaultdict(
            set
        )  # by kind of inputs: what changes something there
        self.changes_forward: set[str] = set()
        self.turn = 0

    def problems(self, kinds: Sequence[str], draws: int) -> Iterator[tuple[str, str, str, int]]:
        """Yield what to draw: all with seed 0, then all with seed 1, ..."""
        for seed in range(draws):
            for inputs in kinds:
                for module in self.mutants:
                    for case in op_pairs.case_names(module, inputs):
                        yield inputs, module, case, seed

    def run(self, kinds: Sequence[str], draws: int) -> int:
        """Ask all checkers about everything, until the time is up; return how many draws that were."""
        todo = list(self.problems(kinds, draws))
        with progress_bar("draws", len(todo)) as advance:
            for done, problem in enumerate(todo):
                if time.monotonic() > self.deadline:
                    return done
                self.examine(*problem)
                advance(1, problem[2])
        return len(todo)

    def examine(self, inputs: str, module: str, case: str, seed: int) -> None:
        """Ask about the right pair on one draw, and about every mistake that shows on it."""
        right = op_pairs.draw(module, inputs, case, seed)
        expected = op_pairs.results(right)
        if seed == 0:
            for ask in self.checkers.values():
                ask(right)  # warm-up
        self.ask(right, inputs, case, None)
        for mutant in self.mutants[module]:
            with op_pairs.installed(mutant):
                pair = op_pairs.draw(module, inputs, case, seed)
                found = op_pairs.results(pair)
                has_same_value = op_pairs.same_value(found, expected)
                if has_same_value and op_pairs.same_gradients(found, expected):
                    continue
                self.visible[inputs].add(mutant.id)
                if not has_same_value:
                    self.changes_forward.add(mutant.id)
                self.ask(pair, inputs, case, mutant.id)

    def ask(self, pair: OpPair, inputs: str, case: str, mutant: str | None) -> None:
        """Ask all checkers about one pair; another one begins each time."""
        names = list(self.checkers)
        first = self.turn % len(names)
        self.turn += 1
        for name in (*names[first:], *names[:first]):
            start = time.perf_counter()
            verdict = self.checkers[name](pair)
            seconds = time.perf_counter() - start
            self.answers.append(Answer(inputs, case, pair.seed, mutant, name, verdict, seconds))


def kills(run: Run, inputs: str, checker: str) -> list[Answer]:
    """Return the answers that blame a mistake, on draws on which the same checker accepts the right pair."""
    answers = [answer for answer in run.answers if (answer.inputs, answer.checker) == (inputs, checker)]
    accepted = {
        (answer.case, answer.seed)
        for answer in answers
        if answer.mutant is None and answer.verdict == "right"
    }
    return [
        answer
        for answer in answers
        if answer.mutant is not None and answer.verdict == "wrong" and (answer.case, answer.seed) in accepted
    ]


def inconsistent_forwards(run: Run, kinds: Sequence[str]) -> set[str]:
    """Return the mistakes in a forward for which two libraries (or the only one) blame the pair."""
    accusers: dict[str, set[str]] = defaultdict(set)
    for checker in run.checkers:
        for inputs in kinds:
            for answer in kills(run, inputs, checker):
                accusers[str(answer.mutant)].add(library_of(checker))
    enough = min(2, len({library_of(checker) for checker in run.checkers}))
    return {mutant for mutant, found in accusers.items() if len(found) >= enough} & run.changes_forward


def library_of(checker: str) -> str:
    """Return whose the checker is: torch's two modes make one witness."""
    return checker.split()[0]


def summary(run: Run, inputs: str, checker: str, forward: set[str]) -> dict[str, Any]:
    """Return the figures of one checker on one kind of inputs; ``forward`` from `inconsistent_forwards`."""
    answers = [answer for answer in run.answers if (answer.inputs, answer.checker) == (inputs, checker)]
    right = [answer for answer in answers if answer.mutant is None]
    wrong = [answer for answer in answers if answer.mutant is not None]
    found = kills(run, inputs, checker)
    killed = {str(answer.mutant) for answer in found}
    backward = set().union(*run.visible.values()) - run.changes_forward
    return {
        "backward_killed": len(killed & backward),
        "backward": len(backward),
        "backward_missed": sorted(backward - killed),
        "forward_killed": len(killed & forward),
        "forward": len(forward),
        "forward_missed": sorted(forward - killed),
        "blamed_alone": sorted(killed & run.changes_forward - forward),
        "checks_found": sum(answer.mutant in backward for answer in found),
        "checks": sum(answer.mutant in backward for answer in wrong),
        "false_alarms": sum(answer.verdict == "wrong" for answer in right),
        "false_alarm_draws": sorted(f"{a.case}, seed {a.seed}" for a in right if a.verdict == "wrong"),
        "inconclusive_right": sum(answer.verdict == "inconclusive" for answer in right),
        "inconclusive_wrong": sum(answer.verdict == "inconclusive" for answer in wrong),
        "right_draws": len(right),
        "ms_right": quartiles([1000 * answer.seconds for answer in right]),
        "ms_wrong": quartiles([1000 * answer.seconds for answer in wrong]),
    }


def quartiles(times: Sequence[float]) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(times) < 2:
        return [*times, *times, *times]
    return statistics.quantiles(times, n=4)


def print_table(figures: dict[str, dict[str, Any]], missing: Sequence[str]) -> None:
    """Print one line a checker."""
    header = ["checker", "backward", "forward", "per check", "false alarms", "inconclusive"]
    rows = [[*header, "ms, right pair", "ms, mistake"]]
    for name, found in figures.items():
        share = f"{found['checks_found'] / found['checks']:.1%}" if found["checks"] else ""
        rows.append(
            [
                name,
                f"{found['backward_killed']} of {found['backward']}",
                f"{found['forward_killed']} of {found['forward']}",
                share,
                f"{found['false_alarms']} of {found['right_draws']}",
                f"{found['inconclusive_right']} + {found['inconclusive_wrong']}",
                _times(found["ms_right"]),
                _times(found["ms_wrong"]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(map(str.ljust, row, widths)).rstrip())
    for library in missing:
        print(f"  {library}: not installed")


def _times(times: Sequence[float]) -> str:
    if not times:
        return ""
    lower, median, upper = times
    return f"{median:.1f} ({lower:.1f} to {upper:.1f})"


def machine() -> str:
    """Say what the run ran on."""
    return (
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, one thread used"
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2, help="inputs drawn for each case (default: 2)")
    parser.add_argument(
        "--inputs", nargs="+", choices=op_pairs.INPUTS, default=op_pairs.INPUTS, help="default: all three"
    )
    parser.add_argument("--only", default="*", metavar="PATTERN", help="mutants with such an id")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=tuple(PEERS),
        default=tuple(PEERS),
        help="default: all that are installed",
    )
    parser.add_argument("--budget", type=float, default=float("inf"), help="stop after so many seconds")
    parser.add_argument("--verbose", action="store_true", help="list what each one missed, and false alarms")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="print one JSON object, or write it to a file"
    )
    arguments = parser.parse_args()
    if arguments.draws < 1:
        parser.error(f"--draws must be at least 1, not {arguments.draws}")
    return arguments


def main() -> None:
    """Ask and print."""
    arguments = parse()
    every = [mutant for mutant in load() if module_of(mutant)]
    chosen = [mutant for mutant in every if fnmatchcase(mutant.id, arguments.only)]
    if not chosen:
        raise SystemExit(f"--only {arguments.only!r} matches none of {len(every)} mutants of npbert.ops")
    checkers, versions, missing = find_checkers(arguments.peers)
    start = time.perf_counter()
    run = Run(checkers, chosen, arguments.budget)
    # What goes wrong inside a wrong pair, such as a division by 0, is no news.
    with threadpool_limits(1), np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        require_that_they_work(checkers, every)
        done = run.run(arguments.inputs, arguments.draws)
    forward = inconsistent_forwards(run, arguments.inputs)
    figures = {
        kind: {name: summary(run, kind, name, forward) for name in checkers} for kind in arguments.inputs
    }
    known = set().union(*run.visible.values())
    facts = {
        "versions": versions,
        "not_installed": missing,
        "machine": machine(),
        "mutants": len(chosen),
        "without_effect": sorted({mutant.id for mutant in chosen} - known),
        "forward_consistent": sorted(run.changes_forward - forward),
        "visible": {kind: len(run.visible[kind]) for kind in arguments.inputs},
        "draws": arguments.draws,
        "problems": done,
        "problems_wanted": len(list(run.problems(arguments.inputs, arguments.draws))),
        "seconds": time.perf_counter() - start,
        "inputs": figures,
    }
    if arguments.json is not None and arguments.json != "-":
        Path(arguments.json).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if arguments.json == "-":
        print(json.dumps(facts))
        return
    print(f"{', '.join(versions)}; {machine()}")
    print(
        f"{len(chosen)} mutants, of which {len(known)} change a value or a gradient, "
        f"{len(facts['forward_consistent'])} of them consistently; "
        f"{arguments.draws} draws of each case; {facts['seconds']:.0f} s"
    )
    if done < facts["problems_wanted"]:
        print(f"the time was up after {done} of {facts['problems_wanted']} draws")
    for kind, found in figures.items():
        print(f"\n{kind} inputs, on which {len(run.visible[kind])} mutants change something")
        print_table(found, missing)
    if arguments.verbose:
        print_lists(facts)


def print_lists(facts: dict[str, Any]) -> None:
    """Print the ids behind the figures."""
    print(f"\nwithout effect: {', '.join(facts['without_effect'])}")
    print(f"\nconsistent: {', '.join(facts['forward_consistent'])}")
    for kind, figures in facts["inputs"].items():
        for name, found in figures.items():
            print(f"\n{name}, {kind} inputs")
            print(f"  backward, missed: {', '.join(found['backward_missed']) or 'none'}")
            print(f"  forward, missed: {', '.join(found['forward_missed']) or 'none'}")
            print(f"  blamed by no other: {', '.join(found['blamed_alone']) or 'none'}")
            print(f"  false alarms: {'; '.join(found['false_alarm_draws']) or 'none'}")


if __name__ == "__main__":
    main()
