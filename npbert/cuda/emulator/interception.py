"""Looking at launches in place of running them: what launchers ask for, where kernels read and write."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from npbert.cuda.emulator.compile import Program


class Launch(NamedTuple):
    """What a launcher asks the emulator for.

    Attributes
    ----------
    program : Program
    kernel : str
        Name of one of its kernels.
    grid, block : (int, int, int)
    values : tuple
        The arguments: NumPy arrays, None for null pointers, NumPy scalars.
    shared_bytes : int
        Dynamic shared memory of a block.
    """

    program: Program
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    values: tuple[Any, ...]
    shared_bytes: int


Interceptor = Callable[[Launch], None]

_CURRENT: ContextVar[Interceptor | None] = ContextVar("emulator interceptor", default=None)


@contextmanager
def intercepted(interceptor: Interceptor | None) -> Generator[None, None, None]:
    """Hand the launches inside a ``with`` block to a function; they run only if it sees to that.

    Parameters
    ----------
    interceptor : callable or None
        Takes a Launch; may run it, or others. None runs launches as outside of any such block.

    Examples
    --------
    >>> launches = []
    >>> with intercepted(launches.append):
    ...     pass
    """
    token = _CURRENT.set(interceptor)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_interceptor() -> Interceptor | None:
    """Return the function of the innermost `intercepted` block."""
    return _CURRENT.get()
