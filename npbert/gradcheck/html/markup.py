"""Pieces of HTML: escaped text, the badge of a status, tables."""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

SYMBOLS: Final = {
    "failed": "✗",
    "inconclusive": "?",
    "skipped": "–",
    "passed": "✓",
}  # in the order of sorting


class Column(NamedTuple):
    """The heading of a column; ``is_number`` aligns it on the right."""

    name: str
    is_number: bool = False


class Cell(NamedTuple):
    """A cell of a table: its HTML, and what it is sorted by where that is not its text."""

    html: str
    sort_key: str | None = None


def text(words: str) -> str:
    """Return text as HTML, whatever is in it; half a surrogate pair could not even be written to a file.

    Examples
    --------
    >>> text("a < b"), text("\\ud800")
    ('a &lt; b', '\\\\ud800')
    """
    return escape(words.encode("utf-8", "backslashreplace").decode())


def code(name: str) -> str:
    """Return a name from somebody's code as HTML."""
    return f"<code>{text(name)}</code>"


def badge(status: str) -> str:
    """Return a status as a coloured word with a symbol, since colour alone is not for everybody."""
    return f'<span class="badge {status}"><span aria-hidden="true">{SYMBOLS[status]}</span> {status}</span>'


def number(value: float | None, form: str) -> str:
    """Return a formatted number; nothing for None."""
    return "" if value is None else format(value, form)


def count(many: int, one: str, several: str = "") -> str:
    """Return a number of things.

    Examples
    --------
    >>> count(1, "check"), count(2, "check"), count(0, "entry", "entries")
    ('1 check', '2 checks', '0 entries')
    """
    return f"{many} {one if many == 1 else several or one + 's'}"


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return a list of names and values, both of them text."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{items}</dl>'


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], *, label: str, header: int = 0
) -> str:
    """Return a table that scrolls sideways by itself where the screen is narrow.

    Parameters
    ----------
    columns : sequence of Column
    rows : sequence of sequence of str or Cell
        HTML.
    label : str
        What is announced when the table gets the keyboard's focus.
    header : int
        The column that names the rows.
    """
    head = "".join(f'<th scope="col"{_aligned(column)}>{text(column.name)}</th>' for column in columns)
    body = "".join(_row(columns, row, header) for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(columns: Sequence[Column], row: Sequence[str | Cell], header: int) -> str:
    cells = []
    for place, (column, value) in enumerate(zip(columns, row, strict=True)):
        cell = Cell(value) if isinstance(value, str) else value
        opening, closing = ('th scope="row"', "th") if place == header else ("td", "td")
        key = "" if cell.sort_key is None else f' data-sort="{text(cell.sort_key)}"'
        cells.append(f"<{opening}{_aligned(column)}{key}>{cell.html}</{closing}>")
    return f"<tr>{''.join(cells)}</tr>"


def _aligned(column: Column) -> str:
    return ' class="number"' if column.is_number else ""
