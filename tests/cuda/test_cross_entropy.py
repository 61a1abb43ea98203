"""The cross-entropy kernels: the contract, a vocabulary, far logits, labels that are no class, in place."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.cuda import cross_entropy as engine
from npbert.cuda import emulator
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.ops import cross_entropy as textbook
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.cuda.kernel_contract import (
    DTYPES,
    ROUND_OFF_OF,
    SCHEDULES,
    assert_clean,
    assert_kernel_contract,
    misaligned,
)
from tests.op_contract import as_dtype
from tests.ops.test_cross_entropy import (
    GRADIENTS,
    arguments,
    extreme_scales,
    ignore_indices,
    reductions,
    terms,
)
from tests.strategies import seeds
from tests.tolerances import U64, ZERO_ROW_SUM

pytestmark = pytest.mark.usefixtures("compiler")

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
# Rows of 31, 33 or 1,002 elements begin anywhere between two multiples of 16 bytes.
class_counts = st.sampled_from((1, 2, 3, 7, 31, 33, 64, 300, 1002))
row_counts = st.sampled_from((1, 2, 3, 5, 33))
batches = given(
    rows=row_counts,
    classes=class_counts,
    seed=seeds,
    scale=extreme_scales,
    ignore_index=ignore_indices,
    reduction=reductions,
)
VOCABULARY = 30522


def assert_contract(args, rng, **options):
    """Hold the kernels to the contract."""
    assert_kernel_contract(
        engine.cross_entropy_forward,
        engine.cross_entropy_backward,
        textbook.cross_entropy_forward,
        textbook.cross_entropy_backward,
        args,
        rng,
        gradients=GRADIENTS,
        terms=terms,
        **options,
    )


@settings(max_examples=30)
@batches
def test_contract(rows, classes, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    assert_contract(arguments(rng, (rows, classes), ignore_index, reduction, scale), rng)


@pytest.mark.parametrize("rows", [(), (2, 3, 1)])
def test_any_number_of_leading_axes(rows):
    rng = np.random.default_rng(0)
    assert_contract(arguments(rng, (*rows, 12), ignored=0.2), rng)


def test_the_vocabulary_of_bert():
    """Rows of 30,522 elements: not one of three begins where the one before it did, in bytes modulo 16."""
    rng = np.random.default_rng(1)
    logits, labels, *rest = arguments(rng, (3, VOCABULARY), scale=3.0)
    labels[:] = 0, VOCABULARY - 1, VOCABULARY // 2
    assert_contract((logits, labels, *rest), rng)


@pytest.mark.parametrize("rows", [511, 513, 1100])
def test_more_rows_than_the_threads_that_add_up_their_losses(rows):
    rng = np.random.default_rng(2)
    assert_contract(arguments(rng, (rows, 2)), rng, dtypes=(np.float64,))


# --- logits ---------------------------------------------------------------------------------------------


@every_dtype
def test_logits_of_ten_thousand(dtype):
    logits = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [-1e4, -1e4, -1e4], [1e4, 1e4, -1e4]], dtype)
    labels = np.array([0, 1, 2, 0])
    loss, cache = engine.cross_entropy_forward(logits, labels, reduction="sum")
    assert loss.dtype == dtype
    assert loss == pytest.approx(2e4 + math.log(3) + math.log(2), rel=float(np.finfo(dtype).eps))
    third = dtype(1) / dtype(3)
    expected = [[0, 0, 0], [1, -1, 0], [third, third, -2 * third], [-0.5, 0.5, 0]]
    dlogits = engine.cross_entropy_backward(1.0, cache)
    assert dlogits.dtype == dtype
    assert_finite(dlogits, "dlogits")
    np.testing.assert_allclose(dlogits, expected, rtol=float(np.finfo(dtype).eps), atol=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_far_logits_keep_the_small_differences(dtype):
    """A saved log-sum-exp of 1e4 would be rounded by 5e-4 in float32; only differences are to be rounded."""
    rng = np.random.default_rng(3)
    logits = (1e4 + rng.integers(-1024, 1024, size=(5, 33)) / 1024).astype(dtype)  # exact in float32
    labels = rng.integers(0, 33, size=5)
    loss, cache = engine.cross_entropy_forward(logits, labels)
    near_loss, near_cache = engine.cross_entropy_forward(logits - dtype(1e4), labels)
    assert_identical(loss, near_loss, "loss")
    dlogits = engine.cross_entropy_backward(dtype(1.5), cache)
    assert_identical(dlogits, engine.cross_entropy_backward(dtype(1.5), near_cache), "dlogits")


@every_dtype
@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 0.1])
@pytest.mark.parametrize("classes", [1, 2, 7, 33, 256])
def test_equal_logits_cost_the_logarithm_of_the_number_of_classes(dtype, value, classes):
    logits, labels = np.full((3, classes), value, dtype), np.array([0, classes - 1, -100])
    loss, cache = engine.cross_entropy_forward(logits, labels)
    assert loss == pytest.approx(math.log(classes), rel=ROUND_OFF_OF[dtype])
    expected = np.full((3, classes), 0.5 / classes)
    expected[0, 0] -= 0.5
    expected[1, classes - 1] -= 0.5
    expected[2] = 0
    dlogits = engine.cross_entropy_backward(1, cache)
    assert_finite(dlogits, "dlogits")
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=ROUND_OFF_OF[dtype])


@every_dtype
@pytest.mark.parametrize("classes", [9, 1030])
def test_classes_that_are_ruled_out(dtype, classes):
    """Logits of minus infinity, whole threads of them: probability 0, gradient 0."""
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(3, classes)).astype(dtype)
    allowed = np.arange(classes) % 503 == 2
    ruled_out = np.where(allowed, logits, dtype(-np.inf))
    labels = np.array([2, 2, 2])
    loss, cache = engine.cross_entropy_forward(ruled_out, labels)
    dlogits = engine.cross_entropy_backward(dtype(2), cache)
    few = np.ascontiguousarray(logits[:, allowed]), np.zeros(3, int)
    few_loss, few_cache = engine.cross_entropy_forward(*few)
    assert_rows_close(
        loss, few_loss.astype(float), what="loss", round_off=ROUND_OFF_OF[dtype], terms=few_loss + 1
    )
    few_dlogits = engine.cross_entropy_backward(dtype(2), few_cache).astype(float)
    np.testing.assert_allclose(dlogits[:, allowed], few_dlogits, rtol=0, atol=ROUND_OFF_OF[dtype])
    assert not dlogits[:, ~allowed].any()


@given(rows=row_counts, classes=class_counts, seed=seeds, scale=extreme_scales, reduction=reductions)
def test_gradient_rows_sum_to_zero_and_ignored_ones_are_zero(rows, classes, seed, scale, reduction):
    rng = np.random.default_rng(seed)
    args = arguments(rng, (rows, classes), reduction=reduction, scale=scale)
    dloss = np.float64(1 + rng.random())
    dlogits = engine.cross_entropy_backward(dloss, engine.cross_entropy_forward(*args)[1])
    size = terms(dloss, *args)[1]
    assert (np.abs(dlogits.sum(axis=-1)) <= ZERO_ROW_SUM * U64 * size.sum(axis=-1)).all()
    counted = args[1] != -100
    assert not dlogits[~counted].any()
    if classes > 1:
        at_label = np.take_along_axis(dlogits[counted], args[1][counted][:, None], axis=-1)
        assert (at_label <= 0).all()


# --- labels ---------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 33)])
def test_nothing_labelled_costs_nothing(dtype, reduction, shape):
    logits = np.random.default_rng(5).normal(size=shape).astype(dtype)
    labels = np.full(shape[:-1], -100)
    loss, cache = engine.cross_entropy_forward(logits, labels, reduction=reduction)
    assert loss.dtype == dtype
    assert loss == 0
    dlogits = engine.cross_entropy_backward(dtype(3.0), cache)
    assert_identical(dlogits, np.zeros(shape, dtype), "dlogits")


def test_no_rows():
    logits, labels = np.zeros((0, 7), np.float32), np.zeros(0, int)
    loss, cache = engine.cross_entropy_forward(logits, labels)
    assert_identical(loss, np.float32(0), "loss")
    assert engine.cross_entropy_backward(1.0, cache).shape == (0, 7)
    assert engine.cross_entropy_in_place(logits, labels)[0] == 0


def test_ignored_rows_are_not_read():
    rng = np.random.default_rng(6)
    logits, labels, *_ = arguments(rng, (31, 5))
    other = np.where((labels == -100)[:, None], np.nan, logits)
    loss, cache = engine.cross_entropy_forward(logits, labels)
    other_loss, other_cache = engine.cross_entropy_forward(other, labels)
    assert_identical(other_loss, loss, "loss")
    dloss = np.float64(1.5)
    dlogits = engine.cross_entropy_backward(dloss, cache)
    assert_identical(engine.cross_entropy_backward(dloss, other_cache), dlogits, "dlogits")
    assert_identical(engine.cross_entropy_in_place(other, labels)[0], loss, "loss in place")


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8, np.uint64])
def test_labels_of_any_integer_dtype(dtype):
    rng = np.random.default_rng(7)
    logits, labels, *_ = arguments(rng, (5, 7), ignore_index=3)
    loss, cache = engine.cross_entropy_forward(logits, labels, ignore_index=3)
    same_loss, same_cache = engine.cross_entropy_forward(logits, labels.astype(dtype), ignore_index=3)
    assert_identical(same_loss, loss, "loss")
    assert_identical(same_cache.labels, cache.labels, "labels")


@pytest.mark.usefixtures("emulated")
@every_dtype
@pytest.mark.parametrize("outside", [-1, 33, 2**40, -(2**40)])
def test_a_label_that_is_no_class_reads_nothing(dtype, outside):
    """The launcher does not check labels on a device; the kernels must not read or write beside a row."""
    rng = np.random.default_rng(8)
    logits = rng.normal(size=(3, 33)).astype(dtype)
    labels = np.array([1, outside, -100])
    sums = np.float64 if dtype == np.float64 else np.float32
    losses, row_max, row_total = np.zeros((3, 3), sums)
    weight, dloss, dlogits = np.ones(1, sums), np.ones(1, sums), np.zeros_like(logits)

    def run(name, args):
        launch(Kernel(engine.FILE, name, storage_defines(dtype)), grid=(3,), block=(32,), args=args)

    with emulator.options(sanitizer="address" if dtype == np.float32 else None):
        run("cross_entropy_forward", [logits, labels, losses, row_max, row_total, 33, -100])
        run(
            "cross_entropy_backward",
            [logits, labels, row_max, row_total, weight, dloss, dlogits, 33, -100],
        )
        in_place = logits.copy()
        run("cross_entropy_in_place", [in_place, labels, weight, losses, 33, -100])
    assert np.isnan(losses).tolist() == [False, True, False]
    for found in (dlogits, in_place):
        assert np.isnan(found[1]).all()
        assert np.isfinite(found[[0, 2]]).all()


# --- dloss ----------------------------------------------------------------------------------------------


@every_dtype
def test_any_real_number_will_do_for_dloss(dtype):
    rng = np.random.default_rng(9)
    args = tuple(as_dtype(dtype, a) for a in arguments(rng, (5, 7)))
    _, cache = engine.cross_entropy_forward(*args)
    expected = engine.cross_entropy_backward(dtype(3), cache)
    assert expected.any()
    for dloss in (3, 3.0, np.float64(3), np.float32(3), np.array(3.0), np.int8(3)):
        assert_identical(engine.cross_entropy_backward(dloss, cache), expected, "dlogits")


@pytest.mark.parametrize(
    ("dloss", "message"),
    [
        (np.ones(1), r"dloss has shape \(1,\); it must be one number"),
        (np.ones((5, 7)), r"dloss has shape \(5, 7\); it must be one number"),
        ([1.0, 2.0], r"dloss has shape \(2,\); it must be one number"),
        (1j, "dloss is 1j; it must be a real number"),
        ("1", "dloss is '1'; it must be a real number"),
        (None, "dloss is None; it must be a real number"),
    ],
)
def test_another_dloss_is_named(dloss, message):
    _, cache = engine.cross_entropy_forward(np.zeros((2, 3)), np.array([0, 1]))
    with pytest.raises(ValueError, match=f"^cross_entropy_backward: {message}"):
        engine.cross_entropy_backward(dloss, cache)


# --- in place -------------------------------------------------------------------------------------------


@settings(max_examples=30)
@batches
def test_in_place_is_forward_and_backward(rows, classes, seed, scale, ignore_index, reduction):
    rng = np.random.default_rng(seed)
    dtype = DTYPES[rng.integers(len(DTYPES))]
    args = arguments(rng, (rows, classes), ignore_index, reduction, scale)
    logits, *rest = (as_dtype(dtype, a) for a in args)
    loss, cache = engine.cross_entropy_forward(logits, *rest)
    expected = engine.cross_entropy_backward(1.0, cache)
    overwritten = logits.copy()
    found, dlogits = engine.cross_entropy_in_place(overwritten, *rest)
    assert dlogits is overwritten
    np.testing.assert_array_equal(found, loss, "loss", strict=True)  # in float16 the sum may be infinite
    assert_identical(dlogits, expected, "dlogits")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_in_place_in_any_order(schedule):
    """The first thread reads the label's logit, which another one overwrites."""
    rng = np.random.default_rng(10)
    logits, labels, *rest = arguments(rng, (5, 300), ignored=0.0)
    loss, cache = engine.cross_entropy_forward(logits, labels, *rest)
    with emulator.options(schedule=schedule, seed=3):
        found, dlogits = engine.cross_entropy_in_place(logits.copy(), labels, *rest)
    assert_identical(found, loss, "loss")
    assert_identical(dlogits, engine.cross_entropy_backward(1.0, cache), "dlogits")


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((3, 2)).T, r"logits are not C-contiguous: shape \(2, 3\), strides \(8, 16\)"),
        (np.broadcast_to(0.0, (2, 3)), "logits are not C-contiguous"),
        (np.frombuffer(bytes(48)).reshape(2, 3), "logits are read-only"),
    ],
)
def test_logits_that_cannot_be_overwritten_are_named(logits, message):
    with pytest.raises(ValueError, match=f"^cross_entropy_in_place: {message}"):
        engine.cross_entropy_in_place(logits, np.array([0, 1]))


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("emulated")
@every_dtype
@pytest.mark.parametrize("classes", [3, 33, 64, 300])
def test_rows_that_begin_anywhere(dtype, classes):
    """The logits' rows begin elsewhere than those of dlogits: neither is read in packs."""
    rng = np.random.default_rng(11)
    logits, labels, *rest = (as_dtype(dtype, a) for a in arguments(rng, (9, classes)))
    moved = misaligned(logits)
    loss, cache = engine.cross_entropy_forward(logits, labels, *rest)
    moved_loss, moved_cache = engine.cross_entropy_forward(moved, labels, *rest)
    exact = (logits.astype(np.float64), labels, *rest)
    loss_size, size = terms(np.float64(1.5), *exact)
    round_off = ROUND_OFF_OF[dtype]
    assert_rows_close(moved_loss, loss.astype(float), what="loss", round_off=round_off, terms=loss_size)
    dlogits = engine.cross_entropy_backward(dtype(1.5), cache).astype(np.float64)
    found = engine.cross_entropy_backward(dtype(1.5), moved_cache)
    assert_rows_close(found, dlogits, what="dlogits", round_off=round_off, terms=size)
    engine.cross_entropy_in_place(moved, labels, *rest)
    assert_rows_close(1.5 * moved.astype(float), dlogits, what="in place", round_off=round_off, terms=size)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_clean(sanitizer):
    """Rows that begin anywhere; more than one warp; labels ignored, first, last."""
    rng = np.random.default_rng(12)
    logits, labels, *rest = (as_dtype(np.float32, a) for a in arguments(rng, (6, 301), ignored=0.0))
    labels[:3] = -100, 0, 300
    pair = engine.cross_entropy_forward, engine.cross_entropy_backward
    assert_clean(*pair, (logits, labels, *rest), np.float32(1.5), sanitizer)

    def forward(logits):
        return engine.cross_entropy_in_place(logits.copy(), labels, *rest)

    assert_clean(forward, lambda _, dlogits: dlogits, (logits,), None, sanitizer)


# --- bad input ------------------------------------------------------------------------------------------

LOGITS, LABELS = np.zeros((2, 3)), np.array([0, 2])


@pytest.mark.parametrize("op", [engine.cross_entropy_forward, engine.cross_entropy_in_place])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": LOGITS.astype(int)}, "logits is int64; it must be one of float64, float32, float16"),
        ({"logits": LOGITS.astype(np.longdouble)}, "logits is (float128|longdouble)"),
        ({"logits": [[0.0, 1.0]]}, "logits is a list, not an array"),
        ({"logits": None}, "logits is a NoneType, not an array"),
        ({"logits": np.zeros(())}, r"logits has shape \(\); its rows must have at least one element"),
        ({"logits": np.zeros((2, 0))}, r"logits has shape \(2, 0\); its rows must have at least one element"),
        ({"labels": LABELS + 1}, r"labels is 3 at \[1\]; it must be in \[0, 3\), or -100 .*classes is 3"),
        ({"labels": LABELS - 1}, r"labels is -1 at \[0\]; it must be in \[0, 3\), or -100"),
        ({"labels": LABELS.astype(float)}, "labels are float64; they must be an array of integers"),
        ({"labels": LABELS > 0}, "labels are bool; they must be an array of integers"),
        ({"labels": [0, 2]}, "labels are list; they must be an array of integers"),
        ({"labels": LABELS[:1]}, r"labels has shape \(1,\); expected \(2,\)"),
        ({"labels": LABELS[:, None]}, r"labels has shape \(2, 1\); expected \(2,\)"),
        ({"ignore_index": 0.5}, "ignore_index is 0.5; it must be an integer"),
        ({"ignore_index": 2**63}, f"ignore_index is {2**63}; it must be in"),
        ({"reduction": "none"}, """reduction is 'none'; it must be "mean" or "sum\""""),
    ],
)
def test_bad_arguments_are_named(op, changes, message):
    good = {"logits": LOGITS.copy(), "labels": LABELS, "ignore_index": -100, "reduction": "mean"}
    op(**good)
    with pytest.raises(ValueError, match=message):
        op(**good | changes)
