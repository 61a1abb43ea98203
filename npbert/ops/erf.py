"""The error function, its complement and the normal distribution, which NumPy does not have.

One polynomial covers the whole half-line x >= 0 (Shepherd and Laframboise, 1981)::

    erfc(x) = exp(-x^2) (1 + (1 + t) Q(t)) / (1 + 2 x)        t = (x - k) / (x + k), from -1 to 1

The quotient behaves like erfc(x) exp(x^2) at both ends, so what is left for Q is smooth and small: its
rounding errors hardly count, and erfc(0) is exactly 1.  The other functions follow::

    erfc(-x)      = 2 - erfc(x)
    erf(x)        = 1 - erfc(x)     from x = 0.65 on
    erf(x)        = x P(x^2)        below, where 1 - erfc(x) would cancel
    normal_cdf(x) = erfc(-x / sqrt(2)) / 2

exp(-x^2) is the delicate factor: rounding its exponent to s changes it by the relative amount s u, which is
5e-14 at x = 21 (u = 2^-53).  So the remainder r = x^2 - s is computed too, and exp(-x^2) = exp(-s) (1 - r).

float32 input is computed in float64 and rounded once.  The result is then within a hair of the best
float32 number, no remainder is needed (the square of a float32 is exact in float64), and the polynomials
are short.

Complex input is there for the complex step, Im f(x + ih) / h = f'(x) with h = 1e-30: every formula is
evaluated on the complex number itself, and only the choice between formulas looks at the real part alone.
That holds near the real axis; these are not the error functions of the whole complex plane.

References
----------
M. M. Shepherd and J. G. Laframboise, "Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in
0 <= x < oo", Mathematics of Computation 36, 1981.
"""

import math
from functools import partial

import numpy as np

from npbert.ops.array_module import Array, array_module
from npbert.ops.elementwise import elementwise

PIVOT = 3.5  # k above
CENTRE_END = 0.65  # erf is x P(x^2) below
# From here on erfc(x) and normal_cdf(-x) are 0 in float64; it stands for everything beyond, infinity too.
FAR = 40.0

# Coefficients of Q (tail) and P (centre), highest power first, and the largest error of the polynomial.
# Printed by tests/golden/make_erf_coefficients.py.
# fmt: off
TAIL_FLOAT64 = (  # error 8e-19
    -4.912106421385237e-10, -1.2740367165309581e-09, 3.5258498171345324e-09, 1.2701417813677183e-08,
    -1.647691509241864e-08, -8.492290874894105e-08, 8.168558130059961e-08, 5.253621325867887e-07,
    -5.727382652448541e-07, -3.2452245878275095e-06, 5.574890472558107e-06, 1.8687264013189158e-05,
    -6.146987890723111e-05, -6.0042818981195095e-05, 0.0006244273071137177, -0.0009266951440295691,
    -0.0032883247719288503, 0.022387655710705813, -0.07121098153804402, 0.15919413536308882,
    -0.2742837335233012, 0.3718028286765558, -0.38235842500877376, 0.2423492448711544,
)
TAIL_FLOAT32 = (  # error 2e-09
    0.000141040325565543, 0.0007695088375926699, -0.0009784240526609339, -0.0033775558019078895,
    0.022379469233117025, -0.0711938747220412, 0.15919717219859641, -0.27428499805010653,
    0.37180263451281825, -0.38235839721924125, 0.24234924650544973,
)
CENTRE_FLOAT64 = (  # error 4e-18
    -1.3532164374144134e-07, 1.6216123999750692e-06, -1.491362445242006e-05, 0.00012054975230412003,
    -0.0008548320413496383, 0.005223977550940325, -0.026866170640301647, 0.11283791670939211,
    -0.3761263890318355, 1.1283791670955126,
)
CENTRE_FLOAT32 = (  # error 3e-10
    -0.000716019378151808, 0.005160076890408987, -0.026852381028529416, 0.11283656194519352,
    -0.376126340156796, 1.128379166808923,
)
# fmt: on


def erf(x: Array) -> Array:
    """Error function, 2 / sqrt(pi) times the integral of exp(-s^2) from 0 to x.

    Parameters
    ----------
    x : array of any shape, float32, float64, complex64 or complex128
        Complex input is meant for the complex step: a real number plus a tiny imaginary part.

    Returns
    -------
    array of the shape and dtype of `x`
        Within 1 ULP in float32 and 4 ULP in float64.

    Examples
    --------
    >>> float(erf(0.5))
    0.5204998778130465
    >>> erf(np.array([-np.inf, 0.0, np.inf]))
    array([-1.,  0.,  1.])
    """
    return elementwise(partial(_erf, single=_is_single(x)), x)


def erfc(x: Array) -> Array:
    """Complementary error function 1 - erf(x), accurate where erf(x) rounds to 1.

    Parameters
    ----------
    x : array of any shape, float32, float64, complex64 or complex128

    Returns
    -------
    array of the shape and dtype of `x`
        Within 1 ULP in float32 and 4 ULP in float64, down to the smallest subnormal number.

    Examples
    --------
    >>> float(erfc(0.0))
    1.0
    >>> f"{erfc(20.0):.12e}"
    '5.395865611608e-176'
    """
    return elementwise(partial(_erfc, single=_is_single(x)), x)


def normal_cdf(x: Array) -> Array:
    """Probability that a standard normal variable is at most x.

    It is erfc(-x / sqrt(2)) / 2, with the exponent taken from x itself: squaring a rounded x / sqrt(2)
    would cost a relative error of x^2 u in the left tail.

    Parameters
    ----------
    x : array of any shape, float32, float64, complex64 or complex128

    Returns
    -------
    array of the shape and dtype of `x`
        Within 1 ULP in float32 and 5 ULP in float64, in the left tail too.

    Examples
    --------
    >>> normal_cdf(np.array([0.0, 1.0, 2.0])).round(4)
    array([0.5   , 0.8413, 0.9772])
    >>> f"{normal_cdf(-30.0):.12e}"
    '4.906713927148e-198'
    """
    return elementwise(partial(_normal_cdf, single=_is_single(x)), x)


def normal_pdf(x: Array) -> Array:
    """Density exp(-x^2 / 2) / sqrt(2 pi) of a standard normal variable, the derivative of `normal_cdf`.

    Parameters
    ----------
    x : array of any shape, float32, float64, complex64 or complex128

    Returns
    -------
    array of the shape and dtype of `x`
        Within 1 ULP in float32 and 4 ULP in float64.

    Examples
    --------
    >>> float(normal_pdf(0.0).round(6))
    0.398942
    """
    return elementwise(partial(_normal_pdf, single=_is_single(x)), x)


def _is_single(x: Array) -> bool:
    """Return whether `x` is float32, for which the short polynomials are enough."""
    return getattr(x, "dtype", None) == np.float32


def _erf(x: Array, single: bool) -> Array:
    sign, x = _sign_and_magnitude(x)
    s, r = _square(x, single)
    centre = x * _polynomial(CENTRE_FLOAT32 if single else CENTRE_FLOAT64, s)
    tail = 1.0 - _erfc_half_line(x, s, r, single)
    return sign * array_module(x).where(x.real < CENTRE_END, centre, tail)


def _erfc(x: Array, single: bool) -> Array:
    sign, x = _sign_and_magnitude(x)
    s, r = _square(x, single)
    return (1.0 - sign) + sign * _erfc_half_line(x, s, r, single)  # y or 2 - y


def _normal_cdf(x: Array, single: bool) -> Array:
    sign, x = _sign_and_magnitude(x)
    s, r = _square(x, single)
    left_tail = 0.5 * _erfc_half_line(x * math.sqrt(0.5), 0.5 * s, 0.5 * r, single)
    return (0.5 + 0.5 * sign) - sign * left_tail  # 1 - y or y


def _normal_pdf(x: Array, single: bool) -> Array:
    _, x = _sign_and_magnitude(x)
    s, r = _square(x, single)
    return math.sqrt(0.5 / math.pi) * (1.0 - 0.5 * r) * array_module(x).exp(-0.5 * s)


def _sign_and_magnitude(x: Array) -> tuple[Array, Array]:
    """Return the sign of x, as 1.0 or -1.0, and |x|, or FAR where it is larger than that.

    Signs are multiplied with: choosing with `where` by a mask as irregular as this one is slower.
    """
    xp = array_module(x)
    sign = xp.copysign(1.0, x.real)
    return sign, xp.minimum(sign * x, FAR)  # complex numbers compare by their real parts first


def _square(x: Array, single: bool) -> tuple[Array, Array]:
    """Return s = x^2 rounded and the remainder r = x^2 - s, which is what rounding took away."""
    s = x * x
    if single:
        return s, 0.0
    # high holds the upper 24 bits of x (of its real part), so that high * high is exact.
    high = x.real.astype(np.float32).astype(np.float64)
    return s, (high * high - s) + (x - high) * (x + high)


def _erfc_half_line(x: Array, s: Array, r: Array, single: bool) -> Array:
    """Return erfc(x) for x >= 0, where x^2 = s + r."""
    one_plus_t = 2.0 * x / (x + PIVOT)
    c = one_plus_t * _polynomial(TAIL_FLOAT32 if single else TAIL_FLOAT64, one_plus_t - 1.0)
    leading = array_module(x).exp(-s) / (1.0 + 2.0 * x)
    # leading (1 + c) (1 - r), multiplied out so that the roundings of the small terms hardly count.
    return leading + leading * (c - r * (1.0 + c))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Return the polynomial with these coefficients, highest power first, at x (Horner's rule)."""
    y = coefficients[0] * x
    for c in coefficients[1:-1]:
        y += c
        y *= x
    y += coefficients[-1]
    return y
