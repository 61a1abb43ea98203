"""What can go wrong on the emulator, by kind of mistake."""

from npbert.errors import BackendError


class EmulatorError(BackendError):
    """A kernel could not be compiled or run: no compiler, a compile error, a cache that cannot be written."""


class BarrierDivergence(EmulatorError):
    """Threads of a block wait at different barriers, or some left the kernel while others wait."""


class RaceError(EmulatorError):
    """Two threads accessed the same memory, one of them writing, without a barrier in between."""


class OutOfBounds(EmulatorError):
    """A thread accessed memory outside an array, or at an address that is not aligned."""


class KernelStopped(EmulatorError):
    """A thread called ``__trap()``, failed an ``assert``, or did what has no result: divided by 0, say."""
