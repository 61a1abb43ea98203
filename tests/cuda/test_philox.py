"""philox.cuh against the textbook: the same words, the same decisions, for every index."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from npbert.cuda import emulator
from npbert.cuda.source import inline_includes, kernel_folder
from npbert.ops.dropout import dropout_keep_mask
from npbert.ops.philox import philox4x32

pytestmark = pytest.mark.usefixtures("emulated")

KERNELS = """#include "philox.cuh"
extern "C" __global__ void words(unsigned int *counters, unsigned int key_0, unsigned int key_1) {
    unsigned int *c = counters + 4 * threadIdx.x;
    PhiloxWords drawn = philox4x32({c[0], c[1], c[2], c[3]}, key_0, key_1);
    for (int i = 0; i < 4; ++i) c[i] = word_of(drawn, i);
}
extern "C" __global__ void keep_mask(unsigned char *mask, int n, unsigned long long first,
                                     unsigned long long seed, unsigned int layer, unsigned int site,
                                     unsigned int threshold) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) mask[i] = keep(first + i, seed, layer, site, threshold);
}
"""
words32 = st.sampled_from((0, 1, 2**31, 2**32 - 1)) | st.integers(0, 2**32 - 1)
words64 = st.sampled_from((0, 2**32 - 1, 2**32, 2**64 - 1)) | st.integers(0, 2**64 - 1)


def kernel(name):
    return emulator.compile_kernel(inline_includes(KERNELS, "philox_test.cu", kernel_folder()), name)


def test_the_published_words():
    """The known answers of Salmon et al.'s Random123 for philox4x32 of 10 rounds."""
    counters = np.zeros((1, 4), np.uint32)
    kernel("words")((1,), (1,), (counters, 0, 0))
    assert [f"{word:08x}" for word in counters[0]] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    counters = np.full((1, 4), 2**32 - 1, np.uint32)
    kernel("words")((1,), (1,), (counters, 2**32 - 1, 2**32 - 1))
    assert [f"{word:08x}" for word in counters[0]] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


@given(counters=st.lists(st.tuples(*[words32] * 4), min_size=1, max_size=8), key=st.tuples(words32, words32))
def test_words_are_the_textbooks(counters, key):
    counters = np.array(counters, np.uint32)
    expected = np.stack(philox4x32(tuple(counters.T.astype(np.uint64)), key), axis=-1)
    kernel("words")((1,), (len(counters),), (counters, *key))
    np.testing.assert_array_equal(counters, expected)


@given(
    size=st.integers(1, 70),
    rate=st.sampled_from((0.0, 0.1, 0.5, 0.9)),
    seed=words64,
    layer=words32,
    site=words32,
)
@example(size=70, rate=0.5, seed=2**63 + 5, layer=2**31 + 7, site=2)
@example(size=70, rate=0.5, seed=2**40 + 5, layer=3, site=1)
def test_decisions_are_the_textbooks(size, rate, seed, layer, site):
    mask = np.full(size, 9, np.uint8)
    kernel("keep_mask")((3,), (32,), (mask, size, 0, seed, layer, site, int(rate * 2**32)))
    np.testing.assert_array_equal(mask, dropout_keep_mask((size,), rate, seed, layer, site))


@pytest.mark.parametrize("first", [2**34 - 5, 2**36 + 3])
def test_indices_beyond_32_bits(first):
    """Blocks count four elements each: from element 2^34 on, a block's number needs its upper word."""
    mask = np.full(10, 9, np.uint8)
    kernel("keep_mask")((1,), (16,), (mask, 10, first, 7, 1, 2, 2**31))
    for i, decision in enumerate(mask):
        block, which = divmod(first + i, 4)
        word = philox4x32((block % 2**32, block >> 32, 1, 2), (7, 0))[which]
        assert decision == (word >= 2**31)


@pytest.mark.parametrize("which", range(4))
def test_an_element_whose_word_is_the_threshold_is_kept(which):
    word = philox4x32((5, 0, 1, 2), (7, 0))[which]
    for threshold, decision in ((word, 1), (word + 1, 0)):
        mask = np.full(1, 9, np.uint8)
        kernel("keep_mask")((1,), (1,), (mask, 1, 4 * 5 + which, 7, 1, 2, threshold))
        assert mask[0] == decision
