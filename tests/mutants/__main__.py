"""Make every mistake of the catalogue, and see whether a test fails:  python -m tests.mutants"""

import argparse
import fnmatch
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from npbert.cuda import emulator
from tests.mutants.catalogue import Mutant, is_compiled, load
from tests.mutants.results import CACHE, Result, Store
from tests.mutants.runner import Limits, Runner
from tests.mutants.table import is_right, scores, table

EXAMPLE = """example: python -m tests.mutants --only 'layernorm-*' --jobs 2

exit status: 0 every mutant was killed (equivalent ones excepted), 1 one was not, 2 bad usage, or nothing to
run without a C++ compiler"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Seed one mistake at a time into npbert and run the tests, which have to fail.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="GLOB", help="only mutants (or files) that match")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default: 2)")
    resume = parser.add_mutually_exclusive_group()
    resume.add_argument("--resume", action="store_true", default=True, help="use earlier results (default)")
    resume.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--list", action="store_true", help="show the mutants and run nothing")
    parser.add_argument("--cache", metavar="FOLDER", type=Path, default=CACHE, help="where results are kept")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write scores and results to a file")
    parser.add_argument(
        "--timeout",
        type=float,
        default=Limits().first,
        help="seconds of processor time for the mirrored tests",
    )
    parser.add_argument("--no-baseline", action="store_true", help="do not run the package as it is first")
    parsed = parser.parse_args(arguments)
    if parsed.jobs < 1:
        parser.error(f"--jobs is {parsed.jobs}; it must be at least 1")
    return parsed


def select(mutants: Sequence[Mutant], patterns: Sequence[str] | None) -> list[Mutant]:
    """Return the mutants whose id or file matches one of the patterns; all without patterns."""
    if not patterns:
        return list(mutants)
    return [m for m in mutants if any(fnmatch.fnmatch(name, p) for p in patterns for name in (m.id, m.file))]


def no_compiler() -> str:
    """Say that the tests of kernels, which a mutant in C++ needs, would all be skipped; empty if not."""
    try:
        emulator.compiler()
    except emulator.EmulatorError as error:
        return str(error)
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = parse(arguments)
    mutants = select(load(), options.only)
    if not mutants:
        print(f"no mutant matches {' '.join(options.only)}", file=sys.stderr)
        return 2
    if options.list:
        for mutant in mutants:
            note = " (equivalent)" if mutant.equivalent else ""
            print(f"{mutant.id:60} {mutant.description}{note}")
        return 0

    missing = no_compiler()
    if missing:
        left = [mutant for mutant in mutants if not is_compiled(mutant)]
        print(f"left out, {len(mutants) - len(left)} mutants in C++: {missing}", file=sys.stderr)
        mutants = left
        if not mutants:
            return 2

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through what stops the tests and cleans up
    by_id = {mutant.id: mutant for mutant in mutants}
    started, done = time.monotonic(), 0

    def report(result: Result, is_new: bool) -> None:
        nonlocal done
        done += 1
        if is_new or not is_right(by_id[result.id], result):
            outcome = result.outcome if result.outcome != "passed" else "SURVIVED"
            outcome = "equivalent" if by_id[result.id].equivalent and outcome == "SURVIVED" else outcome
            print(
                f"[{done:4}/{len(mutants)}] {outcome:10} {result.id:56} {result.seconds:6.1f} s  {result.by}",
                flush=True,
            )

    with tempfile.TemporaryDirectory(prefix="npbert-mutants-") as folder:
        limits = Limits(options.timeout)
        store = Store(options.cache / "results.jsonl", options.fresh)
        runner = Runner(Path(folder).resolve(), options.jobs, store, limits, report)
        try:
            results = runner.run(mutants, baseline=not options.no_baseline)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1

    lines = scores(mutants, results)
    wrong = [mutant for mutant in mutants if not is_right(mutant, results[mutant.id])]
    print()
    print(table(lines))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{time.monotonic() - started:.0f} s, {cpu:.0f} s of processor time")
    for mutant in wrong:
        claim = "said to be equivalent, but killed" if mutant.equivalent else results[mutant.id].outcome
        print(
            f"\n{mutant.id} ({mutant.file}): {claim}\n    {mutant.description}\n    {results[mutant.id].by}"
        )
    if options.json:
        content = {
            "scores": [line._asdict() for line in lines],
            "results": [results[mutant.id]._asdict() for mutant in mutants],
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
