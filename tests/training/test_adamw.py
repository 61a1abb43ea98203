"""AdamW and Google's Adam: the papers' formulas in 40 digits, and torch."""

import numpy as np
import pytest

from npbert.training.adamw import AdamW, bert_adam
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

OPTIONS = [{}, {"beta1": 0.5, "beta2": 0.0, "epsilon": 0.1, "weight_decay": 0.3}, {"beta1": 0.0}]
DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01, "bias_correction": True}
GOOGLES = {**DEFAULTS, "epsilon": 1e-6, "bias_correction": False}


@pytest.mark.parametrize(("make", "defaults"), [(AdamW, DEFAULTS), (bert_adam, GOOGLES)])
@pytest.mark.parametrize("options", OPTIONS)
def test_formula(make, defaults, options):
    params, grads = draw_params(), draw_grads()
    start = copied(params)
    optimizer = make(params, **options)
    take_steps(optimizer, grads)
    numbers = {**defaults, **options}
    for name in SHAPES:
        given = {**numbers, "weight_decay": 0.0} if name in WITHOUT_DECAY else numbers
        expected = formulas.adamw(start[name], [g[name] for g in grads], RATES, **given)
        kept = [optimizer.state()[f"{kind}.{name}"] for kind in ("mean", "square")]
        for found, reference in zip([params[name], *kept], expected, strict=True):
            np.testing.assert_allclose(found.ravel(), reference, rtol=1e-12, atol=1e-15)


def test_size_of_a_step_does_not_depend_on_that_of_the_gradient():
    """The first step has the length of the learning rate: without bias correction, 3.16 times it."""
    for scale in (1e-4, 1.0, 1e4):
        params = {"weight": np.array([1.0, 1.0])}
        AdamW(params, weight_decay=0.0).step({"weight": scale * np.array([1.0, -2.0])}, 0.25)
        np.testing.assert_allclose(params["weight"], [0.75, 1.25], rtol=1e-3)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("beta1", 1.0, "beta1 is 1.0; it must be at least 0 and below 1"),
        ("beta1", -0.1, "beta1 is -0.1"),
        ("beta2", 1.5, "beta2 is 1.5; it must be at least 0 and below 1"),
        ("beta2", float("nan"), "beta2 is nan"),
        ("epsilon", 0.0, "epsilon is 0.0; it must be above 0, and finite"),
        ("epsilon", float("nan"), "epsilon is nan"),
        ("weight_decay", -0.01, "weight_decay is -0.01; it must be at least 0, and finite"),
        ("weight_decay", float("inf"), "weight_decay is inf"),
    ],
)
@pytest.mark.parametrize("make", [AdamW, bert_adam])
def test_bad_numbers(make, option, value, message):
    with pytest.raises(ValueError, match=message):
        make(draw_params(), **{option: value})


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
    peer = torch.optim.AdamW(
        groups,
        betas=(numbers["beta1"], numbers["beta2"]),
        eps=numbers["epsilon"],
        weight_decay=numbers["weight_decay"],
    )
    optimizer = AdamW(params, **options)
    for of_one_step, rate in zip(grads, RATES, strict=True):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(of_one_step[name])
        for group in peer.param_groups:
            group["lr"] = rate
        peer.step()
        optimizer.step(of_one_step, rate)
        for name, tensor in tensors.items():
            np.testing.assert_allclose(params[name], tensor.numpy(), rtol=1e-12, atol=1e-15, err_msg=name)
