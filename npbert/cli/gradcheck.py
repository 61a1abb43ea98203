"""``npbert gradcheck``: the proof of every gradient, in one table."""

import argparse
import json
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npbert.cli.arguments import add_command, add_json, add_seed
from npbert.cli.console import Cell, Column, Styled, say, table
from npbert.cli.errors import FAILED, OK, UsageError
from npbert.cli.gradcheck_report import STATUS_STYLES, show
from npbert.progress import progress_bar

if TYPE_CHECKING:
    from npbert.gradcheck import Report, TensorResult

DESCRIPTION = """\
Check every hand-written backward pass of npbert against its forward: each op,
each part of the model, and every task, on awkward shapes and rich inputs. The
oracle is the complex step, which is exact to round-off, or, for a function
that is not analytic, extrapolated real differences (Ridders). The error is the
largest of any entry, relative to the norm of its row. Exit code 0 means that
every gradient is proven."""

EXAMPLES = """\
npbert gradcheck
npbert gradcheck --only "layernorm*" --only "softmax*" --seed 7
npbert gradcheck --html gradients.html
npbert gradcheck --json"""

COLUMNS = (
    Column("case", wraps=True),
    Column("tensors", "right"),
    Column("oracle"),
    Column("error", "right"),
    Column("worst tensor", narrow_width=14),
    Column("status"),
    Column("s", "right"),
)
ORACLES = {"complex_step": "complex", "ridders": "Ridders", "": "none"}


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "gradcheck",
        run,
        summary="prove the gradient of every op, layer and task",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help='only these cases; * and ? are wildcards: "linear*" (may be repeated)',
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="also write a page with a heat map of every gradient's error; it opens from disk",
    )
    add_seed(parser, "all inputs")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the suite and print its table, then the whole report of each case that did not pass."""
    from npbert.gradcheck.suite import case_names

    names = selected(case_names(), arguments.only)
    if arguments.list:
        print(json.dumps(names, indent=2) if arguments.json else "\n".join(names))
        return OK
    if arguments.html is not None and arguments.html.is_dir():
        raise UsageError(f"--html {arguments.html} is a directory; name a file")
    start = time.perf_counter()
    results = check_cases(names, arguments.seed)
    seconds = time.perf_counter() - start
    unproven = [report for _, report in results if not report.ok]
    if arguments.html is not None:
        write_page(arguments.html, results)

    if arguments.json:
        cases = [{"case": name, **report.to_dict()} for name, report in results]
        summary = {"ok": not unproven, "seed": arguments.seed, "seconds": seconds}
        print(json.dumps({**summary, "cases": cases}, indent=2))
        return FAILED if unproven else OK
    table(COLUMNS, [_row(name, report) for name, report in results])
    for report in unproven:
        show(report)
    say()
    if arguments.html is not None:
        say(f"The page is {arguments.html}")
    tensors = sum(len(report.tensors) for _, report in results)
    if unproven:
        say(f"{len(unproven)} of {len(results)} cases not proven, in {seconds:.1f} s", "bad")
        return FAILED
    say(f"All {tensors} gradients of {len(results)} cases proven, in {seconds:.1f} s.", "good")
    return OK


def selected(names: Sequence[str], patterns: Sequence[str] | None) -> list[str]:
    """Return the names that match one of some patterns; all, if there are none.

    Raises
    ------
    UsageError
        If a pattern matches nothing.
    """
    if patterns is None:
        return list(names)
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            raise UsageError(f"--only {pattern!r} matches no case; npbert gradcheck --list shows their names")
    return [name for name in names if any(_matches(name, pattern) for pattern in patterns)]


def check_cases(names: Sequence[str], seed: int) -> list[tuple[str, "Report"]]:
    """Run cases of the suite, on one thread, behind a progress bar."""
    from threadpoolctl import threadpool_limits

    from npbert.gradcheck.suite import run_suite

    # The matrices are tiny: handing them to threads takes longer than multiplying them.
    with threadpool_limits(1), progress_bar("checking gradients", total=len(names)) as advance:
        return run_suite(seed, progress=lambda name, report: advance(1, name), names=names)


def write_page(path: Path, results: Sequence[tuple[str, "Report"]]) -> None:
    """Write the HTML page of the results."""
    from npbert.checkpoint.files import write_text_atomically
    from npbert.gradcheck.html import page

    write_text_atomically(path, page(results, title="npbert gradcheck"))


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())


def _row(name: str, report: "Report") -> list[Cell]:
    worst = worst_tensor(report)
    return [
        name,
        str(len(report.tensors)),
        ORACLES.get(report.oracle, report.oracle),
        "" if report.max_error is None else f"{report.max_error:.1e}",
        "" if worst is None else worst.name,
        Styled(report.status, STATUS_STYLES[report.status]),
        f"{report.seconds:.1f}",
    ]


def worst_tensor(report: "Report") -> "TensorResult | None":
    """Return the tensor whose error is the report's ``max_error``; None where nothing was compared."""
    for row in report.tensors:
        if report.max_error is not None and report.max_error in (row.max_error, row.projection_error):
            return row
    return None
