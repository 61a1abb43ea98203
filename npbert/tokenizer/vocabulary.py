"""What a vocabulary must be: different tokens with the ids 0 to V - 1."""

from collections.abc import Mapping, Sequence

import numpy as np

from npbert.tokenizer.normalization import checked_text


def tokens_in_id_order(vocab: Sequence[str] | Mapping[str, int]) -> list[str]:
    """Return the tokens of a vocabulary as a list, or say what is wrong with it.

    Parameters
    ----------
    vocab : sequence of str or mapping of str to int
        The tokens in the order of their ids, or the id of each token.

    Returns
    -------
    list of str
        The tokens in the order of their ids.

    Raises
    ------
    TypeError
        If a token is not a string or an id not an integer.
    ValueError
        If there are no tokens, one occurs twice, or the ids are not 0 to V - 1.
    """
    if isinstance(vocab, str):
        raise TypeError("vocab must be a sequence of tokens or a mapping from token to id, got one string")
    if isinstance(vocab, Mapping):
        by_id: dict[int, str] = {}
        for token, index in vocab.items():
            if index in by_id:
                raise ValueError(f"vocab gives id {index} to both {by_id[index]!r} and {token!r}")
            if not isinstance(index, int | np.integer):
                raise TypeError(f"vocab gives {token!r} the id {index!r}, which is not an integer")
            if not 0 <= index < len(vocab):
                raise ValueError(
                    f"vocab gives id {index} to {token!r}; {len(vocab)} tokens have ids 0 to {len(vocab) - 1}"
                )
            by_id[index] = token
        tokens = [by_id[index] for index in range(len(by_id))]
    else:
        tokens = list(vocab)
    if not tokens:
        raise ValueError("vocab is empty")
    first_seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if checked_text(token, f"vocab[{index}]") in first_seen:
            raise ValueError(f"vocab has {token!r} twice, with the ids {first_seen[token]} and {index}")
        first_seen[token] = index
    return tokens
