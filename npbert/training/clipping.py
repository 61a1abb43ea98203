"""The norm of all gradients together, and gradients scaled down to a norm."""

import math
from collections.abc import Mapping

import numpy as np

from npbert.backends import ShareOut, in_turn
from npbert.ops.array_module import Array, array_module
from npbert.training.blocks import Block, pieces_of

# As in torch. So that a norm of 0 is not divided by; it makes every clipped norm a little smaller.
NORM_EPSILON = 1e-6


def global_norm(grads: Mapping[str, Array], share_out: ShareOut = in_turn) -> float:
    """Return the Euclidean norm of all gradients, as of one long vector.

    The squares are added up in float64, which neither float32 numbers nor their number can overflow.

    Parameters
    ----------
    grads : mapping of str to floating array of any shape
    share_out : callable
        See `npbert.backends.ShareOut`.

    Returns
    -------
    float
        NaN or infinite if a gradient is.

    Examples
    --------
    >>> global_norm({"weight": np.array([[3.0], [0.0]]), "bias": np.array([-4.0])})
    5.0
    """
    return math.sqrt(sum(sums_of_squares(grads, share_out).values()))


def sums_of_squares(arrays: Mapping[str, Array], share_out: ShareOut = in_turn) -> dict[str, float]:
    """Return the sum of the squares of each array's elements, added up in float64.

    Parameters
    ----------
    arrays : mapping of str to floating array of any shape
    share_out : callable
        See `npbert.backends.ShareOut`.

    Returns
    -------
    dict of str to float
    """
    flat = {name: array.reshape(-1) for name, array in arrays.items()}  # copies what is not contiguous, once
    sums: dict[Block, float] = {}

    def add_up(piece: list[Block]) -> None:
        for block in piece:
            sums[block] = sum_of_squares(block.of(flat))

    pieces = pieces_of(arrays)
    share_out(add_up, pieces)
    totals = dict.fromkeys(arrays, 0.0)
    for piece in pieces:  # in this order, whichever thread was first
        for block in piece:
            totals[block.name] += sums[block]
    return totals


def sum_of_squares(x: Array) -> float:
    """Return the sum of the squares of the elements of ``x`` (n,), added up in float64."""
    return float(array_module(x).einsum("i,i->", x, x, dtype=np.float64))


def clip_by_global_norm(grads: Mapping[str, Array], max_norm: float, share_out: ShareOut = in_turn) -> float:
    """Scale all gradients by one number, in place, so that their `global_norm` is at most ``max_norm``.

    The number is ``min(1, max_norm / (norm + 1e-6))``, as in ``torch.nn.utils.clip_grad_norm_``. Google's
    ``tf.clip_by_global_norm`` does without the 1e-6.

    Parameters
    ----------
    grads : mapping of str to floating array of any shape
        Changed in place; not at all if the norm is NaN or infinite, which scaling would carry from one
        gradient into all others.
    max_norm : float
        Above 0.
    share_out : callable
        See `npbert.backends.ShareOut`.

    Returns
    -------
    float
        The norm before.

    Raises
    ------
    ValueError
        If ``max_norm`` is not above 0.

    References
    ----------
    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
    arXiv:1211.5063, 2013, algorithm 1.

    Examples
    --------
    >>> grads = {"weight": np.array([[3.0], [0.0]]), "bias": np.array([-4.0])}
    >>> clip_by_global_norm(grads, 1.0)
    5.0
    >>> round(global_norm(grads), 6)
    1.0
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm is {max_norm!r}; it must be above 0")
    norm = global_norm(grads, share_out)
    scale = float(max_norm) / (norm + NORM_EPSILON)
    if not math.isfinite(norm) or scale >= 1:
        return norm
    contiguous = {name: grad for name, grad in grads.items() if grad.flags.c_contiguous}

    def scale_down(piece: list[Block]) -> None:
        for block in piece:
            part = block.of(contiguous)
            part *= scale

    share_out(scale_down, pieces_of(contiguous))
    for name in grads.keys() - contiguous.keys():
        grads[name][...] *= scale
    return norm
