"""Ranks that are threads of one process, so that what they do together can be tested without MPI."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

TIMEOUT = 60  # seconds; a rank that waits longer waits for ever


class Request:
    """An Ibarrier that is done as soon as it is asked: the barrier itself waited."""

    def Test(self) -> bool:
        return True


class ThreadWorld:
    """One rank's view of a communicator of threads; the names are mpi4py's.

    Attributes
    ----------
    log : list
        The calls with arrays, (name, what was sent, what it was received in).
    """

    def __init__(self, rank: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.slots, self.barrier = rank, slots, barrier
        self.log: list[tuple[str, Any, Any]] = []

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return len(self.slots)

    def Dup(self) -> "ThreadWorld":
        return self

    def allgather(self, value: Any) -> list[Any]:
        self.slots[self.rank] = value
        self.barrier.wait(TIMEOUT)
        values = list(self.slots)
        self.barrier.wait(TIMEOUT)
        return values

    def bcast(self, value: Any, root: int) -> Any:
        return self.allgather(value)[root]

    def Ibarrier(self) -> Request:
        self.barrier.wait(TIMEOUT)
        return Request()

    def Allgather(self, send: Any, receive: Any) -> None:
        self.log.append(("Allgather", send, receive))
        receive.reshape(len(self.slots), -1)[...] = _join(self.allgather(send.copy()))

    def Alltoall(self, send: Any, receive: Any) -> None:
        self.log.append(("Alltoall", send, receive))
        size = len(self.slots)
        parts = [sent.reshape(size, -1)[self.rank] for sent in self.allgather(send.copy())]
        receive.reshape(size, -1)[...] = _join(parts)


def _join(parts: list[Any]) -> Any:
    """Rows of one array: of NumPy's, or of the stand-in for CuPy's."""
    if isinstance(parts[0], np.ndarray):
        return np.stack(parts)
    return type(parts[0])(np.stack([part.values for part in parts]))


def on_ranks(size: int, work: Callable[[ThreadWorld], Any]) -> list[Any]:
    """Return what ``work`` returns, or raises, in each of so many threads, in the order of the ranks."""
    barrier, slots = threading.Barrier(size), [None] * size
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadWorld(rank, slots, barrier))
        except threading.BrokenBarrierError:
            return  # another rank has failed
        except Exception as error:
            results[rank] = error
            time.sleep(0.3)  # others may be about to leave the barrier, and to fail with the same
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
