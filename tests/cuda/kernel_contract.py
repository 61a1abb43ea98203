"""What every kernel owes, whatever it computes: what an op owes, held against the op that it stands for.

An engine op (`npbert.cuda`) is a launcher with the textbook op's signature. In float64 it is judged like any
backward pass, by the complex step; in the precisions that it is there for, by how much the textbook op errs
at the same precision. It runs emulated, in all schedules, or on a device where `ON_DEVICE` says so.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np

from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.op_contract import (
    Op,
    Terms,
    as_dtype,
    check_linear_in_dy,
    check_repeatable,
    check_shapes_and_dtypes,
    other_layouts,
)
from tests.oracles import complex_step_element
from tests.tolerances import COMPLEX_STEP, FUSED_FLOOR, FUSED_RATIO, ROUND_OFF, U16, U32, U64

DTYPES = (np.float64, np.float32, np.float16)
# What round-off a formula of the sizes here is allowed in each, in units of the sum of its |terms|.
ROUND_OFF_OF = {np.float64: ROUND_OFF * U64, np.float32: ROUND_OFF * U32, np.float16: ROUND_OFF * U16}
SCHEDULES = ("ascending", "descending", "random")
ON_DEVICE = False  # pytest --cuda sets it

# The complex step costs a forward pass an element: of larger arrays it takes a sample.
MOST_COMPLEX_STEPS = 200


def assert_kernel_contract(
    engine_forward: Callable,
    engine_backward: Callable,
    textbook_forward: Callable,
    textbook_backward: Callable,
    args: Sequence,
    rng: np.random.Generator,
    *,
    gradients: Sequence[str],
    terms: Terms,
    unused: Sequence[str] = (),
    dtypes: Sequence = DTYPES,
    textbook_float16: tuple[Callable, Callable] | None = None,
) -> None:
    """Check everything that can be checked of a kernel without knowing what it computes.

    - float64: the value is the textbook's; each gradient is that of the complex step of the textbook's
      forward, within 1e-11; the backward is linear in ``dy``;
    - float32 and float16: value and gradients err at most twice as much as the unfused op does (the
      textbook's, which rounds after each step), plus 4 u of the largest element. Both are compared with the
      textbook in float64, at the same, rounded, inputs;
    - in each precision: finite; shapes and dtypes those of the arguments; inputs, cotangent and cache stay as
      they were; another run, another schedule and other memory layouts give the same bits;
    - in one precision, drawn: the same budget holds on an emulator whose mathematical functions err by up to
      2 ULP, as a device's may.

    Parameters
    ----------
    engine_forward, engine_backward : the op that launches kernels
    textbook_forward, textbook_backward : the op that it stands for: of `npbert.ops`, or composed of those
    args : sequence
        Arguments of both forwards; floating-point arrays in float64.
    rng : numpy.random.Generator
        Draws the cotangent, the order of the schedules, the layouts.
    gradients, terms, unused
        As in `tests.op_contract.assert_op_contract`.
    dtypes : sequence of dtype
        Those to try. float16 is left out where a result is beyond its range.
    textbook_float16 : (forward, backward), optional
        The unfused op in float16, where the textbook's takes no such arrays: see `rounded_from_float32`.
    """
    textbook = Op(textbook_forward, textbook_backward, tuple(args), tuple(gradients), tuple(unused), terms)
    engine = Op(
        placed(engine_forward), placed(engine_backward), textbook.args, textbook.names, textbook.unused, terms
    )
    dy = np.asarray(rng.normal(size=np.shape(textbook.value(*args))))[()]
    perturbed = dtypes[rng.integers(len(dtypes))]
    for dtype in dtypes:
        unfused = textbook
        if dtype == np.float16 and textbook_float16 is not None:
            unfused = Op(*textbook_float16, textbook.args, textbook.names, textbook.unused, terms)
        answer = _answer(textbook, unfused, as_dtype(np.float64, as_dtype(dtype, dy)), dtype, rng)
        if dtype == np.float16 and not _fits(answer, dtype):
            continue
        rounded = engine.with_args(as_dtype(dtype, arg) for arg in args)
        _check_one_precision(rounded, answer, perturb=dtype == perturbed, rng=rng)


def rounded_from_float32(forward: Callable, backward: Callable) -> tuple[Callable, Callable]:
    """An unfused op in float16 that computes in float32 and rounds what it returns.

    For ops of the textbook that have no float16 arithmetic of their own (erf). It errs less than one that
    rounds at each step would, and so leaves a kernel the smaller budget.
    """

    @functools.wraps(forward)
    def rounded_forward(*args):
        y, cache = forward(*(as_dtype(np.float32, arg) for arg in args))
        return as_dtype(np.float16, y), cache

    @functools.wraps(backward)
    def rounded_backward(dy, cache):
        found = backward(as_dtype(np.float32, dy), cache)
        found = found if isinstance(found, tuple) else (found,)
        return tuple(as_dtype(np.float16, gradient) for gradient in found)

    return rounded_forward, rounded_backward


def assert_clean(forward: Callable, backward: Callable, args: Sequence, dy, sanitizer: str) -> None:
    """Run an engine op under a sanitizer, which raises where it finds something; the bits are as without it.

    Parameters
    ----------
    forward, backward : the op that launches kernels
    args : sequence
        Of ``forward``, in the precision to run in.
    dy : array
        Of ``backward``.
    sanitizer : "address" or "thread"
    """
    found = []
    for chosen in (sanitizer, None):  # without it, an access out of bounds may end this process
        with _emulator(sanitizer=chosen):
            y, cache = forward(*args)
            gradients = backward(dy, cache)
            found.append((y, *(gradients if isinstance(gradients, tuple) else (gradients,))))
    for slot, (sanitized, plain) in enumerate(zip(*found, strict=True)):
        if plain is not None:
            assert_identical(sanitized, plain, f"result {slot} under the {sanitizer} sanitizer")


class _Answer(NamedTuple):
    """What a kernel is compared with, at arguments that its precision holds. The value comes first."""

    dtype: type
    dy: np.ndarray  # float64
    expected: list  # the textbook in float64; gradients: the complex step
    sizes: Sequence  # the sum of the |terms| of each element
    unfused: list  # the textbook in this precision; in float64 nothing


def _answer(textbook: Op, unfused: Op, dy, dtype, rng) -> _Answer:
    exact = textbook.rounded_to(dtype)
    y, found = exact.run(dy)
    sizes = exact.terms(dy, *exact.args)
    if dtype == np.float64:
        expected = _complex_step(exact, dy, found, rng)
        return _Answer(dtype, dy, [y, *expected], sizes, [])
    rounded = unfused.with_args(as_dtype(dtype, arg) for arg in exact.args)
    with np.errstate(all="ignore"):  # eps is 0 in float16, a square may overflow: its error is then no budget
        value, gradients = rounded.run(as_dtype(dtype, dy))
    return _Answer(dtype, dy, [y, *found], sizes, [value, *gradients])


def _complex_step(op: Op, dy, found, rng) -> list:
    """The gradients by the complex step; of large ones a sample, among those of the textbook's backward."""
    expected = list(found)
    for slot, _, position in op.slots():
        shape = op.args[position].shape
        indices = list(np.ndindex(shape))
        if len(indices) > MOST_COMPLEX_STEPS:
            indices = [indices[i] for i in rng.choice(len(indices), MOST_COMPLEX_STEPS, replace=False)]
        expected[slot] = found[slot].copy()
        for index in indices:
            expected[slot][index] = complex_step_element(op.value, op.args, position, dy, index)
    return expected


def _fits(answer: _Answer, dtype) -> bool:
    return all(e is None or np.abs(e).max() <= np.finfo(dtype).max for e in answer.expected)


def _check_one_precision(engine: Op, answer: _Answer, *, perturb: bool, rng) -> None:
    dy = as_dtype(answer.dtype, answer.dy)
    first, second, third = rng.permutation(SCHEDULES)
    with _emulator(schedule=first, seed=int(rng.integers(100))):
        y, found = engine.run(dy)
    check_shapes_and_dtypes(engine, y, found, answer.dtype)
    _check_accuracy(engine, y, found, answer)
    with _emulator(schedule=second, seed=int(rng.integers(100))):
        check_repeatable(engine, dy, y, found)
    with _emulator(schedule=third, seed=int(rng.integers(100))):
        _check_other_layouts(engine, dy, y, found, rng)
    if perturb:
        with _emulator(perturb=True):
            _check_accuracy(engine, *engine.run(dy), answer)
    if answer.dtype == np.float64:
        check_linear_in_dy(engine, dy, found, answer.sizes, rng)


def _check_accuracy(engine: Op, y, found, answer: _Answer) -> None:
    results = [(0, "the value", y), *((1 + slot, name, found[slot]) for slot, name, _ in engine.slots())]
    for slot, name, actual in results:
        what = f"{name} in {np.dtype(answer.dtype)}"
        expected, size = answer.expected[slot], answer.sizes[slot]
        if answer.dtype == np.float64:
            assert_rows_close(
                actual,
                expected,
                what=what,
                relative=COMPLEX_STEP,
                round_off=ROUND_OFF_OF[np.float64],
                terms=size,
            )
        else:
            assert_within_budget(actual, expected, answer.unfused[slot], size, what)


def assert_within_budget(actual, expected, unfused, terms, what: str) -> None:
    """Compare with float64: at most twice the error of the unfused op, plus 4 u max|expected|.

    Where terms cancel, an unfused op may be right by chance: 4 u max(terms) is always allowed. One that
    is not finite allows nothing else.
    """
    assert_finite(actual, what)
    limits = np.finfo(actual.dtype)
    # A device flushes float32's subnormal numbers to 0, and keeps those of float16.
    smallest = limits.tiny if actual.dtype == np.float32 else limits.smallest_subnormal
    with np.errstate(invalid="ignore"):
        baseline = np.abs(np.asarray(unfused, np.float64) - expected).max()
    baseline = baseline if np.isfinite(baseline) else 0.0
    u = float(limits.epsneg)  # half of eps: the largest relative error of one rounding
    error = np.abs(np.asarray(actual, np.float64) - expected)
    allowed = max(
        FUSED_RATIO * baseline + FUSED_FLOOR * u * np.abs(expected).max(),
        FUSED_FLOOR * u * np.max(terms),
        float(smallest),
    )
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
    assert error[worst] <= allowed, (
        f"{what} disagrees most at {worst}: {actual[worst]!r}, expected {expected[worst]!r}; "
        f"off by {error[worst]:.3g}, the unfused op by {baseline:.3g}, {allowed:.3g} is allowed"
    )


def _check_other_layouts(engine: Op, dy, y, found, rng) -> None:
    """A kernel reads rows: the launcher has to see to it that there are some."""
    layout = int(rng.integers(3))
    value, gradients = engine.with_args(other_layouts(a)[layout] for a in engine.args).run(
        other_layouts(dy)[layout]
    )
    assert_identical(value, y, "the value, other layout")
    for slot, name, _ in engine.slots():
        assert_identical(gradients[slot], found[slot], f"{name}, other layout")


# --- where it runs --------------------------------------------------------------------------------------


def _emulator(**options) -> AbstractContextManager:
    """The emulator's switches; a device has its own schedule and its own errors."""
    if ON_DEVICE:
        return nullcontext()
    from npbert.cuda import emulator

    return emulator.options(**options)


def backend() -> str:
    """Return the name of the backend that runs kernels here."""
    return "cuda" if ON_DEVICE else "cuda-emulated"


def launch_on_device(launch) -> None:
    """What ``--cuda`` does in place of an emulated launch: copies the arrays to the device and back."""
    import cupy

    from npbert.cuda import emulator, runtime

    assert emulator.current_options() == emulator.Options(), "a device has no such switch: use `emulated`"
    copies = [cupy.asarray(value) if isinstance(value, np.ndarray) else value for value in launch.values]
    runtime.run_on_device(*launch._replace(values=copies))
    for original, copy in zip(launch.values, copies, strict=True):
        if isinstance(original, np.ndarray) and original.flags.writeable:
            original[...] = copy.get()


def placed(function: Callable) -> Callable:
    """Return a function of NumPy arrays that, with ``--cuda``, gives ``function`` copies on the device.

    It must not write to them. What it returns is copied back, except a cache, which stays where it is.
    """

    @functools.wraps(function)
    def there(*args):
        if not ON_DEVICE:
            return function(*args)
        import cupy

        copies = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
        result = function(*copies)
        for original, copy in zip(args, copies, strict=True):
            if isinstance(original, np.ndarray):
                np.testing.assert_array_equal(copy.get(), original, err_msg="an argument, after the call")
        if type(result) is tuple:  # (y, cache), or gradients; a cache is a NamedTuple
            return tuple(r.get() if isinstance(r, cupy.ndarray) else r for r in result)
        return result.get()

    return there


def misaligned(array: np.ndarray) -> np.ndarray:
    """Return a contiguous copy that starts one element behind an address that is a multiple of 16."""
    memory = np.empty(array.size + 32, array.dtype)
    start = -(memory.ctypes.data // memory.itemsize) % (16 // memory.itemsize) + 1
    copy = memory[start : start + array.size].reshape(array.shape)
    copy[...] = array
    assert copy.ctypes.data % 16 == copy.itemsize % 16
    return copy
