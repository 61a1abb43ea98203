"""Memory that is used again, and never by two at once."""

import threading

import numpy as np
import pytest

from npbert.cpu import workspace as module
from npbert.cpu.workers import CACHE_LINE
from npbert.cpu.workspace import FREE_PIECES, MOST_WASTE, WORTH_KEEPING, Workspace, recycled
from tests.comparisons import assert_identical

SIZE = 1000
PLAN = [((SIZE,), np.float64), ((3, 5), np.float32), ((7,), bool), ((0, 4), np.float32), ((2, 2), np.float64)]


@pytest.fixture(autouse=True)
def no_free_pieces(monkeypatch):
    monkeypatch.setattr(module, "_free", {})


def address(workspace: Workspace) -> int:
    return workspace.arrays[0].ctypes.data


def test_the_arrays_are_those_of_the_plan_and_do_not_overlap():
    workspace = Workspace(PLAN)
    assert [(a.shape, a.dtype) for a in workspace.arrays] == [(s, np.dtype(d)) for s, d in PLAN]
    for number, array in enumerate(workspace.arrays):
        assert array.flags.c_contiguous
        assert array.ctypes.data % CACHE_LINE == 0 or array.size == 0
        array[...] = number
    for number, array in enumerate(workspace.arrays):
        assert_identical(array, np.full(array.shape, number, array.dtype), f"array {number}")


def test_memory_is_used_again_once_its_workspace_is_gone():
    first = Workspace(PLAN)
    place = address(first)
    second = Workspace(PLAN)
    assert not np.shares_memory(first.arrays[0], second.arrays[0])
    del first
    third = Workspace(PLAN)
    assert address(third) == place
    assert not np.shares_memory(second.arrays[0], third.arrays[0])


def test_a_piece_that_is_too_small_or_much_too_large_is_not_used():
    workspace = Workspace([((SIZE,), np.float64)])
    place = address(workspace)
    del workspace
    for size in (2 * SIZE, SIZE // (2 * MOST_WASTE)):
        workspace = Workspace([((size,), np.float64)])
        assert workspace.arrays[0].size == size
        assert address(workspace) != place
    workspace = Workspace([((SIZE // MOST_WASTE,), np.float64)])
    assert address(workspace) == place


def test_the_smallest_piece_that_will_do_is_used():
    alive = [Workspace([((size,), np.float64)]) for size in (18 * SIZE, 11 * SIZE, 9 * SIZE, 14 * SIZE)]
    place = address(alive[1])
    alive.clear()
    assert address(Workspace([((10 * SIZE,), np.float64)])) == place


def test_few_pieces_are_kept_the_latest():
    alive = [Workspace(PLAN) for _ in range(FREE_PIECES + 3)]
    places = [address(workspace) for workspace in alive]
    while alive:
        alive.pop(0)
    assert len(module._free) == FREE_PIECES
    assert {piece.ctypes.data for piece in module._free.values()} == set(places[3:])


def test_recycled_memory_is_nobody_elses_as_long_as_a_view_of_it_lives():
    shape = (3, WORTH_KEEPING // 4)
    array = recycled(shape, np.float32)
    assert array.shape == shape
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array.flags.writeable
    place = array.ctypes.data
    array[1] = 5
    view = array[1, ::2]
    del array
    other = recycled(shape, np.float32)
    other[...] = 7
    assert (view == 5).all()
    del view
    again = recycled(shape, np.float32)
    assert again.ctypes.data == place
    assert not np.shares_memory(again, other)


def test_little_memory_is_not_worth_keeping():
    recycled((WORTH_KEEPING // 4 - 1,), np.float32)
    assert not module._free
    assert recycled((0, 5), np.float64).shape == (0, 5)


def test_threads_never_share_memory():
    wrong = []

    def work(number: int) -> None:
        for _ in range(200):
            workspace = Workspace(PLAN)
            workspace.arrays[0][:] = number
            if np.any(workspace.arrays[0] != number):
                wrong.append(number)
            del workspace

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
