"""Softmax cross-entropy a few rows at a time, and together with the product that makes the scores."""

import math
from typing import NamedTuple

import numpy as np

from npbert.cpu.workers import row_blocks, scratch, share_out
from npbert.cpu.workspace import Workspace, recycled
from npbert.ops import cross_entropy as textbook
from npbert.ops.array_module import Array
from npbert.ops.cross_entropy import reduction_weight

BLOCK_BYTES = 1 << 18  # of each array, worked on at once: a core's second-level cache holds several

# `decoder_cross_entropy`: tokens whose scores are there at once, and how the vocabulary is cut. More tokens
# mean fewer passes over dweight, which each pass adds to, and more memory.
TOKENS_AT_ONCE = 640
WORDS_AT_ONCE = 1024
BLOCKS_IN_A_PIECE = 3

# Sums of a block's exponentials between which nothing was lost; elsewhere the maximum is subtracted first.
SMALLEST_SUM, LARGEST_SUM = 2.0**-60, 2.0**60

LOG2_E = math.log2(math.e)


class CrossEntropyCache(NamedTuple):
    """What the backward pass needs from the forward pass: beside its arguments two numbers a row."""

    logits: Array  # (..., C)
    labels: Array  # (rows,), with 0 in the place of ignored ones
    counted: Array  # (rows,) bool, False where the label is ignored
    row_max: Array  # (rows,) the largest logit
    row_total: Array  # (rows,) sum of exp(logit - row_max)
    weight: float  # what one example's loss counts: 1 for a sum, 1 / n for a mean over n


def cross_entropy_forward(
    logits: Array, labels: Array, ignore_index: int = -100, reduction: str = "mean"
) -> tuple[Array, CrossEntropyCache | textbook.CrossEntropyCache]:
    """Compare class scores with the right classes; see :func:`npbert.ops.cross_entropy_forward`.

    Parameters
    ----------
    logits : (..., C) floating
        Complex arrays are left to the textbook. The cache holds the array itself.
    labels : (...) integer
    ignore_index : int
    reduction : "mean" or "sum"

    Returns
    -------
    loss : () floating
    cache : CrossEntropyCache
    """
    if logits.dtype not in (np.float32, np.float64):
        return textbook.cross_entropy_forward(logits, labels, ignore_index, reduction)
    classes = logits.shape[-1]
    logits_rows, label_rows = logits.reshape(-1, classes), labels.reshape(-1)
    counted = label_rows != ignore_index
    safe_labels = np.where(counted, label_rows, 0)
    weight = reduction_weight(reduction, int(np.count_nonzero(counted)))
    row_max, row_total, label_logit = np.empty((3, len(label_rows)), logits.dtype)
    ones = np.ones(classes, logits.dtype)

    def work(rows: slice) -> None:
        block = logits_rows[rows]
        block.max(axis=-1, out=row_max[rows])
        shifted = scratch("shifted logits", block.shape, block.dtype)
        np.subtract(block, row_max[rows, None], out=shifted)
        label_logit[rows] = shifted[np.arange(len(shifted)), safe_labels[rows]]
        np.exp(shifted, out=shifted)
        np.matmul(shifted, ones, out=row_total[rows])

    share_out(work, row_blocks(len(label_rows), _rows_at_once(logits)))
    losses = np.where(counted, np.log(row_total) - label_logit, 0)
    cache = CrossEntropyCache(logits, safe_labels, counted, row_max, row_total, weight)
    return losses.sum() * weight, cache


def cross_entropy_backward(dloss: Array, cache: CrossEntropyCache | textbook.CrossEntropyCache) -> Array:
    """Backward of :func:`cross_entropy_forward`; see :func:`npbert.ops.cross_entropy_backward`.

    Parameters
    ----------
    dloss : () floating
    cache : CrossEntropyCache

    Returns
    -------
    dlogits : (..., C)
    """
    if not isinstance(cache, CrossEntropyCache):
        return textbook.cross_entropy_backward(dloss, cache)
    logits = cache.logits
    dlogits = np.empty(logits.shape, logits.dtype)
    logits_rows, dlogits_rows = (a.reshape(-1, logits.shape[-1]) for a in (logits, dlogits))
    dlosses = np.where(cache.counted, dloss * cache.weight, 0).astype(logits.dtype)  # (rows,)

    def work(rows: slice) -> None:
        y = dlogits_rows[rows]
        np.subtract(logits_rows[rows], cache.row_max[rows, None], out=y)
        np.exp(y, out=y)
        y /= cache.row_total[rows, None]
        y[np.arange(len(y)), cache.labels[rows]] -= 1
        y *= dlosses[rows, None]

    share_out(work, row_blocks(len(dlosses), _rows_at_once(logits)))
    return dlogits


class DecoderLoss(NamedTuple):
    """A loss, and its gradients for ``dloss = 1``."""

    loss: Array  # () floating
    dhidden: Array  # (M, D)
    dweight: Array  # (V, D)
    dbias: Array  # (V,)
    correct: int  # of how many tokens the label has the best score


def decoder_cross_entropy(
    hidden: Array,
    weight: Array,
    bias: Array,
    labels: Array,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> DecoderLoss:
    """Score every word of the vocabulary and compare with the right ones, forward and backward at once.

    It is `linear_forward`, `cross_entropy_forward` and their backwards, without the (M, V) scores: those of
    ``TOKENS_AT_ONCE`` tokens are made, turned into gradients where they are, and multiplied with weight and
    hidden. They are stored a row a word, (V, tokens), so that all three products and all reductions run along
    whole rows.

    The whole vocabulary's sum of exponentials is put together from those of ``WORDS_AT_ONCE`` words, each
    with a maximum of its own where exponentials would overflow or vanish without. Gradients are summed in an
    order that depends on the shapes alone.

    Parameters
    ----------
    hidden : (M, D) float32 or float64
    weight : (V, D) of the dtype of hidden
    bias : (V,) of the dtype of hidden
    labels : (M,) integer
        In ``[0, V)``, or ``ignore_index``.
    ignore_index : int
    reduction : "mean" or "sum"

    Returns
    -------
    DecoderLoss
        Of another ``dloss`` the gradients are that many times as large. Without a label the loss is 0, and so
        are the gradients.

    Raises
    ------
    ValueError
        For another reduction, for arrays of another dtype or of several, and for a label that is no word.
    """
    counted = np.flatnonzero(labels != ignore_index)
    _check_decoder_arguments(hidden, weight, bias, labels[counted])
    term = reduction_weight(reduction, len(counted))
    loss, correct = np.zeros((), hidden.dtype)[()], 0
    dhidden = np.zeros(hidden.shape, hidden.dtype)
    dweight, dbias = recycled(weight.shape, weight.dtype), np.zeros(bias.shape, bias.dtype)
    if len(counted) == 0:
        dweight[...] = 0
    workspace = Workspace([((len(weight) * min(len(counted), TOKENS_AT_ONCE),), hidden.dtype)])
    for chunk in row_blocks(len(counted), TOKENS_AT_ONCE):
        places = counted[chunk]
        room = workspace.arrays[0][: len(weight) * len(places)].reshape(len(weight), len(places))
        losses, found, dhidden[places] = _add_chunk(
            hidden[places], weight, bias, labels[places], term, dweight, dbias, room, first=chunk.start == 0
        )
        loss += losses.sum() * term
        correct += found
    return DecoderLoss(loss, dhidden, dweight, dbias, correct)


def _add_chunk(
    hidden: Array,
    weight: Array,
    bias: Array,
    labels: Array,
    term: float,
    dweight: Array,
    dbias: Array,
    scores: Array,
    first: bool,
) -> tuple[Array, int, Array]:
    """Return the losses of some tokens, how many labels score best, and dhidden.

    Adds to dweight and dbias. ``scores`` is room.

    Two rounds over the vocabulary, in pieces that workers take: the exponentials and their sums, and, when
    the sums of all words are known, the gradients. Exponentials and logarithms have base 2, the fastest.
    """
    tokens, width = hidden.shape
    blocks = row_blocks(len(weight), WORDS_AT_ONCE)
    pieces = [blocks[p] for p in row_blocks(len(blocks), BLOCKS_IN_A_PIECE)]
    maxima, totals, best = np.zeros((3, len(blocks), tokens), hidden.dtype)
    label_score, label_power = np.empty((2, tokens), hidden.dtype)
    dhidden_of_piece = np.empty((len(pieces), tokens, width), hidden.dtype)
    by_word = np.multiply(hidden.T, LOG2_E, order="C")  # (D, tokens)
    bias = bias * hidden.dtype.type(LOG2_E)

    def score(block: slice) -> Array:
        x: Array = np.matmul(weight[block], by_word, out=scores[block])
        x += bias[block, None]
        return x

    def exponentiate(piece: list[slice]) -> None:
        ones = np.ones(WORDS_AT_ONCE, hidden.dtype)
        for block in piece:
            number, x = block.start // WORDS_AT_ONCE, score(block)
            here = np.flatnonzero((labels >= block.start) & (labels < block.stop))
            label_score[here] = x[labels[here] - block.start, here]
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is noticed below
                np.exp2(x, out=x)
                total = np.matmul(ones[: len(x)], x, out=totals[number])
            if not ((total >= SMALLEST_SUM) & (total <= LARGEST_SUM)).all():
                x = score(block)
                x -= x.max(axis=0, out=maxima[number])
                np.matmul(ones[: len(x)], np.exp2(x, out=x), out=total)
            x.max(axis=0, out=best[number])
            label_power[here] = x[labels[here] - block.start, here]

    share_out(exponentiate, pieces)
    row_max = maxima.max(axis=0)  # (tokens,)
    factors = np.exp2(maxima - row_max)  # (blocks, tokens)
    total = (totals * factors).sum(axis=0)  # (tokens,)
    losses = (np.log2(total) + (row_max - label_score)) / LOG2_E
    label_power *= factors[labels // WORDS_AT_ONCE, np.arange(tokens)]
    correct = int(np.count_nonzero(label_power == (best * factors).max(axis=0)))
    factors *= term / total  # from a block's exponentials to the gradient's first part, the probabilities

    def differentiate(numbered: tuple[int, list[slice]]) -> None:
        place, piece = numbered
        ones = np.ones(tokens, hidden.dtype)
        for block in piece:
            number, dx = block.start // WORDS_AT_ONCE, scores[block]
            dx *= factors[number]
            here = np.flatnonzero((labels >= block.start) & (labels < block.stop))
            dx[labels[here] - block.start, here] -= term
            if first:
                np.matmul(dx, hidden, out=dweight[block])
                np.matmul(dx, ones, out=dbias[block])
            else:
                product = scratch("dweight", dweight[block].shape, dx.dtype)
                dweight[block] += np.matmul(dx, hidden, out=product)
                dbias[block] += dx @ ones
        whole = slice(piece[0].start, piece[-1].stop)
        np.matmul(scores[whole].T, weight[whole], out=dhidden_of_piece[place])

    share_out(differentiate, list(enumerate(pieces)))
    return losses, correct, dhidden_of_piece.sum(axis=0)


def _check_decoder_arguments(hidden: Array, weight: Array, bias: Array, labels: Array) -> None:
    dtypes = {a.dtype for a in (hidden, weight, bias)}
    if dtypes not in ({np.dtype(np.float32)}, {np.dtype(np.float64)}):
        raise ValueError(
            f"hidden, weight and bias are {hidden.dtype}, {weight.dtype} and {bias.dtype}; "
            "all must be float32 or float64"
        )
    wrong = labels[(labels < 0) | (labels >= len(weight))]
    if wrong.size:
        raise ValueError(f"labels contain {wrong[0]}; all must be at least 0 and less than {len(weight)}")


def _rows_at_once(logits: Array) -> int:
    bytes_a_row: int = logits.shape[-1] * logits.itemsize
    return max(1, BLOCK_BYTES // bytes_a_row)
