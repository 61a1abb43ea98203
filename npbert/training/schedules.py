"""Learning rates that depend on the step: a warm-up, in which the rate rises, and then a decay.

All have the same arguments, of which some use only a few. Steps count from 0, so that the first step of a
warm-up has the rate 0, as in transformers' ``get_..._schedule_with_warmup`` and in Google's BERT.
"""

import math
from collections.abc import Callable
from typing import Final


def constant(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly to ``peak``, and stay there."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak


def linear(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly to ``peak``, then fall linearly to 0 at ``total_steps``."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * (1 - _progress(step, warmup_steps, total_steps))


def cosine(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly to ``peak``, then fall to 0 at ``total_steps`` as half a period of the cosine does."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * _progress(step, warmup_steps, total_steps)))


def polynomial(
    step: int, *, peak: float, warmup_steps: int, total_steps: int, end: float, power: float
) -> float:
    """Rise linearly to ``peak``, then fall to ``end`` at ``total_steps``, as a power of the steps left."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    left = 1 - _progress(step, warmup_steps, total_steps)
    return end + (peak - end) * math.pow(left, power)


def google(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Rise linearly to ``peak``, then go on with a linear decay that began at step 0.

    As Google's BERT was trained: when the warm-up ends, the rate drops from ``peak`` to
    ``peak * (1 - warmup_steps / total_steps)``.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * (1 - _progress(step, 0, total_steps))


def _progress(step: int, start: int, end: int) -> float:
    """How much of the way from the step ``start`` to ``end`` is behind: from 0 to 1, and 1 from there on."""
    return 1.0 if step >= end else (step - start) / (end - start)


SCHEDULES: Final[dict[str, Callable[..., float]]] = {
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "polynomial": polynomial,
    "google": google,
}


def make_schedule(
    name: str,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    end: float = 1e-7,
    power: float = 1.0,
) -> Callable[[int], float]:
    """Return the function from the number of a step, from 0, to its learning rate.

    Parameters
    ----------
    name : str
        One of `SCHEDULES`.
    peak : float
        The rate at the end of the warm-up, at least 0.
    warmup_steps : int
        From 0 to ``total_steps``.
    total_steps : int
        At least 1. Beyond it, the rate stays as it is there.
    end, power : float
        Of "polynomial" only: the last rate, from 0 to ``peak``, and the exponent, above 0.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        For another name, or a number outside its limits.

    Examples
    --------
    >>> rate = make_schedule("linear", peak=1.0, warmup_steps=2, total_steps=6)
    >>> [rate(step) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if name not in SCHEDULES:
        raise ValueError(f"the schedule is {name!r}; it must be one of {', '.join(SCHEDULES)}")
    _check_count("total_steps", total_steps, at_least=1)
    _check_count("warmup_steps", warmup_steps, at_least=0)
    if warmup_steps > total_steps:
        raise ValueError(
            f"warmup_steps is {warmup_steps}; it must be at most total_steps, which is {total_steps}"
        )
    if not 0 <= peak < math.inf:
        raise ValueError(f"peak is {peak!r}; it must be at least 0, and finite")
    options = {"peak": peak, "warmup_steps": warmup_steps, "total_steps": total_steps}
    if name == "polynomial":
        if not 0 <= end <= peak:
            raise ValueError(f"end is {end!r}; it must be from 0 to peak, which is {peak!r}")
        if not 0 < power < math.inf:
            raise ValueError(f"power is {power!r}; it must be above 0, and finite")
        options |= {"end": end, "power": power}

    def learning_rate(step: int) -> float:
        if step < 0:
            raise ValueError(f"step is {step}; it must be at least 0")
        return SCHEDULES[name](step, **options)

    return learning_rate


def _check_count(name: str, value: int, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {at_least}")
