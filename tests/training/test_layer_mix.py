"""The learned mix of layers: its value by loops, its gradients by the complex step."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npbert.training.layer_mix import layer_mix_backward, layer_mix_forward
from tests.oracles import complex_step_gradient
from tests.tolerances import COMPLEX_STEP, ROUND_OFF, U64

SIZES = st.sampled_from([1, 2, 3, 7])


def draw(seed, texts, layers, width):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(texts, layers, width))
    return features, rng.normal(scale=2, size=layers), rng.normal(size=1), rng.normal(size=(texts, width))


@given(st.integers(0, 999), SIZES, SIZES, SIZES)
def test_value(seed, texts, layers, width):
    features, weight, gamma, _ = draw(seed, texts, layers, width)
    y, _ = layer_mix_forward(features, weight, gamma)
    total = sum(np.exp(w) for w in weight)
    for text in range(texts):
        for column in range(width):
            terms = [np.exp(weight[j]) / total * features[text, j, column] for j in range(layers)]
            bound = ROUND_OFF * U64 * abs(gamma[0]) * sum(map(abs, terms))
            assert abs(y[text, column] - gamma[0] * sum(terms)) <= bound


@given(st.integers(0, 999), SIZES, SIZES, SIZES)
def test_gradients(seed, texts, layers, width):
    features, weight, gamma, dy = draw(seed, texts, layers, width)
    before = features.copy()
    _, cache = layer_mix_forward(features, weight, gamma)
    dweight, dgamma = layer_mix_backward(dy, cache)
    np.testing.assert_array_equal(features, before)
    # The share of one layer alone is 1, whatever its weight: its gradient is 0, but for what cancels.
    scale = np.abs(dy[:, None] * features).sum() * np.abs(gamma).max()
    for name, found, position in (("weight", dweight, 1), ("gamma", dgamma, 2)):
        expected = complex_step_gradient(
            lambda *args: layer_mix_forward(*args)[0], (features, weight, gamma), position, dy
        )
        assert found.shape == expected.shape and np.isfinite(found).all()
        limit = COMPLEX_STEP * np.linalg.norm(expected) + ROUND_OFF * U64 * scale
        assert np.abs(found - expected).max() <= limit, name
    if layers > 1:
        assert np.abs(dweight).max() > 0
    assert abs(dweight.sum()) <= ROUND_OFF * layers * U64 * scale  # all weights together change no share


def test_equal_layers_share_equally():
    features = np.random.default_rng(0).normal(size=(3, 1, 5)).repeat(4, axis=1)
    y, cache = layer_mix_forward(features, np.array([5.0, -3.0, 0.0, 1e3]), np.array([2.0]))
    np.testing.assert_allclose(y, 2 * features[:, 0], rtol=1e-14)
    dweight, _ = layer_mix_backward(np.ones((3, 5)), cache)
    np.testing.assert_allclose(dweight, 0, atol=1e-12)  # whichever counts more, the result is the same
