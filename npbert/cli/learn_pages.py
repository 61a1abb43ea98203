"""What ``npbert learn`` prints."""

import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from npbert.cli.console import Cell, Column, Style, Styled, heading, say, table
from npbert.learn.exercise import Exercise, prescribed_lines
from npbert.learn.fooling import Fool
from npbert.learn.hunts import Evidence, Hunt
from npbert.learn.result import Result

MARK_STYLES: Final[dict[str, Style]] = {
    "ok": "good",
    "differs": "bad",
    "wrong shape": "bad",
    "error": "bad",
    "follows": "dim",
    "to do": "strong",
}
STATUS_STYLES: Final[dict[str, Style]] = {
    "solved": "good",
    "not started": "dim",
    "to do": "strong",
    "wrong": "bad",
    "broken": "bad",
}
TENSOR_COLUMNS: Final = (
    Column("gradient of"),
    Column("status"),
    Column("wrong", "right"),
    Column("error", "right"),
    Column("worst at"),
    Column("found", "right"),
    Column("must be", "right"),
)
WIDEST_TEXT: Final = 100  # columns; longer lines are hard to read
MANY_TENSORS: Final = 8  # of more than that, only those that are wrong are shown
HUNT_TENSORS: Final = 3  # of so many wrong gradients the numbers are shown
PRINTED_LINES: Final = 10
LOSS_ROWS, BAR_WIDTH = 12, 40


def paragraph(text: str, style: Style = "") -> None:
    """Print text, broken between words where the output is a terminal."""
    if sys.stdout.isatty():
        width = min(shutil.get_terminal_size().columns, WIDEST_TEXT)
        text = "\n".join(textwrap.fill(line, width) for line in text.splitlines())
    say(text, style)


def sentence(text: str) -> str:
    """Return a text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def show_ladder(
    exercises: Sequence[Exercise],
    states: Sequence[Result],
    fools: Sequence[Fool],
    fool_states: Sequence[Result],
    hunts: tuple[int, int],
    directory: Path,
) -> None:
    """Print the list of all exercises, and how far each is."""
    heading(f"Write the backward  (your files: {directory})")
    rows: list[list[Cell]] = [
        [str(number), exercise.name, exercise.title, _state(result)]
        for number, (exercise, result) in enumerate(zip(exercises, states, strict=True), start=1)
    ]
    table(
        (Column("", "right"), Column("exercise"), Column("", wraps=True), Column("state", wraps=True)), rows
    )
    heading("Fool the checker: a wrong backward that a weak check passes")
    rows = [
        [str(fool.number), fool.title, _state(result)]
        for fool, result in zip(fools, fool_states, strict=True)
    ]
    table((Column("", "right"), Column("fool", wraps=True), Column("state", wraps=True)), rows)
    heading("Hunt: find the bug from the report")
    say(f"{hunts[0]} of {hunts[1]} found")
    say()
    following = next((e.name for e, state in zip(exercises, states, strict=True) if not state.solved), "hunt")
    say(f"Next: npbert learn {following}", "strong")


def _state(result: Result) -> Styled:
    text: str = result.status
    if result.status == "to do":
        left = sum(line.mark == "to do" for line in result.lines)
        text = f"{left} lines to do" if left > 1 else "1 line to do" if left else "to do"
        if not left and result.notes:
            text = result.notes[0].partition(":")[0]
    elif result.mistake:
        text = f"wrong: {result.mistake}"
    elif result.problem is not None:
        text = f"broken: {result.problem.kind}"
    return Styled(text, STATUS_STYLES[result.status])


def show_new_file(task: Exercise | Fool, path: Path, command: str) -> None:
    """Say what was written, and what to do with it."""
    title = f"Fool the checker: {task.title}" if isinstance(task, Fool) else f"{task.name}: {task.title}"
    say(title, "strong")
    say()
    say((task.story if isinstance(task, Fool) else task.formula).strip("\n"))
    say()
    say(f"Written: {path}", "good")
    if isinstance(task, Fool):
        say("Open it, read weak_check, and write a backward that is wrong and passes it.")
    else:
        names = [line.target for line in prescribed_lines(task.solution, task.backward_name)]
        lines = "line" if len(names) == 1 else "lines"
        paragraph(f"Open it and write the {len(names)} {lines} that are left as ...: {'; '.join(names)}")
    say(f"Then: {command}            (again and again; or --watch)")
    say(f"Stuck: {command} --hint 1")


def show_reset(path: Path, backup: Path | None) -> None:
    """Say where the old file went."""
    if backup is not None:
        say(f"Your file is now {backup}")
    say(f"Written: {path}", "good")


def show_hint(text: str, number: int, command: str) -> None:
    """Print a hint, and how to get the next."""
    say(f"Hint {number} of 3", "strong")
    paragraph(text)
    following = f"{command} --hint {number + 1}" if number < 3 else f"{command} --solution"
    say(f"More: {following}", "dim")


def show_watching(path: Path) -> None:
    """Say that the file is being watched, and when it was checked: two results may look alike."""
    say()
    now = time.strftime("%H:%M:%S")
    paragraph(f"Watching {path} (checked at {now}); save it to check again, Ctrl-C to stop.", "dim")
    say()


def show_result(task: Exercise | Fool, result: Result, path: Path, command: str, following: str) -> None:
    """Print what was found in a learner's file."""
    if isinstance(task, Fool):
        _show_fool(task, result, path, following)
    elif result.solved:
        _show_solved(task, result, following)
    else:
        _show_unsolved(task, result, path)
    _show_printed(result)
    if not result.solved:
        say()
        say(f"Stuck: {command} --hint 1", "dim")


def _show_solved(task: Exercise, result: Result, following: str) -> None:
    if result.losses:
        _show_training(result)
    say(f"{task.name}: solved. Every gradient is right.", "good")
    paragraph(task.remember)
    say()
    say(f"Next: {following}", "strong")


def _show_training(result: Result) -> None:
    proof, *answers = result.notes
    paragraph(f"{sentence(proof)}.", "good")
    heading("Training on your own backward: the loss of masked words")
    losses = result.losses
    steps = sorted({round(i * (len(losses) - 1) / (LOSS_ROWS - 1)) for i in range(LOSS_ROWS)})
    for step in steps:
        bar = "█" * max(1, round(BAR_WIDTH * losses[step] / max(losses)))
        say(f"  step {step + 1:3d}  {losses[step]:7.4f}  {bar}")
    heading("What it fills in")
    say("\n".join(f"  {answer}" for answer in answers))
    say()


def _show_unsolved(task: Exercise, result: Result, path: Path) -> None:
    left = sum(line.mark == "to do" for line in result.lines)
    if result.status == "to do" and left:
        say(f"{task.name}: {left} of {_prescribed(task)} lines to do", "strong")
    else:
        say(f"{task.name}: not yet", "bad")
    if result.mistake:
        paragraph(f"Your gradients equal those of the backward that {result.mistake}:", "bad")
        paragraph(result.diagnosis)
    elif result.diagnosis:
        paragraph(f"What it looks like: {result.diagnosis}.")
    if result.problem is not None:
        _show_problem(result)
    for note in result.notes:
        paragraph(f"{sentence(note)}.")
    if result.lines:
        _show_lines(result, path)
    if result.report is not None and result.report["tensors"]:
        say()
        paragraph(f"Gradients at {result.case}", "strong")
        show_tensors(result.report)


def _prescribed(task: Exercise) -> int:
    return len(prescribed_lines(task.solution, task.backward_name))


def _show_problem(result: Result) -> None:
    problem = result.problem
    assert problem is not None
    where = "" if problem.line is None else f" in line {problem.line}"
    paragraph(f"{sentence(problem.kind)}{where}: {problem.message}", "bad")
    if problem.source and not any(line.mark == "error" for line in result.lines):
        say(f"    {problem.source}")


def _show_lines(result: Result, path: Path) -> None:
    say()
    say(str(path), "strong")
    rows: list[list[Cell]] = [
        [Styled(line.mark, MARK_STYLES.get(line.mark, "")), str(line.line), _without_comment(line.source)]
        for line in result.lines
        if line.source.strip()
    ]
    table((Column(""), Column("line", "right"), Column("", wraps=True)), rows)
    wrong = [line for line in result.lines if line.mark in ("differs", "wrong shape")]
    if wrong:
        say()
        paragraph(f"First wrong line: {wrong[0].line}. {wrong[0].detail}", "bad")
        if any(line.mark == "follows" for line in result.lines):
            paragraph("follows: right in itself, but computed from a wrong value", "dim")
    elif _wrong_although_lines_are_right(result):
        say()
        say(
            "Every line has its right value, but what is returned is wrong: look at the return statement.",
            "bad",
        )


def _wrong_although_lines_are_right(result: Result) -> bool:
    tensors = [] if result.report is None else result.report["tensors"]
    return any(row["status"] == "failed" for row in tensors)


def _without_comment(line: str) -> str:
    return line.partition("  #")[0]


def show_tensors(report: Mapping[str, Any]) -> None:
    """Print the comparison of each gradient with its reference.

    Parameters
    ----------
    report : mapping
        As `npbert.gradcheck.Report.to_dict` returns it.
    """
    rows = report["tensors"]
    if len(rows) > MANY_TENSORS:
        rows = [row for row in rows if row["status"] != "passed"]
    table(TENSOR_COLUMNS, [_tensor_row(row) for row in rows])
    if len(rows) < len(report["tensors"]):
        passed = [row["name"] for row in report["tensors"] if row["status"] == "passed"]
        paragraph(f"passed: {', '.join(passed)}")
    for row in rows:
        if row["note"]:
            paragraph(f"{row['name']}: {row['note'].removeprefix('not compared: ')}")


def _tensor_row(row: Mapping[str, Any]) -> list[Cell]:
    passed = row["status"] == "passed"
    status = Styled(row["status"], "good" if passed else "bad")
    if passed or row["max_error"] is None:
        return [row["name"], status, "", "", "", "", ""]
    return [
        row["name"],
        status,
        f"{row['fraction_wrong']:.0%}",
        f"{float(row['max_error']):.1e}",
        str(list(row["worst_index"] or ())),
        f"{float(row['gradient']):.4g}",
        f"{float(row['reference']):.4g}",
    ]


def _show_fool(task: Fool, result: Result, path: Path, following: str) -> None:
    name = f"fool {task.number}, {task.title}"
    if result.solved:
        paragraph(f"{name}: fooled. The weak check passes your wrong backward.", "good")
        say("The strong check does not:")
        assert result.report is not None
        _show_strong(result.report)
        say()
        paragraph("\n".join(result.notes))
        say()
        say(f"Next: {following}", "strong")
        return
    say(f"{name}: {'to do' if result.status == 'to do' else 'not yet'}", "bad")
    if result.status == "to do":
        say(f"In {path}, backward still has a line that is left as ...")
    if result.problem is not None:
        _show_problem(result)
    for note in result.notes:
        paragraph(f"{sentence(note)}.")


def _show_strong(report: Mapping[str, Any]) -> None:
    if report["tensors"]:
        show_tensors(report)
        return
    for finding in report["checks"]:  # the backward could not even be run
        if finding["status"] == "failed":
            paragraph(f"{finding['name']}: {finding['detail']}", "bad")


def _show_printed(result: Result) -> None:
    if result.printed:
        lines = result.printed.rstrip("\n").splitlines()
        say()
        say("Your file printed (the checker calls your functions many times):", "strong")
        say("\n".join(lines[:PRINTED_LINES] + (["..."] if len(lines) > PRINTED_LINES else [])))


def show_hunt(hunt: Hunt, count: int, found: Sequence[Evidence]) -> None:
    """Print what there is to see of a bug, and the choices."""
    say(f"Hunt {hunt.number} of {count}: {hunt.exercise.title}", "strong")
    say()
    say(hunt.exercise.formula.strip("\n"))
    heading("A backward of it has one bug. The gradient check says:")
    for one in found:
        paragraph(f"at {one.case}", "dim")
        show_tensors(one.report.to_dict())
        say()
    for name, wrong, right in found[0].numbers[:HUNT_TENSORS]:
        say(f"d{name} in the first case, its first rows:", "strong")
        say(wrong)
        say("must be")
        say(right)
        say()
    say("Which is it? The backward ...", "strong")
    for number, choice in enumerate(hunt.choices, start=1):
        say(f"  {number}  {choice.name}")
    say()


def show_how_to_answer(hunt: Hunt) -> None:
    """Say how to answer without a terminal."""
    say(f"Answer with: npbert learn hunt {hunt.number} --answer K")


def show_answer(hunt: Hunt, answer: int) -> None:
    """Say whether an answer is right, and why; if it is, show the bug."""
    right = answer == hunt.answer
    paragraph(hunt.explain(answer), "good" if right else "bad")
    if not right:
        return
    say()
    right_lines = hunt.exercise.solution.splitlines()
    for line in prescribed_lines(hunt.exercise.solution, hunt.exercise.backward_name):
        if line.target in hunt.bug.lines:
            say(f"  it had    {line.target} = {hunt.bug.lines[line.target]}")
            say(f"  must be   {_without_comment(right_lines[line.line - 1]).strip()}")
