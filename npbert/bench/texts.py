"""Texts to measure with: the user's, a corpus's, or some that npbert brings along."""

import bz2
import csv
import importlib
import io
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from npbert.tokenizer import WordPieceTokenizer

CORPUS: Final = "rotten_tomatoes_corpus_full.csv.bz2"
MEAN_WORDS: Final = 95  # of the sample texts: about as long as the corpus's
MOST_WORDS: Final = 400


def read_texts(path: Path, column: str = "text", where: tuple[str, str] | None = None) -> list[str]:
    """Read the texts of a file that are not empty.

    Parameters
    ----------
    path : Path
        A text a line; or a ``.csv`` with a header. Either may be compressed (``.bz2``).
    column : str
        Of the ``.csv``.
    where : tuple of str and str, optional
        A column of the ``.csv`` and a value: only the rows that have it.

    Raises
    ------
    ValueError
        If there is no such column, or no text, or if the rows of no ``.csv`` are to be chosen.
    """
    data = path.read_bytes()
    name = path
    if path.suffix == ".bz2":
        data, name = bz2.decompress(data), path.with_suffix("")
    content = data.decode("utf-8")
    if name.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(content, newline=""))
        columns = rows.fieldnames or ()
        for wanted in (column, *([] if where is None else where[:1])):
            if wanted not in columns:
                raise ValueError(f"{path} has no column {wanted!r}; it has {', '.join(columns)}")
        texts = [row[column] for row in rows if where is None or row[where[0]] == where[1]]
    elif where is not None:
        raise ValueError(f"{path} is no .csv: it has no column {where[0]!r}")
    else:
        texts = content.split("\n")
    texts = [text.strip() for text in texts if text.strip()]
    if not texts:
        chosen = "" if where is None else f" where {where[0]} is {where[1]!r}"
        raise ValueError(f"{path} has no text{chosen}")
    return texts


def spread(texts: Sequence[str], count: int) -> list[str]:
    """Return so many of some texts, from all over them; all, if there are not as many.

    Examples
    --------
    >>> spread(["a", "b", "c", "d"], 2)
    ['a', 'c']
    """
    count = min(count, len(texts))
    return [texts[index * len(texts) // count] for index in range(count)]


def sample_texts(count: int) -> list[str]:
    """Return texts of varied lengths, pieces of npbert's own documentation; always the same."""
    words = _documentation().split()
    rng = np.random.default_rng(0)
    sigma = 0.7  # of the logarithm: most texts are short, some are long
    lengths = rng.lognormal(np.log(MEAN_WORDS) - sigma**2 / 2, sigma, count)
    starts = rng.integers(0, len(words), count)
    texts = []
    for length, start in zip(lengths, starts, strict=True):
        wanted = int(np.clip(length, 3, MOST_WORDS))
        rotated = [words[(start + offset) % len(words)] for offset in range(wanted)]
        texts.append(" ".join(rotated))
    return texts


def text_of_length(tokenizer: "WordPieceTokenizer", tokens: int) -> str:
    """Return a text of exactly so many tokens, [CLS] and [SEP] included.

    Raises
    ------
    ValueError
        If the tokenizer knows no word.
    """
    words = [
        word
        for word in dict.fromkeys(_documentation().lower().split())
        if word.isalpha() and word in tokenizer.vocab
    ]
    if not words:
        raise ValueError("the tokenizer has no whole word of npbert's documentation in its vocabulary")
    return " ".join(words[index % len(words)] for index in range(tokens - 2))


def _documentation() -> str:
    from npbert import ops

    names = sorted(module.name for module in pkgutil.iter_modules(ops.__path__))
    pages = [importlib.import_module(f"{ops.__name__}.{name}").__doc__ or "" for name in names]
    return " ".join(pages)
