"""Clipping: the norm in exact arithmetic, and what scaling does."""

import math

import numpy as np
import pytest

from npbert.training.clipping import clip_by_global_norm, global_norm


def draw(rng, dtype=np.float64):
    shapes = {"a": (3, 4), "b": (5,), "none": (0, 2), "scalar": ()}
    grads = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return {name: np.asarray(grad, dtype) for name, grad in grads.items()}


@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_clipped_gradients(max_norm):
    grads = draw(np.random.default_rng(0))
    before = {name: grad.copy() for name, grad in grads.items()}
    norm = math.sqrt(math.fsum(float(x) ** 2 for grad in grads.values() for x in grad.ravel()))
    assert clip_by_global_norm(grads, max_norm) == pytest.approx(norm, rel=1e-14)
    scale = min(1.0, max_norm / (norm + 1e-6))
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, scale * before[name], rtol=1e-14)
    assert global_norm(grads) == pytest.approx(scale * norm, rel=1e-14)
