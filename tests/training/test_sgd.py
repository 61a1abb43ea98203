"""Gradient descent with momentum: the formula in 40 digits, and torch."""

import numpy as np
import pytest

from npbert.training.sgd import SGD
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

OPTIONS = [{}, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.3}, {"momentum": 0.0}]
DEFAULTS = {"momentum": 0.9, "nesterov": False, "weight_decay": 0.01}


@pytest.mark.parametrize("options", OPTIONS)
def test_formula(options):
    params, grads = draw_params(), draw_grads()
    start = copied(params)
    optimizer = SGD(params, **options)
    take_steps(optimizer, grads)
    numbers = {**DEFAULTS, **options}
    for name in SHAPES:
        given = {**numbers, "weight_decay": 0.0} if name in WITHOUT_DECAY else numbers
        theta, b = formulas.sgd(start[name], [g[name] for g in grads], RATES, **given)
        np.testing.assert_allclose(params[name].ravel(), theta, rtol=1e-12, atol=1e-14, err_msg=name)
        if numbers["momentum"]:
            kept = optimizer.state()[f"momentum.{name}"]
            np.testing.assert_allclose(kept.ravel(), b, rtol=1e-12, atol=1e-14, err_msg=name)


def test_without_momentum_nothing_is_kept():
    assert SGD(draw_params(), momentum=0.0).state() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"momentum": 1.0}, "momentum is 1.0; it must be at least 0 and below 1"),
        ({"momentum": -0.5}, "momentum is -0.5"),
        ({"momentum": float("nan")}, "momentum is nan"),
        ({"weight_decay": -0.01}, "weight_decay is -0.01; it must be at least 0, and finite"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov is True, and momentum is 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SGD(draw_params(), **options)


@pytest.mark.oracle
@pytest.mark.parametrize("options", OPTIONS)
def test_torch(options):
    torch = pytest.importorskip("torch")
    params, grads = draw_params(), draw_grads()
    numbers = {**DEFAULTS, **options}
    tensors = {name: torch.tensor(value) for name, value in params.items()}
    groups = [
        {"params": [t for name, t in tensors.items() if name in WITHOUT_DECAY], "weight_decay": 0.0},
        {"params": [t for name, t in tensors.items() if name not in WITHOUT_DECAY]},
    ]
    peer = torch.optim.SGD(groups, **numbers)
    optimizer = SGD(params, **options)
    for of_one_step, rate in zip(grads, RATES, strict=True):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(of_one_step[name])
        for group in peer.param_groups:
            group["lr"] = rate
        peer.step()
        optimizer.step(of_one_step, rate)
        for name, tensor in tensors.items():
            np.testing.assert_allclose(params[name], tensor.numpy(), rtol=1e-12, atol=1e-14, err_msg=name)
