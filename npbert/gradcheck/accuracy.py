"""`accuracy`: how far float32 or float16 results are from those of float64, against a budget.

`check` proves the formula, in float64. This asks what the same pair makes of it in the precision that it is
used in. Arguments and cotangents are rounded to that precision first, so that the reference, the same pair in
float64, starts from the very same numbers.

An error is measured in one of three ways:

- in *ULP* of the exact value, entry by entry: for functions that work on each element alone;
- in *u* (the unit round-off, half an ULP of 1) relative to the *norm of the row*: for sums, of which an entry
  may cancel, and then has no correct digit at all (a sound layernorm shows errors of 200,000 ULP);
- in *u* relative to the sum of the magnitudes of the terms that an entry is made of, where the caller knows
  them: the sharpest one for matrix products, ``|A| |B|``.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from npbert.gradcheck import contracts
from npbert.gradcheck.conventions import adapt, choose_convention, name_arguments
from npbert.gradcheck.device import on_host
from npbert.gradcheck.options import reproduce
from npbert.gradcheck.pair import Array, BrokenPair, Pair, find_leaves, name_of
from npbert.gradcheck.report import CheckResult, Report, TensorResult
from npbert.gradcheck.round_off import row_norm

DTYPES = ("float16", "float32")
DEFAULTS: dict[str, Any] = {
    "dtype": "float32",
    "budget_u": None,
    "budget_ulp": None,
    "terms": None,
    "convention": None,
    "parameters": (),
    "names": None,
}


def accuracy(
    fn: Any,
    backward: Callable[..., Any] | None = None,
    args: Sequence[Any] | None = None,
    *,
    dtype: DTypeLike = np.float32,
    budget_u: float | None = None,
    budget_ulp: float | None = None,
    terms: Callable[..., Sequence[Any]] | None = None,
    convention: str | None = None,
    parameters: Mapping[str, str] | Sequence[str] = (),
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Report:
    """Compare outputs and gradients in a low precision with those in float64.

    Parameters
    ----------
    fn, backward, args, convention, parameters, names
        As for `npbert.gradcheck.check`. Floating-point arrays are rounded to ``dtype``.
    dtype : float32 or float16
        The precision in question.
    budget_u : float
        Largest error in units of u (2**-24 for float32, 2**-11 for float16), relative to the norm of the row.
    budget_ulp : float
        Or: largest error in units in the last place, entry by entry. One of the two must be given.
    terms : callable, optional
        ``terms(doutput, *args)`` in float64 returns, for each output and then each gradient, the sum of the
        magnitudes of the terms that each entry is made of; None stands for the row's norm. With ``budget_u``.
    seed : int
        Seed of the random cotangents.

    Returns
    -------
    Report
        One `TensorResult` for each output and each gradient; ``max_error`` is relative, and ``note`` has it
        in the unit of the budget. Results that are not finite, or have another dtype, are findings of their
        own.

    Raises
    ------
    ValueError
        If the call itself makes no sense.

    Examples
    --------
    >>> from npbert.ops import layernorm_backward, layernorm_forward
    >>> rng = np.random.default_rng(0)
    >>> args = (rng.standard_normal((3, 31)), rng.standard_normal(31), rng.standard_normal(31), 1e-12)
    >>> report = accuracy(layernorm_forward, layernorm_backward, args, dtype=np.float32, budget_u=8)
    >>> report.ok, [row.name for row in report.tensors]
    (True, ['output', 'x', 'weight', 'bias'])
    """
    dtype = np.dtype(dtype)
    options = {
        "dtype": dtype.name,
        "budget_u": budget_u,
        "budget_ulp": budget_ulp,
        "terms": terms,
        "convention": convention,
        "parameters": parameters,
        "names": None if names is None else list(names),
        "seed": seed,
    }
    _validate(dtype, budget_u, budget_ulp, terms)
    adapted = adapt(choose_convention(convention, backward), fn, backward, args, parameters)
    if not isinstance(adapted.args, (tuple, list)):
        raise ValueError(f"args must be a tuple or list of arguments, got {type(adapted.args).__name__}")
    run, run_backward, host_args = on_host(adapted.fn, adapted.backward, adapted.args)
    leaves = find_leaves(run, host_args, name_arguments(adapted, names))
    pair = Pair(run, run_backward, tuple(host_args), leaves)
    unit = float(np.finfo(dtype).eps) / (2 if budget_ulp is None else 1)
    budget = float(budget_u if budget_ulp is None else budget_ulp)  # type: ignore[arg-type]
    start = time.perf_counter()
    checks: list[CheckResult] = []
    tensors: list[TensorResult] = []
    try:
        for name, low, high, size in _results(pair, dtype, terms, int(seed), checks):
            errors = _in_u(low, high, size, unit) if budget_ulp is None else _in_ulp(low, high, dtype)
            word = "u" if budget_ulp is None else "ULP"
            tensors.append(_judge(name, low, high, errors, budget, unit, word))
    except BrokenPair as broken:
        checks.append(CheckResult(broken.check, "failed", detail=broken.detail))
    return Report(
        subject=f"{name_of(adapted.fn)} / {name_of(adapted.backward)} in {dtype}",
        tensors=tuple(tensors),
        checks=tuple(checks),
        oracle="float64" if tensors else "",
        rtol=budget * unit,
        seed=int(seed),
        evaluations=2,
        seconds=time.perf_counter() - start,
        reproduce=reproduce(fn, backward, options, "accuracy", DEFAULTS),
    )


def _validate(dtype: np.dtype[Any], budget_u: Any, budget_ulp: Any, terms: Any) -> None:
    if dtype.name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    if (budget_u is None) == (budget_ulp is None):
        raise ValueError("give one of budget_u and budget_ulp")
    for name, value in (("budget_u", budget_u), ("budget_ulp", budget_ulp)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")
    if terms is not None and (budget_u is None or not callable(terms)):
        raise ValueError("terms must be a callable, and goes with budget_u")


def _results(
    pair: Pair,
    dtype: np.dtype[Any],
    terms: Callable[..., Sequence[Any]] | None,
    seed: int,
    checks: list[CheckResult],
) -> Iterator[tuple[str, Array, Array, Array | None]]:
    """Yield each output's and gradient's name, value in ``dtype``, value in float64, and size of terms."""
    values = [leaf.value.astype(dtype) for leaf in pair.leaves]
    exact = [value.astype(np.float64) for value in values]
    # Finite arguments that are too large for the dtype are the caller's, not the pair's doing.
    for leaf, value in zip(pair.leaves, values, strict=True):
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{leaf.name} has entries that are too large for {dtype}")
    dtypes = [dtype] * len(values)
    forward = pair.forward(pair.arguments(values))
    cotangents = contracts.draw_cotangents(forward.outputs, dtypes, contracts.generator(seed))
    checks += [CheckResult(name, "passed") for name in ("forward runs", "output dtype", "output finite")]
    gradients = pair.gradients(contracts.copies(cotangents), forward)
    checks.append(CheckResult("backward runs", "passed"))
    faults = list(contracts.gradient_properties(pair.leaves, gradients, dtypes, set()))
    checks += contracts.summarise_gradient_properties(fault for _, fault in faults)
    unusable = {name for name, _ in faults}

    wide = [None if dout is None else dout.astype(np.float64) for dout in cotangents]
    reference = pair.forward(pair.arguments(exact))
    reference_gradients = pair.gradients(contracts.copies(wide), reference)
    number = sum(dout is not None for dout in cotangents)
    names = [f"output {n}" for n, dout in enumerate(cotangents) if dout is not None]
    names = ["output"] if number == 1 else names
    names += [leaf.name for leaf in pair.leaves]
    found = [*_kept(forward.outputs, cotangents), *gradients]
    wanted = [*_kept(reference.outputs, cotangents), *reference_gradients]
    sizes: Sequence[Any] = [None] * len(found)
    if terms is not None:
        sizes = terms(tuple(wide) if forward.is_tuple else wide[0], *pair.arguments(exact))
        if len(sizes) != len(found):
            raise ValueError(
                f"terms returned {len(sizes)} arrays, there are {len(found)}: {', '.join(names)}"
            )
    for name, low, high, size in zip(names, found, wanted, sizes, strict=True):
        if name not in unusable:
            yield name, np.asarray(low), np.asarray(high), None if size is None else np.asarray(size)


def _kept(outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
    return [output for output, dout in zip(outputs, cotangents, strict=True) if dout is not None]


def _in_ulp(low: Array, high: Array, dtype: np.dtype[Any]) -> Array:
    """Return the error of every entry in units in the last place of the exact value."""
    smallest = np.finfo(dtype).smallest_normal
    ulp = np.spacing(np.maximum(np.abs(high), smallest).astype(dtype)).astype(np.float64)
    return np.asarray(np.abs(low.astype(np.float64) - high) / ulp)


def _in_u(low: Array, high: Array, size: Array | None, unit: float) -> Array:
    """Return the error in units of u: of every entry relative to its terms, or of its row to the row."""
    error = low.astype(np.float64) - high
    error, scale = (row_norm(error), row_norm(high)) if size is None else (np.abs(error), size)
    # Below the smallest normal number digits are lost to underflow.
    scale = np.where(scale > 0, np.maximum(scale, np.finfo(low.dtype).smallest_normal), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error > 0, error / (unit * scale), 0.0)


def _judge(
    name: str, low: Array, high: Array, errors: Array, budget: float, unit: float, word: str
) -> TensorResult:
    """Return the result of one tensor."""
    result = TensorResult(
        name, low.shape, str(low.dtype), "passed", compared=low.size, size=low.size, oracle="float64"
    )
    if not low.size:
        return replace(result, note="has no entries")
    if not np.all(np.isfinite(high)):
        return replace(result, status="inconclusive", note="the reference in float64 is not finite")
    # In a row, all entries have the row's error: show the one that is farthest off.
    worst_row = errors == np.max(errors)
    apart = np.where(worst_row, np.abs(low.astype(np.float64) - high), -1.0)
    worst = np.unravel_index(np.argmax(apart), low.shape)
    largest = float(np.max(errors))
    return replace(
        result,
        status="passed" if largest <= budget else "failed",
        max_error=largest * unit,
        worst_index=tuple(int(i) for i in worst),
        gradient=float(low[worst]),
        reference=float(high[worst]),
        fraction_wrong=float(np.mean(errors > budget)),
        note=f"{largest:.3g} {word} (budget {budget:g})",
    )
