"""WordPiece: a word becomes the longest pieces of a vocabulary, taken greedily from the left.

With "un", "##aff" and "##able" in the vocabulary, "unaffable" is un + ##aff + ##able. A word that
cannot be covered, or that is very long, is one unknown token.

References
----------
Wu et al. (2016), Google's Neural Machine Translation System, section 4.1; google-research/bert,
tokenization.py (WordpieceTokenizer).
"""

from collections.abc import Iterable, Mapping
from itertools import chain

CONTINUATION = "##"

# Natural text repeats its words, so most are looked up, not split. A full cache is emptied: the
# frequent words are back at once, and memory stays bounded whatever the text.
MAX_CACHED_WORDS = 131_072


class WordPiece:
    """Splits words into the ids of their pieces.

    Parameters
    ----------
    vocab : mapping of str to int
        The id of every piece; those that continue a word begin with "##".
    unk_id : int
        The id of the unknown token.
    max_input_chars_per_word : int
        A word of more characters than this is unknown.

    Examples
    --------
    >>> model = WordPiece({"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3}, 0, 100)
    >>> model.ids(["unaffable", "x", "un"])
    [1, 2, 3, 0, 1]
    """

    def __init__(self, vocab: Mapping[str, int], unk_id: int, max_input_chars_per_word: int) -> None:
        self._vocab = vocab
        self._unk_id = unk_id
        self._max_input_chars = max_input_chars_per_word
        self._longest_piece = max(map(len, vocab))
        self._cache = _PieceCache(self)

    def ids(self, words: Iterable[str]) -> list[int]:
        """Return the ids of all pieces of some words, through the cache.

        Parameters
        ----------
        words : iterable of str
            Normalised words, none empty.

        Returns
        -------
        list of int
            The ids, word after word.
        """
        return list(chain.from_iterable(map(self._cache.__getitem__, words)))

    def word_ids(self, word: str) -> tuple[int, ...]:
        """Return the ids of the pieces of one word, through the cache.

        Parameters
        ----------
        word : str
            A normalised word, not empty.

        Returns
        -------
        tuple of int
            The ids of its pieces, or the id of the unknown token alone.
        """
        return self._cache[word]

    def split(self, word: str) -> tuple[int, ...]:
        """Return the ids of the pieces of one word, worked out afresh.

        Parameters
        ----------
        word : str
            A normalised word, not empty.

        Returns
        -------
        tuple of int
            The ids of its pieces, or the id of the unknown token alone.
        """
        if len(word) > self._max_input_chars:
            return (self._unk_id,)
        ids = []
        start = 0
        while start < len(word):
            prefix = CONTINUATION if start else ""
            end = min(len(word), start + self._longest_piece)
            while end > start and prefix + word[start:end] not in self._vocab:
                end -= 1
            if end == start:
                return (self._unk_id,)
            ids.append(self._vocab[prefix + word[start:end]])
            start = end
        return tuple(ids)


class _PieceCache(dict[str, tuple[int, ...]]):
    """The pieces of the words met so far; at most MAX_CACHED_WORDS of them."""

    def __init__(self, model: WordPiece) -> None:
        self._model = model

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._model.split(word)
        # A word too long to be split costs nothing to meet again, and much to remember.
        if len(word) <= self._model._max_input_chars:
            if len(self) >= MAX_CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids
