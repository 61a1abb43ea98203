"""Modelled bounds, against figures that were worked out by hand from the same data sheets."""

import pytest

from npbert.cuda.facts.devices import DEVICES
from npbert.cuda.facts.problems import problems
from npbert.cuda.facts.roofline import roofline

BY_NAME = {device.name: device for device in DEVICES}


@pytest.fixture(scope="module")
def attention():
    """Attention forward with B=32 N=12 T=512 H=64 in float16: on tensor cores, without, and unfused."""
    chosen = [
        problem
        for problem in problems(head_widths=(64,))
        if problem.op.startswith("attention_forward") and problem.variant == "float16 H=64"
    ]
    return {(problem.op, problem.unit): problem for problem in chosen}


def test_what_attention_needs(attention):
    fused = attention["attention_forward", "tensor"]
    assert fused.shape == "B=32 N=12 T=512 H=64"
    assert fused.flops == 4 * 32 * 12 * 512 * 512 * 64
    # q, k, v and context in float16; a log-sum-exp in float32 for each row.
    assert fused.minimum_bytes == 32 * 12 * 512 * (4 * 64 * 2 + 4)
    assert round(fused.flops / 1e9, 1) == 25.8
    assert round(fused.minimum_bytes / 1e6) == 101


@pytest.mark.parametrize(
    ("op", "unit", "part", "microseconds"),
    [
        ("attention_forward", "tensor", "compute_seconds", (396, 83, 156, 26)),
        ("attention_forward", "float32", "compute_seconds", (3181, 1322, 312, 385)),
        ("attention_forward, unfused", "tensor", "memory_seconds", (2834, 445, 900, 271)),
    ],
)
def test_bounds_of_attention(attention, op, unit, part, microseconds):
    problem = attention[op, unit]
    for device, expected in zip(DEVICES, microseconds, strict=False):  # B200 is not among them
        bound = roofline(device, unit, problem.flops, problem.minimum_bytes)
        assert round(getattr(bound, part) * 1e6) == expected
        assert bound.seconds == max(bound.compute_seconds, bound.memory_seconds)


def test_the_larger_one_limits():
    t4 = BY_NAME["T4"]
    assert roofline(t4, "tensor", flops=65e9, nbytes=1).limited_by == "compute"
    assert roofline(t4, "tensor", flops=65e9, nbytes=1).seconds == pytest.approx(1e-3)
    assert roofline(t4, "tensor", flops=1, nbytes=320e6).limited_by == "memory"
    assert roofline(t4, "tensor", flops=1, nbytes=320e6).seconds == pytest.approx(1e-3)
    assert roofline(t4, "float64", flops=1e9, nbytes=0).seconds == pytest.approx(32 / 8.1e3)


def test_data_sheets_are_named_and_plausible():
    assert [device.architecture for device in DEVICES] == ["sm_75", "sm_80", "sm_89", "sm_90", "sm_100"]
    for device in DEVICES:
        assert device.source
        assert device.float64 < device.float32 < device.tensor
