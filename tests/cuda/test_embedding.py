"""The embedding's kernels: whole numbers and exact equality, long segments, ids outside, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.cuda import emulator
from npbert.cuda.embedding import FILE, SHORTEST_CHUNK, embedding_backward, embedding_forward, scatter_add
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.ops import embedding as textbook
from tests.comparisons import assert_identical
from tests.cuda.kernel_contract import (
    DTYPES,
    SCHEDULES,
    assert_clean,
    assert_kernel_contract,
    misaligned,
)
from tests.op_contract import multilinear_terms
from tests.ops.test_embedding import (
    GRADIENTS,
    POSITIONS,
    SEGMENTS,
    VOCABULARY,
    arguments,
    padding_indices,
    scatter_loop,
    with_padding_row_held,
)
from tests.strategies import flags, integers, seeds, shapes

pytestmark = pytest.mark.usefixtures("compiler", "poisoned_memory")

# Those of 8, 64 and 384 columns are read 16 bytes at a time; 384 are more than a warp has at once.
widths = st.sampled_from((1, 2, 3, 8, 31, 33, 64, 384))
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Long enough to be split: chunks of 32 up to 1024 places, of sqrt(places) beyond.
PLACES = (1, 31, 32, 33, 64, 65, 1023, 1024, 1025, 1100)


def half_precision_normals(rng, *shape):
    """Float64 numbers that float16 can hold: rounding them leaves the padding row what it was."""
    return rng.normal(size=shape).astype(np.float16).astype(np.float64)


def whole_numbers(dtype, rng, shape, **options):
    """Arguments of whole numbers in a dtype."""
    args = arguments(rng, shape, integers, **options)
    return tuple(a.astype(dtype) if getattr(a, "dtype", None) == np.float64 else a for a in args)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize(("shape", "from_ids"), [((3, 31, 33), True), ((2, 33, 8), False)])
def test_nothing_is_touched_out_of_bounds(shape, from_ids):
    """Before all other tests: outside of the sanitizer, such a mistake may end the process they run in."""
    rng = np.random.default_rng(4)
    args = whole_numbers(np.float32, rng, shape, from_ids=from_ids)
    dy = rng.normal(size=shape).astype(np.float32)
    assert_clean(embedding_forward, embedding_backward, args, dy, "address")


@settings(max_examples=12)
@given(
    shape=shapes(2, most=70),
    width=widths,
    seed=seeds,
    from_ids=flags,
    has_positions=flags,
    padding_idx=padding_indices,
)
def test_contract(shape, width, seed, from_ids, has_positions, padding_idx):
    rng = np.random.default_rng(seed)
    shape = (*shape, width)
    args = arguments(rng, shape, half_precision_normals, from_ids, has_positions, padding_idx)
    assert_kernel_contract(
        embedding_forward,
        embedding_backward,
        with_padding_row_held(args),
        textbook.embedding_backward,
        args,
        rng,
        gradients=GRADIENTS,
        unused=() if from_ids else ("word_embeddings",),
        terms=multilinear_terms(textbook.embedding_forward, textbook.embedding_backward),
    )


@given(
    shape=shapes(2, most=100),
    width=widths,
    seed=seeds,
    dtype=st.sampled_from(DTYPES),
    from_ids=flags,
    has_positions=flags,
    padding_idx=padding_indices,
)
def test_whole_numbers_are_exact(shape, width, seed, dtype, from_ids, has_positions, padding_idx):
    rng = np.random.default_rng(seed)
    args = whole_numbers(
        dtype, rng, (*shape, width), from_ids=from_ids, has_positions=has_positions, padding_idx=padding_idx
    )
    input_ids, _, position_ids, token_type_ids, *_ = args
    dy = integers(rng, *shape, width).astype(dtype)
    y, cache = embedding_forward(*args)
    dembeds, dwords, dpositions, dtypes = embedding_backward(dy, cache)

    assert_identical(y, textbook.embedding_forward(*args)[0], "y")
    if from_ids:
        expected = scatter_loop(dy, input_ids, VOCABULARY)
        expected[[] if padding_idx is None else padding_idx] = 0
        assert_identical(dwords, expected.astype(dtype), "dword_embeddings")
        assert dembeds is None
    else:
        assert_identical(dembeds, dy, "dinputs_embeds")
        assert dwords is None
    if has_positions:
        expected = scatter_loop(dy, position_ids, POSITIONS).astype(dtype)
        assert_identical(dpositions, expected, "dposition_embeddings")
    else:
        assert dpositions is None
    assert_identical(
        dtypes, scatter_loop(dy, token_type_ids, SEGMENTS).astype(dtype), "dtoken_type_embeddings"
    )


# --- long segments --------------------------------------------------------------------------------------


def spread(places: int, kind: str, rng) -> np.ndarray:
    """Ids in [0, 5), in more or less even shares."""
    if kind == "one id":
        return np.full(places, 3)
    if kind == "two halves":
        return np.where(np.arange(places) < places // 2, 4, 1)
    if kind == "a chunk each":  # sorted, ids begin exactly where chunks do
        return rng.permutation(np.minimum(np.arange(places) // SHORTEST_CHUNK, 4))
    return rng.choice(5, size=places, p=[0.02, 0.9, 0, 0.05, 0.03])


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("kind", ["one id", "two halves", "a chunk each", "uneven"])
def test_long_segments_are_exact(places, kind):
    rng = np.random.default_rng(places)
    for width, dtype in ((3, np.float64), (8, np.float32), (16, np.float16)):
        ids = spread(places, kind, rng)
        rows = integers(rng, places, width).astype(dtype)
        expected = np.zeros((5, width))
        np.add.at(expected, ids, rows)
        assert_identical(scatter_add(rows, ids, (5, width)), expected.astype(dtype), "table")
        expected[3] = 0
        assert_identical(scatter_add(rows, ids, (5, width), padding_idx=3), expected.astype(dtype), "table")


def test_float16_is_summed_in_float32():
    # In float16, 2048 + 1 is 2048.
    rows = np.ones((4000, 1), np.float16)
    assert scatter_add(rows, np.zeros(4000, np.int64), (1, 1)).item() == 4000


def test_partial_sums_are_not_rounded():
    # Each chunk sums up to 2079 or to -2079, neither of which is a number of float16.
    chunk = np.full(SHORTEST_CHUNK, 67, np.float16)
    chunk[-1] = 2
    rows = np.concatenate([chunk, -chunk, -chunk, chunk])[:, None]
    assert rows[:SHORTEST_CHUNK].sum(dtype=np.float64) == 2079
    assert scatter_add(rows, np.zeros(len(rows), np.int64), (1, 1)).item() == 0
    assert scatter_add(rows[:-1], np.zeros(len(rows) - 1, np.int64), (1, 1)).item() == -2


def test_the_order_is_that_of_the_places():
    """Sums that depend on the order of their terms: the kernel's is that of the places within a chunk."""
    rows = np.random.default_rng(0).normal(size=(SHORTEST_CHUNK, 7)).astype(np.float32)
    ids = np.arange(SHORTEST_CHUNK) % 2
    expected = textbook.scatter_add(rows, ids, (2, 7))
    assert_identical(scatter_add(rows, ids, (2, 7)), expected, "table")
    assert not np.array_equal(textbook.scatter_add(rows[::-1], ids[::-1], (2, 7)), expected)


# --- memory ---------------------------------------------------------------------------------------------


@every_dtype
def test_rows_that_do_not_begin_at_16_bytes(dtype):
    rng = np.random.default_rng(1)
    args = whole_numbers(dtype, rng, (3, 31, 16))
    dy = integers(rng, 3, 31, 16).astype(dtype)
    floating = [i for i, a in enumerate(args) if getattr(a, "dtype", None) == dtype]
    y, cache = embedding_forward(*args)
    for moved in (floating, *([i] for i in floating)):
        some = [misaligned(a) if i in moved else a for i, a in enumerate(args)]
        assert_identical(embedding_forward(*some)[0], y, "y")
    for slot, (found, expected) in enumerate(
        zip(embedding_backward(misaligned(dy), cache), embedding_backward(dy, cache), strict=True)
    ):
        if expected is not None:
            assert_identical(found, expected, GRADIENTS[slot])


@pytest.mark.usefixtures("emulated")
def test_a_result_that_does_not_begin_at_16_bytes():
    """That of the launcher does; the kernel asks all the same."""
    table = integers(np.random.default_rng(9), 5, 8).astype(np.float32)
    ids = np.array([4, 1])
    y = misaligned(np.zeros((2, 8), np.float32))
    with emulator.options(sanitizer="address"):
        launch(
            Kernel(FILE, "embedding_forward", storage_defines(np.float32)),
            grid=(1,),
            block=(32, 8),
            args=[table, table, table, ids, ids, ids, y, 2, 8, 5, 5, 5],
        )
    assert_identical(y, 3 * table[ids], "y")


def test_default_position_ids_are_one_row_seen_many_times():
    rng = np.random.default_rng(5)
    ids, _, _, types, *tables = arguments(rng, (3, 7, 2))
    positions = textbook.default_position_ids(3, 7, 2, np)
    assert positions.strides[0] == 0
    dy = integers(rng, 3, 7, 2)
    y, cache = embedding_forward(ids, None, positions, types, *tables)
    assert_identical(y, textbook.embedding_forward(ids, None, positions, types, *tables)[0], "y")
    expected = np.zeros((POSITIONS, 2))
    expected[2:9] = dy.sum(axis=0)
    assert_identical(embedding_backward(dy, cache)[2], expected, "dposition_embeddings")


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.uint64])
def test_ids_of_any_integer_dtype(dtype):
    args = arguments(np.random.default_rng(2), (2, 31, 3))
    narrow = [a.astype(dtype) if getattr(a, "dtype", None) == np.int64 else a for a in args]
    y, cache = embedding_forward(*narrow)
    assert_identical(y, textbook.embedding_forward(*args)[0], "y")
    assert cache.input_ids.dtype == cache.position_ids.dtype == cache.token_type_ids.dtype == np.int64


def test_no_text():
    args = arguments(np.random.default_rng(3), (1, 1, 4))
    ids = np.zeros((0, 7), np.int64)
    y, cache = embedding_forward(ids, None, ids, ids, *args[4:])
    assert y.shape == (0, 7, 4)
    _, dwords, _, dtypes = embedding_backward(y, cache)
    assert_identical(dwords, np.zeros((VOCABULARY, 4)), "dword_embeddings")
    assert_identical(dtypes, np.zeros((SEGMENTS, 4)), "dtoken_type_embeddings")


@pytest.mark.usefixtures("emulated")
def test_no_two_threads_race():
    rng = np.random.default_rng(4)
    args = whole_numbers(np.float32, rng, (1, 70, 33))
    dy = rng.normal(size=(1, 70, 33)).astype(np.float32)
    assert_clean(embedding_forward, embedding_backward, args, dy, "thread")


@pytest.mark.usefixtures("emulated")
def test_long_segments_give_the_same_bits_in_all_schedules():
    rng = np.random.default_rng(6)
    rows, ids = rng.normal(size=(500, 31)).astype(np.float32), rng.integers(0, 2, size=500)
    tables = []
    for schedule in SCHEDULES:
        with emulator.options(schedule=schedule, seed=1):
            tables.append(scatter_add(rows, ids, (2, 31)))
    assert_identical(tables[1], tables[0], "table")
    assert_identical(tables[2], tables[0], "table")


# --- ids outside their table ----------------------------------------------------------------------------


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("outside", [-1, 5, 2**40, -(2**40)])
def test_an_id_outside_its_table_reads_nothing(outside):
    """The launcher does not check ids on a device; the kernel itself must not read beside a table."""
    rng = np.random.default_rng(7)
    table = integers(rng, 5, 4).astype(np.float32)
    good = np.array([1, 0, 4])
    bad = np.array([1, outside, 4])
    for ids in ((bad, good, good), (good, bad, good), (good, good, bad)):
        y = np.zeros((3, 4), np.float32)
        with emulator.options(sanitizer="address"):
            launch(
                Kernel(FILE, "embedding_forward", storage_defines(np.float32)),
                grid=(1,),
                block=(32, 8),
                args=[table, table, table, *ids, y, 3, 4, 5, 5, 5],
            )
        assert np.isnan(y[1]).all()
        assert_identical(y[[0, 2]], 3 * table[[1, 4]], "y")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("outside", [-1, 5, 2**40, -(2**40)])
def test_an_id_outside_its_table_gets_no_gradient(outside):
    rng = np.random.default_rng(8)
    rows = integers(rng, 100, 4).astype(np.float32)
    ids = rng.integers(0, 5, size=100)
    bad = rng.random(100) < 0.7  # in more than one chunk
    with emulator.options(sanitizer="address"):
        table = scatter_add(rows, np.where(bad, outside, ids), (5, 4))
    assert_identical(table, textbook.scatter_add(rows[~bad], ids[~bad], (5, 4)), "table")


# --- bad input ------------------------------------------------------------------------------------------

ARGUMENTS = (
    "input_ids",
    "inputs_embeds",
    "position_ids",
    "token_type_ids",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "padding_idx",
)
IDS = np.array([[0, 1, 2]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": None}, "neither of input_ids and inputs_embeds given; one is needed"),
        ({"inputs_embeds": np.ones((1, 3, 4))}, "both of input_ids and inputs_embeds given; one is needed"),
        (
            {"input_ids": IDS + 3},
            r"input_ids is 5 at \[0, 2\]; it must be in \[0, 5\) .*word_embeddings is 5",
        ),
        ({"input_ids": IDS - 1}, r"input_ids is -1 at \[0, 0\]; it must be in \[0, 5\)"),
        ({"position_ids": IDS + 4}, r"position_ids is 6 at \[0, 2\]; .*position_embeddings is 6"),
        ({"token_type_ids": IDS}, r"token_type_ids is 2 at \[0, 2\]; .*token_type_embeddings is 2"),
        ({"input_ids": IDS.astype(float)}, "input_ids is float64; it must be an array of integers"),
        ({"token_type_ids": IDS > 0}, "token_type_ids is bool; it must be an array of integers"),
        ({"position_ids": [[0, 1, 2]]}, "position_ids is list; it must be an array of integers"),
        ({"position_ids": IDS[:, :2]}, r"position_ids has shape \(1, 2\); expected \(1, 3\)"),
        ({"input_ids": IDS[0]}, r"input_ids has shape \(3,\); expected \(1, 3\)"),
        ({"word_embeddings": np.ones((5, 4), int)}, "word_embeddings is int64; it must be one of float64"),
        ({"word_embeddings": np.ones((5, 4), complex)}, "word_embeddings is complex128"),
        ({"word_embeddings": np.ones(5)}, r"word_embeddings has shape \(5,\)"),
        ({"position_embeddings": np.ones((6, 4), np.float32)}, "position_embeddings float32; .* same dtype"),
        ({"position_embeddings": np.ones((6, 3))}, r"position_embeddings has shape \(6, 3\)"),
        ({"token_type_embeddings": np.ones((2, 5))}, r"token_type_embeddings has shape \(2, 5\)"),
        (
            {"input_ids": None, "inputs_embeds": np.ones((1, 3, 5))},
            r"inputs_embeds has shape \(1, 3, 5\); expected \(1, 3, 4\)",
        ),
        ({"padding_idx": 5}, r"padding_idx is 5; it must be in \[0, 5\)"),
        ({"padding_idx": -1}, "padding_idx is -1"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    good = (IDS, None, IDS, IDS // 2, np.ones((5, 4)), np.ones((6, 4)), np.ones((2, 4)), 0)
    embedding_forward(*good)
    args = dict(zip(ARGUMENTS, good, strict=True)) | changes
    with pytest.raises(ValueError, match=f"embedding_forward: .*{message}"):
        embedding_forward(**args)


@pytest.mark.parametrize(
    ("dy", "message"),
    [
        (np.ones((1, 3, 5)), r"dy has shape \(1, 3, 5\); expected \(1, 3, 4\)"),
        (np.ones((1, 3, 4), int), "dy is int64; it must be one of float64"),
    ],
)
def test_a_bad_cotangent_is_named(dy, message):
    _, cache = embedding_forward(
        IDS, None, IDS, IDS // 2, np.ones((5, 4)), np.ones((6, 4)), np.ones((2, 4)), 0
    )
    with pytest.raises(ValueError, match=f"embedding_backward: {message}"):
        embedding_backward(dy, cache)
