"""Schedules: their closed forms."""

import pytest

from npbert.training.schedules import make_schedule


def test_linear():
    rate = make_schedule("linear", peak=0.8, warmup_steps=4, total_steps=12)
    found = [rate(step) for step in range(14)]
    expected = [0, 0.2, 0.4, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0]
    assert found == pytest.approx(expected, rel=1e-14, abs=1e-16)
