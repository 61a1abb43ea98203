"""The layernorm kernels: the contract, wide rows, many rows, rows nearly constant, memory, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.cuda import layernorm as engine
from npbert.ops import layernorm as textbook
from tests.comparisons import assert_finite, assert_identical, assert_rows_close, row_norms
from tests.cuda.kernel_contract import DTYPES, ROUND_OFF_OF, assert_clean, assert_kernel_contract, misaligned
from tests.op_contract import as_dtype
from tests.ops.test_layernorm import GRADIENTS, arguments, epsilons, terms
from tests.oracles import layernorm_mpmath
from tests.strategies import flags, seeds
from tests.tolerances import LAYERNORM_DX_FLOAT32, U16, U32, U64, ZERO_ROW_SUM

pytestmark = pytest.mark.usefixtures("compiler")

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
# Rows of a multiple of 8 elements are read 16 bytes at a time in each dtype, those of 1, 3, 31, 33 in none.
widths = st.sampled_from((1, 2, 3, 4, 8, 31, 33, 64, 384))
row_counts = st.sampled_from((1, 2, 3, 5, 33))
spreads = st.sampled_from((1e-4, 0.1, 1.0, 3.0))


def assert_contract(args, rng, with_residual=False):
    """Hold the kernels to the contract; with a residual, which is drawn, to that of the sum."""
    if not with_residual:
        assert_kernel_contract(
            engine.layernorm_forward,
            engine.layernorm_backward,
            textbook.layernorm_forward,
            textbook.layernorm_backward,
            args,
            rng,
            gradients=GRADIENTS,
            terms=terms,
        )
        return
    x, *rest = args
    assert_kernel_contract(
        engine.residual_layernorm_forward,
        engine.residual_layernorm_backward,
        sum_then_layernorm,
        textbook.layernorm_backward,
        (x, rng.normal(size=x.shape), *rest),
        rng,
        gradients=GRADIENTS,
        terms=terms_of_sum,
    )


def sum_then_layernorm(x, residual, weight, bias, eps):
    """What the kernel fuses, in two steps."""
    return textbook.layernorm_forward(x + residual, weight, bias, eps)


def terms_of_sum(dy, x, residual, weight, bias, eps):
    """Adding costs u (|x| + |residual|), as taking the mean of a number of that size does."""
    size = terms(dy, x + residual, weight, bias, eps)
    lost = (np.abs(x) + np.abs(residual)).max() / np.abs(x + residual).max()
    return [(1 + lost) * s for s in size]


@settings(max_examples=30)
@given(rows=row_counts, width=widths, seed=seeds, spread=spreads, eps=epsilons, with_residual=flags)
def test_contract(rows, width, seed, spread, eps, with_residual):
    rng = np.random.default_rng(seed)
    assert_contract(arguments(rng, (rows, width), eps, spread), rng, with_residual)


@pytest.mark.parametrize("rows", [(), (2, 3, 1)])
def test_any_number_of_leading_axes(rows):
    rng = np.random.default_rng(0)
    assert_contract(arguments(rng, (*rows, 12), 1e-12), rng)


@pytest.mark.parametrize(("width", "with_residual"), [(768, True), (1025, False)])
def test_widths_of_models(width, with_residual):
    rng = np.random.default_rng(1)
    assert_contract(arguments(rng, (3, width), 1e-12), rng, with_residual)


@pytest.mark.parametrize(("width", "with_residual"), [(33, False), (96, True), (527, False), (1032, True)])
def test_rows_wider_than_what_a_block_holds(monkeypatch, width, with_residual):
    """The columns that are not in registers: with a block of one warp they need not be thousands."""
    monkeypatch.setattr(engine, "MAX_THREADS", 32)
    rng = np.random.default_rng(2)
    assert_contract(arguments(rng, (5, width), 0.3), rng, with_residual)


@pytest.mark.parametrize("rows", [4, 31, 32, 33, 37, 69])
def test_rows_in_chunks(rows):
    """One chunk, as many as warps that sum them up, one more, a last one that is not full."""
    rng = np.random.default_rng(3)
    assert_contract(arguments(rng, (rows, 3), 0.3), rng)


@pytest.mark.parametrize("rows", [3, 17, 64])
def test_long_chunks(monkeypatch, rows):
    monkeypatch.setattr(engine, "MOST_CHUNKS", 3)
    rng = np.random.default_rng(4)
    assert_contract(arguments(rng, (rows, 33), 1e-12), rng)


def test_the_residual_is_only_added():
    """The gradient of the sum is that of either term; with float64 the bits are those of the sum."""
    rng = np.random.default_rng(5)
    x, *rest = arguments(rng, (3, 31), 1e-12)
    residual, dy = rng.normal(size=(2, *x.shape))
    y, cache = engine.residual_layernorm_forward(x, residual, *rest)
    y_of_sum, cache_of_sum = engine.layernorm_forward(x + residual, *rest)
    assert_identical(y, y_of_sum, "y")
    found = engine.residual_layernorm_backward(dy, cache)
    for name, one, other in zip(GRADIENTS, found, engine.layernorm_backward(dy, cache_of_sum), strict=True):
        assert_identical(one, other, name)


# --- precision ------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("eps", [1e-12, 0.3])
def test_nearly_constant_rows_as_mpmath_has_them(dtype, spread, eps):
    rng = np.random.default_rng(6)
    # float16's numbers near 1 are 1e-3 apart, those near 0 as near to one another as one likes.
    offset = 0 if dtype == np.float16 else 1
    x = (offset + spread * rng.normal(size=(3, 8))).astype(dtype)
    weight, bias = rng.normal(size=(2, 8)).astype(dtype)
    dy = (spread * rng.normal(size=x.shape)).astype(dtype)  # or dx could not be held by float16
    y, cache = engine.layernorm_forward(x, weight, bias, eps)
    found = (y, *engine.layernorm_backward(dy, cache))
    expected = layernorm_mpmath(x, weight, bias, eps, dy)
    size = terms(*(a.astype(np.float64) for a in (dy, x, weight, bias)), eps)
    for name, actual, reference, t in zip(("y", *GRADIENTS), found, expected, size, strict=True):
        assert actual.dtype == dtype
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF_OF[dtype], terms=t)


@every_dtype
@pytest.mark.parametrize("value", [0.0, 0.1, -1e4])
def test_constant_rows_stay_finite(dtype, value):
    """eps = 1e-12 is all that is divided by, and float16 does not have it: the kernel adds it in float32."""
    rng = np.random.default_rng(7)
    x = np.full((3, 32), value, dtype)
    weight, bias = rng.normal(size=(2, 32)).astype(dtype)
    y, cache = engine.layernorm_forward(x, weight, bias, 1e-12)
    dy = (1e-3 * rng.normal(size=x.shape)).astype(dtype)
    for name, array in zip(("y", *GRADIENTS), (y, *engine.layernorm_backward(dy, cache)), strict=True):
        assert_finite(array, name)
    if value == 0:
        assert_identical(y, np.broadcast_to(bias, y.shape), "y")


def test_float16_rows_whose_sum_and_squares_are_beyond_float16():
    rng = np.random.default_rng(8)
    x = (3e4 + 1e4 * rng.normal(size=(3, 64))).astype(np.float16)
    weight, bias = (rng.normal(size=(2, 64))).astype(np.float16)
    y, cache = engine.layernorm_forward(x, weight, bias, 1e-12)
    dy = rng.normal(size=x.shape).astype(np.float16)
    found = (y, *engine.layernorm_backward(dy, cache))
    exact = [a.astype(np.float64) for a in (x, weight, bias)]
    y, cache = textbook.layernorm_forward(*exact, 1e-12)
    expected = (y, *textbook.layernorm_backward(dy.astype(np.float64), cache))
    for name, actual, reference in zip(("y", *GRADIENTS), found, expected, strict=True):
        # One rounding, that of the result; dx is 1e-4, where float16 has steps of 6e-8.
        np.testing.assert_allclose(actual, reference, rtol=2 * U16, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("width", [31, 384, 768])
def test_float32_dx_is_within_8_u_of_its_row(width):
    rng = np.random.default_rng(9)
    single = [a.astype(np.float32) for a in (*rng.normal(size=(2, 33, width)), *rng.normal(size=(2, width)))]
    dy, x, weight, bias = single
    dx, _, _ = engine.layernorm_backward(dy, engine.layernorm_forward(x, weight, bias, 1e-12)[1])
    dy, x, weight, bias = (a.astype(np.float64) for a in single)
    exact, _, _ = textbook.layernorm_backward(dy, textbook.layernorm_forward(x, weight, bias, 1e-12)[1])
    errors = row_norms(dx - exact) / row_norms(exact)
    assert 0 < errors.max() <= LAYERNORM_DX_FLOAT32, f"off by {errors.max() / U32:.1f} u"


@given(rows=row_counts, width=widths, seed=seeds, eps=epsilons)
def test_dx_rows_sum_to_zero_with_weight_one(rows, width, seed, eps):
    rng = np.random.default_rng(seed)
    x, _, bias, _ = arguments(rng, (rows, width), eps)
    dy, weight = rng.normal(size=x.shape), np.ones(width)
    dx, _, _ = engine.layernorm_backward(dy, engine.layernorm_forward(x, weight, bias, eps)[1])
    size = terms(dy, x, weight, bias, eps)[1]
    assert (np.abs(dx.sum(axis=-1)) <= ZERO_ROW_SUM * U64 * size.sum(axis=-1)).all()
    if width > 2:
        assert (row_norms(dx) > 0).all()


# --- memory ---------------------------------------------------------------------------------------------


@every_dtype
def test_rows_that_do_not_begin_at_16_bytes(dtype):
    """Each array in turn: one that does not makes the kernel read all of them element by element."""
    rng = np.random.default_rng(10)
    x, weight, bias, eps = (as_dtype(dtype, a) for a in arguments(rng, (9, 64), 0.3))
    residual, dy = rng.normal(size=(2, *x.shape)).astype(dtype)
    args = (x, residual, weight, bias)

    def run(args, dy):
        y, cache = engine.residual_layernorm_forward(*args, eps)
        return y, *engine.residual_layernorm_backward(dy, cache)

    expected = run(args, dy)
    size = terms_of_sum(*(a.astype(np.float64) for a in (dy, *args)), eps)
    for position in range(5):
        *moved, moved_dy = (misaligned(a) if i == position else a for i, a in enumerate((*args, dy)))
        for name, actual, reference, t in zip(
            ("y", *GRADIENTS), run(moved, moved_dy), expected, size, strict=True
        ):
            what = f"{name} with argument {position} elsewhere"
            assert_rows_close(
                actual, reference.astype(np.float64), what=what, round_off=ROUND_OFF_OF[dtype], terms=t
            )


def test_no_rows():
    weight, bias = np.random.default_rng(11).normal(size=(2, 5))
    x = np.zeros((0, 3, 5))
    y, cache = engine.layernorm_forward(x, weight, bias, 1e-12)
    assert y.shape == x.shape
    dx, dweight, dbias = engine.layernorm_backward(x, cache)
    assert dx.shape == x.shape
    assert_identical(dweight, np.zeros(5), "dweight")
    assert_identical(dbias, np.zeros(5), "dbias")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize(("rows", "width"), [(5, 33), (9, 136)])
def test_clean(monkeypatch, sanitizer, rows, width):
    """Without packs and with them, more than one warp; columns within registers and beyond."""
    rng = np.random.default_rng(12)
    x, weight, bias, eps = (as_dtype(np.float32, a) for a in arguments(rng, (rows, width), 0.3))
    residual, dy = rng.normal(size=(2, *x.shape)).astype(np.float32)
    pair = engine.residual_layernorm_forward, engine.residual_layernorm_backward
    assert_clean(*pair, (x, residual, weight, bias, eps), dy, sanitizer)
    if width == 136:
        monkeypatch.setattr(engine, "MAX_THREADS", 32)
        assert_clean(*pair, (x, residual, weight, bias, eps), dy, sanitizer)


# --- bad input ------------------------------------------------------------------------------------------

X, WEIGHT = np.ones((2, 4)), np.ones(4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": X.astype(int)}, "x is int64; it must be one of float64, float32, float16"),
        ({"x": X.astype(complex)}, "x is complex128"),
        ({"x": [[1.0, 2.0]]}, "x is a list, not an array"),
        ({"x": None}, "x is a NoneType, not an array"),
        ({"x": np.ones(())}, r"x has shape \(\); its rows must have at least one element"),
        ({"x": np.ones((3, 0))}, r"x has shape \(3, 0\); its rows must have at least one element"),
        ({"x": X.astype(np.float32)}, "x is float32, residual float64; they must have the same dtype"),
        ({"residual": np.ones((2, 3))}, r"residual has shape \(2, 3\); expected \(2, 4\)"),
        ({"residual": np.ones(4)}, r"residual has shape \(4,\); expected \(2, 4\)"),
        ({"weight": np.ones(3)}, r"weight has shape \(3,\); expected \(4,\)"),
        ({"weight": np.ones((1, 4))}, r"weight has shape \(1, 4\); expected \(4,\)"),
        (
            {"weight": WEIGHT.astype(np.float16)},
            "x is float64, weight float16; they must have the same dtype",
        ),
        ({"bias": np.ones(5)}, r"bias has shape \(5,\); expected \(4,\)"),
        ({"bias": None}, "bias is a NoneType, not an array"),
        ({"eps": "0.1"}, "eps is '0.1'; it must be a number"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    good = {"x": X, "residual": X, "weight": WEIGHT, "bias": WEIGHT, "eps": 0.1}
    engine.residual_layernorm_forward(**good)
    with pytest.raises(ValueError, match=f"layernorm_forward: {message}"):
        engine.residual_layernorm_forward(**good | changes)
    if "residual" not in {*changes, *message.split()}:
        del good["residual"]
        with pytest.raises(ValueError, match=f"^layernorm_forward: {message}"):
            engine.layernorm_forward(**good | changes)


@pytest.mark.parametrize(
    ("dy", "message"),
    [
        (np.ones((2, 5)), r"dy has shape \(2, 5\); expected \(2, 4\)"),
        (np.ones(4), r"dy has shape \(4,\); expected \(2, 4\)"),
        (X.astype(np.float32), "dy is float32, x float64; they must have the same dtype"),
        (X.astype(int), "dy is int64; it must be one of float64"),
        (None, "dy is a NoneType, not an array"),
    ],
)
def test_a_bad_cotangent_is_named(dy, message):
    _, cache = engine.layernorm_forward(X, WEIGHT, WEIGHT, 0.1)
    for backward in (engine.layernorm_backward, engine.residual_layernorm_backward):
        with pytest.raises(ValueError, match=f"^{backward.__name__}: {message}"):
            backward(dy, cache)
