"""What bench_checkers.py asks the checkers about: every op, right and wrong, on three kinds of inputs.

- rich: what ``npbert gradcheck`` draws, in float64: awkward sizes, padding and masks, repeated and absent
  ids, ignored labels, huge and equal logits, rows that are nearly constant.
- bland: what one would write down first: everything 4 wide, normal numbers, weights as a fresh layer has
  them, nothing masked, ignored, repeated or dropped.
- summed: bland, and the sum of the output as a loss, so that the op's cotangent is all ones.
"""

import functools
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert import ops
from npbert.gradcheck import suite
from npbert.gradcheck.pair import Pair, find_leaves
from npbert.gradcheck.suite import Problem
from npbert.ops.activations import ACTIVATIONS
from tests.mutants.catalogue import Mutant, apply, source

Array = NDArray[Any]

INPUTS = ("rich", "bland", "summed")

# For each module with ops: the names of its cases in `npbert.gradcheck.suite` begin with one of these.
CASES_OF = {
    "linear": ("linear",),
    "layernorm": ("layernorm",),
    "gelu": ("gelu",),
    "activations": ("activation",),
    "softmax": ("softmax (",),
    "softmax_attention": ("softmax attention",),
    "relative_position": ("relative position",),
    "embedding": ("embedding",),
    "dropout": ("dropout",),
    "cross_entropy": ("cross-entropy",),
    "mean_squared_error": ("mean squared error",),
    "binary_cross_entropy": ("binary cross-entropy",),
    "pooling": ("CLS pooling", "mean pooling", "L2 normalisation"),
}


class OpPair(NamedTuple):
    """A forward and its backward, at float64 arguments: what a checker is asked about."""

    problem: Problem
    seed: int  # for a checker that takes one

    def plain(self) -> "PlainPair":
        """Return the pair as functions of nothing but the arrays to differentiate by."""
        leaves = find_leaves(self.problem.fn, self.problem.args, None)
        return PlainPair(Pair(self.problem.fn, self.problem.backward, self.problem.args, leaves), self.seed)


class PlainPair(NamedTuple):
    """The pair as the peers need it: integers, masks and options are closed over."""

    pair: Pair
    seed: int

    @property
    def values(self) -> list[Array]:
        """The arrays to differentiate by, float64."""
        return [leaf.value for leaf in self.pair.leaves]

    def forward(self, *values: Array) -> tuple[Array, Any]:
        """Return the value and the cache."""
        found = self.pair.forward(self.pair.arguments(values, copy=False))
        return found.outputs[0], found

    def backward(self, dy: Array, cache: Any) -> list[Array]:
        """Return a gradient for each of the values; one that the backward leaves out is zero."""
        found = zip(self.values, self.pair.gradients([dy], cache), strict=True)
        return [np.zeros_like(value) if grad is None else np.asarray(grad) for value, grad in found]


@contextmanager
def installed(mutant: Mutant | None) -> Iterator[None]:
    """Put the mutant's forwards and backwards in the place of npbert's, for a while."""
    if mutant is None:
        yield
        return
    module = types.ModuleType("mutant")
    exec(compile(apply(mutant, source(mutant)), mutant.file, "exec"), vars(module))
    original = mutant.file.removesuffix(".py").replace("/", ".")
    names = [
        name
        for name in ops.__all__
        if name.endswith(("_forward", "_backward")) and getattr(ops, name).__module__ == original
    ]
    before = {name: getattr(ops, name) for name in names}
    try:
        for name in names:
            setattr(ops, name, getattr(module, name))
        yield
    finally:
        for name, function in before.items():
            setattr(ops, name, function)


def case_names(module: str, inputs: str) -> list[str]:
    """Return the names of a module's cases on one kind of inputs."""
    if inputs == "rich":
        return [case.name for case in suite.ops.CASES if case.name.startswith(CASES_OF[module])]
    return list(bland_cases(module))


def draw(module: str, inputs: str, case: str, seed: int) -> OpPair:
    """Draw the pair that `npbert.ops` holds at present; the arguments depend on the other things only."""
    if inputs == "rich":
        problem = suite.draw_problem(case, seed)
    else:
        # Not default_rng(seed): a checker that draws its cotangent from that would draw the arguments again.
        problem = bland_cases(module)[case](np.random.default_rng([seed, zlib.crc32(case.encode())]))
    problem = problem._replace(args=tuple(_in_float64(arg) for arg in problem.args))
    return OpPair(summed(problem) if inputs == "summed" else problem, seed)


def _in_float64(arg: Any) -> Any:
    is_floating = isinstance(arg, np.ndarray) and arg.dtype.kind == "f"
    return arg.astype(np.float64) if is_floating else arg


def summed(problem: Problem) -> Problem:
    """Return the problem with the sum of its output as the value."""

    @functools.wraps(problem.fn)
    def fn(*args: Any) -> Any:
        y, cache = problem.fn(*args)
        return np.sum(y), (cache, np.asarray(y).shape)

    @functools.wraps(problem.backward)
    def backward(dloss: Array, cache: Any) -> Any:
        return problem.backward(np.full(cache[1], dloss)[()], cache[0])

    # Rows that sum to the same whatever x is: the gradient is exactly 0.
    constant = problem.fn in (ops.softmax_forward, ops.layernorm_forward)
    return Problem(fn, backward, problem.args, {"x": 1.0} if constant else ())


def bland_cases(module: str) -> dict[str, Callable[[np.random.Generator], Problem]]:
    """Return a module's bland problems by name: 4 of everything."""

    def problem(op: str, *args: Any) -> Problem:
        return Problem(getattr(ops, f"{op}_forward"), getattr(ops, f"{op}_backward"), args)

    def square(rng: np.random.Generator) -> Array:
        return rng.standard_normal((4, 4))

    def linear(rng: np.random.Generator) -> Problem:
        return problem("linear", square(rng), square(rng), np.zeros(4))

    def layernorm(rng: np.random.Generator) -> Problem:
        return problem("layernorm", square(rng), np.ones(4), np.zeros(4), 1e-12)

    def softmax_attention(rng: np.random.Generator) -> Problem:
        return problem("softmax_attention", *(rng.standard_normal((4, 4, 4, 4)) for _ in range(3)))

    def relative_position(rng: np.random.Generator) -> Problem:
        q, k = (rng.standard_normal((4, 4, 4, 4)) for _ in range(2))
        return problem("relative_position", q, k, rng.standard_normal((7, 4)), "relative_key_query")

    def embedding(rng: np.random.Generator) -> Problem:
        words, positions, types_ = square(rng), square(rng), square(rng)
        once = np.arange(4)[None]  # every word, position and type, once
        return problem("embedding", once, None, once, once, words, positions, types_, None)

    def classes(rng: np.random.Generator) -> Problem:
        return problem("cross_entropy", square(rng), np.arange(4))

    def texts(rng: np.random.Generator) -> Array:
        return rng.standard_normal((4, 4, 4))

    cases = {
        "linear": [linear],
        "layernorm": [layernorm],
        "gelu": [lambda rng, form=form: problem("gelu", square(rng), form) for form in ("erf", "tanh")],
        "activations": [
            lambda rng, name=name: problem("activation", square(rng), name) for name in _distinct(ACTIVATIONS)
        ],
        "softmax": [lambda rng: problem("softmax", square(rng))],
        "softmax_attention": [softmax_attention],
        "relative_position": [relative_position],
        "embedding": [embedding],
        "dropout": [lambda rng: problem("dropout", square(rng), None, 0.0)],
        "cross_entropy": [classes],
        "mean_squared_error": [lambda rng: problem("mse", square(rng), square(rng))],
        "binary_cross_entropy": [lambda rng: problem("bce_with_logits", square(rng), np.eye(4))],
        "pooling": [
            lambda rng: problem("cls_pooling", texts(rng)),
            lambda rng: problem("mean_pooling", texts(rng), np.ones((4, 4), dtype=bool)),
            lambda rng: problem("l2_normalize", square(rng), 1e-12),
        ],
    }
    return {f"{module} {number}": draw for number, draw in enumerate(cases[module], start=1)}


def _distinct(activations: dict[str, Any]) -> list[str]:
    """Return one name of each activation: some have several."""
    return list({id(functions): name for name, functions in activations.items()}.values())


class Results(NamedTuple):
    """What a pair computes: the value, and the gradients for two random cotangents."""

    value: Array | None  # None: the forward raises
    gradients: list[Any]  # None in the place of all for one cotangent: the backward raises


def results(pair: OpPair) -> Results:
    """Run a pair."""
    plain = pair.plain()
    rng = np.random.default_rng([pair.seed, 1])
    gradients: list[Any] = []
    try:
        value, _ = plain.forward(*(value.copy() for value in plain.values))
    except Exception:
        return Results(None, [])
    for _ in range(2):
        try:
            _, cache = plain.forward(*(value.copy() for value in plain.values))
            gradients.append(plain.backward(rng.standard_normal(value.shape), cache))
        except Exception:
            gradients.append(None)
    return Results(value, gradients)


def same_value(one: Results, other: Results) -> bool:
    """Tell whether two pairs have the same value."""
    return _is_same(one.value, other.value)


def same_gradients(one: Results, other: Results) -> bool:
    """Tell whether two pairs have the same gradients."""
    pairs = zip(one.gradients, other.gradients, strict=False)
    return len(one.gradients) == len(other.gradients) and all(_are_same(a, b) for a, b in pairs)


def _are_same(one: Sequence[Array] | None, other: Sequence[Array] | None) -> bool:
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and all(map(_is_same, one, other))


def _is_same(one: Array | None, other: Array | None) -> bool:
    """Tell whether two arrays are the same, but for the round-off that another order of sums makes."""
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    scale = np.max(np.abs(other[np.isfinite(other)]), initial=1.0)  # at least that of the inputs
    return bool(np.allclose(one, other, rtol=1e-10, atol=1e-13 * scale, equal_nan=True))
