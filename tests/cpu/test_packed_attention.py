"""Attention of one text: the textbook in float64 and float32, keys, large scores, dropout, several texts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert import ops
from npbert.attention_dropout import AttentionDropout
from npbert.cpu import head_products, packed_attention
from npbert.cpu.keep_mask import TextDropout
from npbert.cpu.packed_attention import attend, attend_backward, attend_many
from npbert.ops.dropout import SITE_ATTENTION_PROBS
from tests.comparisons import assert_identical, assert_rows_close
from tests.cuda.kernel_contract import assert_within_budget
from tests.ops.test_softmax_attention import terms
from tests.strategies import flags, seeds, shapes
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


def test_views_are_as_good_as_arrays():
    rng = np.random.default_rng(2)
    wide = rng.normal(size=(4, 37, 3, 5, 7))
    views = [x[:, 1] for x in wide]
    for name, found, expected in zip(NAMES, run(*views), run(*(x.copy() for x in views)), strict=True):
        assert_identical(found, expected, name)


@given(shape=text_shapes, seed=seeds, texts=st.integers(0, 9), single=flags)
def test_several_texts_have_the_bits_of_each(shape, seed, texts, single):
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(3, texts, *shape)).astype(np.float32 if single else np.float64)
    if texts > 1:
        q[1] *= 100
    found, expected = np.full_like(q, 7), np.full_like(q, 7)
    attend_many(q, k, v, found)
    for text in zip(q, k, v, expected, strict=True):
        attend(*text)
    assert_identical(found, expected, "context")
