"""Data parallel training over MPI, with the library mpi4py: each process works on batches of its own.

``mpirun -n 4 npbert pretrain ...`` starts four processes, the ranks. All hold the whole model and read the
same data; of the batches of a step each takes its share, and before the optimiser's step the gradients are
added up over all ranks. The ranks then take the same step, to the last bit, and so stay alike.

MPI has one call for such sums, Allreduce, but it may add in any order, and another one each time. Here the
order is fixed: each rank is sent one part of the gradients of all ranks (Alltoall), adds them up in the order
of the ranks, and sends the sums to all (Allgather). That moves as many bytes as the best Allreduce does, and
the result is that of a single process that goes through the same batches one after the other.
"""

import ctypes
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np

from npbert.errors import BackendError
from npbert.ops.array_module import Array, array_module, to_numpy
from npbert.params import Params
from npbert.training.launcher import Launch, seconds_to_wait

# Elements that are summed at once. More needs more memory, fewer need more messages.
PIECE: Final = 1 << 20

SECONDS_BETWEEN_LOOKS: Final = 0.002

T = TypeVar("T")


class Share(NamedTuple):
    """What a rank has of its machine.

    Attributes
    ----------
    rank : int
        Of this process, counted among those on the machine.
    workers : int
        How many threads it should use.
    """

    rank: int
    workers: int


class MPICommunicator:
    """The ranks that MPI knows, as a `npbert.training.communicator.Communicator`.

    It needs memory for `PIECE` elements twice, of the gradients' kind: 8 MB in float32.

    Parameters
    ----------
    world : mpi4py.MPI.Intracomm
        Of all ranks.
    takes_device_memory : bool
        Whether its calls take arrays of CuPy's. Otherwise they go through the memory of the host.
    """

    def __init__(self, world: Any, takes_device_memory: bool = False) -> None:
        self.world = world
        self.rank: int = world.Get_rank()
        self.size: int = world.Get_size()
        self.takes_device_memory = takes_device_memory
        self._failing = world.Dup()  # apart from the messages of ranks that still work
        self._buffers: dict[tuple[str, np.dtype[Any]], tuple[Array, Array]] = {}

    def sum_gradients(self, grads: Params) -> Params:
        """Return the sums over all ranks, in the order of the ranks, the same to the last bit on each.

        Parameters
        ----------
        grads : dict of str to floating array of any shape
            The same names, shapes and dtypes on all ranks. They may be overwritten.

        Returns
        -------
        dict of str to array
        """
        flat = {name: grad.reshape(-1) for name, grad in grads.items()}  # copies what is not contiguous
        for dtype in sorted({str(grad.dtype) for grad in flat.values()}):
            alike = [flat[name] for name in sorted(flat) if flat[name].dtype == dtype]
            for piece in _pieces(alike, PIECE):
                self._sum_piece(piece)
        return {name: flat[name].reshape(grad.shape) for name, grad in grads.items()}

    def _sum_piece(self, parts: list[Array]) -> None:
        """Replace some flat arrays by their sums over all ranks."""
        count = sum(part.size for part in parts)
        width = -(-count // self.size)  # of the part that each rank adds up; rounded up
        gathered, received = self._memory(parts[0], self.size * width)
        xp = array_module(gathered)

        start = 0
        for part in parts:
            gathered[start : start + part.size] = _to_module(xp, part)
            start += part.size
        gathered[start:] = 0  # the last rank's part may be shorter than the others'

        _finish_on_device(xp)
        self.world.Alltoall(gathered, received)
        first, *others = received.reshape(self.size, width)
        for other in others:
            first += other
        _finish_on_device(xp)
        self.world.Allgather(first, gathered)

        start = 0
        for part in parts:
            part[...] = _to_module(array_module(part), gathered[start : start + part.size])
            start += part.size

    def _memory(self, like: Array, count: int) -> tuple[Array, Array]:
        """Return memory for twice so many elements, which lasts from call to call."""
        xp = array_module(like) if self.takes_device_memory else np
        key = (xp.__name__, like.dtype)
        if key not in self._buffers:
            room = PIECE + self.size  # what is rounded up
            self._buffers[key] = xp.empty(room, like.dtype), xp.empty(room, like.dtype)
        first, second = self._buffers[key]
        return first[:count], second[:count]

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Return the sums over all ranks, in the order of the ranks."""
        received = np.empty((self.size, len(numbers)))
        self.world.Allgather(np.array(numbers, dtype=np.float64), received)
        first, *others = received
        for other in others:
            first += other
        sums: list[float] = first.tolist()
        return sums

    def gather_texts(self, text: str) -> list[str]:
        """Return the texts of all ranks, in the order of the ranks."""
        texts: list[str] = self.world.allgather(text)
        return texts

    def make_once(self, make: Callable[[], T]) -> T:
        """Return, on all ranks, what the function returns on rank 0; it is called there only."""
        made = make() if self.rank == 0 else None
        self.wait_for_all()
        value: T = self.world.bcast(made, root=0)
        return value

    def wait_for_all(self) -> None:
        """Return when all ranks have called this. Meanwhile the processor is free for those that work."""
        _wait(self.world.Ibarrier())

    def have_all_failed(self) -> bool:
        """Return whether all ranks call this, soon after one another.

        To be called when an error has ended the work of this rank, wherever that was: an error of all is
        reported once, and one of a single rank as its own.
        """
        return _wait(self._failing.Ibarrier(), seconds_to_wait(self.rank))

    def abort(self, code: int) -> None:
        """End all ranks now; does not return."""
        self.world.Abort(code)


def connect(launch: Launch) -> Any:
    """Return MPI's communicator of all ranks.

    Parameters
    ----------
    launch : Launch
        What the launcher said.

    Returns
    -------
    mpi4py.MPI.Intracomm

    Raises
    ------
    BackendError
        If mpi4py is not installed, or works with another MPI library than the launcher's.
    """
    started = f"{launch.size} processes were started together, to train on all of them"
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise BackendError(f'{started}; that needs mpi4py: pip install "npbert[mpi]" ({error})') from None
    world = MPI.COMM_WORLD
    if world.Get_size() != launch.size:
        library = MPI.Get_library_version().partition(",")[0].splitlines()[0].strip()
        raise BackendError(
            f"{started}, but the MPI library that mpi4py found ({library}) knows of {world.Get_size()}: it "
            "is not the one that mpirun, or whatever started them, belongs to"
        )
    return world


def share_of_machine(world: Any) -> Share:
    """Return what each rank should use of its machine, when all do so."""
    from mpi4py import MPI

    neighbours = world.Split_type(MPI.COMM_TYPE_SHARED)
    usable: list[set[int]] = neighbours.allgather(_usable_processors())
    rank = neighbours.Get_rank()
    neighbours.Free()
    return Share(rank, workers_of(rank, usable))


def workers_of(rank: int, usable: Sequence[set[int]]) -> int:
    """Return how many threads one of the ranks on a machine should use: its share of the processors.

    Parameters
    ----------
    rank : int
    usable : sequence of set of int
        The processors that each of the ranks may run on.

    Examples
    --------
    Two ranks that the launcher left alone, and two that were given processors of their own:

    >>> workers_of(0, [{0, 1, 2, 3}, {0, 1, 2, 3}])
    2
    >>> workers_of(0, [{0, 1, 2}, {3}]), workers_of(1, [{0, 1, 2}, {3}])
    (3, 1)
    """
    users = Counter(processor for processors in usable for processor in processors)
    share = sum(Fraction(1, users[processor]) for processor in usable[rank])
    return max(1, int(share))


def takes_device_memory() -> bool:
    """Return whether the MPI library says that it was built for CUDA."""
    from mpi4py import MPI

    # Of Open MPI and of MPICH, but not of the standard, so mpi4py has no name for it.
    ask = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return ask is not None and bool(ask())


def _pieces(flat: list[Array], room: int) -> Iterator[list[Array]]:
    """Cut flat arrays into parts; yield lists of parts with ``room`` elements, the last perhaps with fewer.

    Examples
    --------
    >>> list(_pieces([np.arange(2), np.arange(3)], 4))
    [[array([0, 1]), array([0, 1])], [array([2])]]
    """
    piece: list[Array] = []
    left = room
    for array in flat:
        start = 0
        while start < array.size:
            part = array[start : start + left]
            piece.append(part)
            start += part.size
            left -= part.size
            if left == 0:
                yield piece
                piece, left = [], room
    if piece:
        yield piece


def _to_module(xp: Any, x: Array) -> Array:
    """Return an array as one of this module's: from the device or to it, or as it is."""
    return to_numpy(x) if xp is np else xp.asarray(x)


def _finish_on_device(xp: Any) -> None:
    """Wait until what was asked of a device is done: MPI does not know of CuPy's queue."""
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def _wait(request: Any, seconds: float = float("inf")) -> bool:
    """Return whether MPI has done something within some seconds. Python's signal handlers run meanwhile."""
    end = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > end:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _usable_processors() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
