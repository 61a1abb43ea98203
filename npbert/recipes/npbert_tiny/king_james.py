"""The King James Bible as Debian's package bible-kjv-text has it: a document for each chapter.

The file holds windows of 64 KiB of text, each compressed by itself as compress(1) does (LZW), without the
three bytes at the head of such a file. Big-endian 32-bit numbers at 0x54 say how large a window is and how
many there are; then come the offset of each and of the end.
"""

import re
import struct
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

from npbert.recipes.npbert_tiny.sentences import Document

MAGIC: Final = b"EC02Compressed Data File"
HEADER_OFFSET: Final = 0x54
LZW_HEADER: Final = b"\x1f\x9d\x90"  # codes of up to 16 bits, in blocks

_VERSE: Final = re.compile(r"([0-9]?[A-Za-z]+)([0-9]+):[0-9]+ (.+)")


def king_james_documents(path: Path) -> Iterator[Document]:
    """Yield the chapters, a verse a sentence.

    Parameters
    ----------
    path : pathlib.Path
        ``bible.data``.

    Yields
    ------
    list of str

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no program gzip, which knows LZW.
    ValueError
        If it is not such a file.
    """
    chapter: Document = []
    name = None
    for line in decompressed(path).splitlines():
        verse = _VERSE.fullmatch(line.strip())
        if verse is None:
            continue  # the title
        if name not in (None, verse.group(1, 2)):
            yield chapter
            chapter = []
        name = verse.group(1, 2)
        chapter.append(" ".join(verse.group(3).split()))
    if not chapter:
        raise ValueError(f"{path}: no verse found")
    yield chapter


def decompressed(path: Path) -> str:
    """Return the whole text; errors as `king_james_documents` says."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise ValueError(f"{path}: not the text of bible-kjv-text: it begins with {data[:24]!r}")
    try:
        _, windows = struct.unpack_from(">2I", data, HEADER_OFFSET)
        offsets = struct.unpack_from(f">{windows + 1}I", data, HEADER_OFFSET + 8)
        parts = [data[start:end] for start, end in pairwise(offsets)]
        return b"".join(map(_lzw_decompressed, parts)).decode("ascii")
    except (struct.error, subprocess.CalledProcessError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged: {error}") from None


def _lzw_decompressed(part: bytes) -> bytes:
    # Python has no LZW; gzip(1) does, for the files of its predecessor.
    command = ["gzip", "--decompress", "--stdout"]
    return subprocess.run(command, input=LZW_HEADER + part, capture_output=True, check=True).stdout
