"""Attention of one text: the textbook in float64 and float32, keys, large scores, dropout, other heads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cpu import head_products, packed_attention
from npbert.cpu.keep_mask import TextDropout
from npbert.cpu.packed_attention import attend, attend_backward, write_probabilities
from npbert.ops.dropout import SITE_ATTENTION_PROBS
from tests.comparisons import assert_finite, assert_identical, assert_rows_close
from tests.cuda.kernel_contract import assert_within_budget
from tests.ops.test_softmax_attention import terms
from tests.strategies import seeds, shapes
from tests.tolerances import ROUND_OFF, U64

NAMES = ("context", "dq", "dk", "dv")
DROPOUT = AttentionDropout(0.3, seed=2**40 + 5, layer=3, site=SITE_ATTENTION_PROBS)
text_shapes = shapes(3, most=700).filter(lambda s: s[0] ** 2 * s[1] <= 3000)
key_kinds = st.sampled_from(["all", "first", "scattered", "none"])


@pytest.fixture(params=[False, True], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Small blocks, small products and few rows at once, so that a few tokens make several of each."""
    if request.param:
        monkeypatch.setattr(packed_attention, "BLOCK_BYTES", 20_000)
        monkeypatch.setattr(head_products, "SMALL_PRODUCT", 10_000)
        monkeypatch.setattr(head_products, "FEWEST_ROWS", 5)
        monkeypatch.setattr(head_products, "DISTANT_ROWS", 11)


def draw_keys(rng, tokens, kind):
    """What selects the keys, and the mask that the textbook takes."""
    key_mask = np.zeros(tokens, bool)
    keys = {
        "all": slice(None),
        "first": slice(int(rng.integers(1, tokens + 1))),
        "scattered": np.flatnonzero(rng.random(tokens) < 0.6),
        "none": np.arange(0),
    }[kind]
    key_mask[keys] = True
    return keys, key_mask


def run(q, k, v, dcontext, keys=slice(None), dropout=None):
    """Everything that is written for one text, all (T, N, H); memory is not zero before."""
    context, dq, dk, dv = (np.full_like(x, 7) for x in (q, q, k, v))
    lse = np.full(q.shape[:2], 7, q.dtype)
    keep_bits = attend(q, k, v, context, keys, lse, dropout)
    scale = 1.0 if dropout is None else dropout.survivor_scale
    attend_backward(dcontext, q, k, v, context, lse, dq, dk, dv, keys, keep_bits, scale)
    return [context, dq, dk, dv]


def textbook(q, k, v, dcontext, key_mask, keep_mask=None, rate=0.0):
    batch = [x.swapaxes(0, 1)[None] for x in (q, k, v, dcontext)]
    if keep_mask is not None:
        keep_mask = keep_mask[None]
    args = (*batch[:3], None, key_mask[None], keep_mask, rate)
    context, cache = ops.softmax_attention_forward(*args)
    found = [context, *ops.softmax_attention_backward(batch[3], cache)[:3]]
    sizes = terms(batch[3].astype(np.float64), *args)[:4] if q.dtype == np.float64 else []
    return [[x[0].swapaxes(0, 1) for x in arrays] for arrays in (found, sizes)]


@given(shape=text_shapes, seed=seeds, kind=key_kinds)
def test_is_the_textbook(shape, seed, kind):
    rng = np.random.default_rng(seed)
    q, k, v, dcontext = rng.normal(size=(4, *shape))
    keys, key_mask = draw_keys(rng, shape[0], kind)
    expected, sizes = textbook(q, k, v, dcontext, key_mask)
    found = run(q, k, v, dcontext, keys)
    for name, actual, reference, size in zip(NAMES, found, expected, sizes, strict=True):
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=size)
    for gradient in found[2:]:
        assert not gradient[~key_mask].any()


@given(shape=text_shapes, seed=seeds, kind=key_kinds)
def test_float32_is_as_accurate_as_the_textbook(shape, seed, kind):
    rng = np.random.default_rng(seed)
    single = [x.astype(np.float32) for x in rng.normal(size=(4, *shape))]
    double = [x.astype(np.float64) for x in single]
    keys, key_mask = draw_keys(rng, shape[0], kind)
    expected, sizes = textbook(*double, key_mask)
    unfused, _ = textbook(*single, key_mask)
    for name, *arrays in zip(NAMES, run(*single, keys), expected, unfused, sizes, strict=True):
        assert arrays[0].dtype == np.float32
        assert_within_budget(*arrays, f"{name} in float32")


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", ["all", "first", "scattered"])
@pytest.mark.parametrize("drops", [False, True])
def test_blocks_and_dropout(kind, drops):
    """The text lies at scattered places of a padded batch, from where its mask is taken."""
    rng = np.random.default_rng(1)
    q, k, v, dcontext = rng.normal(size=(4, 67, 5, 7))
    keys, key_mask = draw_keys(rng, 67, kind)
    positions = np.sort(rng.permutation(90)[:67])
    mask = ops.dropout_keep_mask((3, 5, 90, 90), *DROPOUT)[2][:, positions][:, :, positions]
    dropout = TextDropout(*DROPOUT, 2, 5, 90, positions) if drops else None
    expected, sizes = textbook(q, k, v, dcontext, key_mask, *((mask, DROPOUT.rate) if drops else ()))
    found = run(q, k, v, dcontext, keys, dropout)
    for name, actual, reference, size in zip(NAMES, found, expected, sizes, strict=True):
        assert_rows_close(actual, reference, what=name, round_off=ROUND_OFF * U64, terms=size)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_scores_whose_exponentials_overflow_or_vanish(dtype, size):
    """Some heads' scores are tens of thousands, or tens of thousands below 0; the others' are ordinary."""
    rng = np.random.default_rng(4)
    q, k, v, dcontext = (x.astype(dtype) for x in rng.normal(size=(4, 67, 5, 7)))
    k[:, 1:3, 0] = 100
    q[:, 1:3, 0] = size / 100 * np.sqrt(7)
    double = [x.astype(np.float64) for x in (q, k, v, dcontext)]
    expected, _ = textbook(*double, np.ones(67, bool))
    eps = np.finfo(dtype).eps
    # A sum of eight terms of up to 1e4 is off by as many of their roundings, its exponential relatively so.
    allowed = np.array([1e3 * eps, 64e4 * eps, 64e4 * eps, 1e3 * eps, 1e3 * eps])  # a head
    for name, found, reference in zip(NAMES, run(q, k, v, dcontext), expected, strict=True):
        assert_finite(found, name)
        error = np.abs(found - reference).max(axis=(0, 2))
        assert (error <= allowed * np.abs(reference).max(axis=(0, 2))).all(), name


@pytest.mark.parametrize("kind", ["all", "scattered"])
def test_rows_of_minus_infinity(kind):
    """A query that sees nothing gets 0 and gives nothing; a key that nobody sees gets nothing."""
    rng = np.random.default_rng(5)
    q, k, v, dcontext = rng.normal(size=(4, 9, 2, 5))
    keys, _ = draw_keys(rng, 9, kind)
    seen = int(np.arange(9)[keys][1])
    bias, dbias = rng.normal(size=(2, 2, 9, 9))
    bias[:, 3] = bias[:, :, seen] = -np.inf
    context, dq, dk, dv = (np.full_like(q, 7) for _ in range(4))
    lse = np.full(q.shape[:2], 7.0)
    attend(q, k, v, context, keys, lse, bias=bias)
    attend_backward(dcontext, q, k, v, context, lse, dq, dk, dv, keys, bias=bias, dbias=dbias)
    for row in (context[3], dq[3], dk[seen], dv[seen], dbias[:, 3], dbias[..., seen], lse[3]):
        assert not row.any()
    without = np.setdiff1d(np.arange(9)[keys], [seen])
    mask = np.isin(np.arange(9), without)
    batch = [x.swapaxes(0, 1)[None] for x in (q, k, v)]
    finite = np.where(np.isfinite(bias), bias, 0.0)[None]
    expected = ops.softmax_attention_forward(*batch, finite, mask[None])[0][0].swapaxes(0, 1)
    others = np.arange(9) != 3
    np.testing.assert_allclose(context[others], expected[others], rtol=1e-12, atol=1e-15)


def test_what_is_no_key_is_not_read():
    rng = np.random.default_rng(6)
    q, k, v, dcontext = rng.normal(size=(4, 67, 3, 5))
    keys = np.flatnonzero(rng.random(67) < 0.5)
    expected = run(q, k, v, dcontext, keys)
    others = np.setdiff1d(np.arange(67), keys)
    k[others] = v[others] = np.nan
    for name, found, reference in zip(NAMES, run(q, k, v, dcontext, keys), expected, strict=True):
        assert_identical(found, reference, name)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("kind", ["first", "scattered"])
def test_probabilities(kind):
    rng = np.random.default_rng(7)
    q, k, v = rng.normal(size=(3, 67, 5, 7))
    keys, key_mask = draw_keys(rng, 67, kind)
    dropout = TextDropout(*DROPOUT, 1, 5, 67)
    mask = ops.dropout_keep_mask((2, 5, 67, 67), *DROPOUT)[1]
    batch = [x.swapaxes(0, 1)[None] for x in (q, k, v)]
    expected = ops.softmax_attention_forward(*batch, None, key_mask[None], mask[None], DROPOUT.rate)[1].probs
    lse, probs = np.empty((67, 5)), np.zeros((5, 67, 67))
    keep_bits = attend(q, k, v, np.empty_like(q), keys, lse, dropout)
    write_probabilities(probs, q, k, lse, keys, keep_bits, dropout.survivor_scale)
    np.testing.assert_allclose(probs, expected[0], rtol=1e-12)
    assert not probs[..., ~key_mask].any()


def test_another_run_has_the_same_bits():
    """Though the scratch memory has been used for something larger since."""
    rng = np.random.default_rng(8)
    arrays = rng.normal(size=(4, 67, 5, 7)).astype(np.float32)
    expected = run(*arrays)
    run(*rng.normal(size=(4, 90, 6, 8)).astype(np.float32))
    for name, found, reference in zip(NAMES, run(*arrays), expected, strict=True):
        assert_identical(found, reference, name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_head_has_the_same_bits_among_others(dtype):
    """How many heads are worked on at once must not show, nor another head's large scores."""
    rng = np.random.default_rng(9)
    arrays = rng.normal(size=(4, 130, 7, 32)).astype(dtype)
    arrays[0][:, 2] *= 1000
    together = run(*arrays)
    for head in range(7):
        alone = run(*(x[:, head : head + 1] for x in arrays))
        for name, found, expected in zip(NAMES, together, alone, strict=True):
            assert_identical(found[:, head : head + 1], expected, name)


def test_views_are_as_good_as_arrays():
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(4, 37, 3, 5, 7))
    views = [x[:, 1] for x in wide]
    for name, found, expected in zip(NAMES, run(*views), run(*(x.copy() for x in views)), strict=True):
        assert_identical(found, expected, name)
