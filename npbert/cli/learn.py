"""``npbert learn``: exercises in writing backward passes, checked line by line."""

import argparse
from pathlib import Path
from typing import Any

from npbert.cli.arguments import add_command, add_json, positive

DESCRIPTION = """\
Learn to write backward passes. Without a name: the list of exercises, and how
far you are.

npbert learn NAME writes a file NAME.py with the forward, the formula and the
shapes, and from then on checks it: every line, every gradient, and which known
mistake it looks like. The last exercise trains a BERT on your own functions.
npbert learn hunt: find the bug in a backward from its gradient check's report.
npbert learn fool: write a wrong backward that a weak check passes.

Your files are in ./npbert-learn. They are run as they are, in a process of
their own. Exit codes: 0 solved, 1 not solved, 2 bad usage."""

EXAMPLES = """\
npbert learn
npbert learn layernorm --watch
npbert learn layernorm --hint 1
npbert learn hunt 3 --answer 2
npbert learn fool 1"""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "learn",
        run,
        summary="write backward passes yourself, checked line by line",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="an exercise, or hunt, or fool")
    parser.add_argument(
        "number",
        metavar="N",
        nargs="?",
        type=positive,
        help="which hunt or fool (default: the first unsolved)",
    )
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("npbert-learn"),
        metavar="DIR",
        help="where your files are (default: ./npbert-learn)",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--watch", action="store_true", help="check again whenever the file is saved")
    action.add_argument("--hint", type=int, choices=(1, 2, 3), help="a hint; 3 is nearly the answer")
    action.add_argument("--solution", action="store_true", help="print an answer")
    action.add_argument(
        "--reset", action="store_true", help="start over; needs --yes; your file is kept as .bak"
    )
    action.add_argument("--answer", type=positive, metavar="K", help="for a hunt: it is choice K")
    parser.add_argument("--yes", action="store_true", help="with --reset: do it")
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds that the code of a file may take (default: 30)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for: list, check, watch, hint, ..."""
    # Imported here: the exercises need the checker, which the other commands should not have to load.
    from npbert.cli.learn_actions import run_learn

    return run_learn(arguments)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a time; it must be more than 0 seconds")
    return value
