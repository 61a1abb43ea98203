"""A pair that breaks the rules is reported as that, by name: never as a mismatch, never as a traceback."""

import itertools

import numpy as np
import pytest

from npbert.gradcheck import check
from tests.gradcheck.pairs import (
    cast,
    check_named,
    layernorm,
    layernorm_backward,
    linear,
    linear_backward,
    network,
    network_backward,
    random_arguments,
    row_named,
    softmax,
    softmax_backward,
)


def failed_checks(report):
    return {result.name for result in report.checks if result.status == "failed"}


def args_of(fn, seed=0):
    return random_arguments(seed)[fn.__name__]


# The forward ------------------------------------------------------------------------------------------


def test_forward_raises():
    def raises(x):
        raise IndexError("too far\nsecond line")

    report = check(raises, softmax_backward, args_of(softmax))
    assert report.status == "failed"
    assert failed_checks(report) == {"forward runs"}
    assert check_named(report, "forward runs").detail == "raises raised IndexError: too far"
    assert report.tensors == ()


@pytest.mark.parametrize("returned", [None, np.ones(3), (np.ones(3),), (1, 2, 3)])
def test_forward_returns_no_pair(returned):
    report = check(lambda x: returned, softmax_backward, args_of(softmax))
    assert failed_checks(report) == {"forward returns (output, cache)"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_output_not_finite(bad):
    def forward(x):
        y, cache = softmax(x)
        y = y.copy()
        y[1, 2, 3] = bad
        return y, cache

    report = check(forward, softmax_backward, args_of(softmax))
    assert failed_checks(report) == {"output finite"}
    assert check_named(report, "output finite").detail == f"output 0 is {bad} at [1, 2, 3]"


@pytest.mark.parametrize("output", [np.arange(3), None, (), (None, np.array(True))])
def test_output_is_not_floating_point(output):
    report = check(lambda x: (output, None), softmax_backward, args_of(softmax))
    assert failed_checks(report) == {"output is floating-point"}


def test_output_is_ragged():
    report = check(lambda x: (([[1.0], [1.0, 2.0]],), None), softmax_backward, args_of(softmax))
    assert failed_checks(report) == {"output is floating-point"}
    assert "an output is no array" in check_named(report, "output is floating-point").detail


def test_output_shape_depends_on_the_values():
    def forward(x):
        return x[x.real > 0] * 2, x

    def backward(dy, x):
        dx = np.zeros_like(x)
        dx[x > 0] = 2 * dy
        return dx

    # Any step of the real differences changes how many entries are positive.
    report = check(forward, backward, (np.array([1.0, 0.0, -1.0]),), oracle="ridders")
    assert report.status != "passed"
    assert "the outputs' shapes change with the arguments" in str(report)


def test_forward_is_random():
    rng = np.random.default_rng(0)

    def forward(x):
        mask = rng.random(x.shape) < 0.5
        return x * mask, mask

    report = check(forward, lambda dy, mask: dy * mask, args_of(softmax))
    assert failed_checks(report) == {"forward deterministic"}
    assert report.tensors == ()


def test_forward_changes_its_input():
    def forward(x):
        x -= x.mean(axis=-1, keepdims=True)
        return softmax(x)

    x = args_of(softmax)[0]
    before = x.copy()
    report = check(forward, softmax_backward, (x,))
    assert failed_checks(report) == {"inputs unmodified by forward"}
    assert check_named(report, "inputs unmodified by forward").detail == "changed: x"
    # The rest was still checked, on copies, and the caller's array is as it was.
    assert row_named(report, "x").status == "passed"
    assert np.array_equal(x, before)


def test_forward_changes_a_dictionary():
    def forward(params, x):
        params["w2"] = params["w2"] * 1.0
        params["w1"] *= 2
        return network(params, x)

    def backward(douts, cache):
        grads, dx = network_backward(douts, cache)
        return {"w1": 2 * grads["w1"], "w2": grads["w2"]}, dx

    report = check(forward, backward, args_of(network))
    assert failed_checks(report) == {"inputs unmodified by forward"}


# The backward -----------------------------------------------------------------------------------------


def test_backward_raises():
    def backward(dy, cache):
        return dy @ np.ones((1000, 3))

    report = check(softmax, backward, args_of(softmax))
    assert failed_checks(report) == {"backward runs"}
    assert check_named(report, "backward runs").detail.startswith("backward raised ValueError: matmul")


def test_backward_returns_none():
    report = check(softmax, lambda dy, cache: None, args_of(softmax))
    assert failed_checks(report) == {"gradient present"}
    assert row_named(report, "x").note == "not compared: x: None"


def test_one_gradient_is_none_and_the_others_are_compared():
    def backward(dy, cache):
        dx, _, dbias = linear_backward(dy, cache)
        return dx, None, dbias

    report = check(linear, backward, args_of(linear))
    assert failed_checks(report) == {"gradient present"}
    assert [row.status for row in report.tensors] == ["passed", "failed", "passed"]


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_wrong_number_of_gradients(count):
    def backward(dy, cache):
        return (linear_backward(dy, cache) * 2)[:count]

    report = check(linear, backward, args_of(linear))
    assert failed_checks(report) == {"gradient count"}
    expected = f"backward returned {count} gradients, the arguments need 3"
    assert check_named(report, "gradient count").detail == expected


def test_missing_and_unknown_entries_of_a_dictionary():
    def missing(douts, cache):
        grads, dx = network_backward(douts, cache)
        return {"w1": grads["w1"]}, dx

    def unknown(douts, cache):
        grads, dx = network_backward(douts, cache)
        return grads | {"w3": grads["w2"]}, dx

    def no_dictionary(douts, cache):
        grads, dx = network_backward(douts, cache)
        return grads["w1"], dx

    assert failed_checks(check(network, missing, args_of(network))) == {"gradient present"}
    assert failed_checks(check(network, no_dictionary, args_of(network))) == {"gradient present"}
    report = check(network, unknown, args_of(network))
    assert failed_checks(report) == {"gradient count"}
    assert "w3" in check_named(report, "gradient count").detail


def test_gradient_transposed():
    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, dweight.T, dbias

    report = check(linear, backward, args_of(linear))
    assert failed_checks(report) == {"gradient shape"}
    assert check_named(report, "gradient shape").detail == "weight: gradient (5, 7), argument (7, 5)"


@pytest.mark.parametrize("axes", [(0,), (1,), ()])
def test_gradient_not_summed_over_a_broadcast(axes):
    def backward(dy, cache):
        dx, dweight, _ = linear_backward(dy, cache)
        return dx, dweight, dy.sum(axis=axes)

    report = check(linear, backward, args_of(linear))
    assert failed_checks(report) == {"gradient shape"}
    assert row_named(report, "bias").status == "failed"


def test_gradient_that_would_broadcast():
    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, dweight, dbias[None]

    assert failed_checks(check(linear, backward, args_of(linear))) == {"gradient shape"}


def test_gradient_is_a_list():
    report = check(lambda x: (2 * x, None), lambda dy, cache: ([1.0, 2.0],), (np.ones(2),))
    assert failed_checks(report) == {"gradient is an array"}


@pytest.mark.parametrize("gradient", [[[1.0], [1.0, 2.0]], "dx", 1.5, object(), np.array([None] * 30)])
def test_gradient_is_anything(gradient):
    report = check(softmax, lambda dy, cache: (gradient,), args_of(softmax))
    assert report.status == "failed"
    assert failed_checks(report) & {"gradient is an array", "gradient shape"}


@pytest.mark.parametrize("dtype", [np.complex128, np.int64, object])
def test_gradient_of_another_kind(dtype):
    report = check(softmax, lambda dy, cache: softmax_backward(dy, cache).astype(dtype), args_of(softmax))
    assert failed_checks(report) == {"gradient dtype"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradient_not_finite(bad):
    def backward(dy, cache):
        dx, dweight, dbias = layernorm_backward(dy, cache)
        dx[1, 0, 4] = bad
        return dx, dweight, dbias

    report = check(layernorm, backward, args_of(layernorm))
    assert failed_checks(report) == {"gradient finite"}
    assert check_named(report, "gradient finite").detail == f"x: {bad} at [1, 0, 4]"
    assert row_named(report, "x").status == "failed"
    assert row_named(report, "weight").status == "passed"


def test_float32_arguments_need_float32_gradients():
    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, dweight.astype(np.float64), dbias

    args = args_of(linear)
    assert check(linear, backward, args).ok
    report = check(linear, backward, cast(args, np.float32))
    assert failed_checks(report) == {"gradient dtype"}
    assert check_named(report, "gradient dtype").detail == "weight: gradient float64, argument float32"
    # In float64, where the oracle works, the gradient is right.
    assert {row.status for row in report.tensors} == {"passed"}


def test_float64_arguments_need_float64_gradients():
    def backward(dy, cache):
        return softmax_backward(dy, cache).astype(np.float32)

    report = check(softmax, backward, args_of(softmax))
    assert failed_checks(report) == {"gradient dtype"}
    assert row_named(report, "x").note == "not compared: x: gradient float32, argument float64"


def test_dtypes_may_be_mixed():
    x, weight, bias = args_of(linear)

    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx.astype(cache[0].dtype), dweight, dbias

    assert check(linear, backward, (x.astype(np.float32), weight, bias)).ok
    assert failed_checks(check(linear, linear_backward, (x.astype(np.float32), weight, bias))) == {
        "gradient dtype"
    }


def test_an_exception_at_the_callers_dtype_only():
    def forward(x):
        if x.dtype == np.float32:
            raise TypeError("float64 only")
        return softmax(x)

    report = check(forward, softmax_backward, cast(args_of(softmax), np.float32))
    assert report.status == "failed"
    assert failed_checks(report) == {"forward runs"}


def test_backward_changes_what_the_forward_was_given():
    def backward(dy, cache):
        x, _ = cache
        result = linear_backward(dy, cache)
        x *= 0.5
        return result

    report = check(linear, backward, args_of(linear))
    failed = failed_checks(report)
    assert "inputs unmodified by backward" in failed
    assert "cache usable twice" in failed
    assert check_named(report, "inputs unmodified by backward").detail == "changed: x"


def test_backward_writes_to_the_cotangent():
    def backward(dy, probs):
        dy *= probs
        return dy - probs * dy.sum(axis=-1, keepdims=True)

    report = check(softmax, backward, args_of(softmax))
    assert failed_checks(report) == {"cotangent unmodified"}
    assert row_named(report, "x").status == "passed"


def test_backward_uses_its_cache_up():
    def forward(x):
        y, probs = softmax(x)
        return y, [probs]

    def backward(dy, cache):
        return softmax_backward(dy, cache.pop())

    report = check(forward, backward, args_of(softmax))
    assert failed_checks(report) == {"cache usable twice"}
    assert "IndexError" in check_named(report, "cache usable twice").detail


def test_backward_accumulates_in_its_cache():
    def forward(x):
        y, probs = softmax(x)
        return y, (probs, np.zeros_like(probs))

    def backward(dy, cache):
        probs, accumulated = cache
        accumulated += softmax_backward(dy, probs)
        return accumulated

    assert "cache usable twice" in failed_checks(check(forward, backward, args_of(softmax)))


def test_backward_is_random():
    calls = itertools.count()

    def backward(dy, probs):
        return softmax_backward(dy, probs) * (1 + 1e-15 * next(calls))

    assert "backward deterministic" in failed_checks(check(softmax, backward, args_of(softmax)))


@pytest.mark.parametrize("bend", [lambda dy: dy + 1e-6, lambda dy: dy * np.abs(dy), np.sign])
def test_backward_is_not_linear_in_the_cotangent(bend):
    report = check(softmax, lambda dy, probs: softmax_backward(bend(dy), probs * 1.1), args_of(softmax))
    assert "linear in the cotangent" in failed_checks(report)


def test_memory_layout_matters():
    def forward(x):
        # A forward that hands the raw buffer on, as a kernel would, and forgets the strides.
        flat = x.base if x.base is not None else x
        return x * 1.0, np.ravel(flat, order="K")[: x.size].reshape(x.shape)

    def backward(dy, values):
        return dy * (values == values)

    x = args_of(softmax)[0].copy()
    assert failed_checks(check(forward, backward, (x,))) == {"non-contiguous inputs"}


def test_an_exception_on_non_contiguous_input_only():
    def forward(x):
        x.view()[...].reshape(-1)
        if not x.flags.c_contiguous:
            raise BufferError("not contiguous")
        return softmax(x)

    report = check(forward, softmax_backward, args_of(softmax))
    assert failed_checks(report) == {"non-contiguous inputs"}
    assert "BufferError" in check_named(report, "non-contiguous inputs").detail


def test_keyboard_interrupt_is_not_swallowed():
    def forward(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(forward, softmax_backward, args_of(softmax))
