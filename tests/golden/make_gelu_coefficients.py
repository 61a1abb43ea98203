"""Print the polynomials of npbert/cpu/gelu.py: ``python tests/golden/make_gelu_coefficients.py``.

Both functions that they approximate are defined in the docstring of npbert/cpu/gelu.py. The approximation is
the best possible one: Remez' algorithm moves the places of its largest errors until all errors are equal.
"""

from collections.abc import Callable, Sequence

import mpmath
from mpmath import mpf

TAIL = mpf("-2.5")  # below, y is computed with q; above with p
# From here on an error of p does not matter: g(x) is 1 less 3.4e-6, and p only has to be roughly right.
FAR = mpf("4.5")
# Errors of g(x) beyond -TAIL count this much more: there they are the errors of the slope.
RIGHT_WEIGHT = 2
LAST = mpf(15)  # normal_cdf(-15) is 0 in float32

GRID = 600  # places where errors are looked at
ROUNDS = 12  # far more than it takes


def normal_cdf(x: mpf) -> mpf:
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def v(x: mpf) -> mpf:
    """Return log2(g(-x) / g(x))."""
    return mpmath.log(normal_cdf(-x) / normal_cdf(x), 2)


def weight_of_v(x: mpf) -> mpf:
    """Return by how much an error of v(x) makes g(-x) wrong, relatively, and beyond -TAIL g(x)."""
    return mpmath.log(2) * (normal_cdf(x) if x <= -TAIL else RIGHT_WEIGHT * normal_cdf(-x))


def q(t: mpf) -> mpf:
    """Return q(1 / x²), where g(-x) = exp(-x² / 2) q(1 / x²) / x."""
    x = 1 / mpmath.sqrt(t)
    return x * normal_cdf(-x) * mpmath.exp(x * x / 2)


def erf_polynomial() -> tuple[list[float], float]:
    """Return the coefficients of p, highest power first, and the largest weighted error of x p(x²)."""
    return best_fit(v, weight_of_v, lambda x, i: x ** (2 * i + 1), size=7, low=mpf("1e-3"), high=FAR)


def tail_polynomial() -> tuple[list[float], float]:
    """Return the coefficients of q, highest power first, and the largest relative error."""
    return best_fit(q, lambda t: 1 / q(t), lambda t, i: t**i, size=8, low=LAST**-2, high=TAIL**-2)


def best_fit(
    function: Callable[[mpf], mpf],
    weight: Callable[[mpf], mpf],
    basis: Callable[[mpf, int], mpf],
    size: int,
    low: mpf,
    high: mpf,
) -> tuple[list[float], float]:
    """Return the coefficients of ``size`` basis functions, last first, and the largest weighted error."""
    with mpmath.workdps(40):
        grid = chebyshev_extrema(low, high, GRID)
        samples = [(x, function(x), weight(x)) for x in grid]
        nodes = chebyshev_extrema(low, high, size)
        for _ in range(ROUNDS):
            coefficients = equal_errors(function, weight, basis, size, nodes)
            errors = [w * (y - combination(coefficients, basis, x)) for x, y, w in samples]
            nodes = alternating_extrema(grid, errors, size + 1)
        return [float(c) for c in reversed(coefficients)], float(max(map(abs, errors)))


def chebyshev_extrema(low: mpf, high: mpf, count: int) -> list[mpf]:
    return [low + (high - low) * (1 - mpmath.cos(mpmath.pi * i / count)) / 2 for i in range(count + 1)]


def equal_errors(function, weight, basis, size: int, nodes: Sequence[mpf]) -> list[mpf]:
    """Return the coefficients whose weighted errors at the nodes are equal, with alternating signs."""
    matrix = mpmath.matrix(size + 1)
    for row, x in enumerate(nodes):
        for i in range(size):
            matrix[row, i] = basis(x, i)
        matrix[row, size] = (-1) ** row / weight(x)
    return list(mpmath.lu_solve(matrix, mpmath.matrix([function(x) for x in nodes])))[:size]


def combination(coefficients: Sequence[mpf], basis, x: mpf) -> mpf:
    return mpmath.fsum(c * basis(x, i) for i, c in enumerate(coefficients))


def alternating_extrema(grid: Sequence[mpf], errors: Sequence[mpf], count: int) -> list[mpf]:
    """Return the place of the largest error in each stretch of one sign; of too many, not the smaller end."""
    stretches: list[tuple[mpf, mpf]] = []
    for x, error in zip(grid, errors, strict=True):
        if stretches and (stretches[-1][1] > 0) == (error > 0):
            stretches[-1] = max(stretches[-1], (x, error), key=lambda stretch: abs(stretch[1]))
        else:
            stretches.append((x, error))
    while len(stretches) > count:
        stretches.pop(0 if abs(stretches[0][1]) < abs(stretches[-1][1]) else -1)
    return [x for x, _ in stretches]


def source() -> str:
    """Return both as the lines of Python that stand in npbert/cpu/gelu.py."""
    lines = []
    for name, fit in (("ERF_POLYNOMIAL", erf_polynomial), ("TAIL_POLYNOMIAL", tail_polynomial)):
        numbers, error = fit()
        lines.append(f"{name} = (  # error {error:.1e}")
        for start in range(0, len(numbers), 4):
            lines.append("    " + " ".join(f"{number!r}," for number in numbers[start : start + 4]))
        lines.append(")")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(source(), end="")
