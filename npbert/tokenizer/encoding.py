"""What one text, or one pair of texts, is encoded to."""

from typing import NamedTuple

Offset = tuple[int, int]


class Encoding(NamedTuple):
    """What one text, or one pair of texts, was encoded to; all lists are equally long.

    `[CLS]` and `[SEP]` that were put around the texts have offset (0, 0) and mask 1. A special token
    that stands in the text itself is a token like others: its offset is where it stands, its mask 0.
    """

    ids: list[int]
    """Token ids."""
    token_type_ids: list[int]
    """0 for the first text with its special tokens, 1 for the second."""
    tokens: list[str]
    """The tokens as the vocabulary spells them."""
    offsets: list[Offset]
    """Start and end of each token in its own, original text, counted in characters."""
    special_tokens_mask: list[int]
    """1 for the special tokens that were added, else 0."""
