"""Which engine a `Bert` computes with, and where its arrays live.

An engine is a module with the names of :mod:`npbert.ops`; one that can do a whole encoder layer better than
op by op has ``encoder_layer_forward`` and ``encoder_layer_backward``, too, or ``encoder_forward`` and
``encoder_backward``. Engines are imported when they are asked for.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from npbert import ops


class ShareOut(Protocol):
    """What calls a function with each of some pieces of work, in any order, perhaps on several threads.

    Where a function takes ``share_out``, it takes `in_turn`, or `npbert.cpu.workers.share_out`. No result
    depends on which.
    """

    def __call__(self, work: Callable[[Any], None], pieces: Iterable[Any]) -> None:
        """Call ``work`` with each of the pieces, and return when all are done."""


def in_turn(work: Callable[[Any], None], pieces: Iterable[Any]) -> None:
    """Call ``work`` with each of the pieces, one after the other."""
    for piece in pieces:
        work(piece)


class Backend(NamedTuple):
    """An engine and its arrays."""

    name: str
    ops: ModuleType  # npbert.ops, or an engine with the same names
    xp: Any  # the module of its arrays: numpy or cupy
    dtypes: tuple[str, ...]  # what it can compute in
    share_out: ShareOut = in_turn  # how it does what is made of independent pieces

    def to_device(self, value: Any) -> Any:
        """Return a NumPy array, or a NamedTuple with some, as the engine's arrays; anything else as it is."""
        if isinstance(value, np.ndarray):
            return self.xp.asarray(value)
        if isinstance(value, tuple):
            return type(value)(*(self.to_device(field) for field in value))
        return value


def find_backend(name: str) -> Backend:
    """Return the backend of this name.

    Parameters
    ----------
    name : str
        One of `BACKENDS`.

    Returns
    -------
    Backend

    Raises
    ------
    ValueError
        For another name.
    BackendError
        If it cannot work on this machine: says what is missing, and what to do.
    """
    if name not in BACKENDS:
        raise ValueError(f"backend is {name!r}; available: {', '.join(BACKENDS)}")
    return BACKENDS[name]()


def _reference() -> Backend:
    return Backend("reference", ops, np, ("float32", "float64"))


def _cpu() -> Backend:
    from npbert import cpu
    from npbert.cpu.workers import share_out

    return Backend("cpu", cpu, np, ("float32", "float64"), share_out)


def _cuda() -> Backend:
    from npbert import cuda
    from npbert.cuda.device import require_device

    return Backend("cuda", cuda, require_device(), ("float32", "float64", "float16"))


def _cuda_emulated() -> Backend:
    from npbert import cuda

    cuda.emulator.compiler()  # raises an error where there is none
    return Backend("cuda-emulated", cuda, np, ("float32", "float64", "float16"))


BACKENDS: Final[dict[str, Callable[[], Backend]]] = {
    "reference": _reference,
    "cpu": _cpu,
    "cuda": _cuda,
    "cuda-emulated": _cuda_emulated,
}
