"""Low precision against float64: npbert's ops keep the budgets, and what exceeds one is found."""

import json

import numpy as np
import pytest

from npbert import ops
from npbert.gradcheck import accuracy
from tests.gradcheck.pairs import check_named, layernorm, layernorm_backward, random_arguments, row_named

DTYPES = (np.float32, np.float16)


def draws(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape) for shape in shapes)


def matmul_terms(dy, x, weight, bias):
    """|A| |B|, of the product and of both of its gradients."""
    y, cache = ops.linear_forward(np.abs(x), np.abs(weight), np.abs(bias))
    return [y, *ops.linear_backward(np.abs(dy), cache)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [31, 384, 768])
def test_layernorm_is_within_8_u_of_its_rows(width, dtype):
    args = (*draws((33, width), width, width), 1e-12)
    report = accuracy(ops.layernorm_forward, ops.layernorm_backward, args, dtype=dtype, budget_u=8)
    assert report.ok, str(report)
    assert [row.name for row in report.tensors] == ["output", "x", "weight", "bias"]
    assert all(row.max_error > 0 for row in report.tensors)
    # In ULP the very same dx has no correct digit where its row cancels.
    in_ulp = accuracy(ops.layernorm_forward, ops.layernorm_backward, args, dtype=dtype, budget_ulp=8)
    assert row_named(in_ulp, "x").status == "failed"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [31, 64, 768])
def test_matrix_products_are_within_8_u_of_their_terms(width, dtype):
    args = draws((33, width), (7, width), 7)
    report = accuracy(
        ops.linear_forward, ops.linear_backward, args, dtype=dtype, budget_u=8, terms=matmul_terms
    )
    assert report.ok, str(report)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_is_within_8_u_of_its_rows(dtype):
    report = accuracy(ops.softmax_forward, ops.softmax_backward, draws((9, 31)), dtype=dtype, budget_u=8)
    assert report.ok, str(report)


@pytest.mark.parametrize("form", ["erf", "tanh"])
def test_gelu(form):
    """The value to 4 ULP; the slope has a root, so its error is relative to dy there."""
    x = np.linspace(-5, 12, 4001)
    value = accuracy(ops.gelu_forward, ops.gelu_backward, (x, form), budget_ulp=4)
    assert row_named(value, "output").status == "passed", str(value)

    def terms(dy, x, form):
        return [None, np.abs(dy)]

    slope = accuracy(ops.gelu_forward, ops.gelu_backward, (x, form), budget_u=4, terms=terms)
    assert row_named(slope, "x").status == "passed", str(slope)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "silu"])
def test_activations_in_ulp(name):
    args = (np.linspace(-5, 5, 1001), name)
    report = accuracy(ops.activation_forward, ops.activation_backward, args, budget_ulp=8)
    assert row_named(report, "output").status == "passed", str(report)


def test_what_exceeds_the_budget_is_found():
    def one_pass(x, weight, bias, eps):
        mean = x.mean(axis=-1, keepdims=True)
        inv_std = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) - mean * mean + eps)  # cancels
        x_hat = (x - mean) * inv_std
        return x_hat * weight + bias, (x_hat, inv_std, weight)

    x, weight, bias = draws((5, 31), 31, 31)
    args = (x + 30, weight, bias, 1e-5)
    report = accuracy(one_pass, layernorm_backward, args, budget_u=8)
    assert report.status == "failed"
    row = row_named(report, "x")
    assert row.status == "failed"
    assert row.fraction_wrong > 0.5
    assert row.max_error > 100 * 2.0**-24
    assert row.gradient != row.reference
    assert "(budget 8)" in row.note
    assert abs(row.gradient - row.reference) > 0
    right = (layernorm, layernorm_backward)
    assert accuracy(*right, args, budget_u=64).ok  # the mean of 30 costs some digits in any case
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_single_bad_entry_is_found():
    def backward(dy, cache):
        dx = 2 * dy
        dx[2, 3] *= 1 + dx.dtype.type(1e-5 if dx.dtype == np.float32 else 0)
        return dx

    report = accuracy(lambda x: (2 * x, None), backward, draws((4, 5)), budget_ulp=4)
    row = row_named(report, "x")
    assert row.worst_index == (2, 3)
    assert row.fraction_wrong == 1 / 20
    assert row_named(report, "output").max_error == 0


def test_findings_that_are_not_about_accuracy():
    def overflows(x):
        return x * x.dtype.type(6e4), x

    with np.errstate(over="ignore"):
        report = accuracy(overflows, lambda dy, x: dy * x, draws(9), dtype=np.float16, budget_u=8)
    assert check_named(report, "output finite").status == "failed"
    assert report.tensors == ()

    def infinite(dy, x):
        return np.where(np.arange(9) == 4, dy.dtype.type(np.inf), dy)

    report = accuracy(lambda x: (1 * x, x), infinite, draws(9), budget_u=8)
    assert check_named(report, "gradient finite").detail == "x: inf at [4]"
    assert [row.name for row in report.tensors] == ["output"]

    report = accuracy(lambda x: (1 * x, x), lambda dy, x: dy.astype(np.float64), draws(9), budget_u=8)
    assert check_named(report, "gradient dtype").status == "failed"
    report = accuracy(lambda x: (x.astype(np.float64), x), lambda dy, x: dy, draws(9), budget_u=8)
    assert check_named(report, "output dtype").detail == "output 0 is float64, the arguments are float32"
    report = accuracy(lambda x: 1 / 0, lambda dy, x: dy, draws(9), budget_u=8)
    assert check_named(report, "forward runs").status == "failed"
    report = accuracy(lambda x: (1 * x, x), lambda dy, x: None, draws(9), budget_u=8)
    assert check_named(report, "gradient present").status == "failed"


def test_objects_and_the_line_that_reproduces():
    class Twice:
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    report = accuracy(Twice(), args=draws(5), dtype="float16", budget_ulp=1, seed=3)
    assert report.ok
    assert report.subject == "Twice.forward / Twice.backward in float16"
    assert report.reproduce == (
        "npbert.gradcheck.accuracy(Twice(...), args=args, seed=3, dtype='float16', budget_ulp=1)"
    )


def test_several_outputs():
    def forward(x):
        return (x, None, np.arange(3), 2 * x), x

    def backward(douts, x):
        return douts[0] + 2 * douts[3]

    report = accuracy(forward, backward, draws(5), budget_ulp=2)
    assert [row.name for row in report.tensors] == ["output 0", "output 3", "x"]


ARGS = random_arguments(0)["layernorm"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give one of budget_u and budget_ulp"),
        ({"budget_u": 8, "budget_ulp": 8}, "give one of budget_u and budget_ulp"),
        ({"budget_u": 0}, "budget_u must be positive and finite, got 0"),
        ({"budget_ulp": float("nan")}, "budget_ulp must be positive and finite, got nan"),
        ({"budget_u": 8, "dtype": np.float64}, "dtype must be one of float16, float32, got float64"),
        ({"budget_ulp": 8, "terms": matmul_terms}, "terms must be a callable, and goes with budget_u"),
        ({"budget_u": 8, "terms": lambda *_: []}, "terms returned 0 arrays, there are 4: output, x, weight"),
        ({"budget_u": 8, "args": None}, "args must be a tuple or list of arguments, got NoneType"),
        (
            {"budget_u": 8, "dtype": "float16", "args": (1e5 * ARGS[0], *ARGS[1:])},
            "x has entries that are too",
        ),
    ],
)
def test_misuse(options, message):
    given = {"args": ARGS, **options}
    with pytest.raises(ValueError) as caught, np.errstate(over="ignore"):
        accuracy(layernorm, layernorm_backward, **given)
    assert str(caught.value).startswith(message)
