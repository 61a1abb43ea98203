"""softmax attention: a loop, the contract, and what masks, dropout and shifts must do."""

import math

import numpy as np
import pytest
from hypothesis import given

from npbert.ops.linear import linear_backward, linear_forward
from npbert.ops.softmax_attention import (
    merge_heads,
    softmax_attention_backward,
    softmax_attention_forward,
    split_heads,
)
from tests.comparisons import assert_identical, assert_rows_close
from tests.op_contract import assert_op_contract
from tests.oracles import softmax_attention_loop, torch_value_and_gradients
from tests.strategies import flags, padding_mask, scattered_mask, seeds, shapes
from tests.tolerances import ROUND_OFF, U64

GRADIENTS = ("q", "k", "v", "bias")
RATE = 0.3
attention_shapes = shapes(4, most=700).filter(lambda s: s[0] * s[1] * s[2] ** 2 <= 3000)


def arguments(rng, shape, has_bias=False, mask=None, empty_text=False, drops=False):
    """Arguments of the forward; ``mask`` is None, or the strategy's function that draws one."""
    batch, heads, tokens, _ = shape
    q, k, v = rng.normal(size=(3, *shape))
    square = (batch, heads, tokens, tokens)
    return (
        q,
        k,
        v,
        rng.normal(size=square) if has_bias else None,
        None if mask is None else mask(rng, batch, tokens, empty_text),
        rng.random(square) >= RATE if drops else None,
        RATE if drops else 0.0,
    )


def terms(dcontext, q, k, v, bias=None, key_mask=None, keep_mask=None, rate=0.0):
    """Forward and backward once more, on absolute values; a score's round-off is the relative one of p."""
    scale = 1 / math.sqrt(q.shape[-1])
    bias_size = 0 if bias is None else bias
    allowed = True if key_mask is None else key_mask[:, None, None, :]
    keep = 1.0 if keep_mask is None else keep_mask / (1 - rate)
    scores = np.where(allowed, (q @ k.swapaxes(-1, -2) + bias_size) * scale, -np.inf)
    exponentials = np.exp(scores - np.maximum(scores.max(axis=-1, keepdims=True), -1e300))
    probs = exponentials / np.maximum(exponentials.sum(axis=-1, keepdims=True), 1e-300)
    loss = (np.abs(q) @ np.abs(k).swapaxes(-1, -2) + np.abs(bias_size)) * scale
    size = probs * (1 + loss + (probs * loss).sum(axis=-1, keepdims=True))
    dprobs = np.abs(dcontext) @ np.abs(v).swapaxes(-1, -2) * keep
    dscores = size * (dprobs + 2 * (size * dprobs).sum(axis=-1, keepdims=True)) * scale
    dropped = size * keep
    return [
        dropped @ np.abs(v),
        dscores @ np.abs(k),
        dscores.swapaxes(-1, -2) @ np.abs(q),
        dropped.swapaxes(-1, -2) @ np.abs(dcontext),
        dscores,
    ]


def run(args, dcontext):
    context, cache = softmax_attention_forward(*args)
    return context, softmax_attention_backward(dcontext, cache)


@given(shape=attention_shapes, seed=seeds, has_bias=flags, masked=flags, empty_text=flags, drops=flags)
def test_contract(shape, seed, has_bias, masked, empty_text, drops):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, scattered_mask if masked else None, empty_text, drops)
    assert_op_contract(
        softmax_attention_forward,
        softmax_attention_backward,
        args,
        rng,
        gradients=GRADIENTS,
        terms=terms,
    )


@given(shape=attention_shapes, seed=seeds, has_bias=flags, masked=flags, empty_text=flags, drops=flags)
def test_value_is_the_loop(shape, seed, has_bias, masked, empty_text, drops):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, padding_mask if masked else None, empty_text, drops)
    context, _ = softmax_attention_forward(*args)
    expected = softmax_attention_loop(*args)
    size = terms(np.zeros(shape), *args)[0]
    assert_rows_close(context, expected, what="context", round_off=ROUND_OFF * U64, terms=size)


@pytest.mark.parametrize("tokens", [1, 2, 31, 37])
def test_one_token_and_prime_lengths(tokens):
    rng = np.random.default_rng(tokens)
    args = arguments(rng, (2, 3, tokens, 5), has_bias=True, mask=padding_mask, drops=True)
    context, _ = softmax_attention_forward(*args)
    size = terms(np.zeros(context.shape), *args)[0]
    expected = softmax_attention_loop(*args)
    assert_rows_close(context, expected, what="context", round_off=ROUND_OFF * U64, terms=size)


def test_one_token_attends_to_itself():
    rng = np.random.default_rng(1)
    args = arguments(rng, (2, 3, 1, 5))
    dcontext = rng.normal(size=(2, 3, 1, 5))
    context, (dq, dk, dv, _) = run(args, dcontext)
    np.testing.assert_array_equal(context, args[2])
    np.testing.assert_array_equal(dv, dcontext)
    assert not dq.any()
    assert not dk.any()


def test_fewer_queries_than_keys():
    rng = np.random.default_rng(2)
    q, k, v = rng.normal(size=(2, 3, 5, 7)), rng.normal(size=(2, 3, 11, 7)), rng.normal(size=(2, 3, 11, 7))
    args = (q, k, v, rng.normal(size=(2, 3, 5, 11)), scattered_mask(rng, 2, 11, False))
    assert_op_contract(
        softmax_attention_forward,
        softmax_attention_backward,
        args,
        rng,
        gradients=GRADIENTS,
        terms=terms,
    )


@given(shape=attention_shapes, seed=seeds, has_bias=flags, drops=flags, empty_text=flags)
def test_masked_keys_get_exactly_zero_and_do_not_matter(shape, seed, has_bias, drops, empty_text):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, scattered_mask, empty_text, drops)
    q, k, v, bias, key_mask, keep_mask, rate = args
    dcontext = rng.normal(size=shape)
    context, (dq, dk, dv, dbias) = run(args, dcontext)
    masked = np.broadcast_to(~key_mask[:, None, :, None], shape)
    assert not dk[masked].any()
    assert not dv[masked].any()
    if has_bias:
        assert not dbias[np.broadcast_to(~key_mask[:, None, None, :], dbias.shape)].any()

    # Other numbers in the masked places change no bit of the rest.
    other_k, other_v = (np.where(masked, 100 * rng.normal(size=shape), a) for a in (k, v))
    other_context, (other_dq, other_dk, other_dv, _) = run(
        (q, other_k, other_v, bias, key_mask, keep_mask, rate), dcontext
    )
    size = terms(dcontext, *args)
    for name, actual, expected, t in zip(
        ("context", "dq", "dk", "dv"),
        (other_context, other_dq, other_dk, other_dv),
        (context, dq, dk, dv),
        size,
        strict=False,
    ):
        assert_rows_close(actual, expected, what=name, round_off=ROUND_OFF * U64, terms=t)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("drops", [False, True])
def test_a_fully_masked_text_gives_zero_and_leaves_the_others_alone(dtype, drops):
    rng = np.random.default_rng(3)
    args = arguments(rng, (3, 2, 7, 5), True, scattered_mask, False, drops)
    args = [a.astype(dtype) if a is not None and getattr(a, "dtype", None) == np.float64 else a for a in args]
    args[4][1] = False
    dcontext = rng.normal(size=(3, 2, 7, 5)).astype(dtype)
    context, gradients = run(args, dcontext)
    alone = [a[[0, 2]] if isinstance(a, np.ndarray) else a for a in args]
    context_alone, gradients_alone = run(alone, dcontext[[0, 2]])
    for name, found, expected in zip(
        ("context", *GRADIENTS), (context, *gradients), (context_alone, *gradients_alone), strict=True
    ):
        assert found.dtype == dtype
        assert not found[1].any(), name
        assert found[[0, 2]].any(axis=(1, 2, 3)).all(), name
        assert_identical(found[[0, 2]], expected, name)


def test_all_texts_fully_masked():
    rng = np.random.default_rng(4)
    args = list(arguments(rng, (2, 3, 5, 7), has_bias=True))
    args[4] = np.zeros((2, 5), bool)
    context, gradients = run(args, rng.normal(size=(2, 3, 5, 7)))
    for array in (context, *gradients):
        assert_identical(array, np.zeros(array.shape), "fully masked")


@given(shape=attention_shapes, seed=seeds)
def test_dropping_everything_gives_zero(shape, seed):
    """Not fully masked: there are probabilities, but none survives."""
    rng = np.random.default_rng(seed)
    args = list(arguments(rng, shape, has_bias=True, drops=True))
    args[5] = np.zeros(args[5].shape, bool)
    context, gradients = run(args, rng.normal(size=shape))
    for array in (context, *gradients):
        assert_identical(array, np.zeros(array.shape), "all dropped")


def test_rows_that_are_dropped_whole_give_their_query_nothing():
    rng = np.random.default_rng(5)
    args = arguments(rng, (2, 3, 7, 5), drops=True)
    args[5][:, :, 4] = False
    context, (dq, dk, dv, _) = run(args, rng.normal(size=(2, 3, 7, 5)))
    assert not context[:, :, 4].any()
    assert not dq[:, :, 4].any()
    assert all(array.any(axis=-1)[:, :, :4].all() for array in (context, dq, dk, dv))


def test_cached_probabilities_are_those_after_dropout():
    rng = np.random.default_rng(6)
    args = arguments(rng, (2, 3, 7, 5), drops=True)
    _, cache = softmax_attention_forward(*args)
    _, clean = softmax_attention_forward(*args[:5])
    np.testing.assert_allclose(clean.probs.sum(axis=-1), 1, rtol=ROUND_OFF * U64)
    assert not cache.probs[~args[5]].any()
    kept = cache.probs[args[5]]
    np.testing.assert_allclose(kept, clean.probs[args[5]] / (1 - RATE), rtol=ROUND_OFF * U64)


def test_without_a_rate_what_is_kept_is_not_scaled():
    rng = np.random.default_rng(10)
    q, k, v = rng.normal(size=(3, 2, 1, 5, 3))
    keep = rng.random((2, 1, 5, 5)) < 0.5
    clean = softmax_attention_forward(q, k, v)[1].probs
    np.testing.assert_array_equal(softmax_attention_forward(q, k, v, keep_mask=keep)[1].probs, clean * keep)


@given(shape=attention_shapes.filter(lambda s: s[2] > 2), seed=seeds, masked=flags, drops=flags)
def test_the_key_bias_has_no_gradient(shape, seed, masked, drops):
    """A vector added to every key adds one number to all scores of a query, and softmax forgets it."""
    rng = np.random.default_rng(seed)
    batch, heads, tokens, width = shape
    hidden = heads * width
    x = rng.normal(size=(batch, tokens, hidden))

    def project():
        weight = rng.normal(size=(hidden, hidden)) / math.sqrt(hidden)
        y, cache = linear_forward(x, weight, rng.normal(size=hidden))
        return split_heads(y, heads), cache

    def bias_gradient_and_bound(gradient, size, cache):
        _, _, dbias = linear_backward(merge_heads(gradient), cache)
        return np.abs(dbias), ROUND_OFF * U64 * merge_heads(size).sum(axis=(0, 1))

    (q, q_cache), (k, k_cache), (v, _) = project(), project(), project()
    masks = arguments(rng, shape, False, padding_mask if masked else None, True, drops)[3:]
    dcontext = rng.normal(size=shape)
    _, (dq, dk, _, _) = run((q, k, v, *masks), dcontext)
    _, dq_size, dk_size, _, _ = terms(dcontext, q, k, v, *masks)
    dkey_bias, bound = bias_gradient_and_bound(dk, dk_size, k_cache)
    assert (dkey_bias <= bound).all()
    if not masked:  # the bound means something: the query bias is far above its own
        dquery_bias, bound = bias_gradient_and_bound(dq, dq_size, q_cache)
        assert (dquery_bias > 1e3 * bound).any()


@given(shape=attention_shapes, seed=seeds)
def test_permuting_the_batch_permutes_the_result(shape, seed):
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, True, scattered_mask, True, True)
    dcontext = rng.normal(size=shape)
    order = rng.permutation(shape[0])
    context, gradients = run(args, dcontext)
    permuted = run([a[order] if isinstance(a, np.ndarray) else a for a in args], dcontext[order])
    assert_identical(permuted[0], context[order], "context")
    for name, found, expected in zip(GRADIENTS, permuted[1], gradients, strict=True):
        assert_identical(found, expected[order], f"d{name}")


def test_heads_are_consecutive_pieces_of_the_hidden_axis():
    x = np.arange(2 * 3 * 10.0).reshape(2, 3, 10)
    heads = split_heads(x, 5)
    assert heads.shape == (2, 5, 3, 2)
    for b, n, t, h in np.ndindex(heads.shape):
        assert heads[b, n, t, h] == x[b, t, n * 2 + h]
    np.testing.assert_array_equal(merge_heads(heads), x)


@given(shape=attention_shapes, seed=seeds)
def test_merging_undoes_splitting(shape, seed):
    batch, heads, tokens, width = shape
    x = np.random.default_rng(seed).normal(size=(batch, tokens, heads * width))
    np.testing.assert_array_equal(merge_heads(split_heads(x, heads)), x)


@pytest.mark.oracle
@given(shape=attention_shapes, seed=seeds, has_bias=flags, masked=flags, drops=flags)
def test_torch_agrees(shape, seed, has_bias, masked, drops):
    """Texts without a token are left out: torch has NaN there."""
    rng = np.random.default_rng(seed)
    args = arguments(rng, shape, has_bias, scattered_mask if masked else None, False, drops)
    dcontext = rng.normal(size=shape)

    def by_torch(q, k, v, bias, key_mask, keep_mask, rate):
        scores = q @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        scores = scores / math.sqrt(q.shape[-1])
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None, :], -math.inf)
        probs = scores.softmax(-1)
        if keep_mask is not None:
            probs = probs * keep_mask / (1 - rate)
        return probs @ v

    context, gradients = run(args, dcontext)
    value, expected = torch_value_and_gradients(by_torch, args, dcontext)
    size = terms(dcontext, *args)
    assert (gradients[3] is not None) == has_bias
    for name, found, reference, t in zip(
        ("context", *GRADIENTS), (context, *gradients), (value, *expected), size, strict=False
    ):
        assert_rows_close(found, reference, what=name, round_off=ROUND_OFF * U64, terms=t)
