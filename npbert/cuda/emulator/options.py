"""How kernels run on the emulator: in which order, how exact, and with which detector."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

SCHEDULES = ("ascending", "descending", "random")
SANITIZERS = (None, "address", "thread")


class Options(NamedTuple):
    """See `options`."""

    schedule: str = "ascending"
    seed: int = 0
    perturb: bool = False
    sanitizer: str | None = None


_CURRENT: ContextVar[Options] = ContextVar("emulator options", default=Options())  # noqa: B039 (immutable)


@contextmanager
def options(
    schedule: str = "ascending", seed: int = 0, perturb: bool = False, sanitizer: str | None = None
) -> Generator[None, None, None]:
    """Say how the emulator runs the kernels that are launched inside a ``with`` block.

    Parameters
    ----------
    schedule : "ascending", "descending" or "random"
        In which order threads and blocks run between barriers. A right kernel gives the same bits in all.
    seed : int in [0, 2^32)
        Of the random order.
    perturb : bool
        Whether exp, log, erf and the like err by up to 2 ULP, as on a device. Results must stay within their
        tolerances.
    sanitizer : None, "address" or "thread"
        "address" finds accesses out of bounds (of global arrays, and of each shared array), vector accesses
        that are not aligned, shifts too far; "thread" finds races. Either runs the launch in a process of its
        own, many times slower. Barriers that not all threads reach are always found.

    Raises
    ------
    ValueError
        For another value.

    Examples
    --------
    >>> with options(schedule="random", seed=3):
    ...     current_options().schedule
    'random'
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}; it must be one of {', '.join(SCHEDULES)}")
    if sanitizer not in SANITIZERS:
        raise ValueError(f'sanitizer is {sanitizer!r}; it must be None, "address" or "thread"')
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed!r}; it must be an integer, at least 0 and less than 2^32")
    if not isinstance(perturb, bool):
        raise ValueError(f"perturb is {perturb!r}; it must be True or False")
    token = _CURRENT.set(Options(schedule, seed, perturb, sanitizer))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_options() -> Options:
    """Return the options of the innermost `options` block."""
    return _CURRENT.get()
