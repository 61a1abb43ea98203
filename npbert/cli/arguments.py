"""What the commands' arguments have in common: the parser, types of values, shared options."""

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from npbert.cli.errors import BAD_USAGE, complain
from npbert.training.launcher import rank_0_reports_it

Run = Callable[[argparse.Namespace], int]


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Keep the line breaks of descriptions and examples; long names stay on the line of their help."""
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, and whose options cannot be abbreviated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and exit."""
        if not rank_0_reports_it():
            complain(self.prog, "error", f"{message}; see {self.prog} --help")
        self.exit(BAD_USAGE)


def add_command(
    commands: Any, name: str, run: Run, *, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """Declare one command.

    Parameters
    ----------
    commands : what ``add_subparsers`` returns
    name : str
    run : callable
        Takes the parsed arguments and returns the exit code.
    summary : str
        One line for ``npbert --help``.
    description, examples : str
        The text before and after the options in ``npbert NAME --help``; one example a line.

    Returns
    -------
    argparse.ArgumentParser
        To add the command's arguments to.
    """
    example_lines = "\n".join(f"  {line}" for line in examples.splitlines())
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, epilog=f"examples:\n{example_lines}"
    )
    parser.set_defaults(run=run)
    add_debug(parser, default=argparse.SUPPRESS)  # or it would undo "npbert --debug NAME"
    return parser


def add_debug(parser: argparse.ArgumentParser, default: Any = False) -> None:
    """Declare ``--debug``."""
    parser.add_argument(
        "--debug", action="store_true", default=default, help="on an error, show Python's traceback"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def add_seed(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare ``--seed``; ``what`` depends on it."""
    parser.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help=f"seed of {what} (default: 0)"
    )


def positive(text: str) -> int:
    """Return the integer of at least 1 that a text spells."""
    return _integer(text, minimum=1)


def whole_number(text: str) -> int:
    """Return the integer of at least 0 that a text spells."""
    return _integer(text, minimum=0)


def _integer(text: str, minimum: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if value < minimum:
        raise argparse.ArgumentTypeError(f"{value} is too small; it must be at least {minimum}")
    return value
