"""Linear layers, which cuBLAS and BLAS do: here only for half precision's sake.

NumPy has no BLAS for float16 and rounds every partial sum to it. cuBLAS sums in float32, and so does this.
"""

from npbert import ops
from npbert.ops.array_module import Array, array_module
from npbert.ops.linear import LinearCache


def linear_forward(x: Array, weight: Array, bias: Array | None) -> tuple[Array, LinearCache]:
    """Apply a linear map to the last axis of ``x``; see :func:`npbert.ops.linear_forward`.

    Parameters
    ----------
    x : (..., in) floating
        float16 is multiplied and summed in float32, and rounded at the end.
    weight : (out, in) floating
    bias : (out,) floating or None

    Returns
    -------
    y : (..., out)
    cache : LinearCache
    """
    y, _ = ops.linear_forward(_wide(x), _wide(weight), None if bias is None else _wide(bias))
    return y.astype(x.dtype, copy=False), LinearCache(x, weight, bias is not None)


def linear_backward(dy: Array, cache: LinearCache) -> tuple[Array, Array, Array | None]:
    """Backward of :func:`linear_forward`; see :func:`npbert.ops.linear_backward`.

    Parameters
    ----------
    dy : (..., out) floating
    cache : LinearCache

    Returns
    -------
    dx : (..., in)
    dweight : (out, in)
    dbias : (out,), or None where the forward had no bias
    """
    wide = LinearCache(_wide(cache.x), _wide(cache.weight), cache.has_bias)
    dx, dweight, dbias = ops.linear_backward(_wide(dy), wide)
    dtype = cache.x.dtype
    if dbias is not None:
        dbias = dbias.astype(dtype, copy=False)
    return dx.astype(dtype, copy=False), dweight.astype(dtype, copy=False), dbias


def _wide(array: Array) -> Array:
    """Return NumPy's float16 as float32; CuPy's stays, because its product is summed in float32 anyhow."""
    xp = array_module(array)
    is_numpy_half = xp.__name__ == "numpy" and array.dtype == xp.float16
    return array.astype(xp.float32) if is_numpy_half else array
