"""What every op owes, whatever it computes: one function that the tests of all ops call.

It shares no code with :mod:`npbert.gradcheck`, so that a mistake there cannot hide one in an op. And it is
told how much round-off an op's terms amount to, so that it can judge any draw: a row that cancels nearly to
0 is no reason to fail, or to call anything inconclusive.
"""

import inspect
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.oracles import complex_step_along, complex_step_gradient
from tests.tolerances import COMPLEX_STEP, ROUND_OFF, TAYLOR_RATIO, U32, U64

Terms = Callable[..., Sequence]


def assert_op_contract(
    forward: Callable,
    backward: Callable,
    args: Sequence,
    rng: np.random.Generator,
    *,
    gradients: Sequence[str],
    terms: Terms,
    unused: Sequence[str] = (),
) -> None:
    """Check everything that can be checked of an op without knowing what it computes.

    - value and gradients are finite, of the right shapes and dtypes, and as many as there should be;
    - each gradient is that of the complex step, and ``<J v, u> = <v, Jᵀ u>``;
    - the Taylor remainder is of second order;
    - the backward is linear in ``dy``;
    - inputs, cotangent and cache stay as they were, and a second run gives the same bits;
    - other memory layouts of the inputs give the same result;
    - float32 in, float32 out, as near to float64 as round-off allows.

    Parameters
    ----------
    forward, backward : the op
    args : sequence
        Arguments of ``forward``; floating-point arrays in float64.
    rng : numpy.random.Generator
        Draws the cotangent, which is random, never ones: many ops' dx vanishes for ones.
    gradients : sequence of str
        Names of what ``backward`` returns, in order: parameters of ``forward`` without the leading d.
    terms : callable
        ``terms(dy, *args)`` returns, for the value and then for each gradient, the sum of the absolute
        values of the terms it is made of: what round-off is proportional to. See `comparisons`.
    unused : sequence of str
        Names among ``gradients`` that these arguments give no gradient to; None is expected there.
    """
    op = Op(forward, backward, tuple(args), tuple(gradients), tuple(unused), terms)
    y, _ = forward(*args)
    dy = np.float64(rng.normal()) if np.ndim(y) == 0 else rng.normal(size=y.shape)
    # A float32 copy of the inputs and of dy is exact, so that the two precisions get the same problem.
    op = op.rounded_to(np.float32)
    dy = as_dtype(np.float64, as_dtype(np.float32, dy))

    y, found = op.run(dy)
    sizes = op.terms(dy, *op.args)
    check_shapes_and_dtypes(op, y, found, np.float64)
    check_repeatable(op, dy, y, found)
    _check_complex_step(op, dy, found, sizes)
    _check_adjoint(op, dy, found, sizes, rng)
    _check_taylor_remainder(op, dy, y, found, sizes, rng)
    check_linear_in_dy(op, dy, found, sizes, rng)
    _check_memory_layouts(op, dy, y, found, sizes)
    _check_float32(op, dy, y, found, sizes)


class Op:
    """An op at certain arguments."""

    def __init__(self, forward, backward, args, names, unused, terms):
        self.forward, self.backward, self.args = forward, backward, args
        self.names, self.unused, self.terms = names, unused, terms
        parameters = list(inspect.signature(forward).parameters)
        self.positions = [parameters.index(name) for name in names]

    def with_args(self, args) -> "Op":
        return Op(self.forward, self.backward, tuple(args), self.names, self.unused, self.terms)

    def rounded_to(self, dtype) -> "Op":
        """The same in float64, at arguments that ``dtype`` holds exactly."""
        return self.with_args(as_dtype(np.float64, as_dtype(dtype, a)) for a in self.args)

    def expects(self, slot: int) -> bool:
        """Whether this slot of the backward's result holds a gradient, rather than None."""
        position = self.positions[slot]
        return (
            position < len(self.args)
            and self.args[position] is not None
            and self.names[slot] not in self.unused
        )

    def value(self, *args):
        return self.forward(*args)[0]

    def run(self, dy):
        """The value and the tuple of gradients."""
        y, cache = self.forward(*self.args)
        return y, self.gradients(dy, cache)

    def gradients(self, dy, cache) -> tuple:
        found = self.backward(dy, cache)
        found = found if isinstance(found, tuple) else (found,)
        assert len(found) == len(self.names), f"{len(found)} gradients, expected {self.names}"
        return found

    def slots(self):
        """``(slot, name of the gradient, position of its argument)`` where there is a gradient."""
        return [
            (slot, f"d{name}", self.positions[slot])
            for slot, name in enumerate(self.names)
            if self.expects(slot)
        ]


def as_dtype(dtype, value):
    """Floating-point arrays in another precision; everything else, Python's numbers too, as it is."""
    return value.astype(dtype) if is_floating(value) else value


def is_floating(value) -> bool:
    """Whether it is an array of floating-point numbers; of NumPy's scalars too."""
    return isinstance(value, np.ndarray | np.generic) and np.issubdtype(value.dtype, np.floating)


def read_only(value):
    """A copy that raises when it is written to."""
    if not isinstance(value, np.ndarray):
        return value
    value = value.copy()
    value.flags.writeable = False
    return value


def check_shapes_and_dtypes(op, y, found, dtype) -> None:
    assert y.dtype == dtype, f"the value is {y.dtype}, expected {np.dtype(dtype)}"
    assert_finite(y, "the value")
    for slot, gradient in enumerate(found):
        name = f"d{op.names[slot]}"
        if not op.expects(slot):
            assert gradient is None, f"{name} should be None"
            continue
        argument = op.args[op.positions[slot]]
        assert isinstance(gradient, np.ndarray), f"{name} is a {type(gradient)}"
        assert gradient.shape == argument.shape, f"{name} is {gradient.shape}, expected {argument.shape}"
        assert gradient.dtype == dtype, f"{name} is {gradient.dtype}, expected {np.dtype(dtype)}"
        assert_finite(gradient, name)


def check_repeatable(op, dy, y, found) -> None:
    """Nothing is written to: not to the inputs, not to dy, not to the cache; and the gradients are fresh."""
    op = op.with_args(read_only(arg) for arg in op.args)
    dy = read_only(dy)
    value, cache = op.forward(*op.args)
    op.gradients(dy, cache)
    again = op.gradients(dy, cache)  # from the same cache: a backward that consumed it shows
    assert_identical(value, y, "the value of a second run")
    for slot, name, _ in op.slots():
        assert_identical(again[slot], found[slot], f"{name} of a second run")
        assert not np.shares_memory(again[slot], dy), f"{name} is a view of dy"
    for (slot, name, _), (other_slot, other_name, _) in itertools.combinations(op.slots(), 2):
        assert not np.shares_memory(again[slot], again[other_slot]), f"{name} and {other_name} share memory"


def _check_complex_step(op, dy, found, sizes) -> None:
    for slot, name, position in op.slots():
        reference = complex_step_gradient(op.value, op.args, position, dy)
        assert_rows_close(
            found[slot],
            reference,
            what=f"{name} (complex step)",
            relative=COMPLEX_STEP,
            round_off=ROUND_OFF * U64,
            terms=sizes[1 + slot],
        )


def _check_adjoint(op, dy, found, sizes, rng) -> None:
    """All arguments move at once: ``<J v, dy> = <v, Jᵀ dy>``."""
    directions = [None] * len(op.args)
    along, size = 0.0, 0.0
    for slot, _, position in op.slots():
        directions[position] = rng.normal(size=op.args[position].shape)
        along += np.sum(directions[position] * found[slot])
        size += np.sum(np.abs(directions[position]) * sizes[1 + slot])
    pushed = np.sum(dy * complex_step_along(op.value, op.args, directions))
    assert abs(pushed - along) <= ROUND_OFF * U64 * size, f"<Jv, dy> is {pushed!r}, <v, JT dy> is {along!r}"


def _check_taylor_remainder(op, dy, y, found, sizes, rng) -> None:
    """Real numbers only: an analytic forward, which the complex step takes for granted, is not assumed."""
    directions = [0.0] * len(op.args)
    slope = 0.0
    for slot, _, position in op.slots():
        directions[position] = rng.normal(size=op.args[position].shape)
        slope += np.sum(directions[position] * found[slot])
    size = np.sum(np.abs(dy) * sizes[0]) + abs(slope)

    def remainder(step: float) -> float:
        moved = [
            arg if isinstance(v, float) else arg + step * v
            for arg, v in zip(op.args, directions, strict=True)
        ]
        return abs(np.sum(dy * (op.value(*moved) - y)) - step * slope)

    # An op bends over a distance of its own; far below it the remainder is round-off, far above it anything.
    falls = [(remainder(step), remainder(step / 8)) for step in (1e-3, 1e-5, 1e-7)]
    assert any(fine <= coarse / TAYLOR_RATIO + 2 * ROUND_OFF * U64 * size for coarse, fine in falls), (
        f"the Taylor remainder does not fall by 64 for an eighth of the step: {falls}"
    )


def check_linear_in_dy(op, dy, found, sizes, rng) -> None:
    other = rng.normal(size=np.shape(dy))
    other_found, other_sizes = op.run(other)[1], op.terms(other, *op.args)
    both = op.run(dy - 3 * other)[1]
    for slot, name, _ in op.slots():
        assert_rows_close(
            both[slot],
            found[slot] - 3 * other_found[slot],
            what=f"{name} of dy - 3 dy'",
            round_off=2 * ROUND_OFF * U64,
            terms=sizes[1 + slot] + 3 * other_sizes[1 + slot],
        )


def other_layouts(value) -> list:
    """The array in Fortran order, as every second element, with negative strides; anything else thrice."""
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return [value] * 3
    spread = np.full([2 * n for n in value.shape], 99, value.dtype)
    every_second = spread[tuple(slice(None, None, 2) for _ in value.shape)]
    every_second[...] = value
    reverse = tuple(slice(None, None, -1) for _ in value.shape)
    return [np.asfortranarray(value), every_second, value[reverse].copy()[reverse]]


def _check_memory_layouts(op, dy, y, found, sizes) -> None:
    for *args, dy_variant in zip(*(other_layouts(value) for value in (*op.args, dy)), strict=True):
        value, gradients = op.with_args(args).run(dy_variant)
        assert_rows_close(value, y, what="the value, other layout", round_off=ROUND_OFF * U64, terms=sizes[0])
        for slot, name, _ in op.slots():
            assert_rows_close(
                gradients[slot],
                found[slot],
                what=f"{name}, other layout",
                round_off=ROUND_OFF * U64,
                terms=sizes[1 + slot],
            )


def _check_float32(op, dy, y, found, sizes) -> None:
    single = op.with_args(as_dtype(np.float32, a) for a in op.args)
    value, gradients = single.run(np.float32(dy))
    check_shapes_and_dtypes(single, value, gradients, np.float32)
    assert_rows_close(value, y, what="the value in float32", round_off=ROUND_OFF * U32, terms=sizes[0])
    for slot, name, _ in op.slots():
        assert_rows_close(
            gradients[slot],
            found[slot],
            what=f"{name} in float32",
            round_off=ROUND_OFF * U32,
            terms=sizes[1 + slot],
        )
    if np.ndim(y) == 0:  # a caller's dloss is often a Python number, which must not widen anything
        check_shapes_and_dtypes(single, value, single.run(float(dy))[1], np.float32)


def multilinear_terms(forward: Callable, backward: Callable) -> Terms:
    """Terms of an op whose results are sums of products: the op itself, on absolute values."""

    def terms(dy, *args):
        y, cache = forward(*(np.abs(a) if is_floating(a) else a for a in args))
        found = backward(np.abs(dy), cache)
        return [y, *(found if isinstance(found, tuple) else (found,))]

    return terms
