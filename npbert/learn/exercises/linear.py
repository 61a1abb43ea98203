"""Exercise: the linear layer without its bias."""

from typing import Any

import numpy as np

from npbert.learn.exercise import Exercise, WrongAnswer

FORMULA = """
    y = x Wᵀ        y_ro = sum_i x_ri W_oi

    r counts rows (examples), i input features, o output features

    x           (..., in)       any number of leading axes
    weight      (out, in)       one row for each output, as in torch.nn.Linear
    y and dy    (..., out)

The loss is a number that depends on y. dy is given: how much the loss changes
with each entry of y. Wanted: how much it changes with each entry of x (dx) and
of weight (dweight)."""

SOLUTION = """
def linear_forward(x, weight):
    y = x @ weight.T  # (..., in) @ (in, out) -> (..., out)
    return y, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    out_features, in_features = weight.shape
    x_rows = x.reshape(-1, in_features)  # (rows, in)
    dy_rows = dy.reshape(-1, out_features)  # (rows, out)
    dweight = dy_rows.T @ x_rows  # (out, in)
    dx = dy @ weight  # (..., in)
    return dx, dweight
"""

HINTS = (
    "Which entries of y does one entry of weight have a part in? Each of them sends back its dy, times what "
    "that entry was multiplied with. The shapes leave little choice: dweight is (out, in).",
    "y_ro = sum_i x_ri W_oi. So W_oi gets, from each row r, dy_ro times x_ri: dW_oi = sum_r dy_ro x_ri. And "
    "x_ri gets, from each output o, dy_ro times W_oi: dx_ri = sum_o dy_ro W_oi. A sum over a shared index "
    "is a matrix product; write down which index is shared.",
    "Flatten the leading axes, so that r is one axis: x.reshape(-1, in_features), and likewise dy. The sum "
    "over r is dy_rows.T @ x_rows. The sum over o needs no flattening and no transpose: dy @ weight.",
)

WRONG_ANSWERS = (
    WrongAnswer(
        "returns dweight transposed",
        "dweight has the layout of weight, (out, in): one row for each output feature. Yours is (in, out), "
        "and with in = out nobody would have noticed the shape.",
        "dweight has the shape (in, out) where weight has (out, in)",
        {"dweight": "x_rows.T @ dy_rows"},
    ),
    WrongAnswer(
        "averages dweight over the rows",
        "every row adds its own part to the loss, so the parts are added up. A mean belongs here only if the "
        "loss is one, and then dy already has its 1/n.",
        "dweight is too small everywhere, by one and the same factor: the number of rows",
        {"dweight": "dy_rows.T @ x_rows / len(x_rows)"},
    ),
    WrongAnswer(
        "uses the last row only",
        "the weight is shared by all rows, and the gradient of a shared value is the sum over all its uses.",
        "dweight is wrong everywhere, and its rows are multiples of one another",
        {"dweight": "dy_rows[-1:].T @ x_rows[-1:]"},
    ),
    WrongAnswer(
        "reshapes where it should transpose",
        "reshape(in, rows) keeps the order of the numbers in memory and cuts it elsewhere; it does not "
        "exchange the axes. The shapes fit and the numbers belong to other places.",
        "dweight is wrong without any pattern, though nothing is missing and nothing is too large",
        {"x_rows": "x.reshape(in_features, -1).T"},
    ),
    WrongAnswer(
        "takes dy for ones in dx",
        "the column sums of weight are the gradient of y.sum(). Any other loss weighs the outputs "
        "differently: with dy.",
        "all rows of dx are equal, whatever dy is; dweight is right",
        {"dx": "np.broadcast_to(weight.sum(axis=0), x.shape)"},
    ),
)


def cases() -> list[tuple[Any, ...]]:
    """Return arguments: several leading axes, a single row, a single feature; the last in float32."""
    rng = np.random.default_rng(1)
    shapes = [((2, 3, 5), (4, 5)), ((7, 1), (3, 1)), ((1, 4), (1, 4)), ((2, 3, 5), (4, 5))]
    drawn = [(rng.standard_normal(x), rng.standard_normal(weight)) for x, weight in shapes]
    return [*drawn[:-1], tuple(array.astype(np.float32) for array in drawn[-1])]


LINEAR = Exercise(
    name="linear",
    title="y = x Wᵀ, the linear layer",
    formula=FORMULA,
    solution="import numpy as np\n\n" + SOLUTION,
    function="linear",
    hints=HINTS,
    cases=cases,
    wrong_answers=WRONG_ANSWERS,
    remember="In a product, the gradient of one factor is dy times the other, summed over the indices it "
    "lacks.",
)
