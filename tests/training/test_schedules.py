"""Schedules: their closed forms, and transformers' at every step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.training.schedules import SCHEDULES, make_schedule

PEAK = 0.8
names = pytest.mark.parametrize("name", SCHEDULES)


def rates(name, warmup_steps, total_steps, **options):
    """The rates of all steps, and of some more."""
    schedule = make_schedule(name, peak=PEAK, warmup_steps=warmup_steps, total_steps=total_steps, **options)
    return np.array([schedule(step) for step in range(total_steps + 5)])


def test_names():
    assert list(SCHEDULES) == ["linear", "cosine", "constant", "polynomial", "google"]


def test_linear_by_hand():
    expected = [0, 0.2, 0.4, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(rates("linear", 4, 12), expected, rtol=1e-14, atol=1e-15)


def test_google_by_hand():
    """From 0.6, the last rate of the warm-up, not to 0.8 but to 0.8 (1 - 4/12)."""
    expected = [0, 0.2, 0.4, 0.6, *(0.8 * (12 - step) / 12 for step in range(4, 12)), 0, 0, 0, 0, 0]
    np.testing.assert_allclose(rates("google", 4, 12), expected, rtol=1e-14, atol=1e-15)


@given(warmup_steps=st.integers(0, 9), rest=st.integers(1, 20), power=st.sampled_from((0.5, 1.0, 3.0)))
def test_closed_forms(warmup_steps, rest, power):
    total_steps = warmup_steps + rest
    steps = np.arange(total_steps + 5)
    left = np.interp(steps, [warmup_steps, total_steps], [1, 0])
    after = {
        "linear": PEAK * left,
        "cosine": PEAK * np.sin(np.pi * left / 2) ** 2,
        "constant": np.full(len(steps), PEAK),
        "polynomial": 0.1 + (PEAK - 0.1) * left**power,
        "google": np.interp(steps, [0, total_steps], [PEAK, 0]),
    }
    for name in SCHEDULES:
        warmup = PEAK * steps / max(warmup_steps, 1)
        expected = np.where(steps < warmup_steps, warmup, after[name])
        options = {"end": 0.1, "power": power} if name == "polynomial" else {}
        found = rates(name, warmup_steps, total_steps, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15, err_msg=name)


@names
def test_only_a_warmup(name):
    found = rates(name, 4, 4)
    np.testing.assert_allclose(found[:4], [0, 0.2, 0.4, 0.6], rtol=1e-14)
    last = {"constant": PEAK, "polynomial": 1e-7}.get(name, 0.0)
    np.testing.assert_allclose(found[4:], last, rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "step"},
            "the schedule is 'step'; it must be one of linear, cosine, constant, polynomial, google",
        ),
        ({"peak": -0.1}, "peak is -0.1; it must be at least 0, and finite"),
        ({"peak": math.nan}, "peak is nan"),
        ({"peak": math.inf}, "peak is inf"),
        ({"warmup_steps": -1}, "warmup_steps is -1; it must be an integer of at least 0"),
        ({"warmup_steps": 0.1}, "warmup_steps is 0.1; it must be an integer"),
        ({"warmup_steps": True}, "warmup_steps is True; it must be an integer"),
        ({"warmup_steps": 11}, "warmup_steps is 11; it must be at most total_steps, which is 10"),
        ({"total_steps": 0}, "total_steps is 0; it must be an integer of at least 1"),
        ({"name": "polynomial", "end": 0.9}, "end is 0.9; it must be from 0 to peak, which is 0.8"),
        ({"name": "polynomial", "end": -0.1}, "end is -0.1"),
        ({"name": "polynomial", "power": 0}, "power is 0; it must be above 0, and finite"),
        ({"name": "polynomial", "power": math.inf}, "power is inf"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"name": "linear", "peak": PEAK, "warmup_steps": 2, "total_steps": 10} | change
    with pytest.raises(ValueError, match=message):
        make_schedule(arguments.pop("name"), **arguments)


@names
def test_bad_step(name):
    schedule = make_schedule(name, peak=PEAK, warmup_steps=0, total_steps=10)
    with pytest.raises(ValueError, match="step is -1; it must be at least 0"):
        schedule(-1)


@names
def test_peak_of_0(name):
    schedule = make_schedule(name, peak=0.0, warmup_steps=2, total_steps=5, end=0.0)
    assert {schedule(step) for step in range(8)} == {0.0}


@pytest.mark.oracle
@pytest.mark.parametrize("warmup_steps", [0, 1, 7])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("linear", {}),
        ("cosine", {}),
        ("constant", {}),
        ("polynomial", {}),
        ("polynomial", {"end": 0.1, "power": 2.0}),
    ],
)
def test_transformers(name, options, warmup_steps):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    total_steps = 40
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    theirs = {"num_warmup_steps": warmup_steps}
    if name != "constant":
        theirs["num_training_steps"] = total_steps
    if options:
        theirs |= {"lr_end": options["end"], "power": options["power"]}
    make = {
        "linear": transformers.get_linear_schedule_with_warmup,
        "cosine": transformers.get_cosine_schedule_with_warmup,
        "constant": transformers.get_constant_schedule_with_warmup,
        "polynomial": transformers.get_polynomial_decay_schedule_with_warmup,
    }[name]
    peer = make(optimizer, **theirs)
    schedule = make_schedule(name, peak=PEAK, warmup_steps=warmup_steps, total_steps=total_steps, **options)
    for step in range(total_steps + 1):
        assert schedule(step) == pytest.approx(peer.get_last_lr()[0], rel=1e-12, abs=1e-16), step
        optimizer.step()
        peer.step()
