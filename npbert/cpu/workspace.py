"""Memory that is used again: of what a training step keeps until its way back, and of its largest results.

Fresh memory costs time: the operating system clears each page when it is first touched. So the arrays that a
step needs together are planned together, in one piece of memory, and pieces that nobody holds any more are
kept for the next step.
"""

import math
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from npbert.cpu.workers import CACHE_LINE, aligned_memory
from npbert.ops.array_module import Array

# A piece may be so many times as large as what is asked for.
MOST_WASTE = 2
# Pieces that are kept for later: about as many as a step needs at once. The oldest are let go.
FREE_PIECES = 6
# Bytes from which on NumPy asks for fresh memory each time.
WORTH_KEEPING = 1 << 22


class Workspace:
    """Arrays in one piece of memory, which is used again when the workspace is gone.

    Nothing may hold the arrays longer than the workspace itself: they would be overwritten.

    Parameters
    ----------
    plan : sequence of (shape, dtype)

    Attributes
    ----------
    arrays : list of array
        Of these shapes and dtypes, C-contiguous, uninitialised.

    Examples
    --------
    >>> workspace = Workspace([((2, 3), np.float32), ((5,), bool)])
    >>> [array.shape for array in workspace.arrays]
    [(2, 3), (5,)]
    """

    def __init__(self, plan: Sequence[tuple[tuple[int, ...], DTypeLike]]) -> None:
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in plan]
        starts = np.cumsum([0] + [-(-size // CACHE_LINE) * CACHE_LINE for size in sizes]).tolist()
        piece = _find_piece(starts[-1])
        weakref.finalize(self, _give_back, piece).atexit = False
        self.arrays: list[Array] = [
            piece[start : start + size].view(dtype).reshape(shape)
            for start, size, (shape, dtype) in zip(starts, sizes, plan, strict=False)
        ]


def recycled(shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return an uninitialised array whose memory, if there is much, is used again once no array holds it.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    array of that shape and dtype, C-contiguous

    Examples
    --------
    >>> recycled((2, 3), np.float64).shape
    (2, 3)
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < WORTH_KEEPING:
        return np.empty(shape, dtype)
    array: Array = np.asarray(_Lease(size)).view(dtype).reshape(shape)
    return array


class _Lease:
    """Bytes that NumPy makes an array of, which then holds this object, and so do all views of the array."""

    def __init__(self, size: int) -> None:
        piece = _find_piece(size)
        weakref.finalize(self, _give_back, piece).atexit = False
        self.__array_interface__ = piece[:size].__array_interface__


# By identity. It needs no lock: each access is one step, and a workspace may end in the midst of anything.
_free: dict[int, Array] = {}


def _find_piece(size: int) -> Array:
    """Return at least ``size`` bytes: the smallest free piece that will do, or a new one."""
    pieces = list(_free.values())
    for piece in sorted(pieces, key=lambda piece: piece.size):
        if size <= piece.size <= MOST_WASTE * size and _free.pop(id(piece), None) is not None:
            return piece
    return aligned_memory(size)


def _give_back(piece: Array) -> None:
    _free[id(piece)] = piece
    for oldest in list(_free)[:-FREE_PIECES]:
        _free.pop(oldest, None)
