"""`check`: prove one hand-written backward pass against its forward."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from npbert.gradcheck import contracts, identities
from npbert.gradcheck.analytic import contradiction_in_a_row, why_not_analytic
from npbert.gradcheck.conventions import adapt, choose_convention, name_arguments
from npbert.gradcheck.device import on_host
from npbert.gradcheck.diagnosis.finding import Diagnosis, Mistake
from npbert.gradcheck.diagnosis.known import validate_mistakes
from npbert.gradcheck.diagnosis.order import diagnose
from npbert.gradcheck.directional_mode import DirectionalMode
from npbert.gradcheck.gradient_mode import GradientMode
from npbert.gradcheck.jacobian_mode import JacobianMode
from npbert.gradcheck.objective import Objective
from npbert.gradcheck.options import (
    DIRECTIONS,
    MAX_COORDINATES,
    Settings,
    choose_mpmath_forward,
    declared_zeros,
    reproduce,
    validate,
)
from npbert.gradcheck.pair import Array, BrokenPair, Pair, find_leaves, name_of
from npbert.gradcheck.report import CheckResult, Report, TensorResult
from npbert.gradcheck.round_off import round_off


def check(
    fn: Any,
    backward: Callable[..., Any] | None = None,
    args: Sequence[Any] | None = None,
    *,
    convention: str | None = None,
    parameters: Mapping[str, str] | Sequence[str] = (),
    oracle: str = "auto",
    fn_mpmath: Callable[..., Any] | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    rtol: float | None = None,
    max_coordinates: int = MAX_COORDINATES,
    structural_zeros: Iterable[str] | Mapping[str, float | None] = (),
    mistakes: Sequence[Mistake] = (),
    mode: str = "gradient",
    directions: int = DIRECTIONS,
) -> Report:
    """Check a backward pass against its forward, at given arguments.

    Parameters
    ----------
    fn : callable, or object
        ``fn(*args)`` returns ``(output, cache)``. The output is an array or a tuple of arrays, of which
        some may be None. Or an object (or a class) with the methods ``forward`` and ``backward``.
    backward : callable, optional
        ``backward(doutput, cache)`` returns the gradient, or the tuple of gradients: one for each
        differentiable argument, in the order of the arguments. Left out where ``fn`` is an object.
    args : sequence
        The arguments. Floating-point arrays are differentiable, as are dictionaries that hold some (their
        gradient is a dictionary with the same keys). Anything else gets no gradient; for an argument that
        is None, the backward may return None or leave it out. The oracles run on float64 copies; float32
        arguments are also used as they are, to see that the gradients are float32. CuPy arrays are moved to
        and from the device.
    convention : {"cache", "arguments", "pullback", "object"}, optional
        How the pair is written; see `npbert.gradcheck.conventions`. By default ``"cache"``, as above, or
        ``"object"`` without a ``backward``.
    parameters : mapping from str to str, or sequence of str
        Attributes of the object that are differentiable too, and the attributes that hold their gradients
        after its ``backward``: by default the same names after a ``d``. Either may be a dictionary.
    oracle : {"auto", "complex_step", "ridders", "mpmath"}
        Where the reference comes from. ``"auto"`` takes the complex step where the forward is analytic,
        and says why and falls back to extrapolated real differences where it is not.
    fn_mpmath : callable, optional
        The forward on object arrays of ``mpmath.mpf``, returning the output or the tuple of outputs. Where
        it is given (or known: for npbert's own layernorm and softmax) and mpmath is installed, 50 digits
        decide about every tensor that has not passed.
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
    mistakes : sequence of Mistake
        Backwards that are wrong in a known way. Where the gradients equal those of one, its description is
        the first diagnosis.
    mode : {"gradient", "jacobian", "directional"}
        ``"gradient"`` compares the gradient for one random cotangent, entry by entry. ``"jacobian"``
        compares the derivative of every entry of the outputs by every entry of the arguments. In
        ``"directional"`` mode all tensors move along random directions: for models too large to do more.
    directions : int
        The number of directions in directional mode.

    Returns
    -------
    Report
        Whatever the pair does wrong, raising included, is a named finding of the report.

    Raises
    ------
    ValueError
        If the call itself makes no sense: an argument of `check` of the wrong kind, nothing to
        differentiate, arguments that are not finite, or mpmath asked for and not installed.

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
    >>> report.diagnosis
    'dx is half the right gradient: a factor 2 is forgotten'
    """
    options = {
        "convention": convention,
        "parameters": parameters,
        "oracle": oracle,
        "fn_mpmath": fn_mpmath,
        "names": None if names is None else list(names),
        "seed": seed,
        "rtol": rtol,
        "max_coordinates": max_coordinates,
        "structural_zeros": structural_zeros,
        "mode": mode,
        "directions": directions,
    }
    adapted = adapt(choose_convention(convention, backward), fn, backward, args, parameters)
    validate(adapted.args, options)
    validate_mistakes(mistakes)
    argument_names = name_arguments(adapted, names)
    run, run_backward, host_args = on_host(adapted.fn, adapted.backward, adapted.args)
    leaves = find_leaves(run, host_args, argument_names)
    exact = choose_mpmath_forward(fn, options)
    pair = Pair(run, run_backward, tuple(host_args), leaves, exact)
    settings = Settings(
        oracle=oracle,
        rtol=None if rtol is None else float(rtol),
        seed=int(seed),
        max_coordinates=int(max_coordinates),
        zeros=declared_zeros(structural_zeros, leaves),
        mode=mode,
        directions=int(directions),
        mpmath_given=fn_mpmath is not None or oracle == "mpmath",
    )
    start = time.perf_counter()
    checks: list[CheckResult] = []
    try:
        explain = partial(diagnose, argument_names=argument_names, mistakes=mistakes)
        comparison = _examine(pair, settings, checks, explain)
    except BrokenPair as broken:
        checks.append(CheckResult(broken.check, "failed", detail=broken.detail))
        comparison = _Comparison()
    return Report(
        subject=f"{name_of(adapted.fn)} / {name_of(adapted.backward)}",
        tensors=comparison.tensors,
        checks=tuple(checks),
        oracle=comparison.oracle,
        rtol=settings.tolerance(comparison.oracle),
        seed=settings.seed,
        evaluations=comparison.evaluations,
        seconds=time.perf_counter() - start,
        reproduce=reproduce(fn, backward, options),
        diagnoses=comparison.diagnoses,
    )


@dataclass(frozen=True)
class _Comparison:
    """What the oracle said: nothing, where the check ended before it was asked."""

    tensors: tuple[TensorResult, ...] = ()
    oracle: str = ""
    evaluations: int = 0
    diagnoses: tuple[Diagnosis, ...] = ()


def _examine(
    pair: Pair,
    settings: Settings,
    checks: list[CheckResult],
    explain: Callable[..., tuple[Diagnosis, ...]],
) -> _Comparison:
    """Run every test in order, appending to ``checks`` as it goes; raise BrokenPair where none can follow."""
    values = [leaf.value.astype(np.float64) for leaf in pair.leaves]
    rng = contracts.generator(settings.seed)

    forward, found = contracts.forward_properties(pair, values)
    checks += found
    if "forward deterministic" in _failed(checks):
        return _Comparison()
    dtypes = [value.dtype for value in values]
    cotangents = contracts.draw_cotangents(forward.outputs, dtypes, rng)
    checks += [CheckResult("output dtype", "passed"), CheckResult("output finite", "passed")]

    gradients, found = contracts.backward_properties(pair, values, cotangents)
    checks += found
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
        scales = [settings.zeros.get(leaf.name) or 0.0 for leaf in pair.leaves]
        checks.append(contracts.linear_in_cotangent(pair, values, cotangents, usable, noise, scales, rng))
        checks.append(contracts.independent_of_memory_layout(pair, values, cotangents, usable, noise, scales))

    large = settings.mode == "directional"
    oracle, analytic = _choose_oracle(settings.oracle, why_not_analytic(objective, base, rng, jointly=large))
    comparison: GradientMode | JacobianMode | DirectionalMode
    if settings.mode == "jacobian":
        comparison = JacobianMode(objective, base, unusable, settings)
    elif settings.mode == "directional":
        comparison = DirectionalMode(objective, usable, noise, unusable, settings)
    else:
        comparison = GradientMode(objective, usable, noise, unusable, settings)
    tensors = comparison.compare(oracle)
    if oracle == "complex_step" and settings.oracle == "auto":
        obstacle = comparison.misled(tensors)
        if obstacle:
            oracle, analytic = _choose_oracle("auto", obstacle)
            tensors = comparison.compare(oracle)
    checks.append(analytic)
    if pair.fn_mpmath is not None and isinstance(comparison, GradientMode):
        tensors, found = comparison.ask_mpmath(tensors, base, oracle)
        checks += found
    # Directional mode is the adjoint identity itself; Taylor's remainders take too many evaluations there.
    if not unusable and not large:
        rtol = settings.tolerance(oracle)
        checks.append(identities.adjoint_identity(objective, usable, noise, oracle, rtol, rng))
        checks += _taylor(objective, usable, tensors, oracle, rng)
    failed = [row.status == "failed" for row in tensors]
    diagnoses = explain(objective, gradients, noise, failed, oracle, structural=not large)
    tensors = tuple(_diagnosed(row, diagnoses) for row in tensors)
    return _Comparison(tensors, oracle, objective.evaluations, diagnoses)


def _diagnosed(row: TensorResult, diagnoses: Sequence[Diagnosis]) -> TensorResult:
    """Return the result with the first diagnosis that is about it."""
    found = (diagnosis.sentence for diagnosis in diagnoses if row.name in diagnosis.tensors)
    return replace(row, diagnosis=next(found, ""))


def _faults_at_given_dtypes(pair: Pair, zeros: set[str]) -> list[tuple[str, CheckResult]]:
    """Run the pair at the caller's own dtypes, where those are not all float64, and look at the gradients."""
    given = [leaf.value for leaf in pair.leaves]
    if all(value.dtype == np.float64 for value in given):
        return []
    forward = pair.forward(pair.arguments(given))
    dtypes = [value.dtype for value in given]
    cotangents = contracts.draw_cotangents(forward.outputs, dtypes, contracts.generator(0))
    gradients = pair.gradients(cotangents, forward)
    return list(contracts.gradient_properties(pair.leaves, gradients, dtypes, zeros))


def _choose_oracle(requested: str, obstacle: str | None) -> tuple[str, CheckResult]:
    """Return the oracle to use, given what shows that the forward is not analytic, and say so."""
    name = "forward analytic"
    if requested in ("ridders", "mpmath"):
        return requested, CheckResult(name, "skipped", detail=obstacle or "")
    if obstacle is None:
        return "complex_step", CheckResult(name, "passed")
    if requested == "auto":
        return "ridders", CheckResult(name, "skipped", detail=f"{obstacle}: using real differences")
    return "complex_step", CheckResult(name, "inconclusive", detail=f"{obstacle}: no oracle for this forward")


def _taylor(
    objective: Objective,
    gradients: Sequence[Array],
    tensors: Sequence[TensorResult],
    oracle: str,
    rng: np.random.Generator,
) -> list[CheckResult]:
    """Test Taylor's remainders; where every tensor agrees, a short slope is the function's: it has a kink.

    Unless gradient and complex step are wrong together, as where both take a maximum for a constant: then
    real differences contradict them in those rows that have no kink.
    """

    def gradients_at(values: Sequence[Array]) -> list[Array]:
        found = objective.pair.gradients_at(values, objective.cotangents)
        return [
            np.zeros(value.shape) if grad is None else np.asarray(grad)
            for value, grad in zip(values, found, strict=True)
        ]

    results = identities.taylor_remainders(objective, gradients_at, rng)
    if any(row.status == "failed" for row in tensors) or all(row.status != "failed" for row in results):
        return results
    if oracle == "complex_step":
        contradicted = contradiction_in_a_row(objective, gradients, rng)
        if contradicted is not None:
            return [replace(row, detail=contradicted) if row.status == "failed" else row for row in results]
    return [
        replace(result, status="skipped", detail="every tensor agrees: the function has a kink nearby")
        if result.status == "failed"
        else result
        for result in results
    ]


def _failed(checks: Iterable[CheckResult]) -> set[str]:
    return {result.name for result in checks if result.status == "failed"}
