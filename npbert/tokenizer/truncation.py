"""How long each text may be: `longest_first` truncation of one text or a pair.

References
----------
Hugging Face `tokenizers`, TruncationStrategy::LongestFirst. It is not quite what google-research/bert
does (drop one token at a time from the longer text): where both texts are cut to half of an odd
room, the odd token can go to the other text.
"""

import operator
from collections.abc import Sequence


def token_budget(max_length: int | None, is_pair: bool, add_special_tokens: bool) -> int | None:
    """Return how many tokens the texts may have together.

    Parameters
    ----------
    max_length : int or None
        The largest number of tokens with the special ones, None for no limit.
    is_pair : bool
        Whether there are two texts.
    add_special_tokens : bool
        Whether [CLS] and [SEP] are put around them.

    Returns
    -------
    int or None
        The room for the texts, None for no limit.

    Raises
    ------
    ValueError
        If the special tokens alone take more than `max_length`.
    """
    if max_length is None:
        return None
    special = (3 if is_pair else 2) if add_special_tokens else 0
    budget = operator.index(max_length) - special
    if budget < 0:
        raise ValueError(f"max_length={max_length} is too small: the special tokens alone take {special}")
    return budget


def kept_lengths(lengths: Sequence[int], budget: int | None) -> list[int]:
    """Return how many tokens of one text, or of each of two, are kept; both lose their end.

    The longer text is cut down to the room that the shorter leaves. Where that is less than the
    shorter has, both get half, and an odd token goes to the longer text (the second if equal).

    Parameters
    ----------
    lengths : sequence of int
        The number of tokens of one text or of two.
    budget : int or None
        The room for all of them, None for no limit.

    Returns
    -------
    list of int
        The number of tokens kept of each.

    Examples
    --------
    >>> kept_lengths([10, 4], 12), kept_lengths([10, 40], 11), kept_lengths([5], 3)
    ([8, 4], [5, 6], [3])
    """
    if budget is None or sum(lengths) <= budget:
        return list(lengths)
    if len(lengths) == 1:
        return [budget]
    first, second = lengths
    shorter = min(first, second, budget // 2)
    longer = budget - shorter
    return [longer, shorter] if first > second else [shorter, longer]
