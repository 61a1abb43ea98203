"""What a warp's addresses cost: sectors of global memory and turns of shared memory's banks, by hand."""

import numpy as np
import pytest

from npbert.cuda.emulator.tracing import ACCESS
from npbert.cuda.facts.traces import (
    Requests,
    bank_turns,
    by_instruction,
    join_neighbours,
    sectors,
    total,
    warp_requests,
)

LANE = np.arange(32)


def accesses(offsets, nbytes, threads=LANE, block=0, instruction=7) -> np.ndarray:
    """Return accesses to one array: of 32 threads, one each, unless said otherwise."""
    found = np.zeros(len(offsets), ACCESS)
    found["offset"] = offsets
    found["bytes"] = nbytes
    found["thread"] = threads
    found["block"] = block
    found["instruction"] = instruction
    return found


@pytest.mark.parametrize(
    ("offsets", "nbytes", "expected"),
    [
        (4 * LANE, 4, Requests(1, 128, 4, 4)),
        (16 * LANE, 16, Requests(1, 512, 16, 16)),
        (2 * LANE, 2, Requests(1, 64, 2, 2)),
        (0 * LANE, 4, Requests(1, 4, 1, 1)),  # all read the same
        (4 * LANE + 4, 4, Requests(1, 128, 5, 4)),  # begins in the middle of a sector
        (8 * LANE, 4, Requests(1, 128, 8, 4)),  # every other number
        (128 * LANE, 4, Requests(1, 128, 32, 4)),  # a column
        (32 * LANE, 16, Requests(1, 512, 32, 16)),  # half of each sector
        (4 * LANE[::-1], 4, Requests(1, 128, 4, 4)),  # the order does not matter
        (4 * (LANE // 2), 4, Requests(1, 64, 2, 2)),
    ],
)
def test_sectors(offsets, nbytes, expected):
    assert sectors(accesses(offsets, nbytes)) == expected


def test_sectors_of_different_arrays_are_different():
    found = accesses(4 * (LANE % 8), 4)
    found["range"] = LANE // 8
    assert sectors(found) == Requests(1, 128, 4, 4)


@pytest.mark.parametrize(
    ("offsets", "nbytes", "expected"),
    [
        (4 * LANE, 4, Requests(1, 128, 1, 1)),
        (0 * LANE, 4, Requests(1, 4, 1, 1)),  # one word goes to all
        (8 * LANE, 4, Requests(1, 128, 2, 1)),
        (128 * LANE, 4, Requests(1, 128, 32, 1)),  # a column of a 32 x 32 tile: all in one bank
        (132 * LANE, 4, Requests(1, 128, 1, 1)),  # the same of 32 x 33
        (2 * LANE, 2, Requests(1, 64, 1, 1)),  # two threads share a word
        (64 * LANE, 2, Requests(1, 64, 16, 1)),
        (8 * LANE, 8, Requests(1, 256, 2, 2)),  # half a warp at a time
        (16 * LANE, 16, Requests(1, 512, 4, 4)),  # a quarter of a warp at a time
        (64 * LANE, 16, Requests(1, 512, 16, 4)),
        (80 * LANE, 16, Requests(1, 512, 4, 4)),  # rows of 20 words begin in different banks, 8 by 8
    ],
)
def test_bank_turns(offsets, nbytes, expected):
    assert bank_turns(accesses(offsets, nbytes)) == expected


def test_excess():
    assert Requests(1, 128, 8, 4).excess == 2
    assert Requests().excess == 1
    assert total([Requests(1, 2, 3, 4), Requests(10, 20, 30, 40)]) == Requests(11, 22, 33, 44)
    assert total([]) == Requests()


def test_a_request_is_one_warp_at_one_time():
    # 64 threads of two blocks, each of which comes by twice; in the log, one thread after the other.
    thread = np.tile(np.repeat(np.arange(64), 2), 2)
    block = np.repeat([0, 1], 128)
    request = warp_requests(accesses(np.zeros(256), 4, thread, block))
    assert len(np.unique(request)) == 8
    for number in range(8):
        members = np.flatnonzero(request == number)
        assert len(set(zip(block[members], thread[members] // 32, members % 2, strict=True))) == 1
        assert len(members) == 32


def test_threads_that_leave_early_do_not_shift_the_others():
    # Thread 0 comes by once, the others twice, to the next row each time.
    thread = np.concatenate([[0], np.repeat(LANE[1:], 2)])
    row = np.concatenate([[0], np.tile([0, 1], 31)])
    found = sectors(accesses(1024 * row + 4 * thread, 4, thread))
    assert found == Requests(2, 128 + 124, 4 + 4, 4 + 4)


def test_each_instruction_by_itself():
    both = np.concatenate([accesses(4 * LANE, 4, instruction=1), accesses(128 * LANE, 4, instruction=2)])
    shuffled = both[np.random.default_rng(0).permutation(64)]
    assert by_instruction(shuffled, bank_turns) == {1: Requests(1, 128, 1, 1), 2: Requests(1, 128, 32, 1)}
    assert by_instruction(both[:0], sectors) == {}


def test_neighbours_are_joined():
    # Each thread reads four numbers one after the other: one access of 16 bytes, as the compiler makes of it.
    thread = np.repeat(LANE, 4)
    number = np.tile(np.arange(4), 32)
    joint = join_neighbours(accesses(16 * thread + 4 * number, 4, thread))
    np.testing.assert_array_equal(joint, accesses(16 * LANE, 16))
    assert bank_turns(accesses(16 * thread + 4 * number, 4, thread)) == Requests(1, 512, 4, 4)
    # Eight numbers: two such accesses.
    thread, number = np.repeat(LANE, 8), np.tile(np.arange(8), 32)
    joint = join_neighbours(accesses(32 * thread + 4 * number, 4, thread))
    np.testing.assert_array_equal(joint["offset"].reshape(32, 2), np.stack([32 * LANE, 32 * LANE + 16], 1))


@pytest.mark.parametrize(
    "offset_of",
    [
        lambda thread, number: 132 * thread + 4 * number,  # rows begin anywhere
        lambda thread, number: 16 * thread + 4 * (3 - number),  # backwards
        lambda thread, number: 128 * thread + 8 * number,  # with gaps
    ],
)
def test_what_cannot_be_joined_stays(offset_of):
    thread, number = np.repeat(LANE, 4), np.tile(np.arange(4), 32)
    before = accesses(offset_of(thread, number), 4, thread)
    np.testing.assert_array_equal(join_neighbours(before), before)
