r"""Reading a corpus: a stream of documents, each a list of sentences, in bounded memory.

Two formats, told apart by the ending of the file's name:

- ``.jsonl``: one document a line, ``{"text": "..."}`` with a sentence on each line of the text, or
  ``{"sentences": ["...", "..."]}``;
- anything else: plain text, one sentence a line, an empty line between documents.

Files are UTF-8. Only "\n" and "\r\n" end a line. A document that is longer than a limit is read as several,
and so is a line: whatever the size of the corpus, of a document or of a line, no more than that is held.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from npbert.data.text_files import has_lone_surrogate

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
MAX_JSON_LINE: Final = 1 << 24  # bytes: the parser needs all of a line at once


class Place(NamedTuple):
    """Where a document begins; reading may start at any place that a document came with."""

    file: int = 0  # which of the files
    offset: int = 0  # bytes into it
    part: int = 0  # .jsonl: how many parts of the document at this offset come before


BEGINNING: Final = Place()


class Document(NamedTuple):
    """A document, or a part of one that is longer than the limit."""

    place: Place
    sentences: list[str]  # at least one; none is white space alone


def read_documents(
    paths: Sequence[Path], start: Place = BEGINNING, *, max_bytes: int = 1 << 18
) -> Iterator[Document]:
    """Read the documents of some files, one after another.

    Parameters
    ----------
    paths : sequence of Path
        The files, in the order in which they are read.
    start : Place
        The place of the first document to read; by default the beginning of the first file.
    max_bytes : int
        A longer document is read as several of at most this size, cut between two sentences; a longer line as
        several sentences, cut at white space where there is any. In a .jsonl file characters count.

    Yields
    ------
    Document

    Raises
    ------
    ValueError
        If a file cannot be opened, is not UTF-8 or not the expected JSON; names the file and the line.

    Examples
    --------
    >>> path = getfixture("tmp_path") / "corpus.txt"
    >>> _ = path.write_text("One.\\nTwo.\\n\\nThree.\\n")
    >>> for document in read_documents([path]):
    ...     print(document.place.offset, document.sentences)
    0 ['One.', 'Two.']
    11 ['Three.']
    """
    for file in range(start.file, len(paths)):
        first = start if file == start.file else Place(file)
        if paths[file].suffix.lower() == ".jsonl":
            yield from _read_json_lines(paths[file], first, max_bytes)
        else:
            yield from _read_plain_text(paths[file], first, max_bytes)


def _read_plain_text(path: Path, start: Place, max_bytes: int) -> Iterator[Document]:
    sentences: list[str] = []
    place = start
    size = 0
    for offset, line in _lines(path, start.offset, max_bytes, _cut):
        sentence = _decode(path, offset, line).rstrip("\r\n")
        is_blank = not sentence.strip()
        if sentences and (is_blank or size + len(line) > max_bytes):
            yield Document(place, sentences)
            sentences = []
        if is_blank:
            continue
        if not sentences:
            place = Place(start.file, offset)
            size = 0
        sentences.append(sentence)
        size += len(line)
    if sentences:
        yield Document(place, sentences)


def _lines(
    path: Path, offset: int, max_bytes: int, cut: Callable[[int, bytes], int]
) -> Iterator[tuple[int, bytes]]:
    """Read lines with the offset of each.

    Of a line that is longer than max_bytes, cut(offset, its beginning) says how much comes first. What comes
    after an offset depends on nothing that was read before it.
    """
    with _open(path) as file:
        if offset == 0 and file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
            offset = len(BYTE_ORDER_MARK)
        file.seek(offset)
        while line := file.readline(max_bytes):
            if len(line) == max_bytes and not line.endswith(b"\n"):
                line = line[: cut(offset, line)]
                file.seek(offset + len(line))
            yield offset, line
            offset += len(line)


def _cut(_: int, line: bytes) -> int:
    """Return where to cut the beginning of a long line: after white space, or else between two characters."""
    after_space = max(line.rfind(b" "), line.rfind(b"\t")) + 1
    if after_space > 0:
        return after_space
    for end in range(len(line) - 1, len(line) - 4, -1):  # a character has at most four bytes
        if not 0x80 <= line[end] < 0xC0:  # its first
            return end
    return len(line)


def _read_json_lines(path: Path, start: Place, max_characters: int) -> Iterator[Document]:
    def refuse(offset: int, _: bytes) -> int:
        raise ValueError(
            f"{path}: line {_line_number(path, offset)}: longer than {MAX_JSON_LINE} bytes, and JSON is "
            "parsed a line at a time; split the document, or write it as plain text"
        )

    first_part = start.part
    for offset, line in _lines(path, start.offset, MAX_JSON_LINE, refuse):
        text = _decode(path, offset, line).rstrip()
        if not text:
            continue
        try:
            sentences = _json_sentences(text)
        except ValueError as error:
            raise ValueError(f"{path}: line {_line_number(path, offset)}: {error}") from None
        for part, some in enumerate(_parts(sentences, max_characters)):
            if part >= first_part:
                yield Document(Place(start.file, offset, part), some)
        first_part = 0


def _json_sentences(line: str) -> list[str]:
    """Return the sentences of one line of a .jsonl file."""
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"column {error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise ValueError(f"not JSON that can be read: {error}") from None
    record = record if isinstance(record, dict) else {}
    sentences = record.get("sentences")
    if isinstance(record.get("text"), str):
        sentences = record["text"].split("\n")
    elif not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise ValueError(f'{line[:40]!r} is not {{"text": "..."}} or {{"sentences": ["...", "..."]}}')
    for sentence in sentences:
        if has_lone_surrogate(sentence):
            raise ValueError(f"{sentence[:40]!r} has half of a character (\\ud800 to \\udfff)")
    return [sentence for sentence in sentences if sentence.strip()]


def _parts(sentences: list[str], max_characters: int) -> Iterator[list[str]]:
    """Cut a document into parts of at most max_characters, and sentences that are longer."""
    part: list[str] = []
    size = 0
    for sentence in sentences:
        for start in range(0, len(sentence), max_characters):
            piece = sentence[start : start + max_characters]
            if part and size + len(piece) > max_characters:
                yield part
                part, size = [], 0
            part.append(piece)
            size += len(piece)
    if part:
        yield part


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _decode(path: Path, offset: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        broken = offset + error.start
        number = _line_number(path, broken)
        byte = broken - _line_start(path, broken) + 1
        raise ValueError(
            f"{path}: line {number}, byte {byte}: {line[error.start]:#04x} is not UTF-8; "
            "convert the file first, for example with iconv -f latin1 -t utf-8"
        ) from None


def _line_number(path: Path, offset: int) -> int:
    """Return which line an offset is in, from 1: counted only when something is wrong there."""
    return 1 + sum(chunk.count(b"\n") for _, chunk in _chunks(path, offset))


def _line_start(path: Path, offset: int) -> int:
    """Return where the line begins that an offset is in."""
    start = 0
    for chunk_offset, chunk in _chunks(path, offset):
        if b"\n" in chunk:
            start = chunk_offset + chunk.rfind(b"\n") + 1
    return start


def _chunks(path: Path, end: int) -> Iterator[tuple[int, bytes]]:
    """Read the beginning of a file in pieces."""
    offset = 0
    with _open(path) as file:
        while chunk := file.read(min(1 << 20, end - offset)):
            yield offset, chunk
            offset += len(chunk)
