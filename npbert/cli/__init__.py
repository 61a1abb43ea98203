"""The command line: ``npbert COMMAND ...``, also as ``python -m npbert``.

`main` below, one module a command, and what the commands share: `console.py` (what they print), `errors.py`
(how they fail), `arguments.py`, `models.py`, `texts.py`.
"""

import argparse
import io
import sys
from collections.abc import Sequence

from npbert import __version__
from npbert.cli import (
    bench,
    demo,
    embed,
    fill_mask,
    finetune,
    gradcheck,
    info,
    learn,
    predict,
    pretrain,
    search,
)
from npbert.cli.arguments import Parser, add_debug
from npbert.cli.errors import (
    OK,
    UsageError,
    exit_code_of,
    flush_or_abandon_output,
    warnings_in_one_line,
)

PROGRAM = "npbert"
COMMANDS = (demo, embed, search, fill_mask, gradcheck, learn, pretrain, finetune, predict, bench, info)
EPILOG = """\
example:
  npbert demo

Exit codes: 0 fine, 1 failed, 2 bad usage. NAME --help has examples of a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; those of the process by default.

    Returns
    -------
    int
        The exit code: 0 fine, 1 failed, 2 bad usage; 130 after Ctrl-C, 141 where the reader of the output
        has gone.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without some character shows its code; whoever reads a pipe sees every line at once.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    # A command may start this process over; but not that of a program that calls it.
    arguments = argparse.Namespace(command=None, debug=False, argv=sys.argv[1:] if argv is None else None)
    try:
        code = _parse_and_run(argv, arguments)
        sys.stdout.flush()  # here, where an error can still be reported
        return code
    except BaseException as error:
        flush_or_abandon_output()
        if arguments.debug:
            raise
        return exit_code_of(error, _program(arguments))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog=PROGRAM, description="A BERT you can read, check and embed, in NumPy.", epilog=EPILOG
    )
    parser.add_argument("-V", "--version", action="version", version=f"{PROGRAM} {__version__}")
    add_debug(parser)
    parser.set_defaults(run=_no_command)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def _parse_and_run(argv: Sequence[str] | None, arguments: argparse.Namespace) -> int:
    try:
        build_parser().parse_args(argv, arguments)
    except SystemExit as stop:  # --help, --version, or an error that the parser has reported
        return stop.code if isinstance(stop.code, int) else OK
    with warnings_in_one_line(_program(arguments)):
        code: int = arguments.run(arguments)
    return code


def _program(arguments: argparse.Namespace) -> str:
    return PROGRAM if arguments.command is None else f"{PROGRAM} {arguments.command}"


def _no_command(arguments: argparse.Namespace) -> int:
    names = ", ".join(command.__name__.rpartition(".")[2].replace("_", "-") for command in COMMANDS)
    raise UsageError(f"no command; give one of {names}; {PROGRAM} --help explains them")
