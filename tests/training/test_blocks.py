"""Blocks: every element is in exactly one; sizes; scratch memory."""

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npbert.training import blocks
from npbert.training.blocks import Block, pieces_of, scratch_like
from tests.cuda import fake_cupy


@given(sizes=st.lists(st.integers(0, 40), max_size=8), block=st.integers(1, 20))
def test_every_element_is_in_one_block(sizes, block):
    arrays = {f"p{number}": np.zeros(size) for number, size in enumerate(sizes)}
    before, blocks.BLOCK = blocks.BLOCK, block
    try:
        pieces = pieces_of(arrays)
    finally:
        blocks.BLOCK = before
    for piece in pieces:
        assert 0 < sum(part.stop - part.start for part in piece) <= block
        for part in piece:
            part.of(arrays)[...] += 1
    assert all(np.all(array == 1) for array in arrays.values())


def test_large_arrays_are_cut_and_small_ones_go_together(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 10)
    arrays = {"large": np.zeros((5, 5)), "small": np.zeros(2), "scalar": np.zeros(()), "next": np.zeros(8)}
    assert pieces_of(arrays) == [
        [Block("large", 0, 10)],
        [Block("large", 10, 20)],
        [Block("large", 20, 25), Block("small", 0, 2), Block("scalar", 0, 1)],
        [Block("next", 0, 8)],
    ]


def test_arrays_of_cupys_are_not_cut(monkeypatch):
    cupy = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(blocks, "BLOCK", 10)
    arrays = {"large": cupy.asarray(np.zeros((5, 5))), "none": cupy.asarray(np.zeros(0))}
    assert pieces_of(arrays) == [[Block("large", 0, 25)]]


def test_a_block_of_an_array():
    array = np.arange(12.0).reshape(3, 4)
    part = Block("x", 3, 7).of({"x": array})
    np.testing.assert_array_equal(part, [3, 4, 5, 6])
    assert np.shares_memory(part, array)


def test_scratch_memory_of_other_names_sizes_and_dtypes():
    a = scratch_like(np.zeros(3), "a")
    assert (a.shape, a.dtype) == ((3,), np.float64)
    assert np.shares_memory(a, scratch_like(np.zeros(2), "a"))
    assert not np.shares_memory(a, scratch_like(np.zeros(3), "b"))
    single = scratch_like(np.zeros(3, np.float32), "a")
    assert (single.shape, single.dtype) == ((3,), np.float32)
    assert not np.shares_memory(a, single)
    assert scratch_like(np.zeros(1000), "a").shape == (1000,)


def test_scratch_memory_is_a_threads_own():
    found = []
    mine = scratch_like(np.zeros(3), "a")
    thread = threading.Thread(target=lambda: found.append(scratch_like(np.zeros(3), "a")))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, found[0])
