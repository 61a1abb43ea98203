"""Sentences of tagged words, in files as those of the CoNLL shared tasks, and their alignment to word pieces.

A line is a word and its columns, one of them the tag; an empty line ends a sentence; a line that begins with
-DOCSTART- separates documents and is passed over.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.data.label_names import check_classes, label_number, sorted_names
from npbert.data.labelled import EncodedExample
from npbert.data.text_files import read_text
from npbert.data.wording import shown
from npbert.labels import IGNORE_INDEX
from npbert.tokenizer import WordPieceTokenizer

Array = NDArray[Any]

DOCUMENT_START: Final = "-DOCSTART-"
SEPARATORS: Final = {"whitespace": re.compile("[ \t]+"), "tab": re.compile("\t"), "space": re.compile(" ")}
SPECIAL_TOKENS: Final = 2  # [CLS] and [SEP]


class Sentence(NamedTuple):
    """Words and their tags.

    Attributes
    ----------
    words : tuple of str
    tags : tuple of str, or None
        None where tags are not read.
    line : int
        The line of the file of the first word, from 1; word i is i lines below.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    line: int


class Piece(NamedTuple):
    """What one example has of a sentence: all of it, or, of one too long for the model, some words.

    Attributes
    ----------
    sentence : int
        Which one.
    words : range
        Which words of it.
    first_tokens : (words,) int32
        Where, in the example, each word begins.
    """

    sentence: int
    words: range
    first_tokens: Array


def read_conll(
    path: Path | str, token_column: int = 1, tag_column: int | None = -1, separator: str = "whitespace"
) -> list[Sentence]:
    """Read the sentences of a file.

    Parameters
    ----------
    path : path
        UTF-8; may be compressed (.gz, .bz2).
    token_column, tag_column : int
        From 1; -1 is the last. Without a ``tag_column`` no tags are read.
    separator : str
        What is between columns: "whitespace" (spaces and tabs, as many as there are), "tab" or "space" (one
        of these, so that a word may hold the other).

    Returns
    -------
    list of Sentence
        At least one, each with a word at least.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file: names the file and the line.
    """
    for name, column in (("token_column", token_column), ("tag_column", tag_column)):
        if column == 0:
            raise ValueError(f"{name} is 0; columns are counted from 1, or from the last: -1")
    if separator not in SEPARATORS:
        raise ValueError(f"separator is {separator!r}; it must be one of {', '.join(SEPARATORS)}")
    split = SEPARATORS[separator].split
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    columns = 0
    # An empty line is added, so that the last sentence ends like all others.
    for line, content in enumerate([*read_text(path).split("\n"), ""], start=1):
        content = content.strip(" \t\r") if separator == "whitespace" else content.removesuffix("\r")
        if not content.strip(" \t") or content.startswith(DOCUMENT_START):
            if words:
                first_line = line - len(words)
                sentences.append(
                    Sentence(tuple(words), None if tag_column is None else tuple(tags), first_line)
                )
                words, tags = [], []
            continue
        fields = split(content)
        columns = columns or len(fields)
        if len(fields) != columns:
            raise ValueError(
                f"{path}: line {line} has {len(fields)} columns, not {columns} like the lines before it"
            )
        words.append(_field(path, line, fields, token_column, "token"))
        if tag_column is not None:
            tags.append(_field(path, line, fields, tag_column, "tag"))
    if not sentences:
        raise ValueError(f"{path}: no sentences; a line must have a word and its columns")
    return sentences


def _field(path: Path | str, line: int, fields: Sequence[str], column: int, what: str) -> str:
    index = column - 1 if column > 0 else column
    if not -len(fields) <= index < len(fields):
        raise ValueError(
            f"{path}: line {line} has {len(fields)} columns, so no {what} column {column}: "
            f"{shown(' '.join(fields))}"
        )
    if not fields[index]:
        raise ValueError(f"{path}: line {line}: the {what} (column {column}) is empty")
    return fields[index]


def tag_names(path: Path | str, sentences: Sequence[Sentence]) -> tuple[str, ...]:
    """Return all tags of a training file, sorted; a ValueError names the file if there is only one."""
    found = {tag for sentence in sentences for tag in sentence.tags or ()}
    check_classes(path, found)
    return sorted_names(found)


def encode_sentences(
    path: Path | str,
    sentences: Sequence[Sentence],
    tokenizer: WordPieceTokenizer,
    max_length: int,
    numbers: Mapping[str, int] | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[list[EncodedExample], list[Piece]]:
    """Turn words into word pieces, and let the first piece of each word have its tag.

    A sentence that is too long becomes several examples, cut between words, so that every word is looked at.
    (Of a word that is longer than an example by itself, the end is cut off.) A word of which the tokenizer
    leaves nothing, such as a control character, is an unknown token.

    Parameters
    ----------
    path : path
        For messages.
    sentences : sequence of Sentence
    tokenizer : WordPieceTokenizer
    max_length : int
        The most tokens of an example, special ones included.
    numbers : mapping of str to int, optional
        The number of each tag. None: there are no labels.
    advance : callable
        Called with a number of sentences when these are done.

    Returns
    -------
    examples : list of EncodedExample
        ``token_labels`` are -100 but at the first piece of each word.
    pieces : list of Piece
        Which words each example has.

    Raises
    ------
    ValueError
        For a tag that has no number: names the file, the line, the tag and those there are.
    """
    room = max_length - SPECIAL_TOKENS
    if room < 1:
        raise ValueError(f"max_length is {max_length}; [CLS], [SEP] and one word take at least 3")
    examples: list[EncodedExample] = []
    pieces: list[Piece] = []
    for index, sentence in enumerate(sentences):
        found = tokenizer.encode_ids(sentence.words, add_special_tokens=False)
        ids_of_words = [ids[:room] or [tokenizer.unk_id] for ids in found]
        for part in _parts([len(ids) for ids in ids_of_words], room):
            ids = [tokenizer.cls_id]
            first_tokens = []
            for word in part:
                first_tokens.append(len(ids))
                ids += ids_of_words[word]
            ids.append(tokenizer.sep_id)
            piece = Piece(index, part, np.array(first_tokens, dtype=np.int32))
            token_labels = None
            if numbers is not None:
                token_labels = np.full(len(ids), IGNORE_INDEX, dtype=np.int32)
                token_labels[piece.first_tokens] = _tag_numbers(path, sentence, part, numbers)
            examples.append(
                EncodedExample(
                    np.array(ids, dtype=np.int32), np.zeros(len(ids), dtype=np.int8), {}, token_labels
                )
            )
            pieces.append(piece)
        advance(1)
    return examples, pieces


def _parts(lengths: Sequence[int], room: int) -> list[range]:
    """Cut a sentence into runs of words of at most ``room`` tokens.

    Examples
    --------
    >>> _parts([2, 1, 3, 3], room=4)
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    parts = []
    ends = list(accumulate(lengths, initial=0))
    start = 0
    for word in range(1, len(lengths) + 1):
        is_last = word == len(lengths)
        if is_last or ends[word + 1] - ends[start] > room:
            parts.append(range(start, word))
            start = word
    return parts


def _tag_numbers(path: Path | str, sentence: Sentence, part: range, numbers: Mapping[str, int]) -> list[int]:
    assert sentence.tags is not None
    return [label_number(path, sentence.tags[word], numbers, sentence.line + word) for word in part]
