"""`check`: prove one hand-written backward pass against its forward."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from npbert.gradcheck import compare, contracts, identities
from npbert.gradcheck.analytic import why_not_analytic
from npbert.gradcheck.objective import Objective, unit
from npbert.gradcheck.pair import Array, BrokenPair, Leaf, Pair, find_leaves, name_of
from npbert.gradcheck.report import CheckResult, Report, TensorResult
from npbert.gradcheck.round_off import round_off

ORACLES = ("auto", "complex_step", "ridders")
MAX_COORDINATES = 1000


def check(
    fn: Callable[..., Any],
    backward: Callable[..., Any],
    args: Sequence[Any],
    *,
    oracle: str = "auto",
    names: Sequence[str] | None = None,
    seed: int = 0,
    rtol: float | None = None,
    max_coordinates: int = MAX_COORDINATES,
    structural_zeros: Iterable[str] | Mapping[str, float | None] = (),
) -> Report:
    """Check a backward pass against its forward, at given arguments.

    Parameters
    ----------
    fn : callable
        ``fn(*args)`` returns ``(output, cache)``. The output is an array or a tuple of arrays, of which
        some may be None.
    backward : callable
        ``backward(doutput, cache)`` returns the gradient, or the tuple of gradients: one for each
        differentiable argument, in the order of the arguments.
    args : sequence
        The arguments. Floating-point arrays are differentiable, as are dictionaries that hold some (their
        gradient is a dictionary with the same keys). Anything else gets no gradient; for an argument that
        is None, the backward may return None or leave it out. The oracles run on float64 copies; float32
        arguments are also used as they are, to see that the gradients are float32.
    oracle : {"auto", "complex_step", "ridders"}
        Where the reference comes from. ``"auto"`` takes the complex step where the forward is analytic,
        and says why and falls back to extrapolated real differences where it is not.
    names : sequence of str, optional
        One name an argument; by default those of the parameters of ``fn``.
    seed : int
        Seed of the random cotangents, sampled coordinates and directions.
    rtol : float, optional
        Largest error relative to the norm of a row of the reference. By default 1e-11 for the complex
        step, 1e-7 for real differences.
    max_coordinates : int
        Tensors with more entries are compared at that many of them, and along random directions.
    structural_zeros : iterable of str, or mapping from str to float or None
        Names (or patterns such as ``"*.key.bias"``) of gradients that are exactly zero by construction.
        They are tested absolutely, against ``rtol`` times the given scale, by default the largest reference
        gradient of the other tensors. For these a backward may return None.

    Returns
    -------
    Report
        Whatever the pair does wrong, raising included, is a named finding of the report.

    Raises
    ------
    ValueError
        If the call itself makes no sense: an argument of `check` of the wrong kind, nothing to
        differentiate, or arguments that are not finite.

    Examples
    --------
    >>> def square_forward(x):
    ...     return x**2, x
    >>> def square_backward(dy, cache):
    ...     return 2 * cache * dy
    >>> report = check(square_forward, square_backward, (np.array([1.0, -2.0, 3.0]),))
    >>> report.ok, report.oracle
    (True, 'complex_step')
    >>> def forgets_the_factor(dy, cache):
    ...     return cache * dy
    >>> report = check(square_forward, forgets_the_factor, (np.array([1.0, -2.0, 3.0]),))
    >>> report.status, report.tensors[0].fraction_wrong
    ('failed', 1.0)
    """
    _validate(fn, backward, args, oracle, seed, rtol, max_coordinates)
    leaves = find_leaves(fn, args, names)
    pair = Pair(fn, backward, tuple(args), leaves)
    rtol = None if rtol is None else float(rtol)
    settings = _Settings(oracle, rtol, int(seed), int(max_coordinates), _declared(structural_zeros, leaves))
    start = time.perf_counter()
    checks: list[CheckResult] = []
    try:
        comparison = _examine(pair, settings, checks)
    except BrokenPair as broken:
        checks.append(CheckResult(broken.check, "failed", detail=broken.detail))
        comparison = _Comparison()
    return Report(
        subject=f"{name_of(fn)} / {name_of(backward)}",
        tensors=comparison.tensors,
        checks=tuple(checks),
        oracle=comparison.oracle,
        rtol=settings.tolerance(comparison.oracle),
        seed=settings.seed,
        evaluations=comparison.evaluations,
        seconds=time.perf_counter() - start,
        reproduce=_reproduce(fn, backward, settings, names, structural_zeros),
    )


@dataclass(frozen=True)
class _Settings:
    """The options of one check. ``zeros`` maps the declared structural zeros to their scales, if given."""

    oracle: str
    rtol: float | None
    seed: int
    max_coordinates: int
    zeros: dict[str, float | None]

    def tolerance(self, oracle: str) -> float:
        return compare.DEFAULT_RTOL[oracle or "complex_step"] if self.rtol is None else self.rtol


@dataclass(frozen=True)
class _Comparison:
    """What the oracle said: nothing, where the check ended before it was asked."""

    tensors: tuple[TensorResult, ...] = ()
    oracle: str = ""
    evaluations: int = 0


def _examine(pair: Pair, settings: _Settings, checks: list[CheckResult]) -> _Comparison:
    """Run every test in order, appending to ``checks`` as it goes; raise BrokenPair where none can follow."""
    values = [leaf.value.astype(np.float64) for leaf in pair.leaves]
    rng = np.random.default_rng(settings.seed)

    forward, found = contracts.forward_properties(pair, values)
    checks += found
    if "forward deterministic" in _failed(checks):
        return _Comparison()
    cotangents = contracts.draw_cotangents(forward.outputs, rng)
    checks.append(CheckResult("output finite", "passed"))

    gradients, found = contracts.backward_properties(pair, values, cotangents)
    checks += found
    dtypes = [np.dtype(np.float64)] * len(values)
    faults = list(contracts.gradient_properties(pair.leaves, gradients, dtypes, set(settings.zeros)))
    unusable = {name: fault.detail for name, fault in faults}
    faults += _faults_at_given_dtypes(pair, set(settings.zeros))
    checks += contracts.summarise_gradient_properties(fault for _, fault in faults)

    usable = [
        np.zeros(value.shape) if grad is None or leaf.name in unusable else np.asarray(grad)
        for leaf, value, grad in zip(pair.leaves, values, gradients, strict=True)
    ]
    copy = any("unmodified" in name for name in _failed(checks))
    objective = Objective(pair, values, cotangents, copy)
    base = objective.outputs({}, 0.0)
    noise = round_off(objective, usable, base, rng)
    if not unusable:
        checks.append(contracts.linear_in_cotangent(pair, values, cotangents, usable, noise, rng))
        checks.append(contracts.independent_of_memory_layout(pair, values, cotangents, usable, noise))

    oracle, analytic = _choose_oracle(settings.oracle, why_not_analytic(objective, base, rng))
    tensors = _compare_all(objective, usable, noise, unusable, oracle, settings)
    if oracle == "complex_step" and settings.oracle == "auto":
        misled = _misled(objective, usable, tensors)
        if misled:
            oracle, analytic = _choose_oracle("auto", misled)
            tensors = _compare_all(objective, usable, noise, unusable, oracle, settings)
    checks.append(analytic)
    if not unusable:
        rtol = settings.tolerance(oracle)
        checks.append(identities.adjoint_identity(objective, usable, noise, oracle, rtol, rng))
        checks += _taylor(objective, tensors, rng)
    return _Comparison(tensors, oracle, objective.evaluations)


def _faults_at_given_dtypes(pair: Pair, zeros: set[str]) -> list[tuple[str, CheckResult]]:
    """Run the pair at the caller's own dtypes, where those are not all float64, and look at the gradients."""
    given = [leaf.value for leaf in pair.leaves]
    if all(value.dtype == np.float64 for value in given):
        return []
    forward = pair.forward(pair.arguments(given))
    cotangents = contracts.draw_cotangents(forward.outputs, np.random.default_rng(0))
    gradients = pair.gradients(cotangents, forward)
    dtypes = [value.dtype for value in given]
    return list(contracts.gradient_properties(pair.leaves, gradients, dtypes, zeros))


def _choose_oracle(requested: str, obstacle: str | None) -> tuple[str, CheckResult]:
    """Return the oracle to use, given what shows that the forward is not analytic, and say so."""
    name = "forward analytic"
    if requested == "ridders":
        return requested, CheckResult(name, "skipped", detail=obstacle or "")
    if obstacle is None:
        return "complex_step", CheckResult(name, "passed")
    if requested == "auto":
        return "ridders", CheckResult(name, "skipped", detail=f"{obstacle}: using real differences")
    return "complex_step", CheckResult(name, "inconclusive", detail=f"{obstacle}: no oracle for this forward")


def _compare_all(
    objective: Objective,
    gradients: Sequence[Array],
    noise: Sequence[Array],
    unusable: Mapping[str, str],
    oracle: str,
    settings: _Settings,
) -> tuple[TensorResult, ...]:
    """Compare every gradient with the oracle's; those that are no gradients are reported as that."""
    leaves = objective.pair.leaves
    references = {
        number: compare.reference(
            objective,
            number,
            gradients[number],
            oracle,
            settings.max_coordinates,
            np.random.default_rng([settings.seed, number]),
        )
        for number, leaf in enumerate(leaves)
        if leaf.name not in unusable
    }
    largest = max(
        (ref.largest for n, ref in references.items() if leaves[n].name not in settings.zeros), default=0.0
    )
    results = []
    for number, leaf in enumerate(leaves):
        if leaf.name in unusable:
            results.append(_not_compared(leaf, unusable[leaf.name]))
            continue
        scale = settings.zeros.get(leaf.name)
        results.append(
            compare.judge(
                leaf,
                gradients[number],
                references[number],
                noise[number],
                oracle=oracle,
                rtol=settings.tolerance(oracle),
                largest=largest,
                zero_scale=None if leaf.name not in settings.zeros else largest if scale is None else scale,
            )
        )
    return tuple(results)


def _not_compared(leaf: Leaf, why: str) -> TensorResult:
    return TensorResult(
        leaf.name,
        leaf.value.shape,
        str(leaf.value.dtype),
        "failed",
        size=leaf.value.size,
        note=f"not compared: {why}",
    )


def _misled(objective: Objective, gradients: Sequence[Array], tensors: Sequence[TensorResult]) -> str | None:
    """Let real differences arbitrate where gradient and complex step disagree most.

    `why_not_analytic` looks along one direction an argument, and may miss what only a few entries show.
    """
    for number, row in enumerate(tensors):
        if row.status != "failed" or row.worst_index is None or row.gradient is None or row.reference is None:
            continue
        along = unit(objective.values[number], row.worst_index)
        arbiter = compare.differentiate(objective, number, along, "ridders")
        if (
            abs(arbiter.value - row.gradient) <= arbiter.uncertainty
            and abs(arbiter.value - row.reference) > 100 * arbiter.uncertainty
        ):
            where = f"{row.name}{list(row.worst_index)}"
            figures = f"the complex step gives {row.reference:.6g}, real differences {arbiter.value:.6g}"
            return f"at {where}, {figures}"
    return None


def _taylor(
    objective: Objective, tensors: Sequence[TensorResult], rng: np.random.Generator
) -> list[CheckResult]:
    """Test Taylor's remainders; where every tensor agrees, a short slope is the function's: it has a kink."""

    def gradients_at(values: Sequence[Array]) -> list[Array]:
        found = objective.pair.gradients_at(values, objective.cotangents)
        return [
            np.zeros(value.shape) if grad is None else np.asarray(grad)
            for value, grad in zip(values, found, strict=True)
        ]

    results = identities.taylor_remainders(objective, gradients_at, rng)
    if any(row.status == "failed" for row in tensors):
        return results
    return [
        replace(result, status="skipped", detail="every tensor agrees: the function has a kink nearby")
        if result.status == "failed"
        else result
        for result in results
    ]


def _failed(checks: Iterable[CheckResult]) -> set[str]:
    return {result.name for result in checks if result.status == "failed"}


def _declared(
    structural_zeros: Iterable[str] | Mapping[str, float | None], leaves: Sequence[Leaf]
) -> dict[str, float | None]:
    """Return the declared zeros by name, patterns resolved."""
    if isinstance(structural_zeros, str):
        raise ValueError(f"structural_zeros must be a collection of names, got {structural_zeros!r}")
    given = structural_zeros if isinstance(structural_zeros, Mapping) else dict.fromkeys(structural_zeros)
    declared: dict[str, float | None] = {}
    for pattern, scale in given.items():
        if not isinstance(pattern, str):
            raise ValueError(f"structural_zeros must be a collection of names, got {pattern!r} in it")
        matches = [leaf.name for leaf in leaves if fnmatchcase(leaf.name, pattern)]
        if not matches:
            known = ", ".join(leaf.name for leaf in leaves)
            raise ValueError(f"structural_zeros names {pattern!r}, which matches none of: {known}")
        if scale is not None and not (isinstance(scale, (int, float)) and 0 < scale < float("inf")):
            raise ValueError(f"structural_zeros[{pattern!r}] must be positive and finite, got {scale}")
        declared.update(dict.fromkeys(matches, scale))
    return declared


def _validate(
    fn: Any, backward: Any, args: Any, oracle: Any, seed: Any, rtol: float | None, max_coordinates: Any
) -> None:
    """Refuse a call that makes no sense; what the pair does wrong is not its business."""
    for name, value in (("fn", fn), ("backward", backward)):
        if not callable(value):
            raise ValueError(f"{name} must be callable, got {type(value).__name__}")
    if not isinstance(args, (tuple, list)):
        raise ValueError(f"args must be a tuple or list of arguments, got {type(args).__name__}")
    if oracle not in ORACLES:
        raise ValueError(f"oracle must be one of {', '.join(ORACLES)}, got {oracle!r}")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")
    if rtol is not None and not (isinstance(rtol, (float, np.floating)) and 0 < rtol < 1):
        raise ValueError(f"rtol must lie between 0 and 1, got {rtol!r}")
    whole = isinstance(max_coordinates, (int, np.integer)) and not isinstance(max_coordinates, bool)
    if not whole or max_coordinates < 1:
        raise ValueError(f"max_coordinates must be an integer of at least 1, got {max_coordinates!r}")


def _reproduce(
    fn: Callable[..., Any],
    backward: Callable[..., Any],
    settings: _Settings,
    names: Sequence[str] | None,
    structural_zeros: Iterable[str] | Mapping[str, float | None],
) -> str:
    """Return the call as a line of Python, without the options that were left at their defaults."""
    options = [
        ("oracle", settings.oracle, "auto"),
        ("names", None if names is None else list(names), None),
        ("rtol", settings.rtol, None),
        ("max_coordinates", settings.max_coordinates, MAX_COORDINATES),
        ("structural_zeros", structural_zeros, ()),
    ]
    extra = "".join(f", {key}={value!r}" for key, value, default in options if value != default)
    call = f"npbert.gradcheck.check({name_of(fn)}, {name_of(backward)}, args, seed={settings.seed}{extra})"
    if not (_is_global(fn) and _is_global(backward)):
        return call
    functions = {fn.__module__: [name_of(fn)]}
    functions.setdefault(backward.__module__, []).append(name_of(backward))
    imports = [f"from {module} import {', '.join(found)}; " for module, found in functions.items()]
    return "".join(imports) + call


def _is_global(function: Callable[..., Any]) -> bool:
    return getattr(function, "__qualname__", ".").isidentifier()
