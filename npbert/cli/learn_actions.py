"""What ``npbert learn`` does: one function for each thing that can be asked for."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from npbert.cli import learn_pages as pages
from npbert.cli.console import say
from npbert.cli.errors import FAILED, OK, UsageError
from npbert.learn.exercise import Exercise, closest
from npbert.learn.exercises import BERT, LADDER
from npbert.learn.fooling import Fool
from npbert.learn.fools import FOOLS
from npbert.learn.hunts import Hunt, all_hunts, evidence
from npbert.learn.result import Result
from npbert.learn.runner import check_files
from npbert.learn.workshop import move_aside, note_answer, solved_hunts, write_new
from npbert.progress import progress_bar

HUNT, FOOL = "hunt", "fool"
NAMES: Final = (*(exercise.name for exercise in LADDER), HUNT, FOOL)
WATCH_INTERVAL: Final = 0.3  # seconds between two looks at the file

Task = Exercise | Fool  # what has a file


def run_learn(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for.

    Parameters
    ----------
    arguments : Namespace
        As `npbert.cli.learn` declares it.

    Returns
    -------
    int
        The exit code: 0 solved, or shown what was asked for; 1 not solved.
    """
    _refuse_nonsense(arguments)
    if arguments.name is None:
        return _list(arguments)
    if arguments.name == HUNT:
        return _hunt(arguments)
    return _task(arguments, _fool(arguments) if arguments.name == FOOL else _exercise(arguments.name))


def _refuse_nonsense(arguments: argparse.Namespace) -> None:
    name = arguments.name
    if arguments.dir.exists() and not arguments.dir.is_dir():
        raise UsageError(f"--dir {arguments.dir} is not a directory")
    if name is not None and name not in NAMES:
        raise UsageError(f"no exercise {name!r}{closest(name, NAMES)}; there are {', '.join(NAMES)}")
    actions = ("watch", "hint", "solution", "reset", "answer")
    given = [action for action in actions if getattr(arguments, action) not in (None, False)]
    if name is None and given:
        raise UsageError(f"--{given[0]} needs the name of an exercise")
    if arguments.number is not None and name not in (HUNT, FOOL):
        raise UsageError(f"{name} has no numbers; hunt and fool have")
    if arguments.answer is not None and name != HUNT:
        raise UsageError("--answer is for hunts")
    if name == HUNT and given and given[0] not in ("answer", "solution"):
        raise UsageError(f"a hunt has no --{given[0]}: there is no file; read the report, and choose")
    if arguments.reset and not arguments.yes:
        raise UsageError("--reset starts over (your file is kept as .bak); add --yes to do it")
    if arguments.yes and not arguments.reset:
        raise UsageError("--yes is for --reset")
    if arguments.watch and arguments.json:
        raise UsageError("--watch has no --json")


def _exercise(name: str) -> Exercise:
    return next(exercise for exercise in LADDER if exercise.name == name)


def _fool(arguments: argparse.Namespace) -> Fool:
    """Return the fool that is asked for; without a number, the first that is not solved."""
    if arguments.number is not None:
        if arguments.number > len(FOOLS):
            raise UsageError(f"there is no fool {arguments.number}; there are {len(FOOLS)}")
        number: int = arguments.number
        return FOOLS[number - 1]
    results = _check(arguments, FOOLS)
    return next((fool for fool, result in zip(FOOLS, results, strict=True) if not result.solved), FOOLS[0])


def _check(arguments: argparse.Namespace, tasks: Sequence[Task]) -> list[Result]:
    """Check the files of some tasks, those that exist, behind a progress bar."""
    present = [task for task in tasks if (arguments.dir / task.file_name).exists()]
    names = [task.name for task in present]
    with progress_bar("checking", total=len(names), enabled=len(names) > 1) as advance:
        results = check_files(arguments.dir, names, arguments.time_limit, advance) if names else []
    found = dict(zip(names, results, strict=True))
    return [found.get(task.name, Result(task.name, "not started")) for task in tasks]


def _list(arguments: argparse.Namespace) -> int:
    results = _check(arguments, (*LADDER, *FOOLS))
    ladder, fools = results[: len(LADDER)], results[len(LADDER) :]
    hunts = all_hunts()
    answers = solved_hunts(arguments.dir)
    found = [hunt.number for hunt in hunts if answers.get(hunt.number) == hunt.answer]
    if arguments.json:
        listed = {
            "directory": str(arguments.dir),
            "exercises": [
                {
                    "name": exercise.name,
                    "title": exercise.title,
                    "status": result.status,
                    "mistake": result.mistake,
                }
                for exercise, result in zip(LADDER, ladder, strict=True)
            ],
            "hunts": [{"number": hunt.number, "solved": hunt.number in found} for hunt in hunts],
            "fools": [
                {"number": fool.number, "title": fool.title, "status": result.status}
                for fool, result in zip(FOOLS, fools, strict=True)
            ],
        }
        return _print_json(listed, OK)
    pages.show_ladder(LADDER, ladder, FOOLS, fools, (len(found), len(hunts)), arguments.dir)
    return OK


def _task(arguments: argparse.Namespace, task: Task) -> int:
    path = arguments.dir / task.file_name
    if arguments.hint is not None:
        hint = task.hints[arguments.hint - 1]
        if arguments.json:
            return _print_json({"name": task.name, "hint": arguments.hint, "text": hint}, OK)
        pages.show_hint(hint, arguments.hint, _command(task))
        return OK
    if arguments.solution:
        if arguments.json:
            return _print_json({"name": task.name, "solution": task.source()}, OK)
        print(task.source(), end="")  # as it is, to be copied
        return OK
    backup = move_aside(path) if arguments.reset else None
    created = write_new(path, task.stub())
    if arguments.reset:
        if arguments.json:
            moved = None if backup is None else str(backup)
            return _print_json({"name": task.name, "file": str(path), "backup": moved}, OK)
        pages.show_reset(path, backup)
        return OK
    if created and not arguments.json:
        pages.show_new_file(task, path, _command(task))
    if arguments.watch:
        return _watch(arguments, task)
    return _report(arguments, task, created)


def _report(arguments: argparse.Namespace, task: Task, created: bool) -> int:
    """Check one file and print what was found; of a file just written, only as JSON: all of it is to do."""
    result = _check(arguments, [task])[0]
    code = OK if result.solved else FAILED
    path = arguments.dir / task.file_name
    if arguments.json:
        kind = "fool" if isinstance(task, Fool) else "exercise"
        facts = {"kind": kind, "file": str(path), "created": created, "solved": result.solved}
        return _print_json({**facts, **result.to_dict()}, code)
    if not created:
        pages.show_result(task, result, path, _command(task), _next_step(task))
    return code


def _watch(arguments: argparse.Namespace, task: Task) -> int:
    """Check whenever the file is saved, until it is solved or Ctrl-C."""
    # The whole BERT is made of all files of the ladder.
    files = [exercise.file_name for exercise in LADDER] if task is BERT else [task.file_name]
    paths = [arguments.dir / name for name in files]
    seen: Any = None
    try:
        while True:
            state = [_state(path) for path in paths]
            if state != seen and _state(arguments.dir / task.file_name) is not None:
                seen = state
                if _report(arguments, task, created=False) == OK:
                    return OK
                pages.show_watching(arguments.dir / task.file_name)
                sys.stdout.flush()
            time.sleep(WATCH_INTERVAL)
    except KeyboardInterrupt:  # the way to stop watching
        return FAILED


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is saved; None while there is none, as some editors have it."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


def _hunt(arguments: argparse.Namespace) -> int:
    hunts = all_hunts()
    solved = solved_hunts(arguments.dir)
    if arguments.number is not None and arguments.number > len(hunts):
        raise UsageError(f"there is no hunt {arguments.number}; there are {len(hunts)}")
    unsolved = [hunt for hunt in hunts if solved.get(hunt.number) != hunt.answer]
    hunt = hunts[arguments.number - 1] if arguments.number is not None else (unsolved or hunts)[0]
    if arguments.answer is not None and arguments.answer > len(hunt.choices):
        raise UsageError(f"hunt {hunt.number} has the choices 1 to {len(hunt.choices)}")
    if arguments.solution:
        return _show_solution(arguments, hunt)
    if arguments.answer is not None:
        return _answer(arguments, hunt, arguments.answer)
    found = evidence(hunt)
    if arguments.json:
        facts = {
            **_hunt_facts(hunt),
            "solved": hunt not in unsolved,
            "formula": hunt.exercise.formula.strip(),
            "choices": [choice.name for choice in hunt.choices],
            "evidence": [{"case": one.case, "report": one.report.to_dict()} for one in found],
        }
        return _print_json(facts, OK if hunt not in unsolved else FAILED)
    pages.show_hunt(hunt, len(hunts), found)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return _ask(hunt, lambda answer: _answer(arguments, hunt, answer))
    pages.show_how_to_answer(hunt)
    return OK if hunt not in unsolved else FAILED


def _ask(hunt: Hunt, answer: Callable[[int], int]) -> int:
    """Ask until the answer is right, or empty."""
    while True:
        try:
            text = input(f"Which is it (1-{len(hunt.choices)}; empty to stop)? ").strip()
        except EOFError:
            return FAILED
        if not text:
            return FAILED
        if not text.isdecimal() or not 1 <= int(text) <= len(hunt.choices):
            say(f"{text!r} is not a number from 1 to {len(hunt.choices)}")
        elif answer(int(text)) == OK:
            return OK


def _answer(arguments: argparse.Namespace, hunt: Hunt, answer: int) -> int:
    right = answer == hunt.answer
    if right and solved_hunts(arguments.dir).get(hunt.number) != answer:
        note_answer(arguments.dir, hunt.number, answer)
    code = OK if right else FAILED
    if arguments.json:
        facts = {**_hunt_facts(hunt), "answer": answer, "right": right, "why": hunt.explain(answer)}
        return _print_json(facts, code)
    pages.show_answer(hunt, answer)
    return code


def _show_solution(arguments: argparse.Namespace, hunt: Hunt) -> int:
    if arguments.json:
        facts = {**_hunt_facts(hunt), "answer": hunt.answer, "why": hunt.explain(hunt.answer)}
        return _print_json(facts, OK)
    pages.show_answer(hunt, hunt.answer)
    return OK


def _hunt_facts(hunt: Hunt) -> dict[str, Any]:
    return {"kind": "hunt", "number": hunt.number, "exercise": hunt.exercise.name}


def _command(task: Task) -> str:
    return f"npbert learn fool {task.number}" if isinstance(task, Fool) else f"npbert learn {task.name}"


def _next_step(task: Task) -> str:
    """Return the command of what comes after a task."""
    if isinstance(task, Fool):
        return f"npbert learn fool {task.number + 1}" if task.number < len(FOOLS) else "npbert learn"
    following = LADDER[LADDER.index(task) + 1 :]
    return f"npbert learn {following[0].name}" if following else "npbert learn hunt"


def _print_json(facts: dict[str, Any], code: int) -> int:
    print(json.dumps(facts, indent=2))
    return code
