"""Layer normalisation as one kernel forward and two backward, with or without a residual added first.

``kernels/layernorm.cu`` says what is computed, what is saved and why.
"""

import math
from typing import NamedTuple

import numpy as np

from npbert.cuda.arguments import check_floating, check_rows, check_shape
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.ops.array_module import Array, array_module

FILE = "layernorm.cu"
WARP = 32
MAX_THREADS = 512  # of a block that works on a row
SLICES = 8  # warps of a block that sums up chunks
WIDEST_MOVE = 16  # bytes that a thread reads at once

# The rows are cut into so many chunks, whose partial sums of the parameters' gradients are added up later: a
# block each. Fewer would leave large devices idle, shorter ones would only write more partial sums.
MOST_CHUNKS = 512
SHORTEST_CHUNK = 4


class LayerNormKernelCache(NamedTuple):
    """What the backward kernels need from the forward kernel."""

    x: Array  # (..., D)
    residual: Array | None  # (..., D)
    weight: Array  # (D,)
    mean: Array  # (rows,) of x + residual; float32 where x is float16
    inv_std: Array  # (rows,) 1 / sqrt(var + eps), likewise


def layernorm_forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, LayerNormKernelCache]:
    """Normalise each row of ``x`` to mean 0 and variance 1, then scale and shift it.

    See :func:`npbert.ops.layernorm_forward`.

    Parameters
    ----------
    x : (..., D) floating
        float64, float32 or float16 (summed up in float32), as are weight and bias.
    weight, bias : (D,) floating
    eps : float

    Returns
    -------
    y : (..., D)
    cache : LayerNormKernelCache

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    return _forward("layernorm_forward", x, None, weight, bias, eps)


def layernorm_backward(dy: Array, cache: LayerNormKernelCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`layernorm_forward`: deterministic, two runs give the same bits.

    Parameters
    ----------
    dy : (..., D) floating
    cache : LayerNormKernelCache

    Returns
    -------
    dx : (..., D)
    dweight, dbias : (D,)

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    return _backward("layernorm_backward", dy, cache)


def residual_layernorm_forward(
    x: Array, residual: Array, weight: Array, bias: Array, eps: float
) -> tuple[Array, LayerNormKernelCache]:
    """Return ``layernorm_forward(x + residual, weight, bias, eps)`` without storing the sum.

    Parameters
    ----------
    x, residual : (..., D) floating
        As in :func:`layernorm_forward`.
    weight, bias : (D,) floating
    eps : float

    Returns
    -------
    y : (..., D)
    cache : LayerNormKernelCache

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    return _forward("residual_layernorm_forward", x, residual, weight, bias, eps)


def residual_layernorm_backward(dy: Array, cache: LayerNormKernelCache) -> tuple[Array, Array, Array]:
    """Backward of :func:`residual_layernorm_forward`: deterministic, two runs give the same bits.

    Parameters
    ----------
    dy : (..., D) floating
    cache : LayerNormKernelCache

    Returns
    -------
    dsum : (..., D)
        The gradient of ``x + residual``: that of x, and that of residual.
    dweight, dbias : (D,)

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    return _backward("residual_layernorm_backward", dy, cache)


def _forward(
    op: str, x: Array, residual: Array | None, weight: Array, bias: Array, eps: float
) -> tuple[Array, LayerNormKernelCache]:
    check_floating(op, x=x, residual=residual, weight=weight, bias=bias)
    check_rows(op, "x", x)
    if residual is not None:
        check_shape(op, "residual", residual, x.shape)
    check_shape(op, "weight", weight, x.shape[-1:])
    check_shape(op, "bias", bias, x.shape[-1:])

    xp = array_module(x)
    x, weight, bias = (xp.ascontiguousarray(array) for array in (x, weight, bias))
    residual = None if residual is None else xp.ascontiguousarray(residual)
    rows, width = math.prod(x.shape[:-1]), x.shape[-1]
    y = xp.empty_like(x)
    sums = np.float64 if x.dtype == np.float64 else np.float32
    mean, inv_std = xp.empty(rows, dtype=sums), xp.empty(rows, dtype=sums)
    if rows > 0:
        launch(
            Kernel(FILE, "layernorm_forward", storage_defines(x.dtype)),
            grid=(rows,),
            block=(_threads(x),),
            args=[x, residual, weight, bias, y, mean, inv_std, eps, width],
        )
    return y, LayerNormKernelCache(x, residual, weight, mean, inv_std)


def _backward(op: str, dy: Array, cache: LayerNormKernelCache) -> tuple[Array, Array, Array]:
    x, residual, weight, mean, inv_std = cache
    check_floating(op, dy=dy, x=x)
    check_shape(op, "dy", dy, x.shape)

    xp = array_module(dy)
    dy = xp.ascontiguousarray(dy)
    rows, width = mean.size, x.shape[-1]
    chunk_rows = max(-(-rows // MOST_CHUNKS), SHORTEST_CHUNK)
    chunks = -(-rows // chunk_rows)
    dweight_partials = xp.empty((chunks, width), dtype=mean.dtype)
    dbias_partials = xp.empty_like(dweight_partials)
    dx, dweight, dbias = xp.empty_like(x), xp.empty_like(weight), xp.empty_like(weight)
    defines = storage_defines(x.dtype)
    if rows > 0:
        launch(
            Kernel(FILE, "layernorm_backward", defines),
            grid=(chunks,),
            block=(_threads(x),),
            args=[
                dy,
                x,
                residual,
                weight,
                mean,
                inv_std,
                dx,
                dweight_partials,
                dbias_partials,
                rows,
                chunk_rows,
                width,
            ],
        )
    launch(
        Kernel(FILE, "layernorm_parameter_gradients", defines),
        grid=(-(-width // WARP),),
        block=(SLICES * WARP,),
        args=[dweight_partials, dbias_partials, dweight, dbias, chunks, width],
    )
    return dx, dweight, dbias


def _threads(x: Array) -> int:
    """One for each 16 bytes of a row, or for each element where rows do not divide so; whole warps."""
    width: int = x.shape[-1]
    pack: int = WIDEST_MOVE // x.dtype.itemsize
    columns = pack if width % pack == 0 else 1
    warps = -(-width // (columns * WARP))
    return min(warps * WARP, MAX_THREADS)
