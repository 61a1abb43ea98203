"""The learner's directory: which files are in it, how they get there, and the answers to the hunts."""

from pathlib import Path
from typing import Final

DEFAULT_DIRECTORY: Final = Path("npbert-learn")
ANSWERS_FILE: Final = "hunts.txt"
ANSWERS_HEADER: Final = "# The hunts that are solved: number of the hunt, number of the answer.\n"


def write_new(path: Path, text: str) -> bool:
    """Write a file, unless there is one: what a learner wrote is never overwritten.

    Parameters
    ----------
    path : Path
        Its directory is made if need be.
    text : str

    Returns
    -------
    bool
        Whether it was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def move_aside(path: Path) -> Path | None:
    """Rename a file to the first free one of ``name.1.bak``, ``name.2.bak``, ...

    Returns
    -------
    Path or None
        The new name; None where there is no such file.
    """
    if not path.exists():
        return None
    number = 1
    while (backup := path.with_name(f"{path.name}.{number}.bak")).exists():
        number += 1
    return path.rename(backup)


def solved_hunts(directory: Path) -> dict[int, int]:
    """Return the answers noted in the directory: by hunt, the number that was answered.

    Lines that are not two numbers are passed over.
    """
    path = directory / ANSWERS_FILE
    if not path.is_file():
        return {}
    answers = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) == 2 and all(word.isdecimal() for word in words):
            answers[int(words[0])] = int(words[1])
    return answers


def note_answer(directory: Path, hunt: int, answer: int) -> None:
    """Add a right answer to the directory's list."""
    path = directory / ANSWERS_FILE
    write_new(path, ANSWERS_HEADER)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(f"{hunt} {answer}\n")
