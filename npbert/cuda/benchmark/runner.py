"""Every case on CuPy's current device: is it right, how fast is it, how fast could it be?"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from npbert.cuda.benchmark.cases import DTYPES, FUNCTIONS, SIZES, Case, Pair, Work, cases
from npbert.cuda.benchmark.machine import Clocks, Peak, read_clocks
from npbert.cuda.benchmark.oracle import Comparison, Outputs, compare, run
from npbert.cuda.benchmark.timing import Stopwatch, Timing
from npbert.cuda.facts.problems import Size
from npbert.cuda.facts.roofline import Bound, roofline
from npbert.cuda.runtime import compute_capability
from npbert.cuda.softmax_attention_mma import OLDEST_DEVICE
from npbert.ops.array_module import Array


class Result(NamedTuple):
    """What is known of one function of one case.

    Attributes
    ----------
    size : str
        A key of `SIZES`.
    function, variant : str
        Such as "bias_gelu_forward" and "float16, erf".
    work : Work
    comparisons : list of Comparison
        With float64; empty where the function, or the unfused op, could not be run.
    failure : str or None
        Why it is not timed: it could not be run or checked, or its result is wrong.
    timing : Timing or None
    unfused : Timing or None
        Of the textbook's ops, on the same device.
    unfused_failure : str or None
        Why these could not be timed.
    bound : Bound or None
        The least time that the device can take; None where its peaks are not known.
    clocks : Clocks or None
        Right after the timing.
    """

    size: str
    function: str
    variant: str
    work: Work
    comparisons: Sequence[Comparison]
    failure: str | None
    timing: Timing | None = None
    unfused: Timing | None = None
    unfused_failure: str | None = None
    bound: Bound | None = None
    clocks: Clocks | None = None

    @property
    def speed_up(self) -> float | None:
        """How many times longer the unfused ops take."""
        if self.timing is None or self.unfused is None:
            return None
        return self.unfused.median / self.timing.median

    @property
    def share_of_roofline(self) -> float | None:
        """The least time over the time taken."""
        return None if self.timing is None or self.bound is None else self.bound.seconds / self.timing.median

    @property
    def bytes_per_second(self) -> float | None:
        """What has to be moved at least, over the time taken."""
        return None if self.timing is None else self.work.minimum_bytes / self.timing.median

    @property
    def flops_per_second(self) -> float | None:
        """What the formulas need, over the time taken."""
        return None if self.timing is None else self.work.flops / self.timing.median


def benchmark_kernels(
    cupy: Any,
    stopwatch: Stopwatch,
    peak: Peak,
    sizes: Mapping[str, Size] = SIZES,
    dtypes: Sequence[str] = DTYPES,
    functions: Collection[str] = FUNCTIONS,
) -> Iterator[Result]:
    """Check every case, and time what is right.

    Kernels for tensor cores are left out where the device is too old for them.

    Parameters
    ----------
    cupy : module
    stopwatch : Stopwatch
    peak : Peak
        Of CuPy's current device.
    sizes : mapping of str to Size
    dtypes : sequence of str
    functions : collection of str
        Some of `FUNCTIONS`.

    Yields
    ------
    Result
        Of each function, as soon as it is known.
    """
    with_tensor_cores = compute_capability(cupy.empty(1)) >= OLDEST_DEVICE
    for name, size in sizes.items():
        for dtype in dtypes:
            for case in cases(size, dtype, functions, with_tensor_cores):
                yield from _run_case(cupy, stopwatch, peak, name, case)
                cupy.get_default_memory_pool().free_all_blocks()


def _run_case(cupy: Any, stopwatch: Stopwatch, peak: Peak, size: str, case: Case) -> Iterator[Result]:
    fused = _Placed(cupy, case.fused, case, case.layout)
    unfused = _Placed(cupy, _unfused(case), case, layout=lambda x: x)
    found, failure = _attempt(fused.outputs)
    reference, unfused_failure = _attempt(unfused.outputs)
    if failure is None and unfused_failure is not None:
        failure = f"not checked, since the unfused op could not be run: {unfused_failure}"
    comparisons = [] if failure is not None else compare(case, found, reference)
    del found, reference
    for function, work in case.work.items():
        part = _part(function, comparisons)
        result = Result(size, function, case.variant, work, part, failure or _complaint(part))
        if peak.device is not None:
            bound = roofline(peak.device, work.unit, work.flops, work.minimum_bytes)
            result = result._replace(bound=bound)
        if result.failure is None:
            timing, why = _attempt(fused.time, stopwatch, function)
            result = result._replace(timing=timing, failure=why, clocks=read_clocks(cupy))
        if result.timing is not None:
            timing, why = _attempt(unfused.time, stopwatch, function)
            result = result._replace(unfused=timing, unfused_failure=why)
        yield result


def _part(function: str, comparisons: Sequence[Comparison]) -> Sequence[Comparison]:
    """Return the comparisons of what a function returns: the value, the gradients, or both."""
    if function.endswith("_forward"):
        return comparisons[:1]
    return comparisons[1:] if function.endswith("_backward") else comparisons


class _Placed:
    """A pair with its arguments on the device."""

    def __init__(self, cupy: Any, pair: Pair, case: Case, layout: Callable[[Array], Array]) -> None:
        self._cupy = cupy
        self._pair = pair
        self._case = case
        self._layout = layout

    def outputs(self) -> Outputs:
        """Return what the pair returns, on the host."""
        value, gradients = run(self._pair, self._arguments(), self._to_device(self._case.dy))
        return Outputs(value.get(), tuple(gradient.get() for gradient in gradients))

    def time(self, stopwatch: Stopwatch, function: str) -> Timing:
        """Time the backward if the function is one, else the forward."""
        arguments = self._arguments()
        if not function.endswith("_backward"):
            return stopwatch.time(lambda: self._pair.forward(*arguments))
        _, cache = self._pair.forward(*arguments)
        dy = self._to_device(self._case.dy)
        return stopwatch.time(lambda: self._pair.backward(dy, cache))

    def _arguments(self) -> list[Any]:
        return [self._to_device(argument) for argument in self._case.arguments]

    def _to_device(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return self._layout(self._cupy.asarray(value))


def _unfused(case: Case) -> Pair:
    """Return the textbook's pair for arrays of the case's dtype."""
    if not case.wide_textbook:
        return case.textbook
    dtype = case.dy.dtype

    def converted(value: Any, to: Any) -> Any:
        is_floating = hasattr(value, "dtype") and value.dtype.kind == "f"
        return value.astype(to) if is_floating else value

    def forward(*arguments: Any) -> tuple[Any, Any]:
        value, cache = case.textbook.forward(*(converted(argument, np.float32) for argument in arguments))
        return converted(value, dtype), cache

    def backward(dy: Any, cache: Any) -> tuple[Any, ...]:
        gradients = case.textbook.backward(converted(dy, np.float32), cache)
        return tuple(converted(gradient, dtype) for gradient in gradients)

    return Pair(forward, backward)


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Return what a function returns, and None; or None, and what was wrong."""
    try:
        return function(*arguments), None
    except Exception as error:  # of a compiler, a driver, a device that is out of memory: a finding
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"


def _complaint(comparisons: Sequence[Comparison]) -> str | None:
    wrong = [
        f"{found.name} is off by {found.error:.3g}, allowed is {found.allowed:.3g}"
        for found in comparisons
        if not found.is_right
    ]
    return f"wrong: {'; '.join(wrong)}" if wrong else None
