"""The optimisers: the papers' formulas, torch, and what no result may depend on."""

import numpy as np
import pytest

from npbert.training.optimizers import AdamW, bert_adam
from tests.training import formulas

SHAPES = {
    "dense.weight": (3, 5),
    "dense.bias": (3,),
    "LayerNorm.weight": (5,),
    "one.weight": (1,),
    "scalar": (),
    "none.weight": (0, 4),
    "unused.weight": (2, 2),  # its gradient is 0
}
RATES = (0.1, 0.0, 0.03, 0.2)


def draw(seed=0, steps=4, dtype=np.float64):
    """Parameters, and their gradients in a number of steps."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    params = {name: np.asarray(value) for name, value in params.items()}
    grads = [
        {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}
        for _ in range(steps)
    ]
    for of_one_step in grads:
        of_one_step["unused.weight"][...] = 0
    return params, grads


def decay_of(name, weight_decay):
    return 0.0 if name in ("dense.bias", "LayerNorm.weight") else weight_decay


@pytest.mark.parametrize("make", [AdamW, bert_adam])
@pytest.mark.parametrize("options", [{}, {"beta1": 0.5, "beta2": 0.0, "epsilon": 0.1, "weight_decay": 0.3}])
def test_adamw_is_the_formula(make, options):
    params, grads = draw()
    start = {name: value.copy() for name, value in params.items()}
    optimizer = make(params, **options)
    for of_one_step, rate in zip(grads, RATES, strict=True):
        optimizer.step(of_one_step, rate)
    defaults = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.01}
    defaults["epsilon"] = 1e-8 if make is AdamW else 1e-6
    numbers = {**defaults, **options}
    for name in SHAPES:
        given = {**numbers, "weight_decay": decay_of(name, numbers["weight_decay"])}
        expected = formulas.adamw(
            start[name], [g[name] for g in grads], RATES, **given, bias_correction=make is AdamW
        )
        kept = [params[name], optimizer.state()[f"mean.{name}"], optimizer.state()[f"square.{name}"]]
        for found, reference in zip(kept, expected, strict=True):
            np.testing.assert_allclose(found.ravel(), reference, rtol=1e-12, atol=1e-14)
