"""How the loads and stores of a warp fall together, from the addresses of an emulated launch.

The 32 threads of a warp load at once. Global memory gives sectors of 32 bytes: the fewer of them a request
touches, the better. Shared memory has 32 banks, each of which gives one word of 4 bytes in a turn: a request
takes as many turns as words are asked of the busiest bank. Where a thread asks for 8 or 16 bytes, half or a
quarter of the warp is served at a time.

An instruction is here an access in the program that a C++ compiler made of the kernel's text. The device's
compiler may drop some, and joins neighbouring ones to shared memory, which is done here as well; its caches
serve many sectors. So these are figures of the text, emulated and not measured.

References
----------
CUDA C++ best practices guide, "Coalesced access to global memory" and "Shared memory and memory banks".
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from npbert.cuda.facts.architectures import WARP_SIZE

SECTOR_BYTES: Final = 32
BANKS: Final = 32
WORD_BYTES: Final = 4
WIDEST_ACCESS: Final = 16
JOINT_SIZES: Final = (4, 8, 16)

Accesses = np.ndarray[Any, np.dtype[Any]]  # of npbert.cuda.emulator.tracing.ACCESS
Integers = np.ndarray[Any, np.dtype[np.int64]]


class Requests(NamedTuple):
    """What warps ask of memory, summed up.

    Attributes
    ----------
    requests : int
        Each is what one warp asks for with one instruction.
    bytes_used : int
        Of what threads asked for; what several threads of a warp ask for in one request counts once.
    units : int
        Sectors of global memory, or turns of shared memory, that it took.
    least_units : int
        What it would take at best: as few sectors as hold those bytes, one turn for each group of threads
        that is served together.
    """

    requests: int = 0
    bytes_used: int = 0
    units: int = 0
    least_units: int = 0

    @property
    def excess(self) -> float:
        """How many times the least it took; 1 where nothing was asked for."""
        return self.units / self.least_units if self.least_units else 1.0


def sectors(accesses: Accesses) -> Requests:
    """Return how many sectors of global memory one instruction touches.

    Parameters
    ----------
    accesses : (n,) array
        Of one instruction; each thread's in the order in which it made them.

    Returns
    -------
    Requests
    """
    request = warp_requests(accesses)
    pieces, piece_bytes, of_request = _pieces(accesses, request, SECTOR_BYTES)
    bytes_used = np.bincount(_distinct(of_request, pieces)[0]) * piece_bytes
    touched = np.bincount(_distinct(of_request, pieces * piece_bytes // SECTOR_BYTES)[0])
    least = -(-bytes_used // SECTOR_BYTES)
    return Requests(len(touched), int(bytes_used.sum()), int(touched.sum()), int(least.sum()))


def bank_turns(accesses: Accesses) -> Requests:
    """Return how many turns the banks of shared memory take for one instruction.

    Parameters
    ----------
    accesses : (n,) array
        Of one instruction; each thread's in the order in which it made them.

    Returns
    -------
    Requests
    """
    accesses = join_neighbours(accesses)
    request = warp_requests(accesses)
    pieces, piece_bytes, of_request = _pieces(accesses, request, WORD_BYTES)
    bytes_used = len(_distinct(of_request, pieces)[0]) * piece_bytes
    widest = max(WORD_BYTES, int(accesses["bytes"].max()))
    served_at_once = max(1, BANKS * WORD_BYTES // widest)
    lane = accesses["thread"].astype(np.int64) % WARP_SIZE
    group = _number(request * WARP_SIZE + lane // served_at_once)
    pieces, piece_bytes, of_group = _pieces(accesses, group, WORD_BYTES)
    of_group, word = _distinct(of_group, pieces * piece_bytes // WORD_BYTES)
    load = np.bincount(of_group * BANKS + word % BANKS, minlength=(int(group.max()) + 1) * BANKS)
    turns = load.reshape(-1, BANKS).max(axis=1)
    return Requests(int(request.max()) + 1, bytes_used, int(turns.sum()), len(turns))


def total(requests: Sequence[Requests]) -> Requests:
    """Return the sum of what several instructions ask for."""
    return Requests(*(sum(numbers) for numbers in zip(*requests, strict=True))) if requests else Requests()


def by_instruction(accesses: Accesses, measure: Callable[[Accesses], Requests]) -> dict[int, Requests]:
    """Measure each instruction by itself.

    Parameters
    ----------
    accesses : (n,) array
    measure : callable
        `sectors` or `bank_turns`.

    Returns
    -------
    dict
        By the instruction's number.
    """
    if len(accesses) == 0:
        return {}
    ordered = accesses[np.argsort(accesses["instruction"], kind="stable")]
    numbers, starts = np.unique(ordered["instruction"], return_index=True)
    parts = np.split(ordered, starts[1:])
    return {int(number): measure(part) for number, part in zip(numbers, parts, strict=True)}


def warp_requests(accesses: Accesses) -> Integers:
    """Return, for each access of one instruction, the number of the request that it is part of.

    The n-th time that a thread comes by belongs together with the n-th time of the other threads of its warp.

    Parameters
    ----------
    accesses : (n,) array
        Of one instruction; each thread's in the order in which it made them.

    Returns
    -------
    (n,) array of int64
        From 0 up, without gaps.
    """
    thread, block = accesses["thread"].astype(np.int64), accesses["block"].astype(np.int64)
    time = _count_equal_before(_thread(accesses))
    warp = block * (int(thread.max()) // WARP_SIZE + 1) + thread // WARP_SIZE
    return _number(warp * (int(time.max()) + 1) + time)


def join_neighbours(accesses: Accesses) -> Accesses:
    """Join what a thread accesses in succession, side by side, to accesses of up to 16 bytes.

    So does the compiler with a loop that it has unrolled, where it knows the addresses to be multiples of the
    joint size: for shared memory it mostly does.

    Parameters
    ----------
    accesses : (n,) array
        Of one instruction; each thread's in the order in which it made them.

    Returns
    -------
    (m,) array
        The same array if the joint accesses would not all be of one size, and multiples of it apart.
    """
    by_thread = accesses[np.argsort(_thread(accesses), kind="stable")]
    thread, offset = _thread(by_thread), by_thread["offset"].astype(np.int64)
    goes_on = (
        (thread[1:] == thread[:-1])
        & (offset[1:] == offset[:-1] + by_thread["bytes"][:-1])
        & (offset[1:] // WIDEST_ACCESS == offset[:-1] // WIDEST_ACCESS)
    )
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    sizes = np.add.reduceat(by_thread["bytes"].astype(np.int64), first)
    size = int(sizes[0])
    if size not in JOINT_SIZES or np.any(sizes != size) or np.any(offset[first] % size != 0):
        return accesses
    joint = by_thread[first].copy()
    joint["bytes"] = size
    return joint


def _thread(accesses: Accesses) -> Integers:
    """Number the threads of all blocks."""
    thread, block = accesses["thread"].astype(np.int64), accesses["block"].astype(np.int64)
    return np.asarray(block * (int(thread.max()) + 1) + thread)


def _pieces(accesses: Accesses, group: Integers, largest: int) -> tuple[Integers, int, Integers]:
    """Cut accesses into pieces of one size: return the pieces' addresses over their size, that size, groups.

    The size is the largest that divides ``largest``, all accesses and their addresses. Addresses in different
    arrays lie further apart than any array is long.
    """
    sizes = accesses["bytes"].astype(np.int64)
    start = accesses["range"].astype(np.int64) * (1 << 40) + accesses["offset"].astype(np.int64)
    size = int(np.gcd(largest, np.gcd(np.gcd.reduce(sizes), np.gcd.reduce(start))))
    counts = sizes // size
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(start // size, counts) + nth, size, np.repeat(group, counts)


def _distinct(group: Integers, place: Integers) -> tuple[Integers, Integers]:
    """Return the distinct pairs of a group and a place, in the order of the groups."""
    places, number = np.unique(place, return_inverse=True)
    pairs = np.unique(group * len(places) + number)
    return pairs // len(places), places[pairs % len(places)]


def _number(values: Integers) -> Integers:
    """Replace values by their rank among the distinct ones."""
    return np.asarray(np.unique(values, return_inverse=True)[1], np.int64)


def _count_equal_before(values: Integers) -> Integers:
    """Return, for each element, how many equal ones come before it."""
    order = np.argsort(values, kind="stable")
    _, starts, sizes = np.unique(values[order], return_index=True, return_counts=True)
    count = np.empty(len(values), np.int64)
    count[order] = np.arange(len(values)) - np.repeat(starts, sizes)
    return count
