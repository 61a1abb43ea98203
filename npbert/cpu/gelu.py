"""GELU in blocks that stay in a core's cache, in few passes over each.

NumPy makes a pass over memory for each operation, so what counts is their number. The textbook's normal_cdf
takes some thirty in float64; in float32 there is a shorter way for all but the left tail, in either form::

    y = x g(x) = x / (1 + 2^v(x)),     v(x) = log2(g(-x) / g(x)) = x p(x²)

v is odd and smooth. For "tanh" it is -2 u(x) log2(e), so p has degree 1; for "erf" p is the best polynomial
of degree 6. A rounding error of v is a relative error of y, and v grows to the left: below `TAIL` float32
would be off by more than 1e-6. Those elements, some 5 % in a BERT, are picked out and computed in float64,
erf's as::

    g(x) = exp(-x² / 2) q(1 / x²) / |x|

The forward keeps dy/dx = g(x) + x g'(x), which costs least while x² and g are at hand, and nothing else: the
backward is one product.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.cpu.workers import BLOCK, row_blocks, scratch, share_out
from npbert.ops import gelu as textbook
from npbert.ops.array_module import Array
from npbert.ops.gelu import CUBIC, SQRT_2_OVER_PI

IN_PLACE_BLOCK = 131072  # elements: longer calls, so that workers seldom wait for Python's lock
TAIL = -2.5  # below, elements are computed in float64

# Coefficients of p and q, highest power first. The error is relative, of y from -2.5 to 2.5, and of y below
# -2.5; beyond 2.5, where the slope needs it, half of that, until from 4.5 on p only has to be large.
# Printed by tests/golden/make_gelu_coefficients.py.
# fmt: off
ERF_POLYNOMIAL = (  # error 2.1e-07
    -4.641540250378895e-09, 3.746149486466892e-07, -1.1456629723845751e-05, 0.0001602116143056353,
    9.123620733902841e-05, -0.10483114277154681, -2.3022107080774177,
)
TAIL_POLYNOMIAL = (  # error 7.1e-08
    -473.0818586284306, 364.739367168338, -128.2154218919326, 29.162451131962833,
    -5.549899455336935, 1.1882652836065741, -0.3988616461006201, 0.3989420295060892,
)
# fmt: on
LOG2_E = math.log2(math.e)
TANH_POLYNOMIAL = (-2 * LOG2_E * SQRT_2_OVER_PI * CUBIC, -2 * LOG2_E * SQRT_2_OVER_PI)
INV_SQRT_2_PI = math.sqrt(0.5 / math.pi)
LOG2_PEAK = math.log2(INV_SQRT_2_PI)  # normal_pdf(0) is 2 to this
FAR = 100.0  # x² from which on GELU's slope is 1 in float32
POLYNOMIALS = {"erf": ERF_POLYNOMIAL, "tanh": TANH_POLYNOMIAL}


class GeluCache(NamedTuple):
    """What the backward needs."""

    slope: Array  # the shape of x: dy/dx


def gelu_forward(x: Array, form: str = "erf") -> tuple[Array, GeluCache | textbook.GeluCache]:
    """Gaussian error linear unit, element by element; see :func:`npbert.ops.gelu_forward`.

    Parameters
    ----------
    x : array of any shape, float32 or float64
        Anything else is left to the textbook.
    form : "erf" or "tanh"

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : GeluCache

    Raises
    ------
    ValueError
        For another `form`.
    """
    if x.dtype not in (np.float32, np.float64):
        return textbook.gelu_forward(x, form)
    return _forward(x.reshape(-1, 1), None, form, x.shape)


def gelu_backward(dy: Array, cache: GeluCache | textbook.GeluCache) -> Array:
    """Return the gradient of GELU's input; see :func:`npbert.ops.gelu_backward`.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : GeluCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`
    """
    if isinstance(cache, textbook.GeluCache):
        return textbook.gelu_backward(dy, cache)
    return product(dy, cache.slope)


def bias_gelu_forward(x: Array, bias: Array, form: str = "erf") -> tuple[Array, GeluCache]:
    """GELU of a sum, ``gelu(x + bias)``, without a trip through memory between the two.

    Parameters
    ----------
    x : (..., F) float32 or float64
    bias : (F,) of the dtype of `x`
    form : "erf" or "tanh"

    Returns
    -------
    y : (..., F)
    cache : GeluCache

    Raises
    ------
    ValueError
        For another `form`.
    """
    return _forward(_rows(x), bias, form, x.shape)


def bias_gelu_backward(dy: Array, cache: GeluCache) -> tuple[Array, Array]:
    """Backward of :func:`bias_gelu_forward`.

    Parameters
    ----------
    dy : (..., F) floating
    cache : GeluCache

    Returns
    -------
    dx : (..., F)
    dbias : (F,)
        The sum of ``dx`` over all but the last axis.
    """
    dy_rows, slope = _rows(dy), _rows(cache.slope)
    dx = np.empty(dy_rows.shape, dy.dtype)
    parts = _parts(dx)
    sums = np.empty((len(parts), dx.shape[1]), dy.dtype)

    def work(piece: int) -> None:
        part = parts[piece]
        np.multiply(dy_rows[part], slope[part], out=dx[part])
        np.add.reduce(dx[part], axis=0, out=sums[piece])

    share_out(work, range(len(parts)))
    return dx.reshape(dy.shape), sums.sum(axis=0)


def bias_gelu_in_place(x: NDArray[np.float32], bias: NDArray[np.float32], form: str) -> None:
    """Replace ``x`` by the GELU of ``x + bias``, on the calling thread, with nothing kept for a backward.

    What is left out is the second look at the tail: to the left of `TAIL` the error is up to 5e-7, where
    float32's sums of numbers near 1 have no more digits either, but GELU itself is as small at -5.

    Parameters
    ----------
    x : (F, columns) float32, C-contiguous
    bias : (F, 1) float32
    form : "erf" or "tanh"

    Examples
    --------
    >>> x = np.array([[-2.0, -1.0, 0.0]], dtype=np.float32)
    >>> bias_gelu_in_place(x, np.ones((1, 1), dtype=np.float32), "erf")
    >>> x.round(4)
    array([[-0.1587,  0.    ,  0.8413]], dtype=float32)
    """
    for rows in row_blocks(len(x), max(1, IN_PLACE_BLOCK // x.shape[1])):
        part = x[rows]
        biased, squares = (scratch(f"gelu {name}", part.shape, np.float32) for name in ("biased", "squares"))
        np.add(part, bias[rows], out=biased)
        with np.errstate(over="ignore", invalid="ignore"):  # where float32 ends, the limits are right
            np.square(biased, out=squares)
            e = _power(biased, squares, form)
            e += 1.0
            np.divide(biased, e, out=part)


def write_gelu(x: Array, y: Array, slope: Array, form: str, exact_tail: bool = True) -> None:
    """Write GELU and its derivative on the calling thread.

    Parameters
    ----------
    x : (n,) float32 or float64, contiguous
    y : (n,) of the dtype of `x`
        Written; may be ``x``.
    slope : (n,) of the dtype of `x`
        Written.
    form : "erf" or "tanh"
    exact_tail : bool
        Whether float32's second look at the tail is taken; see `bias_gelu_in_place` for what is lost without.
        It always is for "tanh", whose slope needs it: infinity times 0 is no number.
    """
    if x.dtype == np.float64:
        _double_block(x, y, slope, form)
        return
    if form == "erf" and not exact_tail:
        _single_block(x, y, slope, form)
        return
    tail = _places_below(x, TAIL)
    x_tail = x[tail].astype(np.float64)  # now: y may be x
    _single_block(x, y, slope, form)
    gate, density = _erf_tail(x_tail) if form == "erf" else _tanh_tail(x_tail)
    y[tail] = x_tail * gate
    slope[tail] = gate + x_tail * density


def product(dy: Array, slope: Array) -> Array:
    """Return ``dy * slope``, the backward of every function that works element by element."""
    dx = np.empty(dy.shape, dy.dtype)
    dy, slope, flat = dy.reshape(-1), slope.reshape(-1), dx.reshape(-1)
    share_out(lambda part: np.multiply(dy[part], slope[part], out=flat[part]), row_blocks(flat.size, BLOCK))
    return dx


def _forward(x: Array, bias: Array | None, form: str, shape: tuple[int, ...]) -> tuple[Array, GeluCache]:
    """Return GELU of the rows of ``x + bias`` in another shape."""
    if form not in POLYNOMIALS:
        raise ValueError(f'form is {form!r}; it must be "erf" or "tanh"')
    y, slope = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)

    def work(part: slice) -> None:
        source = x[part] if bias is None else np.add(x[part], bias, out=y[part])
        write_gelu(source.reshape(-1), y[part].reshape(-1), slope[part].reshape(-1), form)

    share_out(work, _parts(x))
    return y.reshape(shape), GeluCache(slope.reshape(shape))


def _single_block(x: Array, y: Array, slope: Array, form: str) -> None:
    squares = scratch("gelu squares", x.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # where float32 ends, the limits are right
        np.square(x, out=squares)
        e = _power(x, squares, form)
        (_write_erf_slope if form == "erf" else _write_tanh_slope)(x, squares, e, slope)
        np.divide(x, e, out=y)


def _power(x: Array, squares: Array, form: str) -> Array:
    """Return 2^v(x) = g(-x) / g(x) in scratch memory."""
    v = scratch("gelu v", x.shape, np.float32)
    _polynomial(POLYNOMIALS[form], squares, v)
    v *= x
    return np.exp2(v, out=v)


def _places_below(x: Array, limit: float) -> Array:
    """Return the indices of the elements of a vector that are less than ``limit``, few as they may be.

    NumPy looks for each True in turn, which costs most where they are neither rare nor common. Eight bytes of
    a mask at once are zero or not, and those that are not are dense enough for its way without branches.
    """
    mask = scratch("gelu mask", (-(-x.size // 8) * 8,), bool)
    np.less(x, limit, out=mask[: x.size])
    mask[x.size :] = False
    words = mask.view(np.uint64)
    occupied = np.flatnonzero(words != 0)
    found = np.flatnonzero(words[occupied].view(bool))
    return 8 * occupied[found >> 3] + (found & 7)


def _write_erf_slope(x: Array, squares: Array, e: Array, slope: Array) -> None:
    """Write g(x) + x normal_pdf(x) to ``slope``, where g = 1 / (1 + e); leave 1 + e in ``e``."""
    np.multiply(squares, -0.5 * LOG2_E, out=slope)
    slope += LOG2_PEAK
    np.exp2(slope, out=slope)
    slope *= x
    e += 1.0
    slope += np.reciprocal(e, out=squares)


def _write_tanh_slope(x: Array, squares: Array, e: Array, slope: Array) -> None:
    """Write g(x) + x 2 u'(x) g(x) (1 - g(x)) to ``slope``, where g = 1 / (1 + e); leave 1 + e in ``e``.

    1 - g is e g: it does not cancel. Far to the right e is 0, and u', its factor, must not become infinite.
    """
    np.multiply(np.minimum(squares, FAR, out=squares), 6.0 * SQRT_2_OVER_PI * CUBIC, out=slope)
    slope += 2.0 * SQRT_2_OVER_PI
    slope *= e
    slope *= x
    e += 1.0
    gate = np.reciprocal(e, out=squares)
    slope *= gate
    slope *= gate
    slope += gate


def _double_block(x: Array, y: Array, slope: Array, form: str) -> None:
    gate = textbook.gelu_gate(x, form)
    slope[...] = textbook.gelu_slope(x, gate, form)
    np.multiply(x, gate, out=y)


def _erf_tail(x: Array) -> tuple[Array, Array]:
    """Return g(x) and g'(x) of "erf" for numbers below `TAIL`, in float64."""
    squares = x * x
    e = np.exp(-0.5 * squares)
    q = _polynomial(TAIL_POLYNOMIAL, 1.0 / squares, np.empty_like(x))
    return e * q / -x, INV_SQRT_2_PI * e


def _tanh_tail(x: Array) -> tuple[Array, Array]:
    """Return g(x) and g'(x) of "tanh" for numbers below `TAIL`, in float64: g = e / (1 + e), e = exp(2 u)."""
    squares = x * x
    e = np.exp(2.0 * SQRT_2_OVER_PI * x * (1.0 + CUBIC * squares))
    gate = e / (1.0 + e)
    return gate, 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * squares) * gate / (1.0 + e)


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _parts(rows: Array) -> list[slice]:
    return row_blocks(len(rows), max(BLOCK // max(rows.shape[1], 1), 1))


def _polynomial(coefficients: tuple[float, ...], x: Array, out: Array) -> Array:
    """Write the polynomial with these coefficients, highest power first, at ``x`` to ``out``; return that."""
    np.multiply(x, coefficients[0], out=out)
    for c in coefficients[1:-1]:
        out += c
        out *= x
    out += coefficients[-1]
    return out
