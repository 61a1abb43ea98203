"""What the numbers among an estimator's parameters may be: checked in ``fit``, as scikit-learn wants it."""

import math
from numbers import Integral, Real
from typing import Any


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return an integer of at least ``least``; of NumPy's integers, too, which searches over parameters use.

    Raises
    ------
    ValueError
        For anything else; names the parameter and the value.

    Examples
    --------
    >>> check_count("epochs", 0)
    Traceback (most recent call last):
        ...
    ValueError: epochs is 0; it must be an integer of at least 1
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}")
    return int(value)


def check_number(
    name: str, value: Any, least: float, most: float = math.inf, open_ended: bool = False
) -> float:
    """Return a finite number from ``least`` to ``most``, or between the two where ``open_ended``.

    Raises
    ------
    ValueError
        For anything else; names the parameter, the value and the limits.

    Examples
    --------
    >>> check_number("warmup", 2, 0, 1)
    Traceback (most recent call last):
        ...
    ValueError: warmup is 2; it must be a number from 0 to 1
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value <= most or (open_ended and value in (least, most)):
        if most == math.inf:
            limits = f"above {least:g}" if open_ended else f"of at least {least:g}"
        else:
            limits = f"between {least:g} and {most:g}" if open_ended else f"from {least:g} to {most:g}"
        raise ValueError(f"{name} is {value!r}; it must be a number {limits}")
    return float(value)
