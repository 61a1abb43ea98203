"""Softmax cross-entropy as fused kernels: no array of probabilities, and nothing read of ignored rows.

``kernels/cross_entropy.cu`` says what is computed, what is saved and why.
"""

from typing import Any, NamedTuple

import numpy as np

from npbert.cuda.arguments import check_floating, check_one_place, check_rows, check_shape
from npbert.cuda.runtime import Kernel, launch, storage_defines
from npbert.inputs import check_range
from npbert.ops.array_module import Array, array_module
from npbert.ops.cross_entropy import reduction_weight

FILE = "cross_entropy.cu"
WARP = 32
MAX_THREADS = 512
WIDEST_MOVE = 16  # bytes that a thread reads at once


class CrossEntropyKernelCache(NamedTuple):
    """What the backward kernel needs from the forward kernels."""

    logits: Array  # (..., C)
    labels: Array  # (rows,) int64
    row_max: Array  # (rows,) the largest logit; float32 where logits are float16, as are the other two
    row_total: Array  # (rows,) sum of exp(logit - row_max)
    weight: Array  # (1,) what one example's loss counts: 1 for a sum, 1 / n for a mean over n
    ignore_index: int


def cross_entropy_forward(
    logits: Array, labels: Array, ignore_index: int = -100, reduction: str = "mean"
) -> tuple[Array, CrossEntropyKernelCache]:
    """Compare class scores with the right classes.

    See :func:`npbert.ops.cross_entropy_forward`. Labels in NumPy arrays are checked. Those in CuPy arrays are
    not, since the host would have to wait for the device: one outside ``[0, C)`` makes the loss and the row's
    gradient NaN there.

    Parameters
    ----------
    logits : (..., C) floating
        float64, float32 or float16 (summed up in float32).
    labels : (...) integer
        In ``[0, C)``, or ``ignore_index``.
    ignore_index : int
    reduction : "mean" or "sum"

    Returns
    -------
    loss : () floating
    cache : CrossEntropyKernelCache

    Raises
    ------
    ValueError
        For a wrong dtype or shape, arrays in different places, another reduction, or, in NumPy arrays, a
        label that is no class.
    """
    labels = _checked_labels("cross_entropy_forward", logits, labels, ignore_index, reduction)
    xp = array_module(logits)
    logits = xp.ascontiguousarray(logits)
    rows, width = labels.size, logits.shape[-1]
    defines = storage_defines(logits.dtype)
    weight = _weight(labels, ignore_index, reduction, logits)
    losses, row_max, row_total = (xp.empty(rows, dtype=weight.dtype) for _ in range(3))
    if rows > 0:
        launch(
            Kernel(FILE, "cross_entropy_forward", defines),
            grid=(rows,),
            block=(_threads(logits),),
            args=[logits, labels, losses, row_max, row_total, width, ignore_index],
        )
    loss = _loss(losses, weight, logits)
    return loss, CrossEntropyKernelCache(logits, labels, row_max, row_total, weight, ignore_index)


def cross_entropy_backward(dloss: Array, cache: CrossEntropyKernelCache) -> Array:
    """Backward of :func:`cross_entropy_forward`.

    Parameters
    ----------
    dloss : () floating
    cache : CrossEntropyKernelCache

    Returns
    -------
    dlogits : (..., C)

    Raises
    ------
    ValueError
        If ``dloss`` is not one real number.
    """
    logits, labels, row_max, row_total, weight, ignore_index = cache
    xp = array_module(logits)
    dlogits = xp.empty_like(logits)
    dloss = _one_number("cross_entropy_backward", dloss, weight)
    if labels.size > 0:
        launch(
            Kernel(FILE, "cross_entropy_backward", storage_defines(logits.dtype)),
            grid=(labels.size,),
            block=(_threads(logits),),
            args=[
                logits,
                labels,
                row_max,
                row_total,
                weight,
                dloss,
                dlogits,
                logits.shape[-1],
                ignore_index,
            ],
        )
    return dlogits


def cross_entropy_in_place(
    logits: Array, labels: Array, ignore_index: int = -100, reduction: str = "mean"
) -> tuple[Array, Array]:
    """Return loss and gradient at once; the gradient takes the place of the logits.

    The one op that writes to its input. Logits and their gradient are the largest arrays of masked-language
    modelling; here there is one, and it is read and written once more than it was before.

    Parameters
    ----------
    logits : (..., C) floating
        Contiguous and writable. Overwritten.
    labels, ignore_index, reduction
        As in :func:`cross_entropy_forward`.

    Returns
    -------
    loss : () floating
    dlogits : (..., C)
        What ``cross_entropy_backward(1.0, cache)`` would be; this is the array ``logits`` itself.

    Raises
    ------
    ValueError
        As in :func:`cross_entropy_forward`; and for logits that are not contiguous, or read-only.
    """
    op = "cross_entropy_in_place"
    labels = _checked_labels(op, logits, labels, ignore_index, reduction)
    if not logits.flags.c_contiguous:
        raise ValueError(f"{op}: logits are not C-contiguous: shape {logits.shape}, strides {logits.strides}")
    if array_module(logits) is np and not logits.flags.writeable:
        raise ValueError(f"{op}: logits are read-only, and their gradient is to be written over them")
    weight = _weight(labels, ignore_index, reduction, logits)
    losses = array_module(logits).empty(labels.size, dtype=weight.dtype)
    if labels.size > 0:
        launch(
            Kernel(FILE, "cross_entropy_in_place", storage_defines(logits.dtype)),
            grid=(labels.size,),
            block=(_threads(logits),),
            args=[logits, labels, weight, losses, logits.shape[-1], ignore_index],
        )
    return _loss(losses, weight, logits), logits


def _checked_labels(op: str, logits: Array, labels: Array, ignore_index: int, reduction: str) -> Array:
    """Return the labels as a vector of int64, after all arguments were found to be in order."""
    reduction_weight(reduction, 1)  # an error names another reduction
    check_floating(op, logits=logits)
    check_rows(op, "logits", logits)
    if not hasattr(labels, "dtype") or labels.dtype.kind not in "iu":
        what = getattr(labels, "dtype", type(labels).__name__)
        raise ValueError(f"{op}: labels are {what}; they must be an array of integers")
    check_one_place(op, logits=logits, labels=labels)
    check_shape(op, "labels", labels, logits.shape[:-1])
    if array_module(labels) is np:
        classes = logits.shape[-1]
        check_range(f"{op}: labels", labels, classes, "the number of classes", allowed=ignore_index)
    return array_module(labels).ascontiguousarray(labels, dtype=np.int64).reshape(-1)


def _weight(labels: Array, ignore_index: int, reduction: str, logits: Array) -> Array:
    """Count on the device, so that the host need not wait for it."""
    weight = array_module(logits).empty(1, dtype=np.float64 if logits.dtype == np.float64 else np.float32)
    launch(
        Kernel(FILE, "cross_entropy_weight", storage_defines(logits.dtype)),
        grid=(1,),
        block=(MAX_THREADS,),
        args=[labels, weight, labels.size, ignore_index, int(reduction == "mean")],
    )
    return weight


def _loss(losses: Array, weight: Array, logits: Array) -> Array:
    loss = array_module(logits).empty(1, dtype=logits.dtype)
    launch(
        Kernel(FILE, "cross_entropy_loss", storage_defines(logits.dtype)),
        grid=(1,),
        block=(MAX_THREADS,),
        args=[losses, weight, loss, losses.size],
    )
    return loss[0]


def _one_number(op: str, dloss: Any, weight: Array) -> Array:
    """Return ``dloss``, a number or an array without axes, as the array that the kernel reads."""
    if array_module(dloss) is not np:
        check_one_place(op, logits=weight, dloss=dloss)
    dtype = dloss.dtype if hasattr(dloss, "dtype") else np.asarray(dloss).dtype
    if np.shape(dloss) != ():
        raise ValueError(f"{op}: dloss has shape {np.shape(dloss)}; it must be one number")
    if dtype.kind not in "fiu":
        raise ValueError(f"{op}: dloss is {dloss!r}; it must be a real number")
    return array_module(weight).asarray(dloss, dtype=weight.dtype).reshape(1)


def _threads(logits: Array) -> int:
    """One for each 16 bytes of a row; whole warps."""
    row_bytes: int = logits.shape[-1] * logits.dtype.itemsize
    warps = -(-row_bytes // (WIDEST_MOVE * WARP))
    return min(warps * WARP, MAX_THREADS)
