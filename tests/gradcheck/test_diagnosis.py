"""Each kind of diagnosis, by a backward with exactly that mistake; none where nothing is wrong."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.gradcheck import Mistake, check
from npbert.gradcheck.diagnosis.order import KINDS
from npbert.gradcheck.suite import run_case
from npbert.ops import (
    cross_entropy_backward,
    cross_entropy_forward,
    dropout_backward,
    dropout_forward,
    embedding_backward,
    embedding_forward,
    l2_normalize_backward,
    l2_normalize_forward,
    layernorm_backward,
    layernorm_forward,
    linear_backward,
    linear_forward,
    mean_pooling_backward,
    mean_pooling_forward,
    softmax_attention_backward,
    softmax_attention_forward,
    softmax_backward,
    softmax_forward,
)

SEEDS = range(3)


def draw(seed, *shape):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def linear(seed):
    return linear_forward, linear_backward, (draw(seed, 2, 3, 5), draw(seed, 4, 5), draw(seed, 4))


def square_linear(seed):
    return linear_forward, linear_backward, (draw(seed, 2, 3, 5), draw(seed, 5, 5), draw(seed, 5))


def layernorm(seed):
    args = (draw(seed, 2, 3, 5), draw(seed, 1, 5)[0], draw(seed, 2, 5)[0], 0.3)
    return layernorm_forward, layernorm_backward, args


def softmax(seed):
    return softmax_forward, softmax_backward, (draw(seed, 4, 5), None)


def attention(seed):
    q, k, v = draw(seed, 3, 2, 2, 4, 3)
    key_mask = np.array([[True] * 4, [True, True, False, False]])
    return softmax_attention_forward, softmax_attention_backward, (q, k, v, None, key_mask)


def dropout(seed):
    keep_mask = np.random.default_rng(seed).random((4, 5)) < 0.6
    return dropout_forward, dropout_backward, (draw(seed, 4, 5), keep_mask, 0.4)


def cross_entropy(seed):
    labels = np.array([1, 3, -100, 0, 2, -100, 3])
    return cross_entropy_forward, cross_entropy_backward, (draw(seed, 7, 5), labels)


def mean_pooling(seed):
    mask = np.array([[True] * 4, [True, True, True, False], [True, True, False, False]])
    return mean_pooling_forward, mean_pooling_backward, (draw(seed, 3, 4, 5), mask)


def l2_normalize(seed):
    return l2_normalize_forward, l2_normalize_backward, (draw(seed, 4, 5), 1e-12)


def lookup(seed):
    ids = np.array([[4, 1, 4], [2, 1, 4]])

    def forward(words):
        zeros = np.zeros((3, words.shape[1]))
        types = np.zeros((1, words.shape[1]))
        positions = np.broadcast_to(np.arange(3), ids.shape)
        return embedding_forward(ids, None, positions, np.zeros_like(ids), words, zeros, types, None)

    def backward(dy, cache):
        return embedding_backward(dy, cache)[1]

    return forward, backward, (draw(seed, 7, 5),)


def cube(seed):
    def forward(x):
        return x**3, x

    def backward(dy, x):
        return 3 * x**2 * dy

    return forward, backward, (draw(seed, 4, 5),)


def residual(seed):
    def forward(x, weight):
        return x + np.tanh(x @ weight), (x, weight)

    def backward(dy, cache):
        x, weight = cache
        dinner = dy * (1 - np.tanh(x @ weight) ** 2)
        return dy + dinner @ weight.T, x.T @ dinner

    return forward, backward, (draw(seed, 6, 5), draw(seed, 5, 5))


def two_outputs(seed):
    def forward(x):
        return (np.sin(x), np.cumsum(x, axis=-1) ** 2), x

    def backward(douts, x):
        inner = 2 * np.cumsum(x, axis=-1) * douts[1]
        return douts[0] * np.cos(x) + np.flip(np.cumsum(np.flip(inner, -1), -1), -1)

    return forward, backward, (draw(seed, 4, 5),)


def outer_products(seed):
    """Two products that share a weight: forgetting one leaves an error of rank one."""

    def forward(x, y, weight):
        return x @ weight @ y, (x, y, weight)

    def backward(dz, cache):
        x, y, weight = cache
        return dz * (weight @ y), dz * (x @ weight), dz * np.outer(x, y)

    return forward, backward, (draw(seed, 5), draw(seed, 2, 6)[1], draw(seed, 5, 6))


def on(number, change):
    """Return the mistake that changes one gradient: ``change(gradient, dy, cache)``."""

    def mistake(backward):
        def wrong(dy, cache):
            found = backward(dy, cache)
            if not isinstance(found, tuple):
                return change(found, dy, cache)
            return (*found[:number], change(found[number], dy, cache), *found[number + 1 :])

        return wrong

    return mistake


def exchange(first, second):
    def mistake(backward):
        def wrong(dy, cache):
            found = list(backward(dy, cache))
            found[first], found[second] = found[second], found[first]
            return tuple(found)

        return wrong

    return mistake


def last_occurrence(gradient, dy, cache):
    table = np.zeros_like(gradient)
    table[cache.input_ids] = dy
    return table


def without_pattern(gradient, dy, cache):
    return np.tanh(gradient) + gradient**2


def with_tail_cut(gradient, dy, cache):
    return np.concatenate([gradient[..., :-1], np.zeros_like(gradient[..., -1:])], axis=-1)


def rows_set(gradient, rows, value):
    changed = gradient.copy()
    changed[rows] = value
    return changed


def dx_without(term):
    def change(dx, dy, cache):
        dx_hat = dy * cache.weight
        mean = dx_hat.mean(axis=-1, keepdims=True)
        projection = cache.x_hat * (dx_hat * cache.x_hat).mean(axis=-1, keepdims=True)
        kept = {"mean": -projection, "variance": -mean, "both": 0}[term]
        return (dx_hat + kept) * cache.inv_std

    return on(0, change)


# The kind, the tensors that it names, a piece of the sentence, the pair, and the mistake in it.
BUGS = [
    ("wrong sign", {"x"}, "dx has the wrong sign", linear, on(0, lambda g, *_: -g)),
    ("constant factor", {"bias"}, "6, the number of rows of x", linear, on(2, lambda g, *_: g / 6)),
    ("constant factor", {"x"}, "1 / (1 - rate)", dropout, on(0, lambda g, *_: g * 0.6)),
    ("constant factor", {"logits"}, "5 that count", cross_entropy, on(0, lambda g, *_: g * 5 / 7)),
    ("constant factor", {"x"}, "half the right", cube, on(0, lambda g, *_: g / 2)),
    ("cotangent forgotten", {"logits"}, "not multiplied", cross_entropy, on(0, lambda g, dy, _: g / dy)),
    ("cotangent forgotten", {"x"}, "not multiplied", cube, on(0, lambda g, dy, _: g / dy)),
    ("cotangent copied", {"x"}, "passed through", cube, on(0, lambda g, dy, _: dy.copy())),
    ("array copied", {"weight"}, "is weight itself", linear, on(1, lambda g, dy, c: c.weight.copy())),
    ("zero", {"k"}, "dk is zero", attention, on(1, lambda g, *_: 0 * g)),
    ("swapped", {"q", "k"}, "dq and dk have changed places", attention, exchange(0, 1)),
    ("swapped", {"weight", "bias"}, "dweight and dbias have changed", linear, exchange(1, 2)),
    ("another gradient", {"weight"}, "gradient of bias", layernorm, on(1, lambda g, dy, _: dy.sum((0, 1)))),
    ("factor by axis", {"weight"}, "factor weight once too", layernorm, on(1, lambda g, _, c: g * c.weight)),
    ("factor by axis", {"x"}, "misses the factor cache.inv", layernorm, on(0, lambda g, _, c: g / c.inv_std)),
    ("factor by axis", {"x"}, "misses the factor cache.weights", mean_pooling,
     on(0, lambda g, *_: g * np.array([4, 3, 2])[:, None, None])),
    ("elementwise factor", {"x"}, "factor the output once", softmax, on(0, lambda g, _, c: g * c.probs)),
    ("transposed", {"weight"}, "transpose", square_linear, on(1, lambda g, *_: g.T.copy())),
    ("transposed", {"weight"}, "(5, 4) instead of (4, 5)", linear, on(1, lambda g, *_: g.T.copy())),
    ("reordered", {"weight"}, "reverse", linear, on(1, lambda g, *_: g[::-1].copy())),
    ("reordered", {"weight"}, "shifted by 1", linear, on(1, lambda g, *_: np.roll(g, 1, axis=0))),
    ("missing sum", {"bias"}, "(2, 3, 4) instead of (4,)", linear, on(2, lambda g, dy, _: dy.copy())),
    ("missing sum", {"bias"}, "at [0, 0] alone", linear, on(2, lambda g, dy, _: dy[0, 0].copy())),
    ("wrong shape", {"bias"}, "(1, 4) instead of (4,)", linear, on(2, lambda g, *_: g[None])),
    ("wrong axis", {"bias"}, "wrong axes", linear, on(2, lambda g, dy, _: dy.sum(axis=2).ravel())),
    ("term", {"x"}, "misses the term the cotangent, as where", residual, on(0, lambda g, dy, _: g - dy)),
    ("term", {"x"}, "once too often", residual, on(0, lambda g, dy, _: g + dy)),
    ("mean term", {"x"}, "dx differs in every row by a constant", layernorm, dx_without("mean")),
    ("variance term", {"x"}, "multiple of x-hat", layernorm, dx_without("variance")),
    ("mean and variance terms", {"x"}, "constant and a multiple", layernorm, dx_without("both")),
    ("softmax correction", {"x"}, "probabilities p", softmax, on(0, lambda g, dy, c: dy * c.probs)),
    ("projection", {"x"}, "unit vector", l2_normalize, on(0, lambda g, dy, c: dy / c.divisor)),
    ("duplicate ids", {"words"}, "only the last of the rows", lookup, on(0, last_occurrence)),
    ("absent ids", {"words"}, "do not occur in cache.input_ids", lookup,
     on(0, lambda g, *_: rows_set(g, [0, 3, 5, 6], np.cos(np.arange(20.0)).reshape(4, 5)))),
    ("row term", {"x"}, "in every row by a multiple of x", linear,
     on(0, lambda g, dy, c: g + c.x * dy[..., :1])),
    ("no gradient", {"bias"}, "dbias is not there", linear, on(2, lambda *_: None)),
    ("ignored labels", {"logits"}, "-100", cross_entropy,
     on(0, lambda g, *_: rows_set(g, [2, 5], 0.1 + g[0]))),
    ("labels", {"logits"}, "only at the class", cross_entropy,
     on(0, lambda g, dy, c: g + dy / 5 * (np.arange(5) == np.array([1, 3, -100, 0, 2, -100, 3])[:, None]))),
    ("dropped places", {"x"}, "keep_mask is False", dropout,
     on(0, lambda g, dy, c: np.where(c.keep_mask, g, dy))),
    ("masked places", {"x"}, "mask is False", mean_pooling,
     on(0, lambda g, dy, _: np.where(mean_pooling(0)[2][1][..., None], g, dy[:, None]))),
    ("value range", {"x"}, "only where x is", cube, on(0, lambda g, dy, x: np.where(x > 0.4, dy, g))),
    ("last tile", {"x"}, "last 1 of 5", linear, on(0, with_tail_cut)),
    ("first slices", {"weight"}, "first 2 of 4", linear, on(1, lambda g, *_: rows_set(g, [0, 1], 7.0))),
    ("one slice", {"weight"}, "only in row 2", linear, on(1, lambda g, *_: rows_set(g, 2, np.arange(5.0)))),
    ("forgotten input", {"x"}, "weight were 1", layernorm,
     on(0, lambda g, dy, c: layernorm_backward(dy, c._replace(weight=np.ones(5)))[0])),
    ("forgotten input", {"x"}, "flows back from output 0", two_outputs,
     lambda backward: lambda douts, cache: backward((0 * douts[0], douts[1]), cache)),
    ("rank one", {"weight"}, "one column and one row", outer_products,
     on(2, lambda g, *_: g + np.outer(np.cos(np.arange(5)), np.sin(1 + np.arange(6))))),
    ("precision", {"x"}, "float32", softmax, on(0, lambda g, *_: g.astype(np.float32).astype(float))),
    ("approximation", {"x"}, "without a pattern", cube, on(0, lambda g, *_: g * (1 + 1e-5 * np.cos(9 * g)))),
    ("row sums", {"x"}, "sum to zero in every row", softmax,
     on(0, lambda g, dy, c: c.probs * (dy - (dy * c.probs).sum(axis=0)))),
    ("unknown", {"x"}, "no known pattern explains the error of dx", linear, on(0, without_pattern)),
]  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "tensors", "words", "pair", "mistake"), BUGS)
def test_a_mistake_is_named_first(kind, tensors, words, pair, mistake, seed):
    fn, backward, args = pair(seed)
    report = check(fn, mistake(backward), args, seed=seed)
    assert report.status == "failed"
    first = report.diagnoses[0]
    assert (first.kind, set(first.tensors)) == (kind, tensors), first.sentence
    assert words in first.sentence
    assert report.diagnosis == first.sentence
    # The pair as it is has nothing to diagnose.
    right = check(fn, backward, args, seed=seed)
    assert right.ok
    assert right.diagnoses == ()


def test_every_kind_has_a_test():
    elsewhere = {"known mistake", "not zero", "not a zero", "sum too many", "padding"}
    assert {kind for kind, *_ in BUGS} | elsewhere == set(KINDS)


PAIRS = (
    linear,
    layernorm,
    softmax,
    attention,
    dropout,
    cross_entropy,
    mean_pooling,
    l2_normalize,
    lookup,
    cube,
    residual,
    two_outputs,
)


@given(st.data())
def test_whatever_comes_back_is_diagnosed_without_an_exception(data):
    """Random mistakes: entries, rows, whole arrays, shapes, NaN, None."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    fn, backward, args = data.draw(st.sampled_from(PAIRS))(seed)
    rng = np.random.default_rng(seed)
    spoil = data.draw(st.sampled_from(["noise", "entry", "nan", "huge", "none", "shape", "integers", "zero"]))

    def wrong(dy, cache):
        found = backward(dy, cache)
        gradient = found[0] if isinstance(found, tuple) else found
        spoilt = {
            "noise": gradient + np.random.default_rng(seed).standard_normal(gradient.shape),
            "entry": np.where(np.arange(gradient.size).reshape(gradient.shape) == 1, 1.0, gradient),
            "nan": gradient * np.nan,
            "huge": gradient * 1e300,
            "none": None,
            "shape": gradient.ravel()[:1],
            "integers": np.ones(gradient.shape, dtype=int),
            "zero": 0 * gradient,
        }[spoil]
        return (spoilt, *found[1:]) if isinstance(found, tuple) else spoilt

    report = check(fn, wrong, args, seed=int(rng.integers(2**32)))
    failed = {row.name for row in report.tensors if row.status == "failed"}
    assert {name for diagnosis in report.diagnoses for name in diagnosis.tensors} == failed
    for diagnosis in report.diagnoses:
        assert diagnosis.kind in KINDS
        assert 0 <= diagnosis.confidence <= 1
    json.dumps(report.to_dict())


# Known mistakes ---------------------------------------------------------------------------------------


def known():
    backward = layernorm_backward
    return [
        Mistake("no mean", "the mean depends on x, too", dx_without("mean")(backward)),
        Mistake("no variance", "the variance depends on x, too", dx_without("variance")(backward)),
        Mistake("raises", "never seen", lambda dy, cache: 1 / 0),
        Mistake("too few", "never seen", lambda dy, cache: dy),
        Mistake(
            "dweight is dbias", "dweight is dy times x-hat", on(1, lambda g, dy, c: dy.sum((0, 1)))(backward)
        ),
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_known_mistake_comes_first(number, seed):
    fn, _, args = layernorm(seed)
    mistake = known()[number]
    report = check(fn, mistake.backward, args, seed=seed, mistakes=known())
    assert report.diagnosis == mistake.description
    first = report.diagnoses[0]
    assert (first.kind, first.mistake, first.confidence) == ("known mistake", mistake.name, 1.0)
    assert first.sentence in str(report)


def test_the_same_mistake_computed_otherwise_is_still_known():
    fn, backward, args = layernorm(0)

    def in_another_order(dy, cache):
        dx, dweight, dbias = backward(dy, cache)
        mean = (dy * cache.weight).mean(axis=-1, keepdims=True) * cache.inv_std
        return dx + mean, dweight, dbias

    assert check(fn, in_another_order, args, mistakes=known()).diagnoses[0].mistake == "no mean"


def test_two_known_mistakes_at_once():
    fn, _, args = layernorm(0)
    both = known()[4]

    def wrong(dy, cache):
        return (known()[0].backward(dy, cache)[0], *both.backward(dy, cache)[1:])

    report = check(fn, wrong, args, mistakes=known())
    found = {(diagnosis.mistake, diagnosis.tensors) for diagnosis in report.diagnoses}
    assert found == {("no mean", ("x",)), ("dweight is dbias", ("weight",))}
    assert {row.name: row.diagnosis for row in report.tensors} == {
        "x": known()[0].description,
        "weight": both.description,
        "bias": "",
    }


def test_an_unknown_mistake_falls_back_to_patterns():
    fn, backward, args = layernorm(0)
    report = check(fn, on(0, lambda g, *_: -g)(backward), args, mistakes=known())
    assert report.diagnosis == "dx has the wrong sign everywhere"


def test_known_mistakes_are_not_run_where_nothing_is_wrong():
    fn, backward, args = layernorm(0)
    calls = []
    report = check(fn, backward, args, mistakes=[Mistake("spy", "", lambda dy, cache: calls.append(dy))])
    assert report.ok
    assert not calls


@pytest.mark.parametrize(
    ("mistakes", "message"),
    [
        (None, "mistakes must be a sequence of Mistake, got NoneType"),
        (known()[0], r"mistakes\[0\] must be a Mistake, got str"),
        ([known()[0], layernorm_backward], r"mistakes\[1\] must be a Mistake, got function"),
        ([Mistake("a", "b", "c")], r"mistakes\[0\]\.backward must be callable, got str"),
    ],
)
def test_mistakes_that_are_none(mistakes, message):
    fn, backward, args = layernorm(0)
    with pytest.raises(ValueError, match=message):
        check(fn, backward, args, mistakes=mistakes)


# Reports ----------------------------------------------------------------------------------------------


def test_the_same_sentence_about_several_gradients_is_one_diagnosis():
    fn, backward, args = linear(0)
    report = check(fn, lambda dy, cache: tuple(-g for g in backward(dy, cache)), args)
    assert [diagnosis.tensors for diagnosis in report.diagnoses] == [("x", "weight", "bias")]
    assert report.diagnosis == "each of dx, dweight and dbias has the wrong sign everywhere"


def test_what_explains_more_comes_first():
    fn, backward, args = linear(0)

    def wrong(dy, cache):
        dx, dweight, dbias = backward(dy, cache)
        return without_pattern(dx, dy, cache), dweight, -dbias

    report = check(fn, wrong, args)
    assert [diagnosis.kind for diagnosis in report.diagnoses] == ["wrong sign", "unknown"]


def test_the_diagnosis_is_in_the_report():
    fn, backward, args = linear(0)
    report = check(fn, on(2, lambda g, *_: g / 6)(backward), args)
    assert f"diagnosis: {report.diagnosis[:60]}" in str(report)
    content = json.loads(json.dumps(report.to_dict()))
    assert content["diagnosis"] == report.diagnosis
    assert content["diagnoses"][0]["kind"] == "constant factor"
    assert content["diagnoses"][0]["evidence"]["factor"] == pytest.approx(1 / 6)
    assert [row["diagnosis"] for row in content["tensors"]] == ["", "", report.diagnosis]


def test_entries_of_dictionaries_have_names():
    def forward(params):
        return params["dense.weight"] @ params["scale"], params

    def backward(dy, params):
        return {"dense.weight": -np.outer(dy, params["scale"]), "scale": params["dense.weight"].T @ dy}

    report = check(forward, backward, ({"dense.weight": draw(0, 4, 3), "scale": draw(0, 3)},))
    assert report.diagnosis == "the gradient of dense.weight has the wrong sign everywhere"


def test_real_differences_are_precise_enough():
    """A forward that is not analytic: the reference then has an error of its own."""

    def forward(x):
        return np.abs(x) * x, x

    report = check(forward, lambda dy, x: np.abs(x) * dy, (1 + np.abs(draw(0, 4, 5)),), oracle="ridders")
    assert report.diagnosis == "dx is half the right gradient: a factor 2 is forgotten"


def test_a_large_tensor_is_diagnosed_by_some_of_its_rows():
    fn, backward, _ = layernorm(0)
    args = (draw(0, 100, 33), draw(0, 33), draw(1, 33), 0.3)
    report = check(fn, dx_without("mean")(backward), args, max_coordinates=20)
    assert report.diagnoses[0].kind == "mean term"


def test_a_gradient_that_should_be_zero():
    def forward(x, unused):
        return x**2, (x, unused)

    report = check(forward, lambda dy, c: (2 * c[0] * dy, c[1]), (draw(0, 4), draw(0, 3)))
    assert [(found.kind, found.tensors) for found in report.diagnoses] == [("not zero", ("unused",))]


def test_a_structural_zero_that_is_none():
    fn, backward, args = linear(0)
    report = check(fn, backward, args, structural_zeros=("bias",))
    assert [(found.kind, found.tensors) for found in report.diagnoses] == [("not a zero", ("bias",))]


def test_a_sum_too_many():
    def forward(x):
        return x**2, x

    report = check(forward, lambda dy, x: (2 * x * dy).sum(axis=0), (draw(0, 4, 3),))
    assert report.diagnoses[0].kind == "sum too many"


def test_a_row_that_does_not_occur():
    fn, backward, args = lookup(0)
    report = check(fn, on(0, lambda g, *_: rows_set(g, 0, 1.0))(backward), args)
    assert report.diagnosis == "dwords is wrong only in row 0"


def test_the_padding_row():
    fn, backward, args = lookup(0)

    def pads_with_row_four(words):
        output, cache = fn(words)
        return output, cache._replace(padding_idx=4)

    def wrong_in_row_four(dy, cache):
        gradient = backward(dy, cache._replace(padding_idx=None))
        return rows_set(gradient, 4, np.arange(5.0))

    report = check(pads_with_row_four, wrong_in_row_four, args)
    assert report.diagnosis == "dwords is wrong only in row 4, which is cache.padding_idx"


def test_the_suite_reports_nothing_where_nothing_is_wrong():
    assert run_case("softmax attention (bias, masks, dropout)").diagnoses == ()
