"""Philox4x32-10 against the published answers and against one written with Python's integers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npbert.ops.philox import philox4x32

words = st.integers(0, 2**32 - 1)

# kat_vectors of Random123, the authors' own library: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def parse(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


def philox_loop(counter, key):
    """The algorithm as the paper writes it, on Python's unbounded integers."""
    left_0, right_0, left_1, right_1 = counter
    key_0, key_1 = key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * left_0, 2**32)
        high_1, low_1 = divmod(0xCD9E8D57 * left_1, 2**32)
        left_0, right_0 = high_1 ^ right_0 ^ key_0, low_1
        left_1, right_1 = high_0 ^ right_1 ^ key_1, low_0
        key_0 = (key_0 + 0x9E3779B9) % 2**32
        key_1 = (key_1 + 0xBB67AE85) % 2**32
    return left_0, right_0, left_1, right_1


def test_known_answers():
    for counter, key, result in KNOWN_ANSWERS:
        assert tuple(int(word) for word in philox4x32(parse(counter), parse(key))) == parse(result)


def test_known_answers_in_one_array():
    counters = np.array([parse(counter) for counter, _, _ in KNOWN_ANSWERS], dtype=np.uint32)
    for row, (_, key, result) in enumerate(KNOWN_ANSWERS):
        drawn = philox4x32(tuple(counters.T), parse(key))
        assert all(word.dtype == np.uint32 and word.shape == (3,) for word in drawn)
        assert tuple(int(word[row]) for word in drawn) == parse(result)


@given(counter=st.tuples(words, words, words, words), key=st.tuples(words, words))
def test_agrees_with_the_loop(counter, key):
    assert tuple(int(word) for word in philox4x32(counter, key)) == philox_loop(counter, key)


def test_counter_words_broadcast():
    first = np.arange(5, dtype=np.uint32)[:, None]
    third = np.arange(3, dtype=np.uint32)
    drawn = philox4x32((first, 7, third, 2**32 - 1), (8, 9))
    for i in range(5):
        for j in range(3):
            assert tuple(int(w[i, j]) for w in drawn) == philox_loop((i, 7, j, 2**32 - 1), (8, 9))


def test_inputs_are_not_written_to():
    counter = tuple(np.arange(4, dtype=np.uint64) + k for k in range(4))
    before = [word.copy() for word in counter]
    philox4x32(counter, (1, 2))
    for word, copy in zip(counter, before, strict=True):
        np.testing.assert_array_equal(word, copy)
