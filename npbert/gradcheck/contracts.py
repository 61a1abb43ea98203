"""The properties that every pair has, whatever it computes: they cost a few calls and need no oracle."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from npbert.gradcheck.pair import Array, BrokenPair, Forward, Leaf, Pair, copied
from npbert.gradcheck.report import CheckResult

# Two orders of summation differ by a few eps times the sum of magnitudes. A strided copy or a different
# cotangent may change that order; 1e-10 leaves room for cancellation, and no real mistake is that small.
REORDERING = 1e-10

OWN_DRAWS = 0x6E706265  # keeps a check's random numbers apart from the caller's, whatever the seed

GRADIENT_PROPERTIES = (
    "gradient present",
    "gradient is an array",
    "gradient shape",
    "gradient dtype",
    "gradient finite",
)


def generator(seed: int) -> np.random.Generator:
    """Return the generator of a check's own draws.

    It is not ``default_rng(seed)``: arguments often come from that one, and a cotangent that repeats an
    argument hides mistakes.
    """
    return np.random.default_rng([seed, OWN_DRAWS])


def draw_cotangents(
    outputs: Sequence[Any], dtypes: Collection[np.dtype[Any]], rng: np.random.Generator
) -> list[Any]:
    """Return a random cotangent, in the output's dtype, for each floating-point output; None for the others.

    Raises
    ------
    BrokenPair
        If no output is a real floating-point array, one is not finite, or one has not the dtype that all
        arguments have (whatever they have, if ``dtypes``, those of the arguments, are several).
    """
    cotangents: list[Any] = []
    for number, output in enumerate(outputs):
        if output is None or not np.issubdtype(output.dtype, np.floating):
            cotangents.append(None)
            continue
        if len(set(dtypes)) == 1 and output.dtype not in dtypes:
            (given,) = set(dtypes)
            raise BrokenPair("output dtype", f"output {number} is {output.dtype}, the arguments are {given}")
        if not np.all(np.isfinite(output)):
            index = [int(i) for i in np.argwhere(~np.isfinite(output))[0]]
            raise BrokenPair("output finite", f"output {number} is {output[tuple(index)]} at {index}")
        cotangents.append(np.asarray(rng.standard_normal(output.shape), dtype=output.dtype))
    if all(cotangent is None for cotangent in cotangents):
        kinds = ", ".join("None" if output is None else str(output.dtype) for output in outputs)
        raise BrokenPair("output is floating-point", f"the forward's outputs are {kinds or 'an empty tuple'}")
    return cotangents


def forward_properties(pair: Pair, values: Sequence[Array]) -> tuple[Forward, list[CheckResult]]:
    """Run the forward twice; return its result, and whether it kept its inputs and repeated itself."""
    args = pair.arguments(values)
    first = pair.forward(args)
    changed = _changed(pair.arguments(values), args, pair)
    second = pair.forward(pair.arguments(values))
    return first, [
        CheckResult("forward runs", "passed"),
        _result("inputs unmodified by forward", not changed, f"changed: {changed}"),
        _result(
            "forward deterministic",
            len(first.outputs) == len(second.outputs)
            and all(_identical(one, two) for one, two in zip(first.outputs, second.outputs, strict=True)),
            "two runs on the same input differ",
        ),
    ]


def backward_properties(
    pair: Pair, values: Sequence[Array], cotangents: Sequence[Any]
) -> tuple[list[Any], list[CheckResult]]:
    """Run the backward; return its gradients, and what it did to its inputs, its cotangent and its cache."""
    args = pair.arguments(values)
    forward = pair.forward(args)
    before = [copied(arg) for arg in args]
    given = copies(cotangents)
    first = copies(pair.gradients(given, forward))
    changed = _changed(before, args, pair)
    kept = all(_identical(one, two) for one, two in zip(cotangents, given, strict=True))
    again = _same(first, lambda: pair.gradients(copies(cotangents), forward))
    fresh = _same(first, lambda: pair.gradients_at(values, cotangents))
    return first, [
        CheckResult("backward runs", "passed"),
        _result("inputs unmodified by backward", not changed, f"changed: {changed}"),
        _result("cotangent unmodified", kept, "backward wrote to the cotangent it was given"),
        _result("backward deterministic", not fresh, f"two runs on the same input: {fresh}"),
        _result("cache usable twice", not again, f"a second backward from one cache: {again}"),
    ]


def gradient_properties(
    leaves: Sequence[Leaf], gradients: Sequence[Any], dtypes: Sequence[np.dtype[Any]], zeros: set[str]
) -> Iterator[tuple[str, CheckResult]]:
    """Yield, for each gradient that is not one, the leaf's name and the property that it lacks.

    None counts as zeros where a structural zero is declared.
    """
    for leaf, gradient, dtype in zip(leaves, gradients, dtypes, strict=True):
        if gradient is None:
            if leaf.name not in zeros:
                yield leaf.name, CheckResult("gradient present", "failed", detail=f"{leaf.name}: None")
        elif not isinstance(gradient, (np.ndarray, np.generic)):
            kind = type(gradient).__name__
            yield leaf.name, CheckResult("gradient is an array", "failed", detail=f"{leaf.name}: {kind}")
        elif gradient.shape != leaf.value.shape:
            detail = f"{leaf.name}: gradient {gradient.shape}, argument {leaf.value.shape}"
            yield leaf.name, CheckResult("gradient shape", "failed", detail=detail)
        elif gradient.dtype != dtype:
            detail = f"{leaf.name}: gradient {gradient.dtype}, argument {dtype}"
            yield leaf.name, CheckResult("gradient dtype", "failed", detail=detail)
        elif not np.all(np.isfinite(gradient)):
            index = [int(i) for i in np.argwhere(~np.isfinite(gradient))[0]]
            detail = f"{leaf.name}: {np.asarray(gradient)[tuple(index)]} at {index}"
            yield leaf.name, CheckResult("gradient finite", "failed", detail=detail)


def summarise_gradient_properties(faults: Iterable[CheckResult]) -> list[CheckResult]:
    """Return one result for each property of a gradient, with all the faults found."""
    details: dict[str, list[str]] = {name: [] for name in GRADIENT_PROPERTIES}
    for fault in faults:
        details[fault.name].append(fault.detail)
    return [_result(name, not found, "; ".join(dict.fromkeys(found))) for name, found in details.items()]


def linear_in_cotangent(
    pair: Pair,
    values: Sequence[Array],
    cotangents: Sequence[Any],
    gradients: Sequence[Array],
    noise: Sequence[Array],
    zero_scales: Sequence[float],
    rng: np.random.Generator,
) -> CheckResult:
    """Test ``backward(a dy + b du) = a backward(dy) + b backward(du)``: every backward is linear in dy.

    ``zero_scales`` are what declared zeros are measured against, 0 for the other gradients.
    """
    a, b = 0.75, -1.5
    others = [None if one is None else np.asarray(rng.standard_normal(one.shape)) for one in cotangents]
    mixed = [
        None if one is None else np.asarray(a * one + b * two) for one, two in _pairs(cotangents, others)
    ]

    try:
        from_others, from_mixed = pair.gradients_at(values, others), pair.gradients_at(values, mixed)
        expected = [None if two is None else a * one + b * two for one, two in _pairs(gradients, from_others)]
    except (BrokenPair, TypeError, ValueError) as error:
        return CheckResult("linear in the cotangent", "failed", detail=describe_failure(error))
    return _close("linear in the cotangent", from_mixed, expected, noise, zero_scales)


def independent_of_memory_layout(
    pair: Pair,
    values: Sequence[Array],
    cotangents: Sequence[Any],
    gradients: Sequence[Array],
    noise: Sequence[Array],
    zero_scales: Sequence[float],
) -> CheckResult:
    """Test that arguments and cotangents that are not contiguous in memory give the same gradients.

    The gaps between the entries are NaN (or a large integer), so code that ignores the strides is found.
    """
    try:
        args = [_strided_argument(arg) for arg in pair.arguments(values)]
        found = pair.gradients([_strided(dout) for dout in cotangents], pair.forward(args))
    except BrokenPair as error:
        return CheckResult("non-contiguous inputs", "failed", detail=describe_failure(error))
    return _close("non-contiguous inputs", found, gradients, noise, zero_scales)


def describe_failure(error: Exception) -> str:
    """Return what happened, in one line."""
    return error.detail if isinstance(error, BrokenPair) else f"{type(error).__name__}: {error}"


def _close(
    name: str,
    found: Sequence[Any],
    expected: Sequence[Any],
    noise: Sequence[Array],
    zero_scales: Sequence[float],
) -> CheckResult:
    """Compare gradients up to the order of summation.

    A tensor is measured against its largest entry, or a thousandth of the largest of all, or its scale as a
    declared zero, whichever is most: what should cancel to zero cancels to round-off, which differs between
    the two.
    """
    compared = [
        (np.asarray(one), np.asarray(two), size, zero_scale)
        for one, two, size, zero_scale in zip(found, expected, noise, zero_scales, strict=True)
        if one is not None and two is not None
    ]
    if any(one.shape != two.shape for one, two, _, _ in compared):
        return CheckResult(name, "failed", detail="the gradients' shapes differ between the two runs")
    largest = [float(np.max(np.abs(two), initial=0.0)) for _, two, _, _ in compared]
    worst = 0.0
    for (one, two, size, zero_scale), own in zip(compared, largest, strict=True):
        error = float(np.max(np.abs(one - two) - size, initial=0.0))
        # A NaN in either counts as the worst error there is: max() would let it pass.
        error = error if np.isfinite(error) else float("inf")
        worst = max(worst, error / max(own, 1e-3 * max(largest), zero_scale) if error > 0 else 0.0)
    return CheckResult(name, "passed" if worst <= REORDERING else "failed", worst, REORDERING)


def _result(name: str, passed: bool, detail: str) -> CheckResult:
    return CheckResult(name, "passed") if passed else CheckResult(name, "failed", detail=detail)


def _same(expected: Sequence[Any], run: Any) -> str:
    """Return "" if the run gives bit for bit the expected gradients, else what it does instead."""
    try:
        found = run()
    except BrokenPair as error:
        return error.detail
    same = all(_identical(one, two) for one, two in zip(found, expected, strict=True))
    return "" if same else "the gradients differ"


def _identical(one: Any, two: Any) -> bool:
    if one is None or two is None:
        return one is two
    if not (isinstance(one, (np.ndarray, np.generic)) and isinstance(two, (np.ndarray, np.generic))):
        return type(one) is type(two)  # no array: that is a finding of its own
    one, two = np.asarray(one), np.asarray(two)
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return bool(np.array_equal(one, two, equal_nan=np.issubdtype(one.dtype, np.inexact)))


def _changed(before: Sequence[Any], after: Sequence[Any], pair: Pair) -> str:
    """Return which arguments (and entries of dictionaries) differ, as text."""
    changed = []
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if isinstance(old, dict):
            same = old.keys() == new.keys() and all(_unchanged(old[key], new[key]) for key in old)
        else:
            same = _unchanged(old, new)
        if not same:
            names = [leaf.name for leaf in pair.leaves if leaf.position == number and leaf.key is None]
            changed.append(names[0] if names else f"argument {number}")
    return ", ".join(changed)


def _unchanged(old: Any, new: Any) -> bool:
    return _identical(old, new) if isinstance(old, np.ndarray) else True


def _pairs(one: Sequence[Any], two: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(one, two, strict=True)


def copies(arrays: Sequence[Any]) -> list[Any]:
    """Return copies of the arrays, and anything else as it is."""
    return [one.copy() if isinstance(one, np.ndarray) else one for one in arrays]


def _strided_argument(arg: Any) -> Any:
    if isinstance(arg, dict):
        return {key: _strided_argument(value) for key, value in arg.items()}
    return _strided(arg)


def _strided(value: Any) -> Any:
    """Return an equal array whose entries are every second one of a reversed, Fortran-ordered buffer."""
    if not isinstance(value, np.ndarray) or value.ndim == 0 or value.dtype.kind not in "fiub":
        return value
    gap = {"f": np.nan, "b": True}.get(value.dtype.kind)
    gap = np.iinfo(value.dtype).max if gap is None else gap
    shape = (*value.shape[:-1], 2 * value.shape[-1])
    view = np.full(shape, gap, dtype=value.dtype, order="F")[..., ::-2]
    view[...] = value
    return view
