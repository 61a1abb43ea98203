"""However a pair is written, the same check: two functions, a pullback, an object that remembers."""

import numpy as np
import pytest

from npbert.gradcheck import check
from tests.gradcheck.pairs import (
    check_named,
    layernorm,
    layernorm_backward,
    linear,
    linear_backward,
    random_arguments,
    row_named,
    softmax,
    softmax_backward,
)

X, WEIGHT, BIAS = random_arguments(0)["linear"]


class Linear:
    """Remembers its input; its weights are attributes, and so are their gradients."""

    def __init__(self):
        self.weight, self.bias = WEIGHT.copy(), BIAS.copy()

    def forward(self, x):
        y, self.cache = linear(x, self.weight, self.bias)
        return y

    def backward(self, dy):
        dx, self.dweight, self.dbias = linear_backward(dy, self.cache)
        return dx


class Softmax:
    """Hands its cache over."""

    def forward(self, x):
        return softmax(x)

    def backward(self, dy, cache):
        return softmax_backward(dy, cache)


def failed_checks(report):
    return {result.name for result in report.checks if result.status == "failed"}


@pytest.mark.parametrize("subject", [Softmax, Softmax()])
def test_an_object_or_a_class_that_hands_its_cache_over(subject):
    report = check(subject, args=(X,))
    assert report.ok, str(report)
    assert report.subject == "Softmax.forward / Softmax.backward"
    assert [row.name for row in report.tensors] == ["x"]


def test_static_methods():
    class Static:
        forward = staticmethod(softmax)
        backward = staticmethod(softmax_backward)

    assert check(Static, args=(X,)).ok


@pytest.mark.parametrize("mode", ["gradient", "jacobian", "directional"])
def test_an_object_that_remembers(mode):
    layer = Linear()
    report = check(layer, args=(X,), mode=mode)
    assert report.ok, str(report)
    assert not hasattr(layer, "cache")  # the caller's object is as it was


@pytest.mark.parametrize("mode", ["gradient", "jacobian", "directional"])
@pytest.mark.parametrize(
    "parameters", [["weight", "bias"], ("bias", "weight"), {"weight": "dweight", "bias": "dbias"}]
)
def test_attributes_are_parameters(parameters, mode):
    layer = Linear()
    report = check(layer, args=(X,), parameters=parameters, mode=mode)
    assert report.ok, str(report)
    assert {row.name for row in report.tensors} == {"weight", "bias", "x"}
    assert np.array_equal(layer.weight, WEIGHT)
    assert layer.weight.dtype == WEIGHT.dtype


def test_a_wrong_gradient_of_an_attribute():
    class Wrong(Linear):
        def backward(self, dy):
            dx = super().backward(dy)
            self.dbias = self.dbias / len(dy)
            return dx

    report = check(Wrong, args=(X,), parameters=["weight", "bias"])
    assert [(row.name, row.status) for row in report.tensors] == [
        ("weight", "passed"),
        ("bias", "failed"),
        ("x", "passed"),
    ]
    assert failed_checks(check(Wrong, args=(X,))) == set()


def test_parameters_in_dictionaries():
    class Layer:
        def __init__(self):
            self.params = {"w": WEIGHT.copy(), "b": BIAS.copy()}

        def forward(self, x):
            y, self.cache = linear(x, self.params["w"], self.params["b"])
            return y

        def backward(self, dy):
            dx, dw, db = linear_backward(dy, self.cache)
            self.grads = {"w": dw, "b": db}
            return dx

    report = check(Layer, args=(X,), parameters={"params": "grads"})
    assert report.ok, str(report)
    assert [row.name for row in report.tensors] == ["params.w", "params.b", "x"]


def test_the_backward_takes_the_arguments():
    def value(x):
        return softmax(x)[0]

    def vjp(dy, x):
        return softmax_backward(dy, softmax(x)[1])

    report = check(value, vjp, (X,), convention="arguments")
    assert report.ok, str(report)
    assert report.subject == "value / vjp"
    assert "convention='arguments'" in report.reproduce
    assert check(value, lambda dy, x: 2 * vjp(dy, x), (X,), convention="arguments").status == "failed"


def test_a_pullback():
    def forward(x, weight, bias, eps):
        y, cache = layernorm(x, weight, bias, eps)
        return y, lambda dy: layernorm_backward(dy, cache)

    args = random_arguments(0)["layernorm"]
    report = check(forward, args=args, convention="pullback")
    assert report.ok, str(report)
    assert [row.name for row in report.tensors] == ["x", "weight", "bias"]

    def wrong(x):
        y, cache = softmax(x)
        return y, lambda dy: dy * cache

    report = check(wrong, args=(X,), convention="pullback")
    assert row_named(report, "x").status == "failed"


def test_names_are_those_of_the_arguments():
    report = check(Linear(), args=(X,), parameters=["weight"], names=["inputs"])
    assert [row.name for row in report.tensors] == ["weight", "inputs"]


def test_the_line_that_reproduces_an_object():
    report = check(Linear(), args=(X,), parameters=["weight"], seed=3)
    assert report.reproduce == (
        "from tests.gradcheck.test_conventions import Linear; "
        "npbert.gradcheck.check(Linear(...), args=args, seed=3, parameters=['weight'])"
    )
    report = check(Softmax, args=(X,))
    assert report.reproduce.endswith("import Softmax; npbert.gradcheck.check(Softmax, args=args, seed=0)")


# What an object does wrong is named, as it is with functions -------------------------------------------


class Broken(Softmax):
    """Does one thing wrong, as asked."""

    def __init__(self, fault):
        self.fault = fault
        self.rng = np.random.default_rng(0)

    def forward(self, x):
        if self.fault == "forward raises":
            raise ZeroDivisionError("forward")
        y, cache = softmax(x)
        if self.fault == "changes its input":
            x[...] = 0
        if self.fault == "is random":
            y = y * (self.rng.random(y.shape) < 0.5)
        if self.fault == "nan":
            y[0, 1, 2] = np.nan
        if self.fault == "integers":
            y = np.round(1e3 * y.real).astype(int)
        if self.fault == "no cache":
            return y
        if self.fault == "float32" and not np.iscomplexobj(y):
            y = y.astype(np.float32)
        return y, cache

    def backward(self, dy, cache):
        dx = softmax_backward(dy, cache)
        returned = {
            "none": None,
            "broadcasts": dx.sum(axis=0, keepdims=True),
            "scalar": dx.sum(),
            "transposed": dx.swapaxes(0, 1),
            "too many": (dx, dx),
            "list": dx.tolist(),
            "float32 gradient": dx.astype(np.float32),
            "nan gradient": np.where(dx > 0, dx, np.nan),
            "text": "dx",
        }
        if self.fault == "backward raises":
            raise ZeroDivisionError("backward")
        if self.fault == "writes to dy":
            dy[...] = 0
        if self.fault == "writes to the cache":
            cache *= 0
        return returned.get(self.fault, dx)


NAMED = {
    "forward raises": "forward runs",
    "changes its input": "inputs unmodified by forward",
    "is random": "forward deterministic",
    "nan": "output finite",
    "integers": "output is floating-point",
    "no cache": "forward returns (output, cache)",
    "float32": "output dtype",
    "none": "gradient present",
    "broadcasts": "gradient shape",
    "scalar": "gradient shape",
    "transposed": "gradient shape",
    "too many": "gradient count",
    "list": "gradient count",  # of the entries of the list: a list of gradients is as good as a tuple
    "text": "gradient is an array",
    "float32 gradient": "gradient dtype",
    "nan gradient": "gradient finite",
    "backward raises": "backward runs",
    "writes to dy": "cotangent unmodified",
    "writes to the cache": "cache usable twice",
}


@pytest.mark.parametrize("fault", NAMED)
def test_faults_of_an_object_are_named(fault):
    report = check(Broken(fault), args=(X,))
    assert report.status == "failed"
    assert NAMED[fault] in failed_checks(report), str(report)
    assert check_named(report, NAMED[fault]).detail
    # Never as a numeric mismatch: no tensor is both compared and wrong.
    assert all(row.fraction_wrong == 0 for row in report.tensors), str(report)


def test_the_object_is_right_without_a_fault():
    assert check(Broken(""), args=(X,)).ok


def test_an_object_that_uses_its_state_up():
    class Stack(Linear):
        def forward(self, x):
            self.stack = [x]
            return super().forward(x)

        def backward(self, dy):
            self.stack.pop()
            return super().backward(dy)

    report = check(Stack, args=(X,))
    assert failed_checks(report) == {"cache usable twice"}
    assert "IndexError" in check_named(report, "cache usable twice").detail


def test_an_object_that_adds_to_its_gradients():
    class Accumulates(Linear):
        dweight = 0

        def backward(self, dy):
            dx, dweight, self.dbias = linear_backward(dy, self.cache)
            self.dweight = self.dweight + dweight
            return dx

    report = check(Accumulates, args=(X,), parameters=["weight"])
    assert {"backward deterministic", "cache usable twice"} <= failed_checks(report)


def test_a_gradient_that_is_never_set():
    class Forgets(Linear):
        def backward(self, dy):
            return linear_backward(dy, self.cache)[0]

    report = check(Forgets, args=(X,), parameters=["weight", "bias"])
    assert failed_checks(report) == {"gradient present"}
    assert check_named(report, "gradient present").detail == "weight: None; bias: None"


class NeedsArguments:
    def __init__(self, size):
        self.size = size


class BackwardOfThree(Softmax):
    def backward(self, dy, cache, scale):
        return dy


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ((Linear(),), {}, "args must be a tuple or list of arguments, got NoneType"),
        ((Linear(), (X,)), {}, "backward must be callable, got tuple: without one, give args by name"),
        (
            (object(),),
            {"args": (X,)},
            "without a backward, fn must be an object with the methods",
        ),
        ((NeedsArguments,), {"args": (X,)}, "fn is the class NeedsArguments, which takes arguments"),
        (
            (BackwardOfThree,),
            {"args": (X,)},
            "BackwardOfThree.backward must take (doutput) or (dou",
        ),
        ((Linear(),), {"args": (X,), "parameters": ["w"]}, "parameters names 'w', but Linear has no such"),
        (
            (Linear(),),
            {"args": (X,), "parameters": "weight"},
            "parameters must be a collection of names",
        ),
        (
            (softmax, softmax_backward, (X,)),
            {"parameters": ["weight"]},
            "parameters are attributes of an object; here the convention is 'cache'",
        ),
        (
            (softmax, softmax_backward, (X,)),
            {"convention": "torch"},
            "convention must be one of cache",
        ),
        (
            (softmax, softmax_backward, (X,)),
            {"convention": "pullback"},
            "backward must not be given",
        ),
        ((softmax,), {"args": (X,), "convention": "arguments"}, "backward must be given with convention='a"),
    ],
)
def test_misuse(given, options, message):
    with pytest.raises(ValueError) as caught:
        check(*given, **options)
    assert str(caught.value).startswith(message)
