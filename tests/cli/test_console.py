"""Tables: aligned in plain text, safe on a terminal, the same words with rich."""

import io

import pytest

from npbert.cli import console
from npbert.cli.console import Column, Styled, printable, table

COLUMNS = [Column("name"), Column("n", "right"), Column("what", wraps=True, narrow_width=8)]
ROWS = [
    ("a", "1", Styled("good", "good")),
    ("日本", "234", "[/b] [red]brackets"),
    ("x\x1b[31m", "5", "two\nlines"),
]


class Terminal(io.StringIO):
    """A standard output that says it is a terminal."""

    def isatty(self):
        return True


def terminal_of(columns, monkeypatch):
    """Let the standard output be a terminal, for the rest of a test that needs rich."""
    pytest.importorskip("rich")
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    for variable in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    return stream


def test_plain_table(capsys):
    table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines() == [
        "name      n  what",
        "a         1  good",
        "日本    234  [/b] [red]brackets",
        "x\N{REPLACEMENT CHARACTER}[31m    5  two lines",
    ]


def test_rich_table(monkeypatch):
    terminal = terminal_of(80, monkeypatch)
    table(COLUMNS, ROWS)
    shown = terminal.getvalue()
    assert "\x1b[32mgood" in shown  # green
    assert "\x1b[31m" not in shown  # what a cell asked for
    assert "…rackets" in shown and "[red]" not in shown  # the end of what is longer than narrow_width


def test_wide_terminal_shows_all(monkeypatch):
    terminal = terminal_of(120, monkeypatch)
    table(COLUMNS, ROWS)
    assert "[/b] [red]brackets" in terminal.getvalue()


@pytest.mark.parametrize(("no_color", "shown"), [("", "\x1b[1;31mtext"), ("1", "\x1b[1mtext")])
def test_no_colours_on_request(no_color, shown, monkeypatch):
    terminal = terminal_of(80, monkeypatch)
    monkeypatch.setenv("NO_COLOR", no_color)
    console.say("text", "bad")
    assert shown in terminal.getvalue()


def test_long_lines_are_not_broken(monkeypatch):
    terminal = terminal_of(80, monkeypatch)
    line = "word " * 40 + "end"
    console.say(line)
    assert line in terminal.getvalue()


def test_printable_keeps_what_is_printable():
    assert printable("naïve 日本 🙂") == "naïve 日本 🙂"
