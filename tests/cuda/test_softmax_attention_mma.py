"""Attention on tensor cores: the contract in float16, tiles that are not full, masks, dropout, bad input."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cuda import emulator
from npbert.cuda import softmax_attention_mma as mma
from npbert.cuda.attention_options import AttentionOptions, Sequences
from npbert.cuda.emulator import tracing
from npbert.cuda.facts.traces import bank_turns, by_instruction, sectors, total
from npbert.cuda.softmax_attention import CudaAttentionCache
from npbert.ops.array_module import array_module, to_numpy
from npbert.ops.philox import philox4x32
from tests.comparisons import assert_identical
from tests.cuda.kernel_contract import assert_clean, assert_kernel_contract, assert_within_budget, placed
from tests.op_contract import as_dtype
from tests.ops.test_softmax_attention import GRADIENTS, RATE, arguments, terms
from tests.strategies import flags, padding_mask, scattered_mask, seeds

pytestmark = pytest.mark.usefixtures("compiler", "tensor_cores", "poisoned_memory")

TEXTBOOK = (ops.softmax_attention_forward, ops.softmax_attention_backward)
NAMES = ("context", "dq", "dk", "dv")
DROPOUT = AttentionDropout(RATE, seed=2**40 + 5, layer=3, site=ops.dropout.SITE_ATTENTION_PROBS)
HALF = np.float16

# Narrow heads and wide ones are cut differently; of 48 and 80 a row's chunks do not divide a block's threads.
WIDTHS = (16, 32, 48, 64, 80, 128)
# Of these, hypothesis draws. Tiles have 64 columns, blocks 64 or 128 rows, warps 16 or 32.
narrow_shapes = st.tuples(
    st.integers(1, 3), st.integers(1, 3), st.sampled_from((1, 2, 16, 33, 65)), st.just(16)
)


def rows_of(x):
    """(B, N, T, H) -> (B * T, N, H)"""
    batch, heads, tokens, width = x.shape
    rows = x.swapaxes(1, 2).reshape(batch * tokens, heads, width)
    return array_module(x).ascontiguousarray(rows)


def heads_of(rows, batch):
    """The way back."""
    return rows.reshape(batch, -1, *rows.shape[1:]).swapaxes(1, 2)


def forward(q, k, v, bias=None, key_mask=None, keep_mask=None, dropout_rate=0.0, dropout=None):
    """The textbook's arguments; beside them, dropout that is drawn by the kernels."""
    xp = array_module(q)
    options = AttentionOptions(
        bias=bias,
        key_mask=None if key_mask is None else xp.ascontiguousarray(key_mask).reshape(-1),
        keep_mask=None if keep_mask is None else xp.ascontiguousarray(keep_mask),
        keep_rate=dropout_rate,
        dropout=dropout,
    )
    sequences = Sequences(len(q), q.shape[2], k.shape[2])
    rows = [rows_of(x) for x in (q, k, v)]
    context, lse = mma.attention_forward(*rows, sequences, options)
    return heads_of(context, len(q)), CudaAttentionCache(*rows, context, lse, sequences, options)


def backward(dcontext, cache):
    """The textbook's backward."""
    *arrays, sequences, options = cache
    *gradients, dbias = mma.attention_backward(rows_of(dcontext), *arrays, sequences, options)
    return *(heads_of(gradient, sequences.texts) for gradient in gradients), dbias


def run(args, dcontext, **options):
    """The context and the three gradients."""
    context, cache = placed(functools.partial(forward, **options))(*args)
    return context, *placed(backward)(dcontext, cache)[:3]


def run_textbook(args, dcontext):
    context, cache = TEXTBOOK[0](*args)
    return context, *TEXTBOOK[1](dcontext, cache)[:3]


def rounded_arguments(*args, **options):
    return tuple(as_dtype(HALF, arg) for arg in arguments(*args, **options))


def normal(rng, shape):
    return rng.normal(size=shape).astype(HALF)


def contract(args, rng):
    assert_kernel_contract(
        forward, backward, *TEXTBOOK, args, rng, gradients=GRADIENTS, terms=terms, dtypes=[HALF]
    )


def assert_errs_no_more_than_the_unfused(args, dcontext):
    """The contract's budget without what it allows for terms that cancel: of many elements, some do not."""
    exact = [as_dtype(np.float64, arg) for arg in args]
    expected = run_textbook(exact, as_dtype(np.float64, dcontext))
    for name, actual, reference, unfused in zip(
        NAMES, run(args, dcontext), expected, run_textbook(args, dcontext), strict=True
    ):
        assert_within_budget(actual, reference, unfused, 0.0, name)


# --- against the textbook -------------------------------------------------------------------------------


@settings(max_examples=12)
@given(shape=narrow_shapes, seed=seeds, masked=flags, empty_text=flags, drops=flags)
def test_contract(shape, seed, masked, empty_text, drops):
    rng = np.random.default_rng(seed)
    contract(arguments(rng, shape, False, scattered_mask if masked else None, empty_text, drops), rng)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mask", [None, scattered_mask])
def test_every_width(width, mask):
    rng = np.random.default_rng(width)
    contract(arguments(rng, (1, 2, 70, width), False, mask, False, mask is None), rng)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mask", [None, padding_mask])
def test_errors_without_allowance(width, mask):
    rng = np.random.default_rng(width + 1)
    args = rounded_arguments(rng, (2, 2, 90, width), False, mask, False, True)
    assert_errs_no_more_than_the_unfused(args, normal(rng, (2, 2, 90, width)))


@pytest.mark.parametrize("tokens", [1, 2, 31, 37, 131, 257])
def test_one_token_and_prime_lengths(tokens):
    rng = np.random.default_rng(tokens)
    contract(arguments(rng, (2 if tokens < 100 else 1, 1, tokens, 16), False, padding_mask, False, True), rng)


@pytest.mark.parametrize("width", [16, 80])
@pytest.mark.parametrize("queries, keys", [(5, 130), (130, 3), (1, 33), (65, 64)])
def test_other_numbers_of_queries_than_of_keys(queries, keys, width):
    rng = np.random.default_rng(2)
    q, k, v = (rng.normal(size=(2, 2, tokens, width)) for tokens in (queries, keys, keys))
    keep = rng.random((2, 2, queries, keys)) >= RATE
    contract((q, k, v, None, scattered_mask(rng, 2, keys, False), keep, RATE), rng)


@pytest.mark.parametrize("width", [16, 64, 80])
@pytest.mark.parametrize("tokens", [64, 192])
def test_half_a_tile_with_a_mask(tokens, width):
    """pytorch#196678: T % 128 == 64 with a mask gave NaN, where places behind the end scored 0, not -inf.

    Scores are far below 0 here, so that one place that counts as 0 would have all the weight.
    """
    rng = np.random.default_rng(tokens)
    q, k, v = rng.normal(size=(3, 1, 2, tokens, width))
    contract((4 * np.abs(q), -np.abs(k), v, None, padding_mask(rng, 1, tokens, False)), rng)


@pytest.mark.parametrize("width", [16, 80])
def test_a_few_tokens_that_score_far_below_zero(width):
    rng = np.random.default_rng(8)
    q, k, v = rng.normal(size=(3, 2, 2, 5, width))
    contract((4 * np.abs(q), -np.abs(k), v), rng)


@pytest.mark.parametrize("slope", [-0.25, 0.25])
def test_scores_that_rise_or_fall_along_the_keys(slope):
    """Each part of a tile brings a larger maximum than the one before, or none does."""
    rng = np.random.default_rng(9)
    q, k, v = rng.normal(size=(3, 1, 2, 150, 16))
    q[..., 0], k[..., 0] = 4, slope * np.arange(150)
    contract((q, k, v), rng)


@pytest.mark.parametrize("scale", [0.0, 30.0])
def test_equal_scores_and_large_ones(scale):
    rng = np.random.default_rng(10)
    q, k, v, _, mask, keep, rate = arguments(rng, (2, 2, 70, 16), False, scattered_mask, False, True)
    contract((scale * q, k, v, None, mask, keep, rate), rng)


def test_log_sum_exp_is_saved():
    rng = np.random.default_rng(11)
    q, k, v, _, mask, *_ = rounded_arguments(rng, (3, 2, 70, 16), False, scattered_mask, True)
    _, cache = placed(forward)(q, k, v, None, mask)
    scores = as_dtype(np.float64, q) @ as_dtype(np.float64, k).swapaxes(-1, -2) / math.sqrt(16)
    has_keys = mask.any(axis=1)
    lse = to_numpy(cache.lse).reshape(2, 3, 70).swapaxes(0, 1)  # (N, B * T) -> (B, N, T)
    assert lse.dtype == np.float32
    assert (lse[~has_keys] == np.inf).all()
    assert not has_keys.all()
    scores = np.where(mask[:, None, None, :], scores, -np.inf)[has_keys]
    expected = np.log(np.exp(scores).sum(axis=-1))
    np.testing.assert_allclose(lse[has_keys], expected, rtol=0, atol=64 * float(np.finfo(np.float32).eps))


# --- masks ----------------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(shape=narrow_shapes, seed=seeds, drops=flags, empty_text=flags)
def test_masked_keys_get_exactly_zero_and_are_not_read(shape, seed, drops, empty_text):
    rng = np.random.default_rng(seed)
    q, k, v, *options = rounded_arguments(rng, shape, False, scattered_mask, empty_text, drops)
    dcontext = normal(rng, shape)
    found = run((q, k, v, *options), dcontext)
    masked = np.broadcast_to(~options[1][:, None, :, None], shape)
    assert not found[2][masked].any()
    assert not found[3][masked].any()
    hidden = [np.where(masked, HALF(np.nan), x) for x in (k, v)]
    for name, actual, expected in zip(NAMES, run((q, *hidden, *options), dcontext), found, strict=True):
        assert_identical(actual, expected, name)


@pytest.mark.parametrize("width", [16, 80])
@pytest.mark.parametrize("drops", [False, True])
def test_a_fully_masked_text_gives_zero_and_leaves_the_others_alone(drops, width):
    rng = np.random.default_rng(3)
    args = rounded_arguments(rng, (3, 2, 70, width), False, scattered_mask, False, drops)
    args[4][1] = False
    dcontext = normal(rng, (3, 2, 70, width))
    found = run(args, dcontext)
    alone = [a[[0, 2]] if isinstance(a, np.ndarray) else a for a in args]
    for name, one, expected in zip(NAMES, found, run(alone, dcontext[[0, 2]]), strict=True):
        assert not one[1].any(), name
        assert one[[0, 2]].any(axis=(1, 2, 3)).all(), name
        assert_identical(one[[0, 2]], expected, name)


def test_all_texts_fully_masked():
    rng = np.random.default_rng(4)
    args = list(rounded_arguments(rng, (2, 3, 35, 16)))
    args[4] = np.zeros((2, 35), bool)
    for name, array in zip(NAMES, run(args, normal(rng, (2, 3, 35, 16))), strict=True):
        assert_identical(array, np.zeros(array.shape, HALF), name)


def test_keys_are_open_in_one_part_of_a_tile_only():
    """Parts without an open key are skipped; between, before and behind them the sums go on."""
    rng = np.random.default_rng(5)
    args = list(arguments(rng, (1, 2, 200, 16)))
    args[4] = np.zeros((1, 200), bool)
    args[4][0, [40, 41, 100, 163]] = True
    contract(args, rng)


# --- dropout --------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.sampled_from((1, 3, 4, 8, 33, 68)), st.just(16)),
    seed=seeds,
    rate=st.sampled_from((0.1, 0.5, 0.9)),
    masked=flags,
)
def test_drawn_dropout_is_the_keep_mask(shape, seed, rate, masked):
    """Bit for bit, forward and backward: where four keys share a draw, and where rows begin in its middle."""
    rng = np.random.default_rng(seed)
    q, k, v, _, mask, *_ = rounded_arguments(rng, shape, False, scattered_mask if masked else None, True)
    dcontext = normal(rng, shape)
    dropout = AttentionDropout(rate, int(rng.integers(2**63)), int(rng.integers(2**32)), 1)
    keep_mask = ops.dropout_keep_mask((*shape[:3], shape[2]), *dropout)
    drawn = run((q, k, v, None, mask), dcontext, dropout=dropout)
    explicit = run((q, k, v, None, mask, keep_mask, rate), dcontext)
    for name, one, other in zip(NAMES, drawn, explicit, strict=True):
        assert_identical(one, other, name)


@pytest.mark.parametrize("queries, keys, width", [(5, 68, 16), (70, 36, 80), (131, 35, 48), (35, 131, 16)])
def test_drawn_dropout_of_other_numbers_of_keys(queries, keys, width):
    rng = np.random.default_rng(12)
    q, k, v = (normal(rng, (2, 2, tokens, width)) for tokens in (queries, keys, keys))
    dcontext = normal(rng, q.shape)
    keep_mask = ops.dropout_keep_mask((2, 2, queries, keys), *DROPOUT)
    drawn = run((q, k, v), dcontext, dropout=DROPOUT)
    explicit = run((q, k, v, None, None, keep_mask, RATE), dcontext)
    for name, one, other in zip(NAMES, drawn, explicit, strict=True):
        assert_identical(one, other, name)


@pytest.mark.parametrize("keys", [4, 5])
@pytest.mark.parametrize("which", range(4))
def test_a_pair_whose_word_is_the_threshold_is_kept(which, keys):
    """Where four keys share a draw, and where they do not."""
    rng = np.random.default_rng(18)
    q, k, v = (normal(rng, (1, 1, tokens, 16)) for tokens in (4, keys, keys))
    word = philox4x32((0, 0, 3, DROPOUT.site), (DROPOUT.seed % 2**32, DROPOUT.seed >> 32))[which]
    dropout = DROPOUT._replace(rate=int(word) / 2**32)
    keep_mask = ops.dropout_keep_mask((1, 1, 4, keys), *dropout)
    assert keep_mask[0, 0, 0, which]
    dcontext = normal(rng, q.shape)
    drawn = run((q, k, v), dcontext, dropout=dropout)
    explicit = run((q, k, v, None, None, keep_mask, dropout.rate), dcontext)
    for name, one, other in zip(NAMES, drawn, explicit, strict=True):
        assert_identical(one, other, name)


def test_a_rate_of_zero_keeps_everything():
    rng = np.random.default_rng(13)
    q, k, v, *_ = rounded_arguments(rng, (1, 2, 5, 16))
    drawn, _ = placed(functools.partial(forward, dropout=DROPOUT._replace(rate=0.0)))(q, k, v)
    assert_identical(drawn, placed(forward)(q, k, v)[0], "context")


def test_dropping_everything_gives_zero():
    """Not fully masked: there are probabilities, but none survives."""
    rng = np.random.default_rng(14)
    args = list(rounded_arguments(rng, (1, 2, 35, 16), drops=True))
    args[5] = np.zeros((1, 2, 35, 35), bool)
    dcontext = normal(rng, (1, 2, 35, 16))
    for name, array in zip(NAMES, run(args, dcontext), strict=True):
        assert_identical(array, np.zeros(array.shape, HALF), name)


# --- packed texts ---------------------------------------------------------------------------------------


def run_packed(lengths, arrays, most, dropout=None):
    """q, k, v and dcontext of (tokens, N, H) -> the context and the three gradients."""
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    options = AttentionOptions(dropout=dropout)
    *inputs, dcontext = arrays

    def both(q, k, v, dcontext, starts):
        sequences = Sequences(len(lengths), most, most, starts, starts)
        context, lse = mma.attention_forward(q, k, v, sequences, options)
        gradients = mma.attention_backward(dcontext, q, k, v, context, lse, sequences, options)
        return context, *gradients[:3]

    return placed(both)(*inputs, dcontext, starts)


def padded(x, lengths, most, filler):
    """(tokens, N, H) -> (B, N, most, H)"""
    result = np.full((len(lengths), most, *x.shape[1:]), filler, x.dtype)
    for text, (start, length) in enumerate(zip(np.cumsum([0, *lengths]), lengths, strict=False)):
        result[text, :length] = x[start : start + length]
    return result.swapaxes(1, 2)


@settings(max_examples=10)
@given(
    lengths=st.lists(st.sampled_from((0, 1, 2, 15, 33, 64, 65, 130)), min_size=1, max_size=4),
    seed=seeds,
    drops=flags,
    room=st.sampled_from((0, 1, 30)),
)
def test_packed_is_padded(lengths, seed, drops, room):
    """Padding costs time and changes no bit: dropout numbers its pairs as those of the padded texts."""
    rng = np.random.default_rng(seed)
    arrays = normal(rng, (4, sum(lengths), 2, 16))
    most = max(lengths) + room
    dropout = DROPOUT if drops else None
    found = run_packed(lengths, arrays, most, dropout)
    q, k, v, dcontext = (
        padded(x, lengths, most, filler) for x, filler in zip(arrays, (5, 5, 5, 0), strict=True)
    )
    key_mask = np.arange(most) < np.array(lengths)[:, None]
    expected = run((q, k, v, None, key_mask), dcontext, dropout=dropout)
    for name, actual, reference in zip(NAMES, found, expected, strict=True):
        texts = [reference[text].swapaxes(0, 1)[:length] for text, length in enumerate(lengths)]
        assert_identical(actual, np.concatenate(texts), name)


@pytest.mark.parametrize("width", [16, 80])
def test_each_packed_text_is_the_textbooks(width):
    rng = np.random.default_rng(15)
    lengths = [33, 1, 0, 140, 8]
    arrays = normal(rng, (4, sum(lengths), 2, width))
    found = run_packed(lengths, arrays, 140)
    for start, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        if length == 0:
            continue
        *args, dcontext = (x[start : start + length].swapaxes(0, 1)[None] for x in arrays)
        exact = [as_dtype(np.float64, arg) for arg in args]
        expected = run_textbook(exact, as_dtype(np.float64, dcontext))
        sizes = terms(as_dtype(np.float64, dcontext), *exact)
        for name, actual, reference, unfused, size in zip(
            NAMES, found, expected, run_textbook(args, dcontext), sizes, strict=False
        ):
            text = actual[start : start + length].swapaxes(0, 1)[None]
            assert_within_budget(text, reference, unfused, size, f"{name}, length {length}")


@pytest.mark.parametrize("lengths", [[0], [0, 0, 0], []])
def test_no_tokens_at_all(lengths):
    for array in run_packed(lengths, np.zeros((4, 0, 3, 16), HALF), most=4):
        assert array.shape == (0, 3, 16)


# --- races, bounds --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("width", [16, 80])
def test_clean(sanitizer, width):
    """More than a tile and a block, a mask, and an explicit keep mask, whose end is the end of its memory."""
    rng = np.random.default_rng(16)
    args = rounded_arguments(rng, (1, 2, 69, width), False, scattered_mask, False, True)
    assert_clean(forward, backward, args, normal(rng, (1, 2, 69, width)), sanitizer)


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("width", [16, 80])
@pytest.mark.parametrize("queries, keys", [(13, 0), (0, 13)])
def test_no_race_where_there_is_nothing_to_walk_over(queries, keys, width):
    """A wide head's first tile is still on its way when the walk is over."""
    q, k = (np.ones((1, 1, tokens, width), HALF) for tokens in (queries, keys))
    assert_clean(forward, backward, (q, k, k), q, "thread")


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_every_sector_and_every_turn_of_the_banks_is_used(width):
    """Of full tiles: no load of global memory drags others along, and no two lanes ask one bank at once."""
    launches = []

    def look(launch):
        accesses = tracing.trace(launch).accesses
        is_shared = accesses["range"] >= tracing.FIRST_SHARED
        for part, measure in ((accesses[is_shared], bank_turns), (accesses[~is_shared], sectors)):
            requests = total(list(by_instruction(part, measure).values()))
            assert requests.requests > 0
            assert requests.excess == 1, f"{launch.kernel}: {requests}"
        launches.append(launch.kernel)

    rng = np.random.default_rng(17)
    with emulator.intercepted(look):
        run(normal(rng, (3, 1, 2, 128, width)), normal(rng, (1, 2, 128, width)))
    assert len(launches) == 3


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype, width, options, message",
    [
        (np.float32, 64, {}, "q is float32; the tensor-core kernels take float16"),
        (HALF, 24, {}, "the head width is 24; the tensor-core kernels take multiples of 16 up to 128"),
        (HALF, 144, {}, "the head width is 144"),
        (HALF, 0, {}, "the head width is 0"),
        (
            HALF,
            64,
            {"bias": np.zeros((1, 2, 3, 3), HALF)},
            "there is a bias; the tensor-core kernels take none",
        ),
    ],
)
def test_what_there_is_no_kernel_for(dtype, width, options, message):
    q = np.zeros((3, 2, width), dtype)
    sequences, options = Sequences(1, 3, 3), AttentionOptions(**options)
    assert not mma.supports(q, options)
    with pytest.raises(ValueError, match=message):
        mma.attention_forward(q, q, q, sequences, options)
    with pytest.raises(ValueError, match=message):
        mma.attention_backward(q, q, q, q, q, np.zeros((2, 3), np.float32), sequences, options)


@pytest.mark.parametrize("width", range(16, 129, 16))
def test_what_there_is_a_kernel_for(width):
    assert mma.supports(np.zeros((3, 2, width), HALF), AttentionOptions())


def test_older_devices(monkeypatch):
    monkeypatch.setattr(mma, "compute_capability", lambda q: (7, 5))
    q, options = np.zeros((3, 2, 64), HALF), AttentionOptions()
    assert not mma.supports(q, options)
    with pytest.raises(ValueError, match=r"compute capability 7\.5; the tensor-core kernels need 8\.0"):
        mma.attention_forward(q, q, q, Sequences(1, 3, 3), options)
