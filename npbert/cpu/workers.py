"""Threads that share out the rows of an array, and the scratch memory of each.

NumPy releases Python's lock inside its loops and products, so threads do run at once. The rows are cut at
places that depend on the array alone: the result is the same to the last bit for any number of workers.
"""

import os
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CACHE_LINE = 64  # bytes

# Elements that a call goes through, where it goes through memory once. That is more than fits a core's
# second-level cache together with what is written, but after each call a thread waits for Python's lock, and
# fewer of these waits count for more.
BLOCK = 1 << 18

_WORKERS: ContextVar[int | None] = ContextVar("workers of npbert.cpu", default=None)
_local = threading.local()
_pools: dict[int, ThreadPoolExecutor] = {}


def usable_cpus() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count() -> int:
    """Return how many threads work: those of the innermost `workers` block, else one a processor."""
    return _WORKERS.get() or usable_cpus()


@contextmanager
def workers(count: int) -> Generator[None, None, None]:
    """Say how many threads work inside a ``with`` block.

    Parameters
    ----------
    count : int
        At least 1. No result depends on it.

    Raises
    ------
    ValueError
        For another number.

    Examples
    --------
    >>> with workers(3):
    ...     worker_count()
    3
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count is {count!r}; it must be an integer of at least 1")
    token = _WORKERS.set(count)
    try:
        yield
    finally:
        _WORKERS.reset(token)


def share_out(work: Callable[[Any], None], pieces: Iterable[Any]) -> None:
    """Call ``work`` with each of the pieces, on all workers, each with one BLAS thread.

    Inside ``work`` everything is done by its own thread: a nested call does not share out further. The first
    exception is raised again here, once all workers have stopped.

    Parameters
    ----------
    work : callable
        Writes its results to places of its own.
    pieces : iterable
    """
    pieces = list(pieces)
    if len(pieces) <= 1 or is_worker():
        for piece in pieces:
            work(piece)
        return
    count = min(worker_count(), len(pieces))
    queue = iter(pieces)  # of a list: the threads may take from it at once

    def work_off_the_queue() -> None:
        _local.is_worker = True
        try:
            for piece in queue:
                work(piece)
        finally:
            _local.is_worker = False

    with single_threaded_blas():
        others = [_pool(count - 1).submit(work_off_the_queue) for _ in range(count - 1)]
        try:
            work_off_the_queue()  # this thread is a worker, too
        finally:
            wait(others)
        for other in others:
            other.result()


def row_blocks(rows: int, block: int) -> list[slice]:
    """Return the slices that cut ``rows`` rows into blocks of ``block``; the last may be shorter.

    Examples
    --------
    >>> row_blocks(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + block, rows)) for start in range(0, rows, block)]


@contextmanager
def row_by_row() -> Generator[None, None, None]:
    """Make a ufunc of rows and one number a row take a row at a time, inside a ``with`` block.

    For ``rows - means[:, None]`` NumPy otherwise fills its buffer of 8192 elements with several rows, which
    takes up to twice as long. Operands that have to be converted do need the buffer: there should be none.
    """
    with np.errstate():  # restores the buffer's size, too
        np.setbufsize(16)  # elements; the smallest
        yield


def is_worker() -> bool:
    """Return whether this is one of the threads that `share_out` gave work to."""
    return getattr(_local, "is_worker", False)


@contextmanager
def single_threaded_blas() -> Generator[None, None, None]:
    """Let each product run on the thread that asked for it, inside a ``with`` block.

    The limit is one of the whole process. Of blocks that overlap, in several threads, the first to begin sets
    it, and the last to end takes it back.
    """
    if is_worker():
        yield
        return
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()


def scratch(name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return memory of this thread's own, uninitialised, that lasts until the name is asked for again.

    Parameters
    ----------
    name : str
        What it is for: two arrays that are in use at once need two names.
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    array of that shape and dtype, C-contiguous, at the beginning of a line of the cache
    """
    buffers = _local.__dict__.setdefault("buffers", {})
    kind = np.dtype(dtype)
    size = 1
    for length in shape:
        size *= length
    buffer = buffers.get((name, kind))
    if buffer is None or buffer.size < size:
        buffer = buffers[name, kind] = aligned_memory(size * kind.itemsize).view(kind)
    array: NDArray[Any] = buffer[:size].reshape(shape)
    return array


def aligned_memory(size: int) -> NDArray[np.uint8]:
    """Return so many bytes, uninitialised, that begin where a line of the cache does.

    A vector register then is one line, not parts of two: NumPy takes half the time to add two arrays.
    """
    room = np.empty(size + CACHE_LINE, np.uint8)
    start = -room.ctypes.data % CACHE_LINE
    return room[start : start + size]


class _SharedLimit:
    """The limit of one thread a product, as long as anybody wants it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before: list[int] = []  # threads of each library

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.before = [library.get_num_threads() for library in _blas_libraries()]
                self._set([1] * len(self.before))
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._set(self.before)

    def _set(self, counts: list[int]) -> None:
        for library, count in zip(_blas_libraries(), counts, strict=True):
            # Since 3.8, threadpoolctl heeds only the first thread to set OpenBLAS's number, until cleared.
            clear = getattr(library, "clear_controlling_thread", lambda force: None)
            clear(force=True)
            library.set_num_threads(count)
            clear(force=True)


_blas = _SharedLimit()


def _pool(count: int) -> ThreadPoolExecutor:
    if count not in _pools:
        _pools[count] = ThreadPoolExecutor(count, thread_name_prefix="npbert")
    return _pools[count]


@cache
def _blas_libraries() -> list[Any]:
    """Find the BLAS libraries once: that takes milliseconds, limiting them microseconds."""
    from threadpoolctl import ThreadpoolController

    return [library for library in ThreadpoolController().lib_controllers if library.user_api == "blas"]


def _forget_other_threads() -> None:
    """Only the thread that forked lives on in the child: none of the pools, none that holds a lock."""
    _pools.clear()
    _blas.lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_other_threads)
