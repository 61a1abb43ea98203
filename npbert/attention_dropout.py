"""Dropout of the attention probabilities, by what its mask is drawn from in place of the mask itself."""

import math
from typing import NamedTuple


class AttentionDropout(NamedTuple):
    """Dropout of the attention probabilities, drawn where it is applied, bit for bit NumPy's mask.

    The mask is ``dropout_keep_mask((B, N, max_queries, max_keys), rate, seed, layer, site)`` of
    :mod:`npbert.ops.dropout`, of which an engine draws the elements that it needs, when it needs them.
    """

    rate: float  # in [0, 1)
    seed: int  # in [0, 2^64)
    layer: int  # in [0, 2^32)
    site: int  # in [0, 2^32); npbert.ops.dropout.SITE_ATTENTION_PROBS in a BERT

    @property
    def threshold(self) -> int:
        """The random word from which an element is kept: words below it drop."""
        return math.floor(self.rate * 2**32)
