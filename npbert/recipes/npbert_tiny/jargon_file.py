"""The Jargon File as Debian's package dict-jargon has it: the prose of its entries.

An entry is a line with its name, a line of pronunciation and part of speech, and paragraphs indented by four
spaces. Listings, tables and sentences with signs that prose does not have are left out.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from npbert.recipes.npbert_tiny.sentences import Document, documents_of_groups, first_time_only

INDENT: Final = "    "
FEWEST_WORDS: Final = 4
MOST_WORDS: Final = 60
PLAIN_QUOTES: Final = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "{": "", "}": ""})
ABBREVIATIONS: Final = (
    "e.g.",
    "i.e.",
    "etc.",
    "usu.",
    "esp.",
    "poss.",
    "vs.",
    "cf.",
    "Mr.",
    "Dr.",
    "St.",
    "syn.",
)

_PROSE: Final = re.compile(r"[A-Za-z0-9 ,.;:'\"()?!-]+")
_SENTENCE_END: Final = re.compile(r"""(?<=[.?!]) +(?=["'(]?[A-Z])|(?<=[.?!]["')]) +(?=["'(]?[A-Z])""")
_SENSE_NUMBER: Final = re.compile(r"^[0-9]+[a-z]?\. +")
_BRACKETED: Final = re.compile(r"\[[^]]*\] *")
_PART_OF_SPEECH: Final = re.compile(r"^(?:(?:n|v|vt|vi|adj|adv|interj|imp|pl|obs)\.,? *)+")


def jargon_file_documents(path: Path) -> Iterator[Document]:
    """Yield the entries' sentences; neighbouring short entries are joined.

    Parameters
    ----------
    path : pathlib.Path
        ``jargon.dict.dz``.

    Yields
    ------
    list of str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not compressed text.
    """
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: not a compressed dictionary: {error}") from None
    seen: set[str] = set()
    return documents_of_groups(
        list(first_time_only(entry_sentences(entry), seen)) for entry in dictionary_entries(text)
    )


def dictionary_entries(text: str) -> Iterator[list[str]]:
    """Yield the lines of each entry: what follows a line that is not indented."""
    entry: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            yield entry
            entry = []
        else:
            entry.append(line)
    yield entry


def entry_sentences(lines: list[str]) -> Document:
    """Return the sentences of an entry that are prose.

    Examples
    --------
    >>> entry_sentences(["    1. [Unix] A process that has died. Compare {orphan}.", "", "    See x = 1."])
    ['A process that has died.']
    """
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.startswith(INDENT):
            paragraphs[-1].append(line.removeprefix(INDENT))
        else:
            paragraphs.append([])
    sentences: Document = []
    for paragraph in paragraphs:
        if any(line.startswith(" ") for line in paragraph):  # a listing
            continue
        text = " ".join(" ".join(paragraph).replace("{ ", "{").replace(" }", "}").split())
        text = _BRACKETED.sub("", _SENSE_NUMBER.sub("", text.translate(PLAIN_QUOTES)))
        sentences += filter(is_prose, _split_sentences(_PART_OF_SPEECH.sub("", text)))
    return sentences


def is_prose(sentence: str) -> bool:
    """Return whether a sentence has only letters, digits and usual signs, and a usual length."""
    return (
        _PROSE.fullmatch(sentence) is not None
        and sentence[-1] in ".?!\"')"
        and FEWEST_WORDS <= len(sentence.split()) <= MOST_WORDS
    )


def _split_sentences(text: str) -> Iterator[str]:
    waiting = ""
    for piece in _SENTENCE_END.split(text):
        waiting = f"{waiting} {piece}".strip()
        if not waiting.endswith(ABBREVIATIONS):
            yield waiting
            waiting = ""
    if waiting:
        yield waiting
