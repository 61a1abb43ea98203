"""LAMB: the paper's algorithm in 40 digits, and its trust ratio."""

import numpy as np
import pytest

from npbert.training.lamb import LAMB
from tests.training import formulas
from tests.training.optimizer_cases import (
    RATES,
    SHAPES,
    WITHOUT_DECAY,
    copied,
    draw_grads,
    draw_params,
    take_steps,
)

DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "weight_decay": 0.01, "bias_correction": True}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias_correction": False},
        {"beta1": 0.5, "beta2": 0.0, "epsilon": 0.1, "weight_decay": 0.3},
        {"weight_decay": 0.0},
    ],
)
@pytest.mark.parametrize("always", [False, True])
def test_formula(options, always, monkeypatch):
    monkeypatch.setattr("npbert.training.blocks.BLOCK", 4)  # so that a norm is that of several blocks
    params, grads = draw_params(), draw_grads()
    start = copied(params)
    optimizer = LAMB(params, **options, adapts=(lambda name, value: True) if always else None)
    take_steps(optimizer, grads)
    numbers = {**DEFAULTS, **options}
    for name in SHAPES:
        decays = name not in WITHOUT_DECAY
        given = numbers if decays else {**numbers, "weight_decay": 0.0}
        expected = formulas.lamb(
            start[name], [g[name] for g in grads], RATES, **given, adapts=always or decays
        )
        kept = [optimizer.state()[f"{kind}.{name}"] for kind in ("mean", "square")]
        for found, reference in zip([params[name], *kept], expected, strict=True):
            np.testing.assert_allclose(found.ravel(), reference, rtol=1e-12, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_length_of_a_step_is_a_fraction_of_the_parameter(scale):
    rng = np.random.default_rng(0)
    start = scale * rng.normal(size=(7, 3))
    params = {"weight": start.copy()}
    LAMB(params).step({"weight": rng.normal(size=(7, 3))}, 0.25)
    moved = np.linalg.norm(params["weight"] - start)
    np.testing.assert_allclose(moved, 0.25 * np.linalg.norm(start), rtol=1e-12)


def test_trust_ratio_of_zeros_is_1():
    """A parameter that is 0 moves as Adam moves it; one with neither gradient nor decay stays where it is."""
    params = {"zero": np.zeros(3), "still": np.ones(2)}
    grads = {"zero": np.array([1.0, -2.0, 3.0]), "still": np.zeros(2)}
    LAMB(params, weight_decay=0.0).step(grads, 0.25)
    np.testing.assert_allclose(params["zero"], [-0.25, 0.25, -0.25], rtol=1e-5)
    np.testing.assert_array_equal(params["still"], [1.0, 1.0])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("beta1", 1.0, "beta1 is 1.0; it must be at least 0 and below 1"),
        ("beta2", float("nan"), "beta2 is nan"),
        ("epsilon", 0.0, "epsilon is 0.0; it must be above 0, and finite"),
        ("weight_decay", -0.01, "weight_decay is -0.01; it must be at least 0, and finite"),
    ],
)
def test_bad_numbers(option, value, message):
    with pytest.raises(ValueError, match=message):
        LAMB(draw_params(), **{option: value})
