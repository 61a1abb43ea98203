"""Reading texts: UTF-8, one text a line."""

import sys
from pathlib import Path

from npbert.cli.errors import CommandError

STANDARD_INPUT = "-"


def read_lines(source: str) -> list[str]:
    r"""Read texts, one a line.

    Only "\n" (and "\r\n") ends a line, as for wc, sed and grep, so that line numbers mean the same. Empty
    lines are kept, as empty texts.

    Parameters
    ----------
    source : str
        The name of a file, or "-" for the standard input.

    Returns
    -------
    list of str
        At least one.

    Raises
    ------
    CommandError
        If there is no such file, it is empty, or not UTF-8; names the line and the byte.
    """
    name = name_of(source)
    data = _read_bytes(source)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = error.start - data.rfind(b"\n", 0, error.start)
        raise CommandError(
            f"{name}: line {line}, byte {byte}: {data[error.start]:#04x} is not UTF-8; "
            "convert the file first, for example with iconv -f latin1 -t utf-8"
        ) from None
    if not text:
        raise CommandError(f"{name}: empty; it must have one text a line")
    lines = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def name_of(source: str) -> str:
    """Return what to call a source of texts in a message."""
    return "standard input" if source == STANDARD_INPUT else source


def _read_bytes(source: str) -> bytes:
    if source == STANDARD_INPUT:
        if sys.stdin.isatty():
            print("reading texts, one a line, until Ctrl-D", file=sys.stderr)
        return sys.stdin.buffer.read()
    path = Path(source)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CommandError(f"{source}: no such file; give a file with one text a line, or -") from None
    except IsADirectoryError:
        raise CommandError(f"{source}: a directory; give a file with one text a line, or -") from None
