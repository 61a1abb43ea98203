"""The dropout's masks, any stretch of them at a time: `npbert.ops.dropout_keep_mask`, bit for bit."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npbert.cpu.workers import row_blocks, scratch
from npbert.ops.array_module import Array
from npbert.ops.philox import KEY_STEP_0, KEY_STEP_1, MULTIPLIER_0, MULTIPLIER_2, ROUNDS, WORD

# Counters at once: four arrays of as many 64-bit words are half of a core's second-level cache. Of fewer, two
# threads make less than one: a step should take longer than Python takes to change threads.
BLOCK = 32768

# Attention probabilities of a text up to which its mask is drawn together with others'.
MOST_DRAWN_TOGETHER = 1 << 15


def draw_kept(first: int, count: int, rate: float, seed: int, layer: int, site: int) -> Array:
    """Draw which elements of a tensor survive, from one element on.

    Parameters
    ----------
    first : int
        Position in C order of the first element wanted.
    count : int
    rate, seed, layer, site
        See :func:`npbert.ops.dropout_keep_mask`.

    Returns
    -------
    (count,) bool
        ``dropout_keep_mask(shape, ...).reshape(-1)[first : first + count]``, whatever the shape.

    Examples
    --------
    >>> from npbert.ops import dropout_keep_mask
    >>> mask = dropout_keep_mask((2, 4), 0.5, seed=0, layer=0, site=0)
    >>> (draw_kept(3, 4, 0.5, seed=0, layer=0, site=0) == mask.reshape(-1)[3:7]).all()
    np.True_
    """
    counters = np.arange(first // 4, (first + count + 3) // 4)
    kept = _draw(counters, rate, seed, layer, site).reshape(-1)
    drawn: Array = kept[first % 4 : first % 4 + count]
    return drawn


def draw_kept_rows(firsts: Array, count: int, rate: float, seed: int, layer: int, site: int) -> Array:
    """Draw several stretches of one length: `draw_kept` from each of ``firsts`` on.

    Parameters
    ----------
    firsts : (rows,) int
    count : int
    rate, seed, layer, site
        See :func:`npbert.ops.dropout_keep_mask`.

    Returns
    -------
    (rows, count) bool
    """
    counts = np.full(len(firsts), count)
    return draw_kept_stretches(firsts, counts, rate, seed, layer, site).reshape(len(firsts), count)


def draw_kept_stretches(firsts: Array, counts: Array, rate: float, seed: int, layer: int, site: int) -> Array:
    """Draw several stretches at once, which takes fewer and longer steps than `draw_kept` of one at a time.

    Parameters
    ----------
    firsts, counts : (stretches,) int
        Where each begins, and how long it is, at least 1.
    rate, seed, layer, site
        See :func:`npbert.ops.dropout_keep_mask`.

    Returns
    -------
    (sum of counts,) bool
        One stretch after the other.
    """
    if len(firsts) == 0:
        return np.empty(0, bool)
    offsets = firsts % 4  # between the first element that a counter decides and the first that is wanted
    counters = (offsets + counts + 3) // 4
    drawn = _draw(_ranges(firsts // 4, counters), rate, seed, layer, site).reshape(-1)
    if not (offsets.any() or (counts % 4).any()):
        return drawn
    ends = 4 * np.cumsum(counters)
    kept: Array = drawn[_ranges(ends - 4 * counters + offsets, counts)]
    return kept


def _ranges(starts: Array, counts: Array) -> Array:
    """Return so many consecutive integers, at least one, from each start on, one range after the other.

    Examples
    --------
    >>> _ranges(np.array([5, 0]), np.array([3, 2]))
    array([5, 6, 7, 0, 1])
    """
    ends = np.cumsum(counts)
    steps = np.ones(ends[-1], np.int64)  # from each integer to the next; their sums are the integers
    steps[0] = starts[0]
    steps[ends[:-1]] = starts[1:] - (starts[:-1] + counts[:-1] - 1)
    return np.cumsum(steps, out=steps)


def draw_kept_square(
    heads: Array,
    queries: Array,
    keys: Array,
    square: tuple[int, int],
    rate: float,
    seed: int,
    layer: int,
    site: int,
) -> Array:
    """Draw which attention probabilities survive, for some heads, queries and keys.

    Parameters
    ----------
    heads : (N,) int
        Among the heads of all texts: those of the first text come first.
    queries, keys : (Q,) int, (K,) int
        Ascending.
    square : (int, int)
        Queries and keys of each head.
    rate, seed, layer, site
        See :func:`npbert.ops.dropout_keep_mask`.

    Returns
    -------
    (N, Q, K) bool
    """
    firsts = (heads[:, None] * square[0] + queries) * square[1] + keys[0]
    count = int(keys[-1] - keys[0]) + 1
    kept = draw_kept_rows(firsts.reshape(-1), count, rate, seed, layer, site).reshape(*firsts.shape, count)
    return kept if len(keys) == count else kept[..., keys - keys[0]]


class TextDropout(NamedTuple):
    """Dropout of one text's attention probabilities, out of the mask of its padded batch."""

    rate: float
    seed: int
    layer: int
    site: int
    text: int  # which one of the batch it is
    heads: int  # N
    tokens: int  # T of the batch, padding and all
    positions: slice | Array = slice(None)  # of the T tokens, those that may be looked at
    query_positions: slice | Array | None = None  # those that look; None: the same

    @property
    def survivor_scale(self) -> float:
        """What the probabilities that are kept are multiplied by."""
        return 1.0 / (1.0 - self.rate)

    @property
    def is_short(self) -> bool:
        """Whether it is one of those that `drawn_together` draws: short, and no holes between the keys."""
        if not isinstance(self.positions, slice):
            return False
        return 0 < self.heads * len(self.query_places) * len(self.places) <= MOST_DRAWN_TOGETHER

    @property
    def places(self) -> Array:
        """Which of the T tokens may be looked at."""
        return np.arange(self.tokens)[self.positions]

    @property
    def query_places(self) -> Array:
        """Which of the T tokens look."""
        if self.query_positions is None:
            return self.places
        return np.arange(self.tokens)[self.query_positions]

    def kept(self, heads: slice, queries: slice, keys: slice | Array) -> Array:
        """Draw which probabilities survive, (heads, queries, keys) bool.

        Parameters
        ----------
        heads, queries : slice
            With a beginning and an end.
        keys : slice, or array of int
            Ascending.
        """
        all_heads = self.text * self.heads + np.arange(heads.start, heads.stop)
        square = (self.tokens, self.tokens)
        return draw_kept_square(all_heads, self.query_places[queries], self.places[keys], square, *self[:4])


class DrawnDropout(NamedTuple):
    """Dropout of one text's attention probabilities, out of a mask that has been drawn."""

    rate: float
    mask: Array  # (N, Q, K) bool, of the text's own queries and keys

    @property
    def survivor_scale(self) -> float:
        """What the probabilities that are kept are multiplied by."""
        return 1.0 / (1.0 - self.rate)

    def kept(self, heads: slice, queries: slice, keys: slice | Array) -> Array:
        """Return which probabilities survive, (heads, queries, keys) bool."""
        kept: Array = self.mask[heads, queries, keys]
        return kept


def drawn_together(dropouts: Sequence[TextDropout]) -> list[TextDropout | DrawnDropout]:
    """Draw the masks of short texts at once: each alone would take many steps of a few numbers.

    Parameters
    ----------
    dropouts : sequence of TextDropout
        Of texts of one batch.

    Returns
    -------
    list of TextDropout or DrawnDropout
        What stays to be drawn is that of long texts, block by block, and of texts with holes in them.
    """
    together: list[TextDropout | DrawnDropout] = list(dropouts)
    short = [number for number, one in enumerate(dropouts) if one.is_short]
    if not short:
        return together
    firsts, shapes = [], []  # of the rows of probabilities of each text
    for one in (dropouts[number] for number in short):
        places, queries = one.places, one.query_places
        heads = one.text * one.heads + np.arange(one.heads)
        firsts.append(((heads[:, None] * one.tokens + queries) * one.tokens + places[0]).reshape(-1))
        shapes.append((one.heads, len(queries), len(places)))
    counts = np.repeat([shape[-1] for shape in shapes], [len(some) for some in firsts])
    kept = draw_kept_stretches(np.concatenate(firsts), counts, *dropouts[short[0]][:4])
    start = 0
    for number, shape in zip(short, shapes, strict=True):
        stop = start + math.prod(shape)
        together[number] = DrawnDropout(dropouts[number].rate, kept[start:stop].reshape(shape))
        start = stop
    return together


def _draw(counters: Array, rate: float, seed: int, layer: int, site: int) -> Array:
    """Return which of the four elements that each counter decides are kept, (counters, 4) bool."""
    threshold = math.floor(rate * 2**32)
    kept = np.empty((len(counters), 4), bool)
    pairs_kept = kept.view(np.uint16)  # (counters, 2)
    for some in row_blocks(len(counters), BLOCK):
        for lane, pairs in enumerate(_philox(counters[some], seed, layer, site)):
            words_kept = pairs.view("<u4") >= threshold
            # The lower word of a pair, which comes first in memory, is the second that was drawn.
            pairs_kept[some, lane] = words_kept.view(np.uint16).byteswap(inplace=True)
    return kept


def _philox(counters: Array, seed: int, layer: int, site: int) -> tuple[Array, Array]:
    """`npbert.ops.philox.philox4x32` of some counters, in scratch memory.

    Two 64-bit words each hold a pair of the four 32-bit ones, the first one in the upper half. A round
    multiplies the upper halves, and makes a new pair of the whole product and the lower half::

        pair 0 = multiplier 2 * upper(pair 1) ^ (lower(pair 0) ^ key 0) << 32
        pair 1 = multiplier 0 * upper(pair 0) ^ (lower(pair 1) ^ key 1) << 32
    """
    names = ("pair 0", "pair 1", "product 0", "product 2")
    pair_0, pair_1, product_0, product_2 = (
        scratch(f"philox {name}", counters.shape, "<u8") for name in names
    )
    pair_0[:] = counters
    np.right_shift(pair_0, 32, out=pair_1)
    pair_0 <<= 32
    pair_0 |= pair_1
    pair_1[:] = layer << 32 | site
    k0, k1 = seed % 2**32, seed >> 32
    for _ in range(ROUNDS):
        np.right_shift(pair_0, 32, out=product_0)
        np.right_shift(pair_1, 32, out=product_2)
        product_0 *= MULTIPLIER_0
        product_2 *= MULTIPLIER_2
        pair_0 <<= 32
        pair_1 <<= 32
        product_2 ^= pair_0
        product_0 ^= pair_1
        product_2 ^= k0 << 32
        product_0 ^= k1 << 32
        pair_0, pair_1, product_0, product_2 = product_2, product_0, pair_0, pair_1
        k0 = (k0 + KEY_STEP_0) & WORD
        k1 = (k1 + KEY_STEP_1) & WORD
    return pair_0, pair_1
