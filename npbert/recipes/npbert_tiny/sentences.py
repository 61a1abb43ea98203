"""What the readers of all sources share: sentences end with a stop, documents have a few of them."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

Document = list[str]

FEWEST_SENTENCES: Final = 8
MOST_SENTENCES: Final = 30

_STOPS: Final = (".", "!", "?", '."', '!"', '?"')


def with_full_stop(text: str) -> str:
    """Return a text with single spaces and a stop at its end.

    Examples
    --------
    >>> with_full_stop(" hay is  for horses;"), with_full_stop("who is it?")
    ('hay is for horses.', 'who is it?')
    """
    text = " ".join(text.split()).rstrip(" ;:,-")
    return text if text.endswith(_STOPS) else text + "."


def first_time_only(sentences: Iterable[str], seen: set[str]) -> Iterator[str]:
    """Yield the sentences that are not in ``seen`` yet, apart from case, and put them there."""
    for sentence in sentences:
        key = re.sub(r"\W+", " ", sentence.lower())
        if key not in seen:
            seen.add(key)
            yield sentence


def documents_of_groups(groups: Iterable[Document]) -> Iterator[Document]:
    """Make documents of a useful length: neighbouring short groups are joined, long ones are divided.

    Parameters
    ----------
    groups : iterable of list of str
        Sentences that belong together. What follows each other should be related, too.

    Yields
    ------
    list of str
        `FEWEST_SENTENCES` or more (the last document may have fewer), `MOST_SENTENCES` or fewer, unless
        a group is joined to a long remainder.

    Examples
    --------
    >>> [len(document) for document in documents_of_groups([["a"] * 3, ["b"] * 6, ["c"] * 64, ["d"]])]
    [9, 22, 21, 21, 1]
    """
    waiting: Document = []
    for group in groups:
        waiting += group
        if len(waiting) >= FEWEST_SENTENCES:
            yield from _evenly_divided(waiting)
            waiting = []
    if waiting:
        yield waiting


def _evenly_divided(sentences: Document) -> Iterator[Document]:
    parts = -(-len(sentences) // MOST_SENTENCES)
    shortest, longer = divmod(len(sentences), parts)
    start = 0
    for part in range(parts):
        end = start + shortest + (part < longer)
        yield sentences[start:end]
        start = end
