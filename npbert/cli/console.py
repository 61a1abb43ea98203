"""What the commands print: tables and coloured lines with rich, where it is installed, plain text otherwise.

Plain text also where the standard output is not a terminal: what is piped has no colours and no line is cut.
"""

import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

Style = Literal["", "good", "bad", "strong", "dim"]
RICH_STYLES: Final[dict[Style, str]] = {
    "": "",
    "good": "green",
    "bad": "bold red",
    "strong": "bold cyan",
    "dim": "dim",
}
WIDE_TERMINAL: Final = 120
DOUBLE_WIDTH: Final = ("W", "F")  # the East Asian widths of characters that take two columns


class Styled(NamedTuple):
    """A piece of text with a style, for a cell of a table."""

    text: str
    style: Style


class Column(NamedTuple):
    """A column of a table, and how it gives way to a narrow terminal.

    Attributes
    ----------
    name : str
        What stands above it; may be empty.
    align : {"left", "right"}
    wraps : bool
        Whether its cells may take several lines.
    narrow_width : int or None
        Where the terminal has fewer than `WIDE_TERMINAL` columns, of a longer cell only so much of its end
        is shown.
    """

    name: str
    align: Literal["left", "right"] = "left"
    wraps: bool = False
    narrow_width: int | None = None


Cell = str | Styled


def say(text: str = "", style: Style = "") -> None:
    """Print one line, or a few, on the standard output."""
    console = _rich_console()
    if console is None:
        print(text)
        return
    from rich.text import Text

    console.print(Text(text, style=RICH_STYLES[style]), soft_wrap=True)


def heading(text: str) -> None:
    """Print the title of a part, with space around it."""
    say()
    say(text, "strong")
    say()


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table on the standard output.

    Parameters
    ----------
    columns : sequence of Column
    rows : sequence of sequence of str or Styled
        One cell a column. Characters that a terminal would obey rather than show are replaced.
    """
    cells = [[_styled(cell) for cell in row] for row in rows]
    console = _rich_console()
    if console is None:
        _plain_table(columns, cells)
        return
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rich_table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
    )
    for column in columns:
        rich_table.add_column(column.name, justify=column.align, no_wrap=not column.wraps, overflow="fold")
    is_narrow = console.width < WIDE_TERMINAL
    for row in cells:
        shown = []
        for cell, column in zip(row, columns, strict=True):
            text = _end_of(cell.text, column.narrow_width) if is_narrow else cell.text
            # A Text, because rich would take the brackets of "[/b]" in a str for mark-up.
            shown.append(Text(text, style=RICH_STYLES[cell.style]))
        rich_table.add_row(*shown)
    console.print(rich_table)


def printable(text: str) -> str:
    """Return a text whose control characters (line breaks, escapes to the terminal) are replaced.

    Examples
    --------
    >>> printable("a\\tb\\x1b[31mc")
    'a b�[31mc'
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _rich_console() -> Any:
    """Return rich's console; None without rich, and where the standard output is not a terminal."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(highlight=False)


def _styled(cell: Cell) -> Styled:
    styled = Styled(cell, "") if isinstance(cell, str) else cell
    return styled._replace(text=printable(styled.text))


def _end_of(text: str, width: int | None) -> str:
    """Return the last ``width`` characters, the first of them an ellipsis where something is left out."""
    if width is None or len(text) <= width:
        return text
    return "…" + text[len(text) - width + 1 :]


def _plain_table(columns: Sequence[Column], rows: Sequence[Sequence[Styled]]) -> None:
    header = [Styled(column.name, "") for column in columns]
    widths = [max(_width(row[number].text) for row in (header, *rows)) for number in range(len(columns))]
    for row in (header, *rows):
        padded = []
        for cell, column, width in zip(row, columns, widths, strict=True):
            space = " " * (width - _width(cell.text))
            padded.append(space + cell.text if column.align == "right" else cell.text + space)
        print("  ".join(padded).rstrip())


def _width(text: str) -> int:
    """The number of columns that a text takes on a terminal."""
    return sum(
        0
        if unicodedata.combining(character)
        else 2
        if unicodedata.east_asian_width(character) in DOUBLE_WIDTH
        else 1
        for character in text
    )
