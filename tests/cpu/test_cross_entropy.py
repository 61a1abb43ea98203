"""cross-entropy of the CPU engine: the contract, the textbook, large logits, workers; and its decoder."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given

from npbert import ops
from npbert.cpu import cross_entropy as engine
from npbert.cpu.cross_entropy import (
    CrossEntropyCache,
    cross_entropy_backward,
    cross_entropy_forward,
    decoder_cross_entropy,
)
from npbert.cpu.workers import workers
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.cpu.accuracy import assert_as_accurate_as_the_textbook
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.cuda.kernel_contract import assert_within_budget
from tests.op_contract import as_dtype, assert_op_contract, other_layouts, read_only
from tests.ops.test_cross_entropy import (
    GRADIENTS,
    arguments,
    extreme_scales,
    ignore_indices,
    reductions,
    terms,
)
from tests.oracles import complex_step_gradient
from tests.strategies import scales, seeds, shapes
from tests.tolerances import COMPLEX_STEP, ROUND_OFF, U64

ENGINE = (cross_entropy_forward, cross_entropy_backward)
TEXTBOOK = (ops.cross_entropy_forward, ops.cross_entropy_backward)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture
def small_blocks(monkeypatch):
    for name, value in (
        ("BLOCK_BYTES", 400),
        ("TOKENS_AT_ONCE", 7),
        ("WORDS_AT_ONCE", 5),
        ("BLOCKS_IN_A_PIECE", 3),
    ):
        monkeypatch.setattr(engine, name, value)


# --- the op ---------------------------------------------------------------------------------------------


@given(shape=shapes(3), seed=seeds, scale=scales, ignore_index=ignore_indices, reduction=reductions)
def test_contract(shape, seed, scale, ignore_index, reduction):
    """The complex step goes through the textbook, which complex arrays are left to."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, ignore_index, reduction, scale)
    assert_op_contract(*ENGINE, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=shapes(3), seed=seeds, scale=extreme_scales, ignore_index=ignore_indices, reduction=reductions)
def test_float32_is_as_accurate_as_the_textbook(shape, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, ignore_index, reduction, scale)
    assert_as_accurate_as_the_textbook(ENGINE, TEXTBOOK, args, rng, gradients=GRADIENTS, terms=terms)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("classes", [2, 11, 301])
def test_many_blocks(scale, classes):
    rng = np.random.default_rng(1)
    args = arguments(rng, (3, 17, classes), scale=scale)
    dloss = np.float64(rng.normal())
    loss, cache = cross_entropy_forward(*args)
    expected, expected_cache = ops.cross_entropy_forward(*args)
    size, dsize = terms(dloss, *args)
    dlogits, expected_dlogits = (
        cross_entropy_backward(dloss, cache),
        ops.cross_entropy_backward(dloss, expected_cache),
    )
    assert isinstance(cache, CrossEntropyCache)
    assert_rows_close(loss, expected, what="loss", round_off=ROUND_OFF * U64, terms=size)
    assert_rows_close(dlogits, expected_dlogits, what="dlogits", round_off=ROUND_OFF * U64, terms=dsize)
    assert not dlogits[args[1] == -100].any()


@both_dtypes
def test_logits_of_ten_thousand(dtype):
    logits = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    labels = np.array([0, 1, 2, 0])
    loss, cache = cross_entropy_forward(logits, labels, reduction="sum")
    assert loss.dtype == dtype
    assert loss == pytest.approx(2e4 + math.log(3) + math.log(2), rel=float(np.finfo(dtype).eps))
    third = dtype(1) / 3
    expected = [[0, 0, 0], [1, -1, 0], [third, third, third - 1], [-0.5, 0.5, 0]]
    assert_identical(cross_entropy_backward(dtype(1), cache), np.array(expected, dtype), "dlogits")


@both_dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_nothing_labelled_costs_nothing(dtype, reduction):
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(2, 3, 5)).astype(dtype)
    loss, cache = cross_entropy_forward(logits, np.full((2, 3), -100), reduction=reduction)
    assert loss.dtype == dtype
    assert loss == 0
    assert_identical(cross_entropy_backward(dtype(3.0), cache), np.zeros((2, 3, 5), dtype), "dlogits")


def test_no_rows():
    loss, cache = cross_entropy_forward(np.zeros((0, 3)), np.zeros(0, int))
    assert loss == 0
    assert cross_entropy_backward(1.0, cache).shape == (0, 3)


@pytest.mark.usefixtures("small_blocks")
def test_same_bits_for_any_number_of_workers():
    rng = np.random.default_rng(3)
    assert_same_for_any_workers(*ENGINE, arguments(rng, (3, 37, 11), scale=20.0), rng)


def test_the_cache_holds_no_second_array_of_scores():
    rng = np.random.default_rng(4)
    logits, labels, *_ = arguments(rng, (50, 1000))
    _, cache = cross_entropy_forward(logits, labels)
    assert cache.logits is logits
    assert sum(a.nbytes for a in cache if isinstance(a, np.ndarray)) < 1.1 * logits.nbytes


@pytest.mark.parametrize(
    "function", [cross_entropy_forward, lambda x, y, *a: decoder_cross_entropy(x, x, x[0], y, *a)]
)
def test_another_reduction_is_an_error_that_names_it(function):
    with pytest.raises(ValueError, match='reduction is \'none\'; it must be "mean" or "sum"'):
        function(np.zeros((3, 3)), np.array([0, 1, 2]), -100, "none")


# --- with its decoder -----------------------------------------------------------------------------------

NAMES = ("loss", "dhidden", "dweight", "dbias")
decoder_shapes = shapes(3, most=400)  # M, D, V


def decoder_arguments(rng, shape, ignore_index=-100, reduction="mean", scale=1.0, ignored=0.3):
    tokens, width, words = shape
    labels = rng.integers(0, words, size=tokens)
    labels = np.where(rng.random(tokens) < ignored, ignore_index, labels)
    hidden, weight, bias = (
        rng.normal(size=(tokens, width)),
        rng.normal(size=(words, width)),
        rng.normal(size=words),
    )
    return scale * hidden, weight, bias, labels, ignore_index, reduction


def op_by_op(hidden, weight, bias, labels, ignore_index, reduction):
    """Loss and gradients of the textbook's decoder and cross-entropy."""
    logits, decoder_cache = ops.linear_forward(hidden, weight, bias)
    loss, loss_cache = ops.cross_entropy_forward(logits, labels, ignore_index, reduction)
    dlogits = ops.cross_entropy_backward(hidden.dtype.type(1), loss_cache)
    return (loss, *ops.linear_backward(dlogits, decoder_cache))


def loss_and_gradients(*args):
    """What the engine computes and the textbook, too: all but the number of right words."""
    return decoder_cross_entropy(*args)[:-1]


def decoder_terms(hidden, weight, bias, labels, ignore_index, reduction):
    """As `terms`, but a logit's own round-off is that of its sum of products."""
    logits = hidden @ weight.T + bias
    size = np.abs(hidden) @ np.abs(weight).T + np.abs(bias)
    probs = ops.softmax_forward(logits)[0]
    loss_size, dsize = terms(1.0, logits, labels, ignore_index, reduction)
    counted = labels != ignore_index
    weight_of_one = 1 / max(np.count_nonzero(counted), 1) if reduction == "mean" else 1.0
    row = size.max(axis=-1, keepdims=True)
    dsize = dsize + 2 * probs * row * counted[:, None] * weight_of_one
    return [
        loss_size + 2 * np.sum(row[:, 0] * counted) * weight_of_one,
        dsize @ np.abs(weight),
        dsize.T @ np.abs(hidden),
        dsize.sum(axis=0),
    ]


def assert_is_op_by_op(args):
    for name, actual, expected, size in zip(
        NAMES, loss_and_gradients(*args), op_by_op(*args), decoder_terms(*args), strict=True
    ):
        assert_rows_close(actual, expected, what=name, round_off=ROUND_OFF * U64, terms=size)


@given(
    shape=decoder_shapes, seed=seeds, scale=extreme_scales, ignore_index=ignore_indices, reduction=reductions
)
def test_decoder_is_op_by_op(shape, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    assert_is_op_by_op(decoder_arguments(rng, shape, ignore_index, reduction, scale))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("shape", [(7, 3, 5), (14, 3, 31), (24, 5, 43), (1, 3, 43)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_decoder_in_many_chunks_of_tokens_and_words(shape, scale, reduction):
    rng = np.random.default_rng(5)
    assert_is_op_by_op(decoder_arguments(rng, shape, -100, reduction, scale, ignored=0.2))


@pytest.mark.usefixtures("small_blocks")
@both_dtypes
@pytest.mark.parametrize("scale", [1.0, 1e3])
@given(seed=seeds)
def test_decoder_counts_the_words_that_it_gets_right(dtype, scale, seed):
    """Half of the labels are the textbook's best words."""
    rng = np.random.default_rng(seed)
    hidden, weight, bias, labels, *rest = (
        as_dtype(dtype, a) for a in decoder_arguments(rng, (24, 5, 43), scale=scale)
    )
    best = (hidden @ weight.T + bias).argmax(axis=-1)
    labels = np.where((labels != -100) & (rng.random(24) < 0.5), best, labels)
    expected = np.count_nonzero(labels == best)
    assert 0 < expected < 24
    assert decoder_cross_entropy(hidden, weight, bias, labels, *rest).correct == expected


@pytest.mark.usefixtures("small_blocks")
def test_decoder_gradients_are_those_of_the_complex_step():
    rng = np.random.default_rng(6)
    args = decoder_arguments(rng, (17, 3, 13))
    sizes = decoder_terms(*args)
    found = decoder_cross_entropy(*args)

    def loss(hidden, weight, bias, labels, ignore_index, reduction):
        logits, _ = ops.linear_forward(hidden, weight, bias)
        return ops.cross_entropy_forward(logits, labels, ignore_index, reduction)[0]

    for position, name in enumerate(NAMES[1:]):
        assert_rows_close(
            found[1 + position],
            complex_step_gradient(loss, args, position, np.float64(1)),
            what=name,
            relative=COMPLEX_STEP,
            round_off=ROUND_OFF * U64,
            terms=sizes[1 + position],
        )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("scale", [1.0, 30.0])
@given(seed=seeds)
def test_decoder_in_float32_is_as_accurate_as_op_by_op(seed, scale):
    rng = np.random.default_rng(seed)
    args = [as_dtype(np.float32, a) for a in decoder_arguments(rng, (24, 5, 43), scale=scale)]
    exact = [as_dtype(np.float64, a) for a in args]
    for name, actual, expected, unfused, size in zip(
        NAMES,
        loss_and_gradients(*args),
        op_by_op(*exact),
        op_by_op(*args),
        decoder_terms(*exact),
        strict=True,
    ):
        assert actual.dtype == np.float32
        assert actual.shape == expected.shape
        assert_within_budget(actual, expected, unfused, size, name)


@pytest.mark.usefixtures("small_blocks")
@both_dtypes
def test_decoder_has_the_same_bits_for_any_workers_and_writes_to_nothing(dtype):
    rng = np.random.default_rng(7)
    args = [read_only(as_dtype(dtype, a)) for a in decoder_arguments(rng, (24, 5, 43))]
    expected = loss_and_gradients(*args)
    for count in (1, 2, 3):
        with workers(count):
            for name, actual, reference in zip(NAMES, loss_and_gradients(*args), expected, strict=True):
                assert_identical(actual, reference, f"{name}, {count} workers")


@pytest.mark.parametrize("layout", range(3))
def test_decoder_takes_other_layouts(layout):
    rng = np.random.default_rng(8)
    args = decoder_arguments(rng, (9, 5, 43))
    found = loss_and_gradients(*(other_layouts(a)[layout] for a in args))
    for name, actual, reference, size in zip(
        NAMES, found, loss_and_gradients(*args), decoder_terms(*args), strict=True
    ):
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=size)


@both_dtypes
@pytest.mark.parametrize("tokens", [0, 5])
def test_decoder_without_a_label_costs_nothing(dtype, tokens):
    rng = np.random.default_rng(9)
    args = [as_dtype(dtype, a) for a in decoder_arguments(rng, (tokens, 3, 7), ignored=1.0)]
    for name, actual, expected in zip(NAMES, loss_and_gradients(*args), op_by_op(*args), strict=True):
        assert_identical(actual, np.zeros_like(expected), name)


def test_decoder_gives_unlabelled_tokens_exactly_zero_and_does_not_read_them():
    rng = np.random.default_rng(10)
    hidden, weight, bias, labels, *rest = decoder_arguments(rng, (24, 5, 43))
    ignored = labels == -100
    assert 0 < ignored.sum() < len(labels)
    expected = decoder_cross_entropy(hidden, weight, bias, labels, *rest)
    hidden[ignored] = np.nan
    found = decoder_cross_entropy(hidden, weight, bias, labels, *rest)
    for name, actual, reference in zip(NAMES, found[:-1], expected[:-1], strict=True):
        assert_identical(actual, reference, name)
    assert not expected.dhidden[ignored].any()
    assert expected.dhidden[~ignored].any(axis=-1).all()


@pytest.mark.parametrize("label", [-1, 7])
def test_decoder_names_a_label_that_is_no_word(label):
    rng = np.random.default_rng(11)
    hidden, weight, bias, labels, *_ = decoder_arguments(rng, (4, 3, 7))
    labels[2] = label
    with pytest.raises(ValueError, match=f"labels contain {label}; all must be at least 0 and less than 7"):
        decoder_cross_entropy(hidden, weight, bias, labels)


def test_decoder_names_dtypes_that_it_cannot_take():
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match="hidden, weight and bias are float64, float32 and float64"):
        decoder_cross_entropy(x, x.astype(np.float32), x[:, 0], np.array([0, 1]))


def test_decoder_never_holds_all_scores():
    rng = np.random.default_rng(12)
    tokens, width, words = 6000, 8, 3000
    args = [as_dtype(np.float32, a) for a in decoder_arguments(rng, (tokens, width, words), ignored=0.0)]
    tracemalloc.start()
    try:
        found = decoder_cross_entropy(*args)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for name, array in zip(NAMES, found[:-1], strict=True):
        assert_finite(array, name)
    assert peak < 0.125 * tokens * words * 4
