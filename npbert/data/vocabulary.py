"""Choosing a vocabulary of word pieces for a corpus, with the library ``tokenizers`` (an extra)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from npbert.data.documents import read_documents
from npbert.tokenizer import WordPieceTokenizer
from npbert.tokenizer.normalization import BertNormalizer
from npbert.tokenizer.wordpiece import CONTINUATION

SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_wordpiece(
    paths: Iterable[Path | str],
    vocab_size: int,
    *,
    do_lower_case: bool = True,
    min_frequency: int = 2,
    limit_alphabet: int = 1000,
) -> WordPieceTokenizer:
    """Choose the word pieces that write a corpus with few of them.

    Words begin as characters. Again and again the two pieces that stand side by side most often are
    joined to a new one, until there are ``vocab_size`` of them (byte-pair encoding). The same corpus gives
    the same vocabulary, in the same order, every time.

    Parameters
    ----------
    paths : iterable of path
        Text files; see `npbert.data.documents` for their formats. They are read twice, a document at a time;
        the memory needed grows with the number of different words only.
    vocab_size : int
        The number of tokens, V, with the five special ones. A small corpus may have fewer pieces to give.
    do_lower_case : bool
        Lower-case the text and strip its accents.
    min_frequency : int
        Join two pieces only if they stand side by side so often.
    limit_alphabet : int
        Keep so many characters, the most frequent; a word with another one will be unknown.

    Returns
    -------
    WordPieceTokenizer
        Its ids: `SPECIAL_TOKENS`, characters, characters inside words, then pieces in the order in which
        they were joined.

    Raises
    ------
    ImportError
        If ``tokenizers`` is not installed; says how to install it.
    ValueError
        If a file cannot be read, there is no text in the files, or the vocabulary is too small for the
        characters.

    References
    ----------
    Sennrich, Haddow & Birch (2016), Neural Machine Translation of Rare Words with Subword Units,
    arXiv:1508.07909; Wu et al. (2016), Google's Neural Machine Translation System, arXiv:1609.08144
    """
    try:
        import tokenizers
    except ImportError:
        raise ImportError(
            'a vocabulary is trained by the library "tokenizers": pip install "npbert[tokenizers]"'
        ) from None
    for name, value in (("min_frequency", min_frequency), ("limit_alphabet", limit_alphabet)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    files = [Path(path) for path in paths]
    alphabet, inside = _characters(files, do_lower_case, limit_alphabet)
    first_tokens = [*SPECIAL_TOKENS, *alphabet, *inside]
    if vocab_size < len(first_tokens):
        raise ValueError(
            f"vocab_size is {vocab_size}, but the special tokens and the characters of the corpus, alone and "
            f"inside words, are {len(first_tokens)} tokens already; raise it or lower limit_alphabet"
        )
    trainer = tokenizers.BertWordPieceTokenizer(lowercase=do_lower_case)
    trainer.train_from_iterator(
        _sentences(files),
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        # The characters inside words, too, because the library numbers them in the order of a hash table,
        # another one in each process, and breaks ties between pairs by these numbers.
        special_tokens=[*SPECIAL_TOKENS, *inside],
        show_progress=False,
    )
    ids: dict[str, int] = trainer.get_vocab()
    joined = sorted(set(ids) - set(first_tokens), key=ids.__getitem__)
    return WordPieceTokenizer([*first_tokens, *joined], do_lower_case=do_lower_case)


def _characters(paths: list[Path], do_lower_case: bool, limit: int) -> tuple[list[str], list[str]]:
    """Return the characters of the normalised corpus, and those that may stand inside a word, as pieces."""
    raw: Counter[str] = Counter()
    for line in _sentences(paths):
        raw.update(line)
    normalizer = BertNormalizer(
        lowercase=do_lower_case, strip_accents=do_lower_case, space_cjk=True, clean_text=True
    )
    counts: Counter[str] = Counter()
    makes_words: set[str] = set()  # punctuation and ideographs are words by themselves
    for character, count in raw.items():
        normalized = normalizer.normalize(character)
        for part in normalized.replace(" ", ""):
            counts[part] += count
            if " " in normalized:
                makes_words.add(part)
    if not counts:
        names = ", ".join(map(str, paths)) or "no files"
        raise ValueError(f"{names}: no text to choose a vocabulary from")
    kept = sorted(sorted(counts, key=lambda character: (-counts[character], character))[:limit])
    return kept, [CONTINUATION + character for character in kept if character not in makes_words]


def _sentences(paths: list[Path]) -> Iterator[str]:
    for document in read_documents(paths):
        yield from document.sentences
