"""How long ``import npbert`` takes, next to ``import numpy``, which it cannot do without.

    python benchmarks/bench_import.py [--repeats 15] [--json]

Every import is timed in a fresh interpreter, from inside it, so that the start of the interpreter does not
count. The two take turns: a machine that slows down half-way slows down both. The wall clock sees what a
person waits for; the processor time of the importing thread is steadier, and stricter: it leaves out that
``import numpy`` waits for OpenBLAS to start its threads.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

MODULES = ("numpy", "npbert")
CLOCKS = {"wall": "perf_counter", "processor": "thread_time"}  # functions of the module time
ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import time
clocks = [getattr(time, name) for name in {clocks}]
start = [clock() for clock in clocks]
import {module}
print(*[clock() - begin for clock, begin in zip(clocks, start)])
"""

Seconds = dict[tuple[str, str], list[float]]  # by (module, clock)


def import_seconds(module: str) -> dict[str, float]:
    """Import ``module`` in a fresh interpreter; return the seconds that it took, by each clock."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or npbert, unlike numpy, would be compiled every time
    program = PROGRAM.format(clocks=tuple(CLOCKS.values()), module=module)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return dict(zip(CLOCKS, map(float, done.stdout.split()), strict=True))


def measure(repeats: int) -> Seconds:
    """Time each of ``MODULES`` ``repeats`` times, in turns, after one untimed round that warms the caches."""
    for module in MODULES:
        import_seconds(module)
    seconds: Seconds = {(module, clock): [] for module in MODULES for clock in CLOCKS}
    for _ in range(repeats):
        for module in MODULES:
            for clock, taken in import_seconds(module).items():
                seconds[module, clock].append(taken)
    return seconds


def summary(seconds: Seconds) -> dict[str, dict[str, float]]:
    """For each clock: each module's quartiles in milliseconds, and the ratio of the medians."""
    figures = {}
    for clock in CLOCKS:
        row = {}
        for module in MODULES:
            q1, median, q3 = (
                1000 * quartile for quartile in statistics.quantiles(seconds[module, clock], n=4)
            )
            row |= {f"{module}_ms": median, f"{module}_ms_q1": q1, f"{module}_ms_q3": q3}
        figures[clock] = row | {"ratio": row["npbert_ms"] / row["numpy_ms"]}
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time `import npbert` and `import numpy`, in turns.")
    parser.add_argument("--repeats", type=int, default=15, help="imports of each (default: 15; at least 2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.repeats < 2:
        parser.error(f"--repeats must be at least 2, not {arguments.repeats}")

    figures = summary(measure(arguments.repeats))
    if arguments.json:
        print(json.dumps(figures | {"repeats": arguments.repeats}))
        return
    for clock, row in figures.items():
        print(f"{clock} time, medians of {arguments.repeats} (and the middle half)")
        for module in MODULES:
            median, q1, q3 = (row[f"{module}_ms{part}"] for part in ("", "_q1", "_q3"))
            print(f"  import {module:<8}{median:7.1f} ms   ({q1:.1f} to {q3:.1f})")
        print(f"  ratio          {row['ratio']:7.2f}")


if __name__ == "__main__":
    main()
