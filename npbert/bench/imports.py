"""``npbert bench import``: how long ``import npbert`` takes, next to ``import numpy``, which it needs.

Every import is timed in a fresh interpreter, from inside it, so that the start of the interpreter does not
count. They take turns: a machine that slows down half-way slows down all. The wall clock sees what a person
waits for; the processor time of the importing thread is steadier, and stricter: it leaves out that ``import
numpy`` waits for OpenBLAS to start its threads.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import npbert
from npbert.bench.comparison import Comparison
from npbert.bench.contest import Outcome
from npbert.bench.peers import Peer

MODULES: Final = ("numpy", "npbert")
PEERS: Final = tuple(
    Peer(module, (module,), (module.replace("_", "-"),), build=import_module)
    for module in ("torch", "onnxruntime", "transformers", "sentence_transformers")
)
CLOCKS: Final = {"wall": "perf_counter", "processor": "thread_time"}  # functions of the module time

PROGRAM: Final = """
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
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(npbert.__file__).parent.parent,  # so that it is this npbert that is found
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(CLOCKS, map(float, done.stdout.split()), strict=True))


def measure(
    repeats: int,
    modules: Sequence[str] = MODULES,
    import_seconds: Callable[[str], dict[str, float]] = import_seconds,
) -> Seconds:
    """Time the import of each module ``repeats`` times, in turns, after one untimed round for the caches."""
    for module in modules:
        import_seconds(module)
    seconds: Seconds = {(module, clock): [] for module in modules for clock in CLOCKS}
    for _ in range(repeats):
        for module in modules:
            for clock, taken in import_seconds(module).items():
                seconds[module, clock].append(taken)
    return seconds


def compare_imports(repeats: int, peers: Sequence[str]) -> Iterator[Comparison]:
    """Compare the imports of NumPy, of npbert and of some peers, by each clock."""
    modules = [*MODULES, *peers]
    seconds = measure(repeats, modules)
    for clock in CLOCKS:
        yield Comparison(
            title=f"import, {clock} time",
            facts={"clock": clock},
            outcomes=tuple(Outcome(f"import {module}", tuple(seconds[module, clock])) for module in modules),
            base=f"import {MODULES[0]}",
        )
