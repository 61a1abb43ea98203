"""GELU as one kernel forward and one backward, with or without a bias that is added first.

``kernels/gelu.cu`` says what is computed, what is saved and why.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from npbert.cuda.arguments import check_floating, check_shape
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.ops import activations as textbook
from npbert.ops.activations import GELU_FORMS, ActivationCache
from npbert.ops.array_module import Array, array_module

FILE = "gelu.cu"
WARP = 32
SLICES = 8  # warps of a block; each has other rows
WIDEST_MOVE = 16  # bytes that a thread reads at once

# The rows are cut into so many chunks, whose partial sums of the bias's gradient are added up later. Fewer
# would leave large devices idle, shorter ones would only write more partial sums.
MOST_CHUNKS = 256
SHORTEST_CHUNK = SLICES

FORMS = {"erf": 0, "tanh": 1}


class GeluKernelCache(NamedTuple):
    """What the backward kernel needs from the forward kernel: its arguments."""

    x: Array  # (..., F)
    bias: Array | None  # (F,)
    form: str  # "erf" or "tanh"


def gelu_forward(x: Array, form: str = "erf") -> tuple[Array, GeluKernelCache]:
    """Gaussian error linear unit, element by element; see :func:`npbert.ops.gelu_forward`.

    Parameters
    ----------
    x : (...) floating
        float64, float32 or float16 (computed in float32), of at least one axis.
    form : "erf" or "tanh"

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : GeluKernelCache

    Raises
    ------
    ValueError
        For another `form` or dtype.
    """
    return _forward("gelu_forward", x, None, form)


def gelu_backward(dy: Array, cache: GeluKernelCache) -> Array:
    """Return the gradient of GELU's input; see :func:`npbert.ops.gelu_backward`.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : GeluKernelCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    dx, _ = _backward("gelu_backward", dy, cache)
    return dx


def bias_gelu_forward(x: Array, bias: Array, form: str = "erf") -> tuple[Array, GeluKernelCache]:
    """GELU of a sum, ``gelu(x + bias)``, without a trip through memory between the two.

    Parameters
    ----------
    x : (..., F) floating
        float64, float32 or float16 (computed in float32), as is the bias.
    bias : (F,) floating
    form : "erf" or "tanh"

    Returns
    -------
    y : (..., F)
    cache : GeluKernelCache

    Raises
    ------
    ValueError
        For another `form`, a wrong dtype or shape, or arrays in different places.
    """
    op = "bias_gelu_forward"
    check_floating(op, x=x, bias=bias)
    check_shape(op, "bias", bias, x.shape[-1:])
    return _forward(op, x, array_module(bias).ascontiguousarray(bias), form)


def bias_gelu_backward(dy: Array, cache: GeluKernelCache) -> tuple[Array, Array]:
    """Backward of :func:`bias_gelu_forward`; deterministic, two runs give the same bits.

    Parameters
    ----------
    dy : (..., F) floating
    cache : GeluKernelCache

    Returns
    -------
    dx : (..., F)
    dbias : (F,)
        The sum of ``dx`` over all but the last axis, made before ``dx`` is rounded.

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    dx, partial = _backward("bias_gelu_backward", dy, cache, wants_dbias=True)
    chunks, width = partial.shape
    dbias = array_module(dx).empty(width, dtype=dx.dtype)
    launch(
        Kernel(FILE, "gelu_bias_gradient", storage_defines(dx.dtype)),
        grid=(max(-(-width // WARP), 1),),
        block=(WARP, SLICES),
        args=[partial, dbias, chunks, width],
    )
    return dx, dbias


def activation_forward(x: Array, name: str) -> tuple[Array, GeluKernelCache | ActivationCache]:
    """Apply the activation called `name`; see :func:`npbert.ops.activation_forward`.

    Parameters
    ----------
    x : (...) floating
        float64, float32 or float16, which is computed in float32.
    name : str
        Those of `GELU_FORMS` run as a kernel, others as the textbook's function.

    Returns
    -------
    y : array of the shape and dtype of `x`
    cache : GeluKernelCache or ActivationCache

    Raises
    ------
    ValueError
        For an unknown name, or another dtype.
    """
    if name in GELU_FORMS:
        return _forward("activation_forward", x, None, GELU_FORMS[name])
    y, cache = textbook.activation_forward(_wide(x), name)
    return y.astype(x.dtype, copy=False), cache


def activation_backward(dy: Array, cache: GeluKernelCache | ActivationCache) -> Array:
    """Return the gradient of the activation's input; see :func:`npbert.ops.activation_backward`.

    Parameters
    ----------
    dy : array of the shape of x
        Gradient of the output.
    cache : GeluKernelCache or ActivationCache

    Returns
    -------
    dx : array of the shape and dtype of `dy`

    Raises
    ------
    ValueError
        For a wrong dtype or shape, or arrays in different places.
    """
    if isinstance(cache, ActivationCache):
        return textbook.activation_backward(_wide(dy), cache).astype(dy.dtype, copy=False)
    dx, _ = _backward("activation_backward", dy, cache)
    return dx


def _wide(x: Array) -> Array:
    """Return float16 as float32, anything else as it is."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _forward(op: str, x: Array, bias: Array | None, form: str) -> tuple[Array, GeluKernelCache]:
    check_floating(op, x=x)
    if form not in FORMS:
        raise ValueError(f'{op}: form is {form!r}; it must be "erf" or "tanh"')
    if x.ndim == 0:
        raise ValueError(f"{op}: x is a single number; it must have an axis")
    x = array_module(x).ascontiguousarray(x)
    y = array_module(x).empty_like(x)
    rows, chunk_rows, grid = _geometry(x)
    launch(
        Kernel(FILE, "gelu_forward", storage_defines(x.dtype)),
        grid=grid,
        block=(WARP, SLICES),
        args=[x, bias, y, rows, x.shape[-1], chunk_rows, FORMS[form]],
    )
    return y, GeluKernelCache(x, bias, form)


def _backward(op: str, dy: Array, cache: GeluKernelCache, wants_dbias: bool = False) -> tuple[Array, Any]:
    """Return dx and, if wanted, the chunks' sums of it over rows."""
    x, bias, form = cache
    check_floating(op, dy=dy, x=x)
    check_shape(op, "dy", dy, x.shape)
    xp = array_module(dy)
    dy = xp.ascontiguousarray(dy)
    dx = xp.empty_like(dy)
    rows, chunk_rows, grid = _geometry(x)
    partial = None
    if wants_dbias:
        accumulator = np.float64 if dy.dtype == np.float64 else np.float32
        partial = xp.empty((grid[1], x.shape[-1]), dtype=accumulator)
    launch(
        Kernel(FILE, "gelu_backward", storage_defines(dy.dtype)),
        grid=grid,
        block=(WARP, SLICES),
        args=[dy, x, bias, dx, partial, rows, x.shape[-1], chunk_rows, FORMS[form]],
    )
    return dx, partial


def _geometry(x: Array) -> tuple[int, int, tuple[int, int]]:
    """Return the number of rows, that of rows in a chunk, and the grid: tiles of columns, chunks of rows.

    The grid has at least one block, which may find nothing to do.
    """
    rows = math.prod(x.shape[:-1])
    chunk_rows = max(-(-rows // MOST_CHUNKS), SHORTEST_CHUNK)
    columns_of_a_warp = WARP * WIDEST_MOVE // x.dtype.itemsize
    return rows, chunk_rows, (max(-(-x.shape[-1] // columns_of_a_warp), 1), max(-(-rows // chunk_rows), 1))
