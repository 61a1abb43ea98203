"""Errors and warnings as users see them: one line that says what was wrong, and what to do."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from npbert.errors import BackendError

OK, FAILED, BAD_USAGE = 0, 1, 2
# As a shell reports a program that a signal ended: 128 and the signal's number (SIGINT, SIGPIPE).
INTERRUPTED, BROKEN_PIPE = 130, 141


class CommandError(Exception):
    """Something that the user can put right; the message is what they read."""


class UsageError(CommandError):
    """A command line that cannot be meant."""


def one_line(text: str) -> str:
    """Return a text without its line breaks.

    Examples
    --------
    >>> one_line("broken:\\n  at the start")
    'broken: at the start'
    """
    return " ".join(text.split())


def complain(program: str, kind: str, message: str) -> None:
    """Print ``program: kind: message`` as one line on the standard error."""
    with suppress(OSError):  # the standard error may be closed as well
        print(f"{program}: {kind}: {one_line(message)}", file=sys.stderr, flush=True)


def exit_code_of(error: BaseException, program: str) -> int:
    """Say what an exception means to a user and return the exit code that goes with it.

    Parameters
    ----------
    error : BaseException
        npbert raises ValueError, TypeError and OSError for what a user got wrong, BackendError for what this
        machine lacks, and ImportError for an extra that is not installed; anything else is a mistake of
        npbert's own.
    program : str
        What the message starts with, such as "npbert embed".

    Returns
    -------
    int
    """
    if isinstance(error, BrokenPipeError):  # whoever read our output (head, less) has had enough
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt):
        complain(program, "error", "interrupted")
        return INTERRUPTED
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        complain(program, "error", f"out of memory{detail}; try fewer texts, or smaller batches")
    elif isinstance(error, OSError):
        complain(program, "error", _describe(error))
    elif isinstance(error, CommandError | ValueError | BackendError | ImportError):
        complain(program, "error", str(error))
    else:
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        complain(program, "internal error", f"{what}; please report it, with what --debug prints")
    return BAD_USAGE if isinstance(error, UsageError) else FAILED


def _describe(error: OSError) -> str:
    if error.strerror is None:  # raised by npbert, with a message of its own
        return str(error)
    reason = error.strerror[0].lower() + error.strerror[1:]
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


@contextmanager
def warnings_in_one_line(program: str) -> Iterator[None]:
    """Print warnings as one line on the standard error, without Python's file, line number and source."""

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
        complain(program, "warning", str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def flush_or_abandon_output() -> None:
    """Write out what the standard output still holds; if that fails, see to it that nobody tries again."""
    try:
        sys.stdout.flush()
    except OSError:  # the reader is gone, the disk is full: Python's own attempt, at exit, would fail as well
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
