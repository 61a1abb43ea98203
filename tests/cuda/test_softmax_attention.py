"""Attention's kernels: the contract, tiles that are not full, masks, dropout drawn inside, bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cuda import emulator, softmax_attention, softmax_attention_mma, softmax_attention_scalar
from npbert.cuda.attention_options import AttentionOptions, Sequences
from npbert.cuda.softmax_attention import (
    CudaAttentionCache,
    attention_forward,
    check_dropout,
    kernels_for,
    softmax_attention_backward,
    softmax_attention_forward,
)
from npbert.cuda.softmax_attention_scalar import choose_tiles
from npbert.ops.philox import philox4x32
from tests.comparisons import assert_identical, assert_rows_close
from tests.cuda.kernel_contract import (
    DTYPES,
    SCHEDULES,
    assert_clean,
    assert_kernel_contract,
    assert_within_budget,
    misaligned,
    placed,
)
from tests.op_contract import as_dtype
from tests.ops.test_softmax_attention import GRADIENTS, RATE, arguments, terms
from tests.strategies import flags, padding_mask, scattered_mask, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(autouse=True, scope="module")
def scalar_kernels():
    """In float16, too, where tensor cores would take over (tests/cuda/test_softmax_attention_mma.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax_attention, "kernels_for", lambda q, options: softmax_attention_scalar)
        yield


TEXTBOOK = (ops.softmax_attention_forward, ops.softmax_attention_backward)
NAMES = ("context", "dq", "dk", "dv", "dbias")

# (B, N, T) and H; 33 tokens take several tiles.
batches = shapes(3, most=100).filter(lambda s: s[0] * s[1] * s[2] ** 2 <= 3000)
widths = st.sampled_from((8, 64))
DROPOUT = AttentionDropout(RATE, seed=2**40 + 5, layer=3, site=ops.dropout.SITE_ATTENTION_PROBS)


def run(args, dcontext):
    """The context and the four gradients."""
    context, cache = softmax_attention_forward(*args)
    return context, *softmax_attention_backward(dcontext, cache)


def run_textbook(args, dcontext):
    """The same by the textbook."""
    context, cache = TEXTBOOK[0](*args)
    return context, *TEXTBOOK[1](dcontext, cache)


def drawing_forward(q, k, v, bias, key_mask, dropout):
    """The forward with dropout drawn inside the kernels, which the public function has no argument for."""
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    rows = [np.ascontiguousarray(x.swapaxes(1, 2)).reshape(-1, heads, width) for x in (q, k, v)]
    mask = None if key_mask is None else key_mask.reshape(-1)
    options = AttentionOptions(bias=bias, key_mask=mask, dropout=dropout)
    sequences = Sequences(batch, queries, keys)
    context, lse = attention_forward(*rows, sequences, options)
    cache = CudaAttentionCache(*rows, context, lse, sequences, options)
    return context.reshape(batch, queries, heads, width).swapaxes(1, 2), cache


def contract(args, rng, **options):
    assert_kernel_contract(
        softmax_attention_forward,
        softmax_attention_backward,
        *TEXTBOOK,
        args,
        rng,
        gradients=GRADIENTS,
        terms=terms,
        **options,
    )


def rounded_arguments(dtype, *args, **options):
    return tuple(as_dtype(dtype, arg) for arg in arguments(*args, **options))


def compare(args, dcontext):
    """The contract's accuracy alone, against the textbook's backward, for arrays that take too many steps."""
    dtype = args[0].dtype
    exact, exact_dcontext = [as_dtype(np.float64, arg) for arg in args], as_dtype(np.float64, dcontext)
    found = run(args, dcontext)
    expected = run_textbook(exact, exact_dcontext)
    unfused = run_textbook(args, dcontext)
    sizes = terms(exact_dcontext, *exact)
    for name, actual, reference, other, size in zip(NAMES, found, expected, unfused, sizes, strict=True):
        if reference is None:
            assert actual is None
        elif dtype == np.float64:
            assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=size)
        else:
            assert_within_budget(actual, reference, other, size, name)


# --- sanitizers: first of all, since out of bounds a kernel may end the process that runs it ------------


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.usefixtures("emulated")
def test_clean(sanitizer, drawn):
    """Two tiles of each kind, the last of them not full."""
    rng = np.random.default_rng(20)
    args = rounded_arguments(np.float32, rng, (2, 1, 67, 8), True, scattered_mask, True, True)
    dcontext = as_dtype(np.float32, rng.normal(size=args[0].shape))
    if drawn:
        assert_clean(drawing_forward, softmax_attention_backward, (*args[:5], DROPOUT), dcontext, sanitizer)
    else:
        assert_clean(softmax_attention_forward, softmax_attention_backward, args, dcontext, sanitizer)


@pytest.mark.parametrize("queries, keys", [(13, 0), (0, 13)])
@pytest.mark.usefixtures("emulated")
def test_no_race_where_there_is_nothing_to_walk_over(queries, keys):
    q, k = (np.ones((1, 1, tokens, 8), np.float32) for tokens in (queries, keys))
    assert_clean(softmax_attention_forward, softmax_attention_backward, (q, k, k), q, "thread")


# --- against the textbook -------------------------------------------------------------------------------


@settings(max_examples=12)
@given(batch=batches, width=widths, seed=seeds, has_bias=flags, masked=flags, empty_text=flags, drops=flags)
def test_contract(batch, width, seed, has_bias, masked, empty_text, drops):
    rng = np.random.default_rng(seed)
    args = arguments(rng, (*batch, width), has_bias, scattered_mask if masked else None, empty_text, drops)
    contract(args, rng)


@pytest.mark.parametrize("tokens", [1, 2, 31, 37, 131])
def test_one_token_and_prime_lengths(tokens):
    rng = np.random.default_rng(tokens)
    args = arguments(rng, (2 if tokens < 100 else 1, 2, tokens, 8), tokens < 100, padding_mask, False, True)
    contract(args, rng)


@pytest.mark.parametrize(
    "width, dtype",
    [
        (16, np.float32),
        (24, np.float16),
        (32, np.float32),
        (40, np.float64),
        (128, np.float32),
        (256, np.float32),
    ],
)
def test_every_cut_of_the_tiles(width, dtype):
    """Wide heads take small tiles. Of 24 and 40 columns a lane has an odd number, read one by one."""
    rng = np.random.default_rng(width)
    args = arguments(rng, (1, 2, 35, width), True, scattered_mask, False, True)
    contract(args, rng, dtypes=[dtype])


@pytest.mark.parametrize("queries, keys", [(5, 35), (70, 3), (1, 33)])
def test_other_numbers_of_queries_than_of_keys(queries, keys):
    rng = np.random.default_rng(2)
    q, k, v = (rng.normal(size=(2, 3, tokens, 8)) for tokens in (queries, keys, keys))
    square = (2, 3, queries, keys)
    args = (
        q,
        k,
        v,
        rng.normal(size=square),
        scattered_mask(rng, 2, keys, False),
        rng.random(square) >= RATE,
        RATE,
    )
    contract(args, rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_more_tokens_than_any_tile_holds(dtype):
    rng = np.random.default_rng(17)
    args = rounded_arguments(dtype, rng, (1, 1, 1031, 8), False, padding_mask, False, True)
    compare(args, as_dtype(dtype, rng.normal(size=args[0].shape)))


@pytest.mark.parametrize("tokens", [64, 192])
@pytest.mark.parametrize("dtype", DTYPES)
def test_half_a_tile_with_a_mask(tokens, dtype):
    """pytorch#196678: T % 128 == 64 with a mask gave NaN, where places behind the end scored 0, not -inf.

    Scores are far below 0 here, so that one place that counts as 0 would have all the weight.
    """
    rng = np.random.default_rng(tokens)
    q, k, v, *_ = arguments(rng, (2, 1, tokens, 8))
    args = (30 * np.abs(q), -np.abs(k), v, None, padding_mask(rng, 2, tokens, False))
    compare(tuple(as_dtype(dtype, arg) for arg in args), as_dtype(dtype, rng.normal(size=q.shape)))


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_equal_scores_and_scores_up_to_ten_thousand(scale):
    rng = np.random.default_rng(7)
    q, k, v, _, mask, keep, rate = arguments(rng, (2, 3, 35, 8), False, scattered_mask, False, True)
    q, k = scale * q, np.where(rng.random(k.shape) < 0.5, 100 * k, k)
    contract((q, k, v, None, mask, keep, rate), rng, dtypes=[np.float64, np.float32])


def test_scores_that_rise_and_fall_along_the_keys():
    """Each tile of keys brings a larger maximum than the one before, or none does."""
    rng = np.random.default_rng(8)
    q, k, v, *_ = arguments(rng, (1, 2, 100, 8))
    slope = np.arange(100.0) * np.array([1, -1])[None, :, None, None]
    contract((q, k, v, np.broadcast_to(slope, (1, 2, 100, 100)).copy()), rng, dtypes=[np.float64, np.float32])


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_sum_exp_is_saved(dtype):
    rng = np.random.default_rng(9)
    args = rounded_arguments(dtype, rng, (3, 2, 37, 8), True, scattered_mask, True)
    _, cache = softmax_attention_forward(*args)
    q, k, _, bias, mask, *_ = (as_dtype(np.float64, arg) for arg in args)
    scores = np.where(mask[:, None, None, :], (q @ k.swapaxes(-1, -2) + bias) / math.sqrt(8), -np.inf)
    has_keys = mask.any(axis=1)
    lse = cache.lse.reshape(2, 3, 37).swapaxes(0, 1)  # (N, B * T) -> (B, N, T)
    assert lse.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert (lse[~has_keys] == np.inf).all()
    assert not has_keys.all()
    expected = np.log(np.exp(scores[has_keys]).sum(axis=-1))
    np.testing.assert_allclose(lse[has_keys], expected, rtol=0, atol=64 * float(np.finfo(lse.dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("drops", [False, True])
def test_probabilities_when_asked_for(dtype, drops):
    """Those after dropout, as the textbook caches them."""
    rng = np.random.default_rng(6)
    args = rounded_arguments(dtype, rng, (3, 2, 7, 8), True, scattered_mask, True, drops)
    _, cache = placed(softmax_attention_forward)(*args)
    probs = placed(lambda: cache.probs)()
    expected = TEXTBOOK[0](*(as_dtype(np.float64, arg) for arg in args))[1].probs
    assert probs.dtype == dtype
    assert probs.shape == (3, 2, 7, 7)
    np.testing.assert_array_equal(probs == 0, expected == 0)
    np.testing.assert_allclose(probs, expected, rtol=20 * float(np.finfo(dtype).eps))


# --- masks ----------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(batch=batches, seed=seeds, has_bias=flags, drops=flags, empty_text=flags)
def test_masked_keys_get_exactly_zero_and_do_not_matter(batch, seed, has_bias, drops, empty_text):
    rng = np.random.default_rng(seed)
    args = rounded_arguments(np.float32, rng, (*batch, 8), has_bias, scattered_mask, empty_text, drops)
    q, k, v, bias, key_mask, *dropout = args
    dcontext = as_dtype(np.float32, rng.normal(size=q.shape))
    found = run(args, dcontext)
    masked = np.broadcast_to(~key_mask[:, None, :, None], q.shape)
    assert not found[2][masked].any()
    assert not found[3][masked].any()
    if has_bias:
        assert not found[4][np.broadcast_to(~key_mask[:, None, None, :], bias.shape)].any()
    hidden = [np.where(masked, np.float32(np.nan), x) for x in (k, v)]  # not even read
    again = run((q, *hidden, bias, key_mask, *dropout), dcontext)
    for name, actual, expected in zip(NAMES, again, found, strict=True):
        if expected is not None:
            assert_identical(actual, expected, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("drops", [False, True])
def test_a_fully_masked_text_gives_zero_and_leaves_the_others_alone(dtype, drops):
    rng = np.random.default_rng(3)
    args = rounded_arguments(dtype, rng, (3, 2, 35, 8), True, scattered_mask, False, drops)
    args[4][1] = False
    dcontext = as_dtype(dtype, rng.normal(size=(3, 2, 35, 8)))
    found = run(args, dcontext)
    alone = [a[[0, 2]] if isinstance(a, np.ndarray) else a for a in args]
    for name, one, expected in zip(NAMES, found, run(alone, dcontext[[0, 2]]), strict=True):
        assert not one[1].any(), name
        assert one[[0, 2]].any(axis=(1, 2, 3)).all(), name
        assert_identical(one[[0, 2]], expected, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_texts_fully_masked(dtype):
    rng = np.random.default_rng(4)
    args = list(rounded_arguments(dtype, rng, (2, 3, 35, 8), has_bias=True))
    args[4] = np.zeros((2, 35), bool)
    for name, array in zip(NAMES, run(args, as_dtype(dtype, rng.normal(size=(2, 3, 35, 8)))), strict=True):
        assert_identical(array, np.zeros(array.shape, dtype), name)


def test_one_token_attends_to_itself():
    rng = np.random.default_rng(1)
    args = arguments(rng, (2, 3, 1, 8))
    dcontext = rng.normal(size=(2, 3, 1, 8))
    context, dq, dk, dv, _ = run(args, dcontext)
    np.testing.assert_array_equal(context, args[2])
    np.testing.assert_allclose(dv, dcontext, rtol=ROUND_OFF * U64)  # of exp(score - lse): lse is rounded
    sizes = terms(dcontext, *args)
    for gradient, size in ((dq, sizes[1]), (dk, sizes[2])):  # D and dp are equal sums, in different orders
        assert_rows_close(gradient, np.zeros(size.shape), what="0", round_off=ROUND_OFF * U64, terms=size)


# --- dropout --------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    batch=batches,
    seed=seeds,
    rate=st.sampled_from((0.1, 0.5, 0.9)),
    has_bias=flags,
    dtype=st.sampled_from(DTYPES),
)
def test_drawn_dropout_is_the_keep_mask(batch, seed, rate, has_bias, dtype):
    """Bit for bit, forward and backward: rows of scores of any length, which four words may straddle."""
    rng = np.random.default_rng(seed)
    q, k, v, bias, key_mask, *_ = rounded_arguments(dtype, rng, (*batch, 8), has_bias, scattered_mask, True)
    dcontext = as_dtype(dtype, rng.normal(size=q.shape))
    dropout = AttentionDropout(rate, int(rng.integers(2**63)), int(rng.integers(2**32)), 1)
    keep_mask = ops.dropout_keep_mask((*q.shape[:3], q.shape[2]), *dropout)
    drawn, cache = drawing_forward(q, k, v, bias, key_mask, dropout)
    expected, explicit = softmax_attention_forward(q, k, v, bias, key_mask, keep_mask, rate)
    assert_identical(drawn, expected, "context")
    gradients = [softmax_attention_backward(dcontext, c) for c in (cache, explicit)]
    for name, one, other in zip(NAMES[1:], *gradients, strict=True):
        if other is not None:
            assert_identical(one, other, name)
    assert_identical(cache.probs, explicit.probs, "probs")


def test_drawn_dropout_of_more_keys_than_queries():
    rng = np.random.default_rng(12)
    q, k, v = (rng.normal(size=(2, 3, tokens, 8)) for tokens in (5, 35, 35))
    keep_mask = ops.dropout_keep_mask((2, 3, 5, 35), *DROPOUT)
    drawn, cache = drawing_forward(q, k, v, None, None, DROPOUT)
    expected, explicit = softmax_attention_forward(q, k, v, None, None, keep_mask, RATE)
    assert_identical(drawn, expected, "context")
    dcontext = rng.normal(size=q.shape)
    gradients = [softmax_attention_backward(dcontext, c)[:3] for c in (cache, explicit)]
    for name, one, other in zip(NAMES[1:4], *gradients, strict=True):
        assert_identical(one, other, name)


@pytest.mark.parametrize("which", range(4))
def test_a_pair_whose_word_is_the_threshold_is_kept(which):
    rng = np.random.default_rng(18)
    q, k, v, *_ = arguments(rng, (1, 1, 4, 8))
    word = philox4x32((0, 0, 3, DROPOUT.site), (DROPOUT.seed % 2**32, DROPOUT.seed >> 32))[which]
    dropout = DROPOUT._replace(rate=int(word) / 2**32)
    keep_mask = ops.dropout_keep_mask((1, 1, 4, 4), *dropout)
    assert keep_mask[0, 0, 0, which]
    drawn, _ = drawing_forward(q, k, v, None, None, dropout)
    expected, _ = softmax_attention_forward(q, k, v, None, None, keep_mask, dropout.rate)
    assert_identical(drawn, expected, "context")


def test_a_rate_of_zero_keeps_everything():
    rng = np.random.default_rng(13)
    q, k, v, *_ = arguments(rng, (2, 3, 5, 8))
    drawn, _ = drawing_forward(q, k, v, None, None, DROPOUT._replace(rate=0.0))
    assert_identical(drawn, softmax_attention_forward(q, k, v)[0], "context")


def test_a_rate_without_a_mask_changes_nothing():
    rng = np.random.default_rng(14)
    q, k, v, *_ = arguments(rng, (2, 3, 5, 8))
    dcontext = rng.normal(size=q.shape)
    found = run((q, k, v, None, None, None, RATE), dcontext)
    for name, actual, expected in zip(NAMES[:4], found, run((q, k, v), dcontext), strict=False):
        assert_identical(actual, expected, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropping_everything_gives_zero(dtype):
    rng = np.random.default_rng(10)
    args = list(rounded_arguments(dtype, rng, (2, 1, 35, 8), True, None, False, True))
    args[5] = np.zeros(args[5].shape, bool)
    for name, array in zip(NAMES, run(args, as_dtype(dtype, rng.normal(size=args[0].shape))), strict=True):
        assert_identical(array, np.zeros(array.shape, dtype), name)


def test_rows_that_are_dropped_whole_give_their_query_nothing():
    rng = np.random.default_rng(5)
    args = arguments(rng, (2, 3, 7, 8), drops=True)
    args[5][:, :, 4] = False
    context, dq, dk, dv, _ = run(args, rng.normal(size=(2, 3, 7, 8)))
    assert not context[:, :, 4].any()
    assert not dq[:, :, 4].any()
    assert all(array.any(axis=-1)[:, :, :4].all() for array in (context, dq, dk, dv))


# --- memory ---------------------------------------------------------------------------------------------


def test_heads_are_split_and_merged_without_a_copy():
    rng = np.random.default_rng(15)
    q, k, v = (ops.split_heads(x, 3) for x in rng.normal(size=(3, 2, 5, 24)))
    context, cache = softmax_attention_forward(q, k, v)
    gradients = softmax_attention_backward(ops.split_heads(rng.normal(size=(2, 5, 24)), 3), cache)
    for mine, given_to_it in zip((cache.q, cache.k, cache.v), (q, k, v), strict=True):
        assert np.shares_memory(mine, given_to_it)
    for array in (context, *gradients[:3]):
        assert np.shares_memory(ops.merge_heads(array), array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.usefixtures("emulated")
def test_arrays_that_do_not_begin_at_16_bytes(dtype):
    rng = np.random.default_rng(16)
    args = rounded_arguments(dtype, rng, (1, 1, 5, 8))[:3]
    dcontext = as_dtype(dtype, rng.normal(size=args[0].shape))
    *moved, moved_dcontext = (misaligned(x) for x in (*args, dcontext))
    for name, actual, expected in zip(
        NAMES[:4], run(moved, moved_dcontext), run(args, dcontext), strict=False
    ):
        assert_identical(actual, expected, name)


@pytest.mark.parametrize("shape", [(0, 2, 5, 8), (2, 0, 5, 8), (2, 3, 0, 8)])
def test_nothing_to_do(shape):
    args = (np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros((*shape[:3], shape[2])))
    for array, expected in zip(run(args, np.zeros(shape)), (args[0], *args), strict=True):
        assert array.shape == expected.shape


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.usefixtures("emulated")
def test_no_key_at_all(schedule):
    q, k = np.ones((2, 3, 5, 8)), np.ones((2, 3, 0, 8))
    with emulator.options(schedule=schedule):
        context, dq, dk, dv, _ = run((q, k, k), np.ones(q.shape))
    assert_identical(context, np.zeros(q.shape), "context")
    assert_identical(dq, np.zeros(q.shape), "dq")
    assert dk.shape == dv.shape == k.shape


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.usefixtures("emulated")
def test_no_query_at_all(schedule):
    q, k = np.ones((2, 3, 0, 8)), np.ones((2, 3, 5, 8))
    with emulator.options(schedule=schedule):
        context, dq, dk, dv, _ = run((q, k, k), np.ones(q.shape))
    assert context.shape == dq.shape == q.shape
    assert_identical(dk, np.zeros(k.shape), "dk")
    assert_identical(dv, np.zeros(k.shape), "dv")


# --- bad input ------------------------------------------------------------------------------------------

ROWS = np.zeros((2, 3, 5, 8), np.float32)
SQUARE = np.zeros((2, 3, 5, 5), np.float32)


def changed(**arguments):
    return {"q": ROWS, "k": ROWS, "v": ROWS} | arguments


@pytest.mark.parametrize(
    "arguments, message",
    [
        (changed(q=ROWS.astype(np.complex64)), "q is complex64; it must be one of"),
        (changed(q=ROWS.astype(np.int32)), "q is int32"),
        (changed(k=ROWS.astype(np.float64)), "q is float32, k float64"),
        (changed(q=[1.0]), "q is a list, not an array"),
        (changed(q=ROWS[0]), r"q has shape \(3, 5, 8\); expected \(B, N, T, H\)"),
        (changed(k=ROWS[0]), r"k has shape \(3, 5, 8\); expected \(B, N, T, H\)"),
        (changed(k=ROWS[:1]), r"k has shape \(1, 3, 5, 8\); expected \(2, 3, 5, 8\)"),
        (changed(v=ROWS[:, :, :4]), r"v has shape \(2, 3, 4, 8\); expected \(2, 3, 5, 8\)"),
        (changed(bias=SQUARE[:1]), r"bias has shape \(1, 3, 5, 5\)"),
        (changed(bias=SQUARE.astype(np.float16)), "bias float16"),
        (changed(key_mask=np.ones((2, 5), np.int64)), "key_mask is int64; it must be bool"),
        (changed(key_mask=np.ones((2, 6), bool)), r"key_mask has shape \(2, 6\); expected \(2, 5\)"),
        (changed(keep_mask=SQUARE), "keep_mask is float32; it must be bool"),
        (changed(keep_mask=SQUARE[:1] == 0), r"keep_mask has shape \(1, 3, 5, 5\)"),
        (changed(dropout_rate=1.0), "dropout_rate is 1.0; it must be at least 0 and less than 1"),
        (changed(dropout_rate=-0.1), "dropout_rate is -0.1"),
        (changed(dropout_rate=math.nan), "dropout_rate is nan"),
        (dict.fromkeys("qkv", ROWS[..., :7]), "head width is 7; the kernels take multiples of 8 up to 256"),
        (dict.fromkeys("qkv", ROWS[..., :0]), "head width is 0"),
        (dict.fromkeys("qkv", np.zeros((1, 1, 1, 264))), "head width is 264"),
        (dict.fromkeys("qkv", np.zeros((1, 1, 1, 256))), "256 in float64 needs .* shared memory .* 49152"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        softmax_attention_forward(**arguments)


@pytest.mark.parametrize(
    "dcontext, message",
    [
        (ROWS[:1], r"dcontext has shape \(1, 3, 5, 8\); expected \(2, 3, 5, 8\)"),
        (ROWS.astype(np.float64), "dcontext is float64, q float32"),
    ],
)
def test_bad_cotangent(dcontext, message):
    _, cache = softmax_attention_forward(ROWS, ROWS, ROWS)
    with pytest.raises(ValueError, match=message):
        softmax_attention_backward(dcontext, cache)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rate": 1.0}, "rate is 1.0"),
        ({"rate": math.nan}, "rate is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"layer": 2**32}, "layer is 4294967296"),
        ({"site": -1}, "site is -1"),
    ],
)
def test_bad_dropout(change, message):
    with pytest.raises(ValueError, match=message):
        check_dropout("op", DROPOUT._replace(**change))


@pytest.mark.parametrize(
    "width, dtype, has_bias, expected",
    [
        (64, np.float16, False, softmax_attention_mma),
        (24, np.float16, False, softmax_attention_scalar),
        (144, np.float16, False, softmax_attention_scalar),
        (64, np.float16, True, softmax_attention_scalar),
        (64, np.float32, False, softmax_attention_scalar),
        (64, np.float64, False, softmax_attention_scalar),
    ],
)
@pytest.mark.usefixtures("emulated")
def test_which_kernels_run(width, dtype, has_bias, expected):
    bias = np.zeros((1, 2, 3, 3), dtype) if has_bias else None
    assert kernels_for(np.zeros((3, 2, width), dtype), AttentionOptions(bias=bias)) is expected


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_width_is_taken_or_refused_before_a_launch(dtype):
    """Only float64 has widths that shared memory cannot hold, from 192 on."""
    for width in range(8, 257, 8):
        if dtype == np.float64 and width > 184:
            with pytest.raises(ValueError, match=f"head width of {width} in float64"):
                choose_tiles(width, dtype)
        else:
            tiles = choose_tiles(width, dtype)
            assert all(size % 8 == 0 for tile in tiles for size in tile)
