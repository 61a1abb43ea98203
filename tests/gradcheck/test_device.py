"""Pairs on CuPy arrays, with a stand-in for CuPy: its arrays refuse to become NumPy's by themselves.

It shows that arrays are moved, and what is reported; no device ever ran these tests.
"""

import numpy as np
import pytest

from npbert.gradcheck import accuracy, check
from npbert.ops.array_module import array_module
from tests.cuda import fake_cupy
from tests.gradcheck.pairs import check_named, random_arguments, row_named


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    return fake_cupy.install(monkeypatch)


def linear(x, weight, bias):
    return x @ weight.T + bias, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    return dy @ weight, drows.T @ rows, drows.sum(axis=0)


def network(params, x):
    xp = array_module(x)
    hidden = xp.tanh(x @ params["w1"])
    return (hidden, None, hidden @ params["w2"]), (params, x, hidden)


def network_backward(douts, cache):
    dhidden_out, _, dy = douts
    params, x, hidden = cache
    dinner = (dhidden_out + dy @ params["w2"].T) * (1 - hidden * hidden)
    return {"w1": x.T @ dinner, "w2": hidden.T @ dy}, dinner @ params["w1"].T


def on_device(cupy, arg):
    if isinstance(arg, dict):
        return {key: cupy.asarray(value) for key, value in arg.items()}
    return cupy.asarray(arg)


@pytest.fixture
def linear_args(cupy):
    return tuple(on_device(cupy, arg) for arg in random_arguments(0)["linear"])


def failed_checks(report):
    return {result.name for result in report.checks if result.status == "failed"}


@pytest.mark.parametrize("mode", ["gradient", "jacobian", "directional"])
@pytest.mark.parametrize("name", ["linear", "network"])
def test_right_pairs_pass(cupy, name, mode):
    args = tuple(on_device(cupy, arg) for arg in random_arguments(0)[name])
    pair = {"linear": (linear, linear_backward), "network": (network, network_backward)}[name]
    report = check(*pair, args, mode=mode)
    assert report.ok, str(report)
    assert report.subject == f"{name} / {name}_backward"
    assert {row.name for row in report.tensors} <= {"x", "weight", "bias", "w1", "w2"}


def test_a_wrong_gradient_is_found(linear_args):
    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, -dweight, dbias

    report = check(linear, backward, linear_args)
    assert [row.status for row in report.tensors] == ["passed", "failed", "passed"]


def test_float32_and_the_callers_arrays_are_left_alone(cupy):
    args = tuple(cupy.asarray(arg.astype(np.float32)) for arg in random_arguments(0)["linear"])
    before = [cupy.asnumpy(arg) for arg in args]
    report = check(linear, linear_backward, args)
    assert report.ok, str(report)
    assert {row.dtype for row in report.tensors} == {"float32"}
    assert all(np.array_equal(old, cupy.asnumpy(arg)) for old, arg in zip(before, args, strict=True))
    assert accuracy(linear, linear_backward, args, budget_u=8).ok


def test_writing_to_arguments_and_cotangents_is_seen(linear_args):
    def writes(x, weight, bias):
        result = linear(x, weight, bias)
        bias[...] = 0
        return result

    report = check(writes, linear_backward, linear_args)
    assert check_named(report, "inputs unmodified by forward").detail == "changed: bias"

    def writes_dy(dy, cache):
        gradients = linear_backward(dy, cache)
        dy[...] = 0
        return gradients

    assert failed_checks(check(linear, writes_dy, linear_args)) == {"cotangent unmodified"}


def test_gradients_that_left_the_device(cupy, linear_args):
    def backward(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, cupy.asnumpy(dweight), dbias

    report = check(linear, backward, linear_args)
    assert failed_checks(report) == {"gradient on the device"}
    detail = "a gradient is a NumPy array, the arguments are cupy's"
    assert check_named(report, "gradient on the device").detail == detail


def test_faults_are_named(linear_args):
    report = check(linear, lambda dy, cache: (*linear_backward(dy, cache)[:2], None), linear_args)
    assert failed_checks(report) == {"gradient present"}
    report = check(lambda x, w, b: linear(x, w, b)[0], linear_backward, linear_args)
    assert failed_checks(report) == {"forward returns (output, cache)"}

    def transposed(dy, cache):
        dx, dweight, dbias = linear_backward(dy, cache)
        return dx, dweight.T, dbias

    report = check(linear, transposed, linear_args)
    assert row_named(report, "weight").note.startswith("not compared: weight: gradient (5, 7)")


def test_an_object_on_the_device(cupy, linear_args):
    x, weight, bias = linear_args

    class Linear:
        def forward(self, x, weight, bias):
            y, self.cache = linear(x, weight, bias)
            return y

        def backward(self, dy):
            return linear_backward(dy, self.cache)

    report = check(Linear, args=(x, weight, bias))
    assert report.ok, str(report)
