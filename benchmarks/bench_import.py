"""How long ``import npbert`` takes, next to ``import numpy``, which it cannot do without.

    python benchmarks/bench_import.py [--repeats 15] [--json]

Every import is timed in a fresh interpreter, from inside it, so that the start of the interpreter does not
count. The two take turns: a machine that slows down half-way slows down both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

MODULES = ("numpy", "npbert")
ROOT = Path(__file__).resolve().parent.parent

TIMER = "import time; start = time.{clock}(); import {module}; print(time.{clock}() - start)"


def import_seconds(module: str, clock: str) -> float:
    """Import ``module`` in a fresh interpreter; return the seconds by ``clock``, a function of ``time``."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or npbert, unlike numpy, would be compiled every time
    command = [sys.executable, "-c", TIMER.format(module=module, clock=clock)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(repeats: int, clock: str = "perf_counter") -> dict[str, list[float]]:
    """Time each of ``MODULES`` ``repeats`` times, in turns, after one untimed round that warms the caches."""
    for module in MODULES:
        import_seconds(module, clock)
    seconds: dict[str, list[float]] = {module: [] for module in MODULES}
    for _ in range(repeats):
        for module in MODULES:
            seconds[module].append(import_seconds(module, clock))
    return seconds


def summary(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median and quartiles of each module's times in milliseconds, and the ratio of the medians."""
    figures: dict[str, float] = {}
    for module, times in seconds.items():
        lower, median, upper = (1000 * quartile for quartile in statistics.quantiles(times, n=4))
        figures |= {f"{module}_ms": median, f"{module}_ms_q1": lower, f"{module}_ms_q3": upper}
    figures["ratio"] = figures["npbert_ms"] / figures["numpy_ms"]
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
    for module in MODULES:
        median, lower, upper = (figures[f"{module}_ms{part}"] for part in ("", "_q1", "_q3"))
        print(f"import {module:<8}{median:7.1f} ms   (middle half {lower:.1f} to {upper:.1f})")
    print(f"ratio of the medians {figures['ratio']:.2f}")


if __name__ == "__main__":
    main()
