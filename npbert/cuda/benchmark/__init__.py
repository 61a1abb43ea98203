"""Fused kernels on a device: checked first, then timed against the unfused ops and against the roofline.

``npbert bench kernels`` prints what `benchmark_kernels` finds. No figure in this repository comes from it: no
device was at hand when it was written.
"""

from npbert.cuda.benchmark.cases import DTYPES, FUNCTIONS, SIZES
from npbert.cuda.benchmark.machine import Clocks, Machine, Peak, describe_machine, find_peak, read_clocks
from npbert.cuda.benchmark.oracle import Comparison
from npbert.cuda.benchmark.runner import Result, benchmark_kernels
from npbert.cuda.benchmark.timing import Stopwatch, Timing

__all__ = [
    "DTYPES",
    "FUNCTIONS",
    "SIZES",
    "Clocks",
    "Comparison",
    "Machine",
    "Peak",
    "Result",
    "Stopwatch",
    "Timing",
    "benchmark_kernels",
    "describe_machine",
    "find_peak",
    "read_clocks",
]
