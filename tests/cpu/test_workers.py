"""The threads of the CPU engine: who works, on what, what happens when it fails; scratch memory; BLAS."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from npbert.cpu.workers import (
    CACHE_LINE,
    is_worker,
    row_blocks,
    row_by_row,
    scratch,
    share_out,
    single_threaded_blas,
    usable_cpus,
    worker_count,
    workers,
)


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


# --- sharing out ----------------------------------------------------------------------------------------


@given(pieces=st.lists(st.integers(), max_size=20), count=st.integers(1, 5))
def test_every_piece_is_worked_on_once(pieces, count):
    done = []
    with workers(count):
        share_out(done.append, iter(pieces))  # any iterable
    assert sorted(done) == sorted(pieces)


def test_as_many_threads_work_at_once_as_there_are_workers():
    """Each waits for the others: with fewer threads, this would time out."""
    for count in (1, 2, 3):
        barrier = threading.Barrier(count, timeout=30)
        with workers(count):
            share_out(lambda _, barrier=barrier: barrier.wait(), range(count))


def test_the_calling_thread_is_a_worker():
    threads = set()
    barrier = threading.Barrier(2, timeout=30)

    def work(_):
        barrier.wait()
        threads.add(threading.get_ident())
        assert is_worker()

    with workers(2):
        share_out(work, range(2))
    assert len(threads) == 2
    assert threading.get_ident() in threads
    assert not is_worker()


def test_a_nested_call_works_on_its_own_thread():
    outer, inner = [], []
    barrier = threading.Barrier(2, timeout=30)

    def work(piece):
        barrier.wait()
        outer.append((piece, threading.get_ident()))
        share_out(lambda each: inner.append((piece, each, threading.get_ident())), range(5))
        assert is_worker()  # the nested call has not ended it

    with workers(2):
        share_out(work, range(2))
    assert len(inner) == 10
    assert {(piece, thread) for piece, _, thread in inner} == set(outer)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("bad", [0, 7, 15])
def test_an_exception_is_raised_again_and_the_workers_live_on(count, bad):
    class Failure(Exception):
        pass

    def work(piece):
        if piece == bad:
            raise Failure(piece)

    with workers(count):
        with pytest.raises(Failure, match=str(bad)):
            share_out(work, range(16))
        assert not is_worker()
        done = []
        share_out(done.append, range(16))
    assert sorted(done) == list(range(16))


@pytest.mark.parametrize("here", [True, False])
def test_an_exception_of_either_thread_waits_for_the_other(here):
    """What is written to after a failure would surprise the caller."""
    caller = threading.get_ident()
    barrier = threading.Barrier(2, timeout=30)
    failed, finished = threading.Event(), []

    def work(_):
        barrier.wait()
        if (threading.get_ident() == caller) == here:
            failed.set()
            raise RuntimeError("a piece failed")
        assert failed.wait(timeout=30)
        time.sleep(0.1)  # time enough to be overtaken by the caller
        finished.append(True)

    with workers(2), pytest.raises(RuntimeError, match="a piece failed"):
        share_out(work, range(2))
    assert finished == [True]


def test_callers_in_several_threads_do_not_disturb_each_other():
    found = {}

    def call(caller):
        parts = np.zeros((50, 8), int)
        with workers(2):
            for row in parts:
                share_out(lambda piece, row=row: row.__setitem__(piece, caller + piece), range(8))
        found[caller] = parts

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    for caller in range(4):
        np.testing.assert_array_equal(found[caller], np.tile(caller + np.arange(8), (50, 1)))


# --- how many -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None, "2"])
def test_a_bad_number_of_workers_is_named(count):
    with (
        pytest.raises(ValueError, match=f"count is {count!r}; it must be an integer of at least 1"),
        workers(count),
    ):
        pass


def test_the_innermost_block_counts():
    before = worker_count()
    with workers(3):
        assert worker_count() == 3
        with pytest.raises(KeyError), workers(5):
            assert worker_count() == 5
            raise KeyError
        assert worker_count() == 3
    assert worker_count() == before == usable_cpus()


def test_usable_cpus_are_those_of_this_process():
    if hasattr(os, "sched_getaffinity"):
        assert usable_cpus() == len(os.sched_getaffinity(0))
    assert usable_cpus() >= 1


def test_another_thread_has_its_own_number():
    found = []
    with workers(7):
        thread = threading.Thread(target=lambda: found.append(worker_count()))
        thread.start()
        thread.join()
    assert found == [usable_cpus()]


@given(rows=st.integers(0, 50), block=st.integers(1, 20))
def test_row_blocks_cover_all_rows_in_order(rows, block):
    parts = row_blocks(rows, block)
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    assert all(0 < part.stop - part.start <= block for part in parts)
    assert all(part.start % block == 0 for part in parts)


def test_row_by_row_is_over_after_its_block():
    rows, means = np.arange(30_000.0).reshape(3, 10_000), np.arange(3.0)[:, None]
    before, expected = np.getbufsize(), rows - means
    with np.errstate(invalid="raise"), pytest.raises(KeyError), row_by_row():
        assert np.getbufsize() < before
        assert np.geterr()["invalid"] == "raise"
        np.testing.assert_array_equal(rows - means, expected)
        raise KeyError
    assert np.getbufsize() == before


# --- scratch memory -------------------------------------------------------------------------------------


def test_scratch_is_reused_grown_and_shaped():
    first = scratch("tests reuse", (4, 6), np.float32)
    assert first.shape == (4, 6)
    assert first.dtype == np.float32
    assert first.flags.c_contiguous
    smaller = scratch("tests reuse", (3, 2), np.float32)
    assert np.shares_memory(first, smaller)
    larger = scratch("tests reuse", (40, 60), np.float32)
    assert not np.shares_memory(first, larger)
    assert np.shares_memory(larger, scratch("tests reuse", (2400,), np.float32))
    assert larger.ctypes.data % CACHE_LINE == 0
    assert scratch("tests reuse", (), np.float32).shape == ()
    assert scratch("tests reuse", (0, 5), np.float32).shape == (0, 5)


def test_other_names_dtypes_and_threads_have_other_memory():
    found = [
        scratch("tests a", (8,), np.float32),
        scratch("tests b", (8,), np.float32),
        scratch("tests a", (8,), np.int32),
        scratch("tests a", (8,), np.float64),
    ]
    thread = threading.Thread(target=lambda: found.append(scratch("tests a", (8,), np.float32)))
    thread.start()
    thread.join()
    assert len(found) == 5
    for i, one in enumerate(found):
        assert not any(np.shares_memory(one, other) for other in found[i + 1 :])


# --- BLAS -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_blas_has_one_thread_inside_and_those_it_had_outside(fails):
    inside = []

    def work(_):
        inside.append(blas_threads())
        if fails:
            raise RuntimeError

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        assert before, "NumPy's BLAS is not one that threadpoolctl knows"
        with workers(2):
            if fails:
                with pytest.raises(RuntimeError):
                    share_out(work, range(4))
            else:
                share_out(work, range(4))
        assert blas_threads() == before
    assert inside
    assert all(count == 1 for counts in inside for count in counts)


@pytest.mark.parametrize("count", [1, 2])
def test_blas_has_one_thread_whatever_the_number_of_workers(count):
    """A product's last bits depend on its threads."""
    inside = []
    with threadpool_limits(2, user_api="blas"), workers(count):
        share_out(lambda _: inside.extend(blas_threads()), range(3))
    assert inside
    assert set(inside) == {1}


def test_blas_gets_its_threads_back_from_callers_that_overlap():
    """The first to begin is the first to end: it must not give back what the other still counts on."""
    first_is_inside, second_is_inside, first_has_ended = (threading.Event() for _ in range(3))
    inside = []

    def first():
        with single_threaded_blas():
            first_is_inside.set()
            assert second_is_inside.wait(timeout=30)
        first_has_ended.set()

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        thread = threading.Thread(target=first)
        thread.start()
        assert first_is_inside.wait(timeout=30)
        with single_threaded_blas():
            second_is_inside.set()
            assert first_has_ended.wait(timeout=30)
            inside = blas_threads()
        thread.join()
        assert blas_threads() == before
    assert set(inside) == {1}


# --- fork -----------------------------------------------------------------------------------------------

FORK = """
import os, sys
import numpy as np
from npbert.cpu.workers import _blas, share_out, workers

def total():
    parts = np.zeros(8)
    def work(piece):
        parts[piece] = (np.full((64, 64), float(piece)) @ np.ones((64, 64))).sum()
    with workers(2):
        share_out(work, range(8))
    return parts.sum()

def fork(_=None):
    child = os.fork()
    if child == 0:
        os._exit(0 if total() == expected else 3)
    children.append(child)

expected, children = total(), []
if sys.argv[1] == "between":
    fork()
elif sys.argv[1] == "locked":  # as if another thread were about to set the limit
    with _blas.lock:
        fork()
else:
    with workers(2):
        share_out(fork, range(4))
assert total() == expected
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("when", ["between", "inside", "locked"])
def test_a_forked_process_has_threads_of_its_own(when):
    """Those of the parent are not in the child; waiting for them, or for their locks, would never end."""
    result = subprocess.run([sys.executable, "-c", FORK, when], timeout=60, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
