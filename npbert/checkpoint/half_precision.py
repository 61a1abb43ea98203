"""Rounding parameters to float16, which halves a checkpoint."""

from typing import Final, NamedTuple

import numpy as np

from npbert.ops.array_module import to_numpy
from npbert.params import Params

LARGEST: Final = float(np.finfo(np.float16).max)  # 65504


class Rounding(NamedTuple):
    """What rounding to float16 did.

    Attributes
    ----------
    values : int
        How many there are.
    vanished : int
        How many became 0 and were not: they are below 3e-8 in size.
    largest_change : float
        The largest absolute difference.
    """

    values: int
    vanished: int
    largest_change: float


def to_half_precision(params: Params) -> tuple[Params, Rounding]:
    """Round parameters to float16; `npbert.load` reads them as float32.

    Parameters
    ----------
    params : dict of str to floating array

    Returns
    -------
    halved : dict of str to float16 array
    rounding : Rounding

    Raises
    ------
    ValueError
        If a value is not finite, or too large for float16: nothing is ever turned into infinity. Names the
        tensor, the value and its index.

    Examples
    --------
    >>> halved, rounding = to_half_precision({"weight": np.array([1.0, 0.1, 1e-9])})
    >>> halved["weight"].dtype.name, rounding.vanished, round(rounding.largest_change, 6)
    ('float16', 1, 2.4e-05)
    """
    halved: Params = {}
    values = vanished = 0
    largest_change = 0.0
    for name, param in params.items():
        exact = to_numpy(param)
        unfit = ~(np.abs(exact) <= LARGEST)  # also true of NaN
        if unfit.any():
            index = tuple(int(i) for i in np.argwhere(unfit)[0])
            raise ValueError(
                f"{name}{list(index)} is {exact[index]}; float16 holds no more than {LARGEST:.0f}"
            )
        rounded = exact.astype(np.float16)
        halved[name] = rounded
        values += exact.size
        vanished += int(np.count_nonzero((rounded == 0) & (exact != 0)))
        change = np.abs(rounded.astype(np.float64) - exact)
        largest_change = max(largest_change, float(change.max(initial=0.0)))
    return halved, Rounding(values, vanished, largest_change)
