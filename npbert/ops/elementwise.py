"""How a costly element-wise formula is worked through: in blocks, in float64, rounded once."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from npbert.ops.array_module import Array, array_module

# A dozen temporaries of this many float64 numbers fit the second-level cache of a CPU core.
BLOCK = 8192


def blocks(size: int, xp: Any) -> Iterator[slice]:
    """Cut a vector into blocks; on a GPU, which wants large pieces of work, into one.

    Examples
    --------
    >>> list(blocks(10_000, np))
    [slice(0, 8192, None), slice(8192, 10000, None)]
    """
    step = BLOCK if xp is np else max(size, 1)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


def elementwise(formula: Callable[[Array], Array], x: Array) -> Array:
    """Apply an element-wise formula in float64 (complex128 for complex input), a block at a time.

    Parameters
    ----------
    formula : function of one 1-d array, float64 or complex128, to an array of the same shape and dtype
        It gets copies, never views of `x`.
    x : array of any shape, float32, float64, complex64 or complex128
        Integers are converted to float64.

    Returns
    -------
    array of the shape and dtype of `x`
        Rounded once, from the formula's result.  A scalar for a scalar.

    Raises
    ------
    ValueError
        For any other dtype.

    Examples
    --------
    >>> elementwise(np.sqrt, np.array([1.0, 4.0], dtype=np.float32))
    array([1., 2.], dtype=float32)
    """
    xp = array_module(x)
    x = xp.asarray(x)
    if x.dtype.kind in "biu":
        x = x.astype(np.float64)
    if x.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
        raise ValueError(f"x has dtype {x.dtype}; float32, float64, complex64 and complex128 are supported")
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    flat = x.reshape(-1)
    y = xp.empty(flat.shape, dtype=x.dtype)
    for part in blocks(flat.size, xp):
        y[part] = formula(flat[part].astype(wide))
    return y.reshape(x.shape)[()]  # [()] makes a 0-d result a scalar, as NumPy's own functions do
