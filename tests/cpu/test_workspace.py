"""Memory that is used again, and never by two at once."""

import threading
import weakref

import numpy as np
import pytest

from npbert.cpu import workspace as module
from npbert.cpu.workers import CACHE_LINE
from npbert.cpu.workspace import FREE_PIECES, MOST_WASTE, Workspace
from tests.comparisons import assert_identical

SIZE = 1000
PLAN = [((SIZE,), np.float64), ((3, 5), np.float32), ((7,), bool), ((0, 4), np.float32), ((2, 2), np.float64)]


@pytest.fixture(autouse=True)
def no_free_pieces(monkeypatch):
    monkeypatch.setattr(module, "_free", [])


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


def test_a_piece_that_is_too_small_or_much_too_large_is_let_go():
    for other in (2 * SIZE, SIZE // (2 * MOST_WASTE)):
        workspace = Workspace([((SIZE,), np.float64)])
        piece = weakref.ref(workspace.arrays[0].base)
        del workspace
        assert piece() is not None
        workspace = Workspace([((other,), np.float64)])
        assert workspace.arrays[0].size == other
        assert piece() is None
        module._free.clear()


def test_few_pieces_are_kept():
    alive = [Workspace(PLAN) for _ in range(FREE_PIECES + 3)]
    alive.clear()
    assert len(module._free) == FREE_PIECES


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
