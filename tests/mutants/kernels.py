"""How the tests notice each mistake in a kernel:  python -m tests.mutants.kernels

Makes those mistakes of the catalogue that are in C++, in the CUDA kernels and in the emulator that runs them,
and runs the tests that mirror the file, which have to fail. Each barrier that a mistake drops is tried twice
more: with the race detector alone, and with everything but the detectors. What came of it all is written to
KERNELS.md.
"""

import argparse
import collections
import re
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutants.__main__ import no_compiler, select
from tests.mutants.catalogue import Mutant, apply, is_compiled, load, source
from tests.mutants.results import CACHE, INVALID, PASSED, TIMEOUT, Result, Store
from tests.mutants.runner import Limits, Runner
from tests.mutants.table import is_right, scores

EXAMPLE = """example: python -m tests.mutants.kernels --only 'kernel-gelu-*' --jobs 1

exit status: 0 every mistake was noticed (equivalent ones excepted), 1 one was not, 2 bad usage, or no C++
compiler"""

DOCUMENT = Path(__file__).with_name("KERNELS.md")
BARRIER = re.compile(r"__sync(?:threads|warp)\([^;{]*\);|\bcopy_async_wait\w*(?:<[^>]*>)?\([^;{]*\);")
# What pytest -k selects: launches under the race detector, and launches without any detector.
RACE_DETECTOR = "(clean and thread) or race"
NO_DETECTOR = "not clean and not race and not bounds"

# What a failed test's exception says; any other is an exception that a test did not expect.
KINDS = {
    "AssertionError": "wrong result",
    "RaceError": "race",
    "BarrierDivergence": "divergence",
    "OutOfBounds": "out of bounds",
    "Failed": "missing report",
    "KernelStopped": "crash",
    "EmulatorError": "crash",
}

INTRODUCTION = """# How mistakes in kernels are noticed

`python -m tests.mutants.kernels` makes {mistakes} mistakes in the CUDA kernels and in the emulator that runs
them, one at a time, and runs the default tests of that file, emulated. They notice {noticed}. This file is
what it wrote.

- *wrong result*: a value or gradient that is not within its tolerance, or not the same bits in two schedules.
- *race*, *divergence*, *out of bounds*: the emulator's own reports. Out of bounds takes in addresses that are
  not aligned to what is moved at once.
- *crash*: the process of the tests or of a launch ended, or the kernel stopped itself.
- *missing report*: of the emulator, which let a mistake pass that a test made.
- *no end*: stopped after two minutes of processor time.
"""
BARRIERS = """## Each barrier dropped in turn

Once with the race detector alone (`test_clean[thread]` and its like), once with all tests but the detectors':
there only the emulator's order of threads can tell, and that shared memory is full of NaN when a block
begins.
"""


def drops_a_barrier(mutant: Mutant) -> bool:
    """Return whether a mutant has a barrier less than the file that it changes."""
    before = source(mutant)
    return len(BARRIER.findall(apply(mutant, before))) < len(BARRIER.findall(before))


def kind(result: Result) -> str:
    """Return how a mistake was noticed, in a word or two; a dash if it was not."""
    if result.outcome == PASSED:
        return "-"
    if result.outcome == INVALID:
        return "invalid"
    if result.outcome == TIMEOUT:
        return "no end"
    if result.error in signal.Signals.__members__:
        return "crash"
    return KINDS.get(result.error, result.error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.kernels",
        description="Seed one mistake at a time into the CUDA kernels and run the tests that mirror them.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="GLOB", help="only these mutants (or files)")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, default=CACHE, help="where results are kept")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the kernels as they are first")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in select(load(), options.only) if is_compiled(mutant)]
    if not mutants:
        print("no mutant of a kernel matches", file=sys.stderr)
        return 2
    missing = no_compiler()
    if missing:
        print(missing, file=sys.stderr)
        return 2

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through what stops the tests and cleans up
    started = time.monotonic()

    def report(result: Result, is_new: bool) -> None:
        if is_new:
            print(f"{kind(result):14} {result.id:56} {result.seconds:6.1f} s  {result.by}", flush=True)

    barriers = [mutant for mutant in mutants if drops_a_barrier(mutant)]
    with tempfile.TemporaryDirectory(prefix="npbert-mutants-") as folder:
        store = Store(options.cache / "results.jsonl")
        runner = Runner(Path(folder).resolve(), options.jobs, store, Limits(), report)
        try:
            results = runner.run(mutants, baseline=not options.no_baseline, whole_suite=False)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        by_detector, by_results = (
            runner.run(barriers, baseline=False, whole_suite=False, keyword=keyword)
            for keyword in (RACE_DETECTOR, NO_DETECTOR)
        )

    print(f"\n{time.monotonic() - started:.0f} s")
    wrong = [mutant for mutant in mutants if not is_right(mutant, results[mutant.id])]
    for mutant in wrong:
        claim = "said to be equivalent, but noticed" if mutant.equivalent else results[mutant.id].outcome
        print(f"{mutant.id} ({mutant.file}): {claim}\n    {mutant.description}\n    {results[mutant.id].by}")
    if options.only is None:
        text = document(mutants, results, by_detector, by_results)
        DOCUMENT.write_text(text, encoding="utf-8")
    return 1 if wrong else 0


def document(
    mutants: Sequence[Mutant],
    results: Mapping[str, Result],
    by_detector: Mapping[str, Result],
    by_results: Mapping[str, Result],
) -> str:
    """Return the text of KERNELS.md."""
    real = [mutant for mutant in mutants if mutant.equivalent is None]
    noticed = [mutant for mutant in real if is_right(mutant, results[mutant.id])]
    counts = collections.Counter(kind(results[mutant.id]) for mutant in real)
    barriers = [mutant for mutant in mutants if mutant.id in by_detector]
    parts = [
        INTRODUCTION.format(mistakes=len(real), noticed=len(noticed)),
        _table(
            ("file", "mistakes", "noticed", "equivalent"),
            [
                (s.name, f"{s.mutants - s.equivalent}", f"{s.killed}", f"{s.equivalent}")
                for s in scores(mutants, results)
            ],
        ),
        "The first test that fails ends the run, and quick ones come first: this is not all that notices.\n",
        _table(("noticed as", "mistakes"), [(name, f"{count}") for name, count in counts.most_common()]),
        BARRIERS,
        _table(
            ("file", "mistake", "race detector", "other tests"),
            [
                (mutant.file, mutant.description, kind(by_detector[mutant.id]), kind(by_results[mutant.id]))
                for mutant in barriers
            ],
        ),
        "## Every mistake\n",
    ]
    for file in dict.fromkeys(mutant.file for mutant in mutants):
        parts.append(f"### {file}\n")
        rows = [
            (
                mutant.description,
                "equivalent: " + mutant.equivalent if mutant.equivalent else kind(results[mutant.id]),
                _test_name(results[mutant.id].by),
            )
            for mutant in mutants
            if mutant.file == file
        ]
        parts.append(_table(("mistake", "noticed as", "by"), rows))
    return "\n".join(parts)


def _test_name(by: str) -> str:
    return f"`{by.rpartition('::')[2].partition('[')[0]}`" if "::" in by else by


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
