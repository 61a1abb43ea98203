"""Attention of the CPU engine: the contract, the textbook, masks, blocks, workers, dropout drawn in place."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cpu import packed_attention
from npbert.cpu import softmax_attention as engine
from npbert.cpu.softmax_attention import (
    AttentionCache,
    dropout_attention_forward,
    softmax_attention_backward,
    softmax_attention_forward,
)
from npbert.cpu.workers import workers
from npbert.ops.dropout import SITE_ATTENTION_PROBS
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.cpu.accuracy import assert_as_accurate_as_the_textbook
from tests.cpu.any_workers import assert_same_for_any_workers
from tests.op_contract import as_dtype, assert_op_contract
from tests.ops.test_softmax_attention import GRADIENTS, RATE, arguments, attention_shapes, terms
from tests.strategies import flags, padding_mask, scattered_mask, seeds
from tests.tolerances import ROUND_OFF, U64

ENGINE = (softmax_attention_forward, softmax_attention_backward)
TEXTBOOK = (ops.softmax_attention_forward, ops.softmax_attention_backward)
DROPOUT = AttentionDropout(RATE, seed=2**40 + 5, layer=3, site=SITE_ATTENTION_PROBS)
MASKS = (None, padding_mask, scattered_mask)


@pytest.fixture(params=[1 << 19, 1500], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Small blocks, so that a few tokens make several of heads and of queries."""
    for module in (engine, packed_attention):
        monkeypatch.setattr(module, "BLOCK_BYTES", request.param)


def run(op, args, dcontext):
    context, cache = op[0](*args)
    return [context, cache.probs, *op[1](dcontext, cache)]


def assert_is_the_textbook(args, rng):
    dcontext = rng.normal(size=(*args[0].shape[:-1], args[2].shape[-1]))
    found, expected = run(ENGINE, args, dcontext), run(TEXTBOOK, args, dcontext)
    sizes = terms(dcontext, *args)
    sizes.insert(1, expected[1] + sizes[0].max())
    for name, actual, reference, size in zip(
        ("context", "probs", *GRADIENTS), found, expected, sizes, strict=True
    ):
        if reference is None:
            assert actual is None
        else:
            assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=size)


@given(shape=attention_shapes, seed=seeds, has_bias=flags, masked=flags, empty_text=flags, drops=flags)
def test_contract(shape, seed, has_bias, masked, empty_text, drops):
    """The complex step goes through the textbook, which complex arrays are left to."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, scattered_mask if masked else None, empty_text, drops)
    assert_op_contract(*ENGINE, args, rng, gradients=GRADIENTS, terms=terms)


@given(shape=attention_shapes, seed=seeds, has_bias=flags, masked=flags, drops=flags)
def test_float32_is_as_accurate_as_the_textbook(shape, seed, has_bias, masked, drops):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, padding_mask if masked else None, True, drops)
    assert_as_accurate_as_the_textbook(ENGINE, TEXTBOOK, args, rng, gradients=GRADIENTS, terms=terms)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("has_bias", "drops"), list(itertools.product([False, True], repeat=2)))
def test_is_the_textbook(mask, has_bias, drops):
    rng = np.random.default_rng(1)
    assert_is_the_textbook(arguments(rng, (3, 5, 37, 7), has_bias, mask, True, drops), rng)


@pytest.mark.usefixtures("blocks")
def test_fewer_queries_than_keys_and_wider_values():
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(2, 3, 19, 7)), rng.normal(size=(2, 3, 41, 7))
    v = rng.normal(size=(2, 3, 41, 9))
    for key_mask in (None, scattered_mask(rng, 2, 41, False)):
        args = (q, k, v, rng.normal(size=(2, 3, 19, 41)), key_mask, rng.random((2, 3, 19, 41)) < 0.7, RATE)
        assert_is_the_textbook(args, rng)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("scale", [8.0, 100.0])
def test_scores_whose_exponentials_overflow_or_vanish(scale):
    """Some heads have scores of thousands, some have none: only the former get their maxima subtracted."""
    rng = np.random.default_rng(3)
    args = list(arguments(rng, (2, 4, 37, 5), has_bias=True, mask=scattered_mask, drops=True))
    args[0][:, ::2] *= scale
    args[1] *= scale
    args[3][:, :, 3] -= 1e4  # whole rows far below 0
    args[3][:, :, 5] += 1e4
    assert_is_the_textbook(args, rng)


@pytest.mark.parametrize("shift", [-1e3, 1e3])
def test_heads_whose_scores_are_all_far_from_zero(shift):
    """On one side only: exponentials that all vanish, and ones that all overflow."""
    rng = np.random.default_rng(13)
    args = list(arguments(rng, (2, 4, 9, 5), has_bias=True))
    args[3][:, 1:3] += shift * np.sqrt(5)
    assert_is_the_textbook(args, rng)


def test_rows_of_minus_infinity_give_zero():
    rng = np.random.default_rng(4)
    args = list(arguments(rng, (2, 3, 7, 5), has_bias=True))
    args[3][:, :, 2] = -np.inf
    args[3][:, :, :, 3] = -np.inf
    dcontext = rng.normal(size=(2, 3, 7, 5))
    context, probs, dq, dk, *_ = run(ENGINE, args, dcontext)
    expected = run(TEXTBOOK, args, dcontext)
    for row in (context[:, :, 2], probs[:, :, 2], dq[:, :, 2], dk[:, :, 3]):
        assert not row.any()
    np.testing.assert_allclose(context, expected[0], rtol=1e-12, atol=1e-15)  # some terms cancel


@given(shape=attention_shapes, seed=seeds, has_bias=flags, drops=flags, empty_text=flags)
def test_masked_keys_are_never_read(shape, seed, has_bias, drops, empty_text):
    """NaN in their place changes no bit; their gradients are exactly 0."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, scattered_mask, empty_text, drops)
    dcontext = rng.normal(size=shape)
    masked = np.broadcast_to(~args[4][:, None, :, None], shape)
    other = [np.where(masked, np.nan, a) if i in (1, 2) else a for i, a in enumerate(args)]
    expected = run(ENGINE, args, dcontext)
    for name, actual, reference in zip(
        ("context", "probs", *GRADIENTS), run(ENGINE, other, dcontext), expected, strict=True
    ):
        if reference is not None:
            assert_identical(actual, reference, name)
    _, probs, _, dk, dv, _ = expected
    assert not dk[masked].any()
    assert not dv[masked].any()
    assert not probs[np.broadcast_to(masked[..., 0][:, :, None, :], probs.shape)].any()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_same_bits_for_any_number_of_workers(mask, has_bias, monkeypatch):
    for module in (engine, packed_attention):
        monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 14)
    rng = np.random.default_rng(5)
    args = arguments(rng, (3, 5, 65, 16), has_bias, mask, True, drops=True)
    assert_same_for_any_workers(*ENGINE, args, rng)


def test_work_is_shared_out(monkeypatch):
    """Forward and backward wait for another thread's first product."""
    rng = np.random.default_rng(6)
    args = arguments(rng, (2, 4, 7, 5))
    multiply = packed_attention.multiply
    seen = threading.local()

    def wait_for_another_thread(*operands):
        if not hasattr(seen, "waited"):
            seen.waited = True
            both.wait()
        multiply(*operands)

    monkeypatch.setattr(packed_attention, "multiply", wait_for_another_thread)
    with workers(2):
        both = threading.Barrier(2, timeout=60)
        context, cache = softmax_attention_forward(*args)
        seen = threading.local()
        softmax_attention_backward(context, cache)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("heads", [1, 5])
def test_a_text_has_the_same_bits_in_any_batch(dtype, mask, heads):
    """How heads and texts are cut into pieces must not show, nor may another text's large scores."""
    rng = np.random.default_rng(7)
    args = [as_dtype(dtype, a) for a in arguments(rng, (6, heads, 37, 8), True, mask, False, True)]
    args[0][2] *= 100
    dcontext = rng.normal(size=(6, heads, 37, 8)).astype(dtype)
    together = run(ENGINE, args, dcontext)
    for text in range(6):
        one = slice(text, text + 1)
        alone = run(ENGINE, [a[one] if isinstance(a, np.ndarray) else a for a in args], dcontext[one])
        for name, found, expected in zip(("context", "probs", *GRADIENTS), together, alone, strict=True):
            assert_identical(found[one], expected, name)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 3, 33, 7), (3, 2, 50, 8)])
@pytest.mark.parametrize("mask", MASKS)
def test_drawn_dropout_is_that_of_the_mask(dtype, shape, mask):
    rng = np.random.default_rng(8)
    q, k, v, _, key_mask, _, _ = (as_dtype(dtype, a) for a in arguments(rng, shape, mask=mask))
    batch, heads, tokens, _ = shape
    keep_mask = ops.dropout_keep_mask((batch, heads, tokens, tokens), *DROPOUT)
    assert not keep_mask.all() or tokens == 1
    dcontext = rng.normal(size=shape).astype(dtype)
    context, cache = dropout_attention_forward(q, k, v, key_mask, DROPOUT)
    drawn = [context, cache.probs, *softmax_attention_backward(dcontext, cache)]
    given_mask = run(ENGINE, (q, k, v, None, key_mask, keep_mask, RATE), dcontext)
    for name, found, expected in zip(("context", "probs", *GRADIENTS), drawn, given_mask, strict=True):
        if expected is not None:
            assert_identical(found, expected, name)


def test_without_dropout_nothing_is_drawn():
    rng = np.random.default_rng(9)
    q, k, v, *_ = arguments(rng, (2, 3, 7, 5))
    assert_identical(dropout_attention_forward(q, k, v)[0], softmax_attention_forward(q, k, v)[0], "context")


def test_the_cache_holds_no_array_of_scores():
    rng = np.random.default_rng(10)
    args = [as_dtype(np.float32, a) for a in arguments(rng, (2, 3, 64, 8), drops=True)]
    _, cache = softmax_attention_forward(*args)
    inputs = {id(a) for a in args}
    own = [a for a in cache if isinstance(a, np.ndarray) and id(a) not in inputs]
    assert sum(a.nbytes for a in own) <= cache.context.nbytes + cache.lse.nbytes + 2 * 3 * 64 * 64 // 8


@pytest.mark.parametrize("masked", [False, True])
def test_heads_are_merged_without_a_copy(masked):
    rng = np.random.default_rng(11)
    x = rng.normal(size=(3, 2, 7, 15))
    q, k, v = (ops.split_heads(a, 5) for a in x)
    key_mask = scattered_mask(rng, 2, 7, False) if masked else None
    context, cache = softmax_attention_forward(q, k, v, None, key_mask)
    for array in (context, *softmax_attention_backward(context, cache)[:3]):
        assert np.shares_memory(ops.merge_heads(array), array)


def test_arrays_of_several_dtypes_are_left_to_the_textbook():
    rng = np.random.default_rng(12)
    q, k, v, *_ = arguments(rng, (2, 3, 7, 5))
    context, cache = softmax_attention_forward(q, k.astype(np.float32), v)
    assert not isinstance(cache, AttentionCache)
    assert_finite(softmax_attention_backward(context, cache)[0], "dq")
    with pytest.raises(ValueError, match="q, k and v are float64, float32 and float64; all must be"):
        dropout_attention_forward(q, k.astype(np.float32), v)


@pytest.mark.parametrize("field", [{"rate": 1.0}, {"seed": -1}, {"layer": 2**32}])
def test_a_dropout_outside_its_range_is_an_error(field):
    q = np.ones((1, 1, 2, 3))
    with pytest.raises(ValueError, match=f"{next(iter(field))} is"):
        dropout_attention_forward(q, q, q, None, DROPOUT._replace(**field))
