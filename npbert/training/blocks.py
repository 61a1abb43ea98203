"""Going through all parameters in pieces of about equal size, which threads may share out among them.

An optimiser's step does little arithmetic for the memory that it goes through. In blocks that stay in a
core's cache from one line of its formula to the next, memory is gone through once instead of once a line.
"""

import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from npbert.ops.array_module import Array, array_module

# Elements. Of what two threads take turns at, fewer and longer calls are quicker than smaller blocks.
BLOCK: Final = 1 << 17

_local = threading.local()


class Block(NamedTuple):
    """A part of one parameter."""

    name: str
    start: int  # of the flattened parameter
    stop: int

    def of(self, arrays: Mapping[str, Array]) -> Array:
        """Return this part (n,) of the array of this name; a view, if the array is C-contiguous."""
        return arrays[self.name].reshape(-1)[self.start : self.stop]


def pieces_of(arrays: Mapping[str, Array]) -> list[list[Block]]:
    """Cut arrays into pieces of at most `BLOCK` elements.

    A large array becomes several pieces, several small ones become one. An array of CuPy's is not cut: the
    device works on all of its elements at once.

    Parameters
    ----------
    arrays : mapping of str to array of any shape

    Returns
    -------
    list of list of Block
        Every element is in exactly one block.
    """
    pieces: list[list[Block]] = []
    room = 0  # in the last piece
    for name, array in arrays.items():
        block = BLOCK if array_module(array) is np else max(array.size, 1)
        for start in range(0, array.size, block):
            size = min(block, array.size - start)
            if size > room:
                pieces.append([])
                room = BLOCK
            pieces[-1].append(Block(name, start, start + size))
            room -= size
    return pieces


def scratch_like(block: Array, name: str) -> Array:
    """Return memory of this thread's own, uninitialised, of a block's size and dtype.

    It lasts until the thread asks for the name again.

    Parameters
    ----------
    block : (n,)
    name : str

    Returns
    -------
    (n,)
    """
    xp = array_module(block)
    buffers = _local.__dict__.setdefault("buffers", {})
    key = (name, xp.__name__, block.dtype)
    if key not in buffers or buffers[key].size < block.size:
        buffers[key] = xp.empty(block.size, block.dtype)
    return buffers[key][: block.size]
