"""How often the checker blames a backward pass that is right: over many random draws, it should never.

    python benchmarks/false_alarms.py [--draws 10000] [--cases ops|all] [--jobs 2] [--state FILE] [--json]

Draws take turns through the cases of `npbert.gradcheck.suite`, each round with the next seed: other
arguments, other cotangents, other sampled coordinates. The ops are right (their own tests prove them by
other means), so whatever is not "passed" is a false alarm: either "failed", or "inconclusive", which is
also no proof.

With --state, finished draws are written to a file as they come, and a second run goes on from there: use a
new file after a change of the code. The exit code is 0 if there was no false alarm, else 1.
"""

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from threadpoolctl import threadpool_limits

from npbert.gradcheck import check
from npbert.gradcheck.suite import case_names, draw_problem, ops
from npbert.progress import progress_bar

# Entries compared of each tensor; random directions see the others. Fewer than in `npbert gradcheck`,
# for speed: what varies from draw to draw here is the arguments.
MAX_COORDINATES = 32

Draw = tuple[str, int]  # a case and its seed


def draws(names: Sequence[str], count: int) -> list[Draw]:
    """Return the first ``count`` draws: all cases with seed 0, then all with seed 1, ..."""
    return [(names[number % len(names)], number // len(names)) for number in range(count)]


def examine(draw: Draw) -> dict[str, Any]:
    """Check one draw; return what is kept of its report."""
    name, seed = draw
    problem = draw_problem(name, seed)
    with threadpool_limits(1):
        report = check(
            problem.fn,
            problem.backward,
            problem.args,
            seed=seed,
            structural_zeros=problem.structural_zeros,
            max_coordinates=min(MAX_COORDINATES, problem.max_coordinates),
        )
    found = {"case": name, "seed": seed, "status": report.status, "max_error": report.max_error}
    return found if report.ok else {**found, "report": str(report)}


def finished(path: Path | None) -> dict[Draw, dict[str, Any]]:
    """Return the results that a state file holds; a line that was cut off by a crash does not count."""
    if path is None or not path.exists():
        return {}
    results = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            result = json.loads(line)
        except ValueError:
            continue
        results[result["case"], result["seed"]] = result
    return results


def run(todo: Sequence[Draw], jobs: int, state: TextIO | None) -> Iterator[dict[str, Any]]:
    """Yield the result of each draw as it is done, after writing it to the state file."""
    with multiprocessing.get_context("spawn").Pool(jobs) as pool, progress_bar("draws", len(todo)) as advance:
        for result in pool.imap_unordered(examine, todo, chunksize=4):
            if state is not None:
                state.write(json.dumps(result) + "\n")
                state.flush()
            advance(1, result["case"])
            yield result


def summary(results: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return the figures: how many draws, the false alarms, and the worst error of the others."""
    alarms = {
        status: [result for result in results if result["status"] == status]
        for status in ("failed", "inconclusive")
    }
    passed = [result for result in results if result["status"] == "passed"]
    return {
        "draws": len(results),
        "cases": len({result["case"] for result in results}),
        **{status: len(found) for status, found in alarms.items()},
        "worst": max(passed, key=lambda result: result["max_error"] or 0.0, default=None),
        "alarms": [*alarms["failed"], *alarms["inconclusive"]],
        "seconds": seconds,
    }


def main() -> int:
    """Draw, check and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument(
        "--cases",
        choices=("ops", "all"),
        default="ops",
        help="only the ops, or also the parts of the model and the tasks (default: ops)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--state", type=Path, help="file to keep finished draws in, and to go on from")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.draws < 1 or arguments.jobs < 1:
        parser.error("--draws and --jobs must be at least 1")

    names = [case.name for case in ops.CASES] if arguments.cases == "ops" else case_names()
    wanted = draws(names, arguments.draws)
    known = finished(arguments.state)
    start = time.perf_counter()
    todo = [draw for draw in wanted if draw not in known]
    opened = arguments.state.open("a", encoding="utf-8") if arguments.state else nullcontext()
    with opened as state:
        fresh = {(result["case"], result["seed"]): result for result in run(todo, arguments.jobs, state)}
    every = known | fresh
    figures = summary([every[draw] for draw in wanted], time.perf_counter() - start)

    alarms = figures["failed"] + figures["inconclusive"]
    if arguments.json:
        print(json.dumps(figures))
        return 1 if alarms else 0
    for alarm in figures["alarms"]:
        print(f"{alarm['case']}, seed {alarm['seed']}\n{alarm['report']}\n")
    print(f"{figures['draws']} draws over {figures['cases']} cases, {figures['seconds']:.0f} s")
    print(f"false alarms: {figures['failed']} failed, {figures['inconclusive']} inconclusive")
    if figures["worst"] is not None:
        worst = figures["worst"]
        print(f"worst error of the others: {worst['max_error']:.1e} ({worst['case']}, seed {worst['seed']})")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
