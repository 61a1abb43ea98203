"""From tokens back to readable text. The original cannot be had back: case and spaces are gone."""

from collections.abc import Iterable

from npbert.tokenizer.wordpiece import CONTINUATION

# What the spaces between tokens should not be before; in this order, as `tokenizers` has them.
ENGLISH_SPACES = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def join_tokens(tokens: Iterable[str]) -> str:
    """Join pieces to words and words to text.

    Parameters
    ----------
    tokens : iterable of str
        Tokens as the vocabulary spells them.

    Returns
    -------
    str
        The text. Spaces before punctuation and contractions are taken out token by token, so only
        where one token holds them whole.

    Examples
    --------
    >>> join_tokens(["it", "is", "un", "##aff", "##able", "!"])
    'it is unaffable!'
    """
    parts: list[str] = []
    for token in tokens:
        if parts:
            is_continuation = token.startswith(CONTINUATION)
            token = token.removeprefix(CONTINUATION) if is_continuation else f" {token}"
        for spaced, joined in ENGLISH_SPACES:
            token = token.replace(spaced, joined)
        parts.append(token)
    return "".join(parts)
