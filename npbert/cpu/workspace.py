"""Memory for what a training step keeps until its way back: one piece for all arrays, and used again.

Fresh memory costs twice: the operating system clears each page when it is first touched, and what lay in the
caches is lost. So the arrays of a step are planned together, and their memory is that of the step before.
"""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npbert.cpu.workers import CACHE_LINE, aligned_memory
from npbert.ops.array_module import Array

# A piece that is more than so many times as large as what is asked for is let go, not used again.
MOST_WASTE = 4
FREE_PIECES = 4  # kept for later; several threads may train at once


class Workspace:
    """Arrays in one piece of memory, which goes to another workspace when this one is gone.

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


# Taken from and added to at its end, which needs no lock: a workspace may end in the midst of anything.
_free: list[Any] = []


def _find_piece(size: int) -> Array:
    """Return at least ``size`` bytes; free pieces that are too small or much too large are let go."""
    while _free:
        try:
            piece: Array = _free.pop()
        except IndexError:  # another thread was faster
            break
        if size <= piece.size <= MOST_WASTE * size:
            return piece
    return aligned_memory(size)


def _give_back(piece: Array) -> None:
    if len(_free) < FREE_PIECES:
        _free.append(piece)
