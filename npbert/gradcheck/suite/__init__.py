"""The table that ``npbert gradcheck`` prints: every op, every part of the model, and every task, checked.

from npbert.gradcheck.suite import run_suite
for name, report in run_suite(seed=0):
    print(report.status, name, report.max_error)
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from npbert.gradcheck.check import check
from npbert.gradcheck.report import Report
from npbert.gradcheck.suite import model, ops
from npbert.gradcheck.suite.case import Case, Problem

__all__ = ["CASES", "Case", "Problem", "case_names", "draw_problem", "run_case", "run_suite"]

CASES = (*ops.CASES, *model.CASES)


def case_names() -> list[str]:
    """Return the names of all cases, in the order of the table."""
    return [case.name for case in CASES]


def draw_problem(name: str, seed: int = 0) -> Problem:
    """Return what a case checks: a pair of functions and their arguments, which depend on the seed.

    Raises
    ------
    ValueError
        If there is no such case, or the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    draws = {case.name: case.draw for case in CASES}
    if name not in draws:
        raise ValueError(f"there is no case {name!r}; the cases are: {', '.join(draws)}")
    return draws[name](np.random.default_rng([seed, zlib.crc32(name.encode())]))


def run_case(name: str, seed: int = 0) -> Report:
    """Check one case.

    Parameters
    ----------
    name : str
        One of `case_names`.
    seed : int
        Another seed, other inputs.

    Returns
    -------
    Report

    Examples
    --------
    >>> run_case("layernorm (eps 1e-12)").status
    'passed'
    """
    problem = draw_problem(name, seed)
    report = check(
        problem.fn,
        problem.backward,
        problem.args,
        seed=seed,
        structural_zeros=problem.structural_zeros,
        max_coordinates=problem.max_coordinates,
    )
    line = f"from npbert.gradcheck.suite import run_case; print(run_case({name!r}, seed={seed}))"
    return replace(report, subject=name, reproduce=line)


def run_suite(
    seed: int = 0,
    progress: Callable[[str, Report], None] | None = None,
    names: Iterable[str] | None = None,
) -> list[tuple[str, Report]]:
    """Check every case, or some.

    Parameters
    ----------
    seed : int
        Another seed, other inputs.
    progress : callable, optional
        Called with a case's name and report as soon as it is done.
    names : iterable of str, optional
        Which cases; all of them by default.

    Returns
    -------
    list of (str, Report)
        In the order of the table, or of ``names``.
    """
    results = []
    for name in case_names() if names is None else names:
        report = run_case(name, seed)
        results.append((name, report))
        if progress is not None:
            progress(name, report)
    return results
