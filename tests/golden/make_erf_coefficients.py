"""Print the coefficient tables of npbert/ops/erf.py: ``python tests/golden/make_erf_coefficients.py``.

Both functions that the tables approximate are defined in the docstring of npbert/ops/erf.py.  Interpolation
in Chebyshev points (``mpmath.chebyfit``) is within a small factor of the best possible polynomial, and needs
no iteration that might fail to converge.
"""

import mpmath

PIVOT = mpmath.mpf("3.5")  # x with t = 0.  Of 1, 1.5, ..., 4 the one with the smallest float64 error.
CENTRE_END = mpmath.mpf("0.65")  # erf uses the centre polynomial below, the tail polynomial above

# Table name -> (number of coefficients, largest x that matters, or None for the centre).
# Beyond x = 27.3 (float64) and 10.1 (float32) erfc is smaller than half the smallest subnormal number.
TABLES = {
    "TAIL_FLOAT64": (24, mpmath.mpf("27.3")),
    "TAIL_FLOAT32": (11, mpmath.mpf("10.1")),
    "CENTRE_FLOAT64": (10, None),
    "CENTRE_FLOAT32": (6, None),
}


def tail(t: mpmath.mpf) -> mpmath.mpf:
    """Return Q(t), where (1 + 2 x) exp(x^2) erfc(x) = 1 + (1 + t) Q(t) and t = (x - PIVOT) / (x + PIVOT)."""
    x = PIVOT * (1 + t) / (1 - t)
    return ((1 + 2 * x) * mpmath.exp(x * x) * mpmath.erfc(x) - 1) / (1 + t)


def centre(s: mpmath.mpf) -> mpmath.mpf:
    """Return P(s), where erf(x) = x P(x^2)."""
    x = mpmath.sqrt(s)
    return mpmath.erf(x) / x


def coefficients(name: str) -> tuple[list[float], float]:
    """Return the coefficients of a table, highest power first, and the largest error of the polynomial."""
    count, largest_x = TABLES[name]
    with mpmath.workdps(60):
        if largest_x is None:
            exact, error = mpmath.chebyfit(centre, [0, CENTRE_END**2], count, error=True)
        else:
            last_t = (largest_x - PIVOT) / (largest_x + PIVOT)
            exact, error = mpmath.chebyfit(tail, [-1, last_t], count, error=True)
    return [float(c) for c in exact], float(error)


def source() -> str:
    """Return the tables as the lines of Python that stand in npbert/ops/erf.py."""
    lines = []
    for name in TABLES:
        numbers, error = coefficients(name)
        lines.append(f"{name} = (  # error {error:.0e}")
        for start in range(0, len(numbers), 4):
            lines.append("    " + " ".join(f"{number!r}," for number in numbers[start : start + 4]))
        lines.append(")")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(source(), end="")
