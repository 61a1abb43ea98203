"""The seeded bugs, read from ``catalogue/*.toml``: one file a module of npbert, or a file of a kernel.

Each file names the module and the tests that mirror it, and then the mutants::

    file = "npbert/ops/linear.py"
    tests = ["tests/ops/test_linear.py"]

    [[mutant]]
    id = "linear-dx-wrong-sign"
    description = "gives dx the wrong sign"
    find = 'dx = dy @ weight  #'
    replace = 'dx = -dy @ weight  #'
    wrong = ["dx"]
    signature = "times -1"

``find`` occurs exactly once in the module, or ``occurrence`` says which one is meant (from 1). A mistake
that takes several changes has ``edits``, a list of ``find`` and ``replace``. ``wrong`` names what comes out
wrong on the right inputs (a value; a gradient, of a model's parameters ``d`` and a pattern, "d*.query.*"; the
exception that is not raised), ``signature`` says how, in words. ``diagnosis``, where there is one, is the
kind of diagnosis that the figures alone must give: see ``diagnosis.py``. A mutant that cannot change any
result has ``equivalent``, the proof in one sentence, instead of these.

For a kernel ``wrong`` and ``signature`` may name what the emulator reports: a race, an access out of bounds.
"""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "catalogue"


class Edit(NamedTuple):
    """One change of a text."""

    find: str
    replace: str
    occurrence: int | None = None  # which one, from 1; None: there is only one


class Mutant(NamedTuple):
    """One seeded bug."""

    id: str
    file: str  # the module, relative to the checkout
    tests: tuple[str, ...]  # the test files that mirror the module, run first
    description: str  # what the mistake does: "forgets the mean term"
    edits: tuple[Edit, ...]
    wrong: tuple[str, ...]  # names of what comes out wrong
    signature: str  # how it comes out wrong
    equivalent: str | None  # the proof that no result changes; None: some result does
    diagnosis: str = ""  # the kind of diagnosis that the figures alone allow for, where there is one


def is_compiled(mutant: Mutant) -> bool:
    """Return whether a mutant changes C++: a kernel, or the emulator that runs kernels."""
    return not mutant.file.endswith(".py")


def runs_kernels(mutant: Mutant) -> bool:
    """Return whether its mirrored tests run kernels."""
    return any(test.startswith("tests/cuda/") for test in mutant.tests)


def load() -> list[Mutant]:
    """Read the whole catalogue, in the order of the files' names."""
    return [mutant for path in sorted(FOLDER.glob("*.toml")) for mutant in _load_file(path)]


def _load_file(path: Path) -> list[Mutant]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    file, tests = content["file"], tuple(content["tests"])
    return [_mutant(entry, file, tests) for entry in content["mutant"]]


def _mutant(entry: dict[str, Any], file: str, tests: tuple[str, ...]) -> Mutant:
    fields = dict(entry)
    if "find" in fields:
        keys = fields.keys() & set(Edit._fields)
        edits = [{key: fields.pop(key) for key in keys}]
    else:
        edits = fields.pop("edits")
    mutant = Mutant(
        id=fields.pop("id"),
        file=file,
        tests=tests,
        description=fields.pop("description"),
        edits=tuple(Edit(**edit) for edit in edits),
        wrong=tuple(fields.pop("wrong", ())),
        signature=fields.pop("signature", ""),
        equivalent=fields.pop("equivalent", None),
        diagnosis=fields.pop("diagnosis", ""),
    )
    if fields:
        raise ValueError(f"{mutant.id} has unknown fields: {', '.join(fields)}")
    return mutant


def source(mutant: Mutant, root: Path = ROOT) -> str:
    """Return the module as it is."""
    return (root / mutant.file).read_text(encoding="utf-8")


def apply(mutant: Mutant, text: str) -> str:
    """Return the module's text with the mistake in it.

    Raises
    ------
    ValueError
        If a text to replace is not there, or there more often than the entry allows for.
    """
    for edit in mutant.edits:
        parts = text.split(edit.find)
        found = len(parts) - 1
        if edit.occurrence is None and found != 1:
            raise ValueError(
                f"{mutant.id}: {edit.find!r} occurs {found} times in {mutant.file}, expected once"
            )
        number = edit.occurrence or 1
        if not 1 <= number <= found:
            raise ValueError(
                f"{mutant.id}: {edit.find!r} occurs {found} times in {mutant.file}, not {number}"
            )
        text = edit.find.join(parts[:number]) + edit.replace + edit.find.join(parts[number:])
    return text
