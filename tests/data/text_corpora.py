"""Small corpora for the tests of pre-training data, and a tokenizer for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from npbert.tokenizer import WordPieceTokenizer

SPECIAL: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS: Final = [f"w{number}" for number in range(300)]
PIECES: Final = ["##a", "##b", "##c"]

Documents = Sequence[Sequence[str]]  # the sentences of each


def make_tokenizer() -> WordPieceTokenizer:
    """Return a tokenizer of the words w0 to w299, which may go on with the letters a, b and c."""
    return WordPieceTokenizer(SPECIAL + WORDS + PIECES)


def write_text(path: Path, documents: Documents) -> Path:
    """Write documents as plain text: a sentence a line, an empty line between documents."""
    path.write_text("\n\n".join("\n".join(document) for document in documents) + "\n", encoding="utf-8")
    return path


def draw_documents(
    seed: int, documents: int, max_sentences: int = 12, max_words: int = 20, own_words: bool = False
) -> list[list[str]]:
    """Draw documents of words with random endings.

    With own_words each document consists of one word of its own, so that a token tells where it comes from.
    """
    rng = np.random.default_rng(seed)

    def word(document: int) -> str:
        number = document if own_words else int(rng.integers(len(WORDS)))
        return f"w{number}" + "".join(rng.choice(list("abc"), size=int(rng.integers(3))))

    return [
        [
            " ".join(word(document) for _ in range(int(rng.integers(1, max_words + 1))))
            for _ in range(int(rng.integers(1, max_sentences + 1)))
        ]
        for document in range(documents)
    ]
