"""Reading a whole text file: UTF-8, perhaps compressed."""

import bz2
import gzip
import zlib
from pathlib import Path
from typing import Final

BYTE_ORDER_MARK: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"
DECOMPRESSORS: Final = {".gz": gzip.decompress, ".bz2": bz2.decompress}


def read_text(path: Path | str) -> str:
    """Return the text of a file, its line ends as they are, without a byte order mark.

    Parameters
    ----------
    path : path
        A name that ends in .gz or .bz2 means a compressed file.

    Returns
    -------
    str

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a directory, or empty, or damaged, or holds what no text has: bytes that are not UTF-8, or
        the character NUL. Names the file, the line and the byte.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: a directory; it must be a file") from None
    decompress = DECOMPRESSORS.get(path.suffix)
    if decompress is not None:
        try:
            data = decompress(data)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole {path.suffix} file: {error}") from None
    text = decode_utf8(data, str(path)).removeprefix(BYTE_ORDER_MARK)
    if not text:
        raise ValueError(f"{path}: empty")
    return text


def decode_utf8(data: bytes, name: str) -> str:
    """Return the text that some bytes are.

    Parameters
    ----------
    data : bytes
    name : str
        What a message calls them.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For bytes that are not UTF-8, and for a NUL; names the line and the byte.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: {_place(data, error.start)}: {data[error.start]:#04x} is not UTF-8; "
            "convert the file first, for example with iconv -f latin1 -t utf-8"
        ) from None
    if (nul := data.find(0)) >= 0:
        raise ValueError(
            f"{name}: {_place(data, nul)}: a NUL, which no text has; "
            "convert UTF-16 first, for example with iconv -f utf-16 -t utf-8"
        )
    return text


def has_lone_surrogate(text: str) -> bool:
    r"""Return whether a text has a code that is half a character, which JSON can spell.

    Examples
    --------
    >>> has_lone_surrogate("\ud83d"), has_lone_surrogate("\U0001f600")
    (True, False)
    """
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _place(data: bytes, index: int) -> str:
    line = data.count(b"\n", 0, index) + 1
    byte = index - data.rfind(b"\n", 0, index)
    return f"line {line}, byte {byte}"
