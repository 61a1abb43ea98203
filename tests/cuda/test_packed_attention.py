"""Texts of any lengths without padding: the padded result bit for bit, whatever lies beside a text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cuda import softmax_attention, softmax_attention_scalar
from npbert.cuda.softmax_attention import (
    packed_attention_backward,
    packed_attention_forward,
    softmax_attention_backward,
    softmax_attention_forward,
)
from tests.comparisons import assert_identical, assert_rows_close
from tests.cuda.kernel_contract import DTYPES, assert_clean, placed
from tests.op_contract import as_dtype
from tests.ops.test_softmax_attention import terms
from tests.oracles import complex_step_gradient
from tests.strategies import flags, seeds
from tests.tolerances import COMPLEX_STEP, ROUND_OFF, U64

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(autouse=True, scope="module")
def scalar_kernels():
    """In float16, too, where tensor cores would take over (tests/cuda/test_softmax_attention_mma.py)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax_attention, "kernels_for", lambda q, options: softmax_attention_scalar)
        yield


HEADS = 3
NAMES = ("context", "dq", "dk", "dv")
DROPOUT = AttentionDropout(0.3, seed=2**40 + 5, layer=3, site=ops.dropout.SITE_ATTENTION_PROBS)

# Empty texts, texts of one token, and texts that end within, with and behind a tile of 8, 32 or 64 rows.
lengths = st.lists(st.sampled_from((0, 1, 2, 7, 31, 32, 33, 65)), min_size=1, max_size=5)
dtypes = st.sampled_from(DTYPES)


def cumulative(lengths):
    return np.cumsum([0, *lengths])


def draw(rng, lengths, dtype, width=8):
    """q, k, v and dcontext."""
    return as_dtype(dtype, rng.normal(size=(4, sum(lengths), HEADS, width)))


def run(lengths, q, k, v, dcontext, most=None, dropout=None):
    """The context and the three gradients of packed texts."""
    most = max(lengths) if most is None else most
    context, cache = placed(packed_attention_forward)(q, k, v, cumulative(lengths), most, dropout)
    return context, *placed(packed_attention_backward)(dcontext, cache)


def padded(x, lengths, most):
    """(tokens, N, H) -> (B, N, T, H), with numbers behind the texts that must not matter."""
    result = np.full((len(lengths), most, *x.shape[1:]), 5, x.dtype)
    for text, (start, length) in enumerate(zip(cumulative(lengths), lengths, strict=False)):
        result[text, :length] = x[start : start + length]
    return result.swapaxes(1, 2)


def unpadded(x, lengths):
    """The way back."""
    return np.concatenate([x[text].swapaxes(0, 1)[:length] for text, length in enumerate(lengths)])


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.usefixtures("emulated")
def test_clean(sanitizer):
    """First of all, since out of bounds a kernel may end the process that runs it."""
    lengths = [33, 0, 1, 65]
    q, k, v, dcontext = draw(np.random.default_rng(6), lengths, np.float32)
    args = (q, k, v, cumulative(lengths), 66, DROPOUT)
    assert_clean(packed_attention_forward, packed_attention_backward, args, dcontext, sanitizer)


@settings(max_examples=15)
@given(lengths=lengths, seed=seeds, dtype=dtypes, drops=flags, room=st.sampled_from((0, 1, 30)))
def test_packed_is_padded(lengths, seed, dtype, drops, room):
    """Padding costs time and changes no bit: dropout has its rows' numbers from the padded texts."""
    rng = np.random.default_rng(seed)
    arrays = draw(rng, lengths, dtype)
    most = max(lengths) + room
    found = run(lengths, *arrays, most, DROPOUT if drops else None)

    q, k, v, dcontext = (padded(x, lengths, most) for x in arrays)
    key_mask = np.arange(most) < np.array(lengths)[:, None]
    dcontext = np.where(key_mask[:, None, :, None], dcontext, 0)  # what is padding has no part in the loss
    keep_mask = ops.dropout_keep_mask((*q.shape[:3], most), *DROPOUT) if drops else None
    context, cache = softmax_attention_forward(q, k, v, None, key_mask, keep_mask, DROPOUT.rate)
    gradients = softmax_attention_backward(dcontext, cache)
    for name, actual, expected in zip(NAMES, found, (context, *gradients), strict=False):
        assert_identical(actual, unpadded(expected, lengths), name)


@settings(max_examples=10)
@given(lengths=lengths, seed=seeds, dtype=dtypes)
def test_a_text_does_not_know_its_neighbours(lengths, seed, dtype):
    rng = np.random.default_rng(seed)
    arrays = draw(rng, lengths, dtype)
    found = run(lengths, *arrays)
    for start, length in zip(cumulative(lengths), lengths, strict=False):
        text = slice(start, start + length)
        alone = run([length], *(x[text] for x in arrays), max(lengths))
        for name, one, all_of_them in zip(NAMES, alone, found, strict=True):
            assert_identical(all_of_them[text], one, name)


def test_each_text_is_the_textbooks():
    """Without the padded path in between: the complex step of each text's own forward."""
    rng = np.random.default_rng(1)
    lengths = [3, 1, 0, 37, 8]
    arrays = draw(rng, lengths, np.float64)
    found = run(lengths, *arrays)
    for start, length in zip(cumulative(lengths), lengths, strict=False):
        if length == 0:
            continue
        text = slice(start, start + length)
        q, k, v, dcontext = (x[text].swapaxes(0, 1)[None] for x in arrays)
        expected = [ops.softmax_attention_forward(q, k, v)[0]]
        for position in range(3):
            expected.append(complex_step_gradient(value, (q, k, v), position, dcontext))
        for name, actual, reference, size in zip(
            NAMES, found, expected, terms(dcontext, q, k, v), strict=False
        ):
            assert_rows_close(
                actual[text].swapaxes(0, 1)[None],
                reference,
                what=name,
                relative=COMPLEX_STEP,
                round_off=ROUND_OFF * U64,
                terms=size,
            )


def value(q, k, v):
    return ops.softmax_attention_forward(q, k, v)[0]


@pytest.mark.parametrize("lengths", [[0], [0, 0, 0]])
def test_no_tokens_at_all(lengths):
    for array in run(lengths, *draw(np.random.default_rng(2), lengths, np.float32), most=4):
        assert array.shape == (0, HEADS, 8)


def test_no_texts():
    for array in run([], *draw(np.random.default_rng(3), [], np.float32), most=4):
        assert array.shape == (0, HEADS, 8)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint16])
def test_lengths_of_any_integer_dtype(dtype):
    rng = np.random.default_rng(4)
    q, k, v, _ = draw(rng, [2, 3], np.float32)
    expected, _ = packed_attention_forward(q, k, v, np.array([0, 2, 5]), 3)
    found, _ = packed_attention_forward(q, k, v, np.array([0, 2, 5], dtype), 3)
    assert_identical(found, expected, "context")


def test_other_layouts_and_read_only_arrays():
    rng = np.random.default_rng(5)
    lengths = [5, 33]
    arrays = draw(rng, lengths, np.float32)
    expected = run(lengths, *arrays)
    moved = [np.asfortranarray(x) for x in arrays]
    for x in moved:
        x.flags.writeable = False
    for name, actual, reference in zip(NAMES, run(lengths, *moved), expected, strict=True):
        assert_identical(actual, reference, name)


def test_probabilities_are_for_padded_texts():
    _, cache = packed_attention_forward(
        *draw(np.random.default_rng(7), [3], np.float32)[:3], np.array([0, 3]), 3
    )
    with pytest.raises(ValueError, match="packed texts"):
        _ = cache.probs


# --- bad input ------------------------------------------------------------------------------------------

ROWS = np.zeros((5, HEADS, 8), np.float32)
LENGTHS = np.array([0, 2, 5])


def changed(**arguments):
    return {"q": ROWS, "k": ROWS, "v": ROWS, "cumulative_lengths": LENGTHS, "max_tokens": 3} | arguments


@pytest.mark.parametrize(
    "arguments, message",
    [
        (changed(q=ROWS.astype(np.int32)), "q is int32"),
        (changed(v=ROWS.astype(np.float16)), "q is float32, v float16"),
        (changed(q=ROWS[0]), r"q has shape \(3, 8\); expected \(tokens, N, H\)"),
        (changed(k=ROWS[:4]), r"k has shape \(4, 3, 8\); expected \(5, 3, 8\)"),
        (changed(v=ROWS[:, :1]), r"v has shape \(5, 1, 8\); expected \(5, 3, 8\)"),
        (dict(changed(), **dict.fromkeys("qkv", ROWS[..., :4])), "head width is 4"),
        (changed(cumulative_lengths=[0, 2, 5]), "cumulative_lengths is list"),
        (changed(cumulative_lengths=LENGTHS.astype(float)), "cumulative_lengths is float64; expected"),
        (changed(cumulative_lengths=LENGTHS[None]), "one-dimensional"),
        (changed(cumulative_lengths=LENGTHS[:0]), "must start with 0"),
        (changed(cumulative_lengths=np.array([1, 2, 5])), "must start with 0"),
        (changed(cumulative_lengths=np.array([0, 3, 2, 5])), "falls at index 2, to 2"),
        (changed(cumulative_lengths=np.array([0, 3, 2, 5], np.uint8)), "falls at index 2, to 2"),
        (changed(cumulative_lengths=np.array([0, 2, 4])), "ends with 4; there are 5 tokens"),
        (changed(cumulative_lengths=np.array([0, 2, 6])), "ends with 6; there are 5 tokens"),
        (changed(max_tokens=2), "text 1 has 3 tokens; max_tokens is 2"),
        (changed(max_tokens=2.5), "max_tokens is 2.5; it must be an integer"),
        (changed(max_tokens=-1), "max_tokens is -1"),
        (changed(max_tokens=2**31), "max_tokens is 2147483648"),
        (changed(dropout=DROPOUT._replace(rate=1.0)), "rate is 1.0"),
        (changed(dropout=DROPOUT._replace(seed=-1)), "seed is -1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        packed_attention_forward(**arguments)


@pytest.mark.parametrize(
    "dcontext, message",
    [
        (ROWS[:4], r"dcontext has shape \(4, 3, 8\)"),
        (ROWS.astype(np.float16), "dcontext is float16, q float32"),
    ],
)
def test_bad_cotangent(dcontext, message):
    _, cache = packed_attention_forward(**changed())
    with pytest.raises(ValueError, match=message):
        packed_attention_backward(dcontext, cache)
