"""The figures of a report in words: what the terminal and the HTML page both say."""

from npbert.gradcheck.report import TensorResult

ORACLES = {"complex_step": "complex step", "ridders": "Ridders", "": "none"}


def oracle_name(oracle: str) -> str:
    """Return what an oracle is called in a sentence.

    Examples
    --------
    >>> oracle_name("complex_step"), oracle_name("mpmath")
    ('complex step', 'mpmath')
    """
    return ORACLES.get(oracle, oracle)


def figures_of(row: TensorResult, rtol: float) -> list[tuple[str, str]]:
    """Return name and value of every figure that the comparison of one gradient has.

    Parameters
    ----------
    row : TensorResult
    rtol : float
        The tolerance.

    Returns
    -------
    list of (str, str)
        Where the gradient is worst, both values, the oracle and its own error, how much is wrong.
    """
    figures = []
    if row.worst_index is not None:
        output = "" if row.worst_output is None else f", of output {list(row.worst_output)}"
        figures.append(("worst entry", f"{list(row.worst_index)}{output}"))
    if row.gradient is not None and row.reference is not None:
        uncertainty = f" ± {row.uncertainty:.0e}" if row.uncertainty else ""
        along = " along a random direction" if row.directions else ""
        figures.append((f"gradient{along}", f"{row.gradient:.9g}"))
        figures.append((f"{oracle_name(row.oracle)}{along}", f"{row.reference:.9g}{uncertainty}"))
    if row.max_error is not None:
        figures.append(("relative error", f"{row.max_error:.1e}, tolerance {rtol:.0e}"))
    if row.projection_error is not None:
        count = f"{row.directions} " if row.directions else ""
        figures.append((f"error along {count}random directions", f"{row.projection_error:.1e}"))
    if row.compared:
        compared = "entries" if row.compared == row.size else f"compared entries, of {row.size} in all"
        figures.append(("wrong", f"{row.fraction_wrong:.0%} of {row.compared} {compared}"))
    if row.structural_zero:
        figures.append(("declared", "a structural zero"))
    return figures
