"""Is the forward analytic? Only then is the complex step an oracle, and it gives no sign of its own."""

from collections.abc import Sequence

import numpy as np

from npbert.gradcheck.objective import Objective
from npbert.gradcheck.oracles import COMPLEX_STEP, complex_step, contradiction
from npbert.gradcheck.pair import Array, BrokenPair

# The complex and the real evaluation take different code paths (another exp, another matrix product), so they
# agree to round-off only.
SAME_REAL_PART = 1e-9
# How many rows of an argument are looked at one by one.
SAMPLED_ROWS = 16


def why_not_analytic(
    objective: Objective, base: Sequence[Array], rng: np.random.Generator, jointly: bool = False
) -> str | None:
    """Return what shows that the complex step cannot be trusted with this forward, None if nothing does.

    Parameters
    ----------
    objective : Objective
        The forward.
    base : sequence of ndarray
        The outputs at the real arguments, those that have a cotangent.
    rng : Generator
        Draws the directions.
    jointly : bool
        Compare with real differences along one direction through all arguments, not one through each: less
        sharp, but as cheap as a large model needs.

    Returns
    -------
    str or None
        In the order of the tests: the forward raises on complex arguments; an output is not finite, or
        is real although it depends on them; its real part differs from the real evaluation; or the complex
        step along one argument plainly contradicts real differences.
    """
    everywhere = {number: rng.standard_normal(value.shape) for number, value in enumerate(objective.values)}
    directions = {
        objective.pair.leaves[number].name: ({number: along}, objective.scale(number))
        for number, along in everywhere.items()
    }
    if jointly:
        scaled = {number: objective.scale(number) * along for number, along in everywhere.items()}
        directions = {"all arguments": (scaled, 1.0)}
    try:
        outputs = objective.outputs(everywhere, 1j * COMPLEX_STEP)
    except BrokenPair as error:
        return f"on complex arguments, {error.detail}"
    for number, (real, found) in enumerate(zip(base, outputs, strict=True)):
        if found.dtype.kind not in "fc":
            return f"output {number} has dtype {found.dtype} for complex arguments"
        if not np.all(np.isfinite(found)):
            return f"output {number} is not finite for complex arguments"
        if not np.iscomplexobj(found) and _depends(objective, everywhere, number, real):
            return f"output {number} is real for complex arguments: the forward drops the imaginary part"
        difference = float(np.max(np.abs(np.real(found) - real), initial=0.0))
        if difference > SAME_REAL_PART * float(np.max(np.abs(real), initial=0.0)):
            return f"the real part of output {number} differs from the real evaluation by {difference:.1e}"
    for name, (along, scale) in directions.items():
        terms = objective.along(along)
        try:
            imaginary = complex_step(terms).value
        except BrokenPair as error:
            return f"on complex arguments, {error.detail}"
        try:
            real_difference = contradiction(terms, imaginary, scale)
        except BrokenPair:
            continue  # the forward raises so near to its arguments; nothing contradicts the complex step
        if real_difference is not None:
            figures = f"the complex step gives {imaginary:.6g}, real differences {real_difference:.6g}"
            return f"along {name}, {figures}"
    return None


def contradiction_in_a_row(
    objective: Objective, gradients: Sequence[Array], rng: np.random.Generator
) -> str | None:
    """Return where real differences plainly contradict the gradient along a single row, None if nowhere.

    A kink in one row hides from differences along the whole argument what the other rows would show.
    """
    for number, (value, gradient) in enumerate(zip(objective.values, gradients, strict=True)):
        width = value.shape[-1] if value.ndim > 1 else 1
        rows = value.size // max(width, 1)
        for row in rng.permutation(rows)[:SAMPLED_ROWS]:
            along = np.zeros((rows, width))
            along[row] = rng.standard_normal(width)
            direction = along.reshape(value.shape)
            slope = float(np.sum(gradient * direction))
            try:
                found = contradiction(objective.along({number: direction}), slope, objective.scale(number))
            except BrokenPair:
                continue  # the forward raises so near to its arguments; nothing contradicts the gradient
            if found is not None:
                name = objective.pair.leaves[number].name
                where = np.unravel_index(row * width, value.shape)
                index = ", ".join(str(int(i)) for i in (where[:-1] if value.ndim > 1 else where))
                return f"along {name}[{index}], the gradient gives {slope:.6g}, real differences {found:.6g}"
    return None


def _depends(objective: Objective, direction: dict[int, Array], number: int, base: Array) -> bool:
    """Tell whether an output changes when the arguments move a little."""
    try:
        return not np.array_equal(objective.outputs(direction, 1e-3)[number], base)
    except BrokenPair:
        return True
