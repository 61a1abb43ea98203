"""What came of each mutant, kept on disk, so that an interrupted run can go on where it stopped.

A result is filed under a hash of everything that it depends on: the changed module, the rest of the package,
and the tests. A mutant that its mirrored tests killed depends on these and on what tests share; one that went
on to the rest of the suite depends on the whole of it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.mutants.catalogue import ROOT, Mutant, runs_kernels

CACHE = ROOT / ".mutants"
COMPILED = ("kernels", "npbert/cuda/emulator/host")  # folders of what a C++ compiler gets

# What a stage of the tests can end in.
KILLED, TIMEOUT, PASSED, INVALID = "killed", "timeout", "passed", "invalid"


class Result(NamedTuple):
    """The end of one stage for one mutant."""

    id: str
    outcome: str  # killed, timeout, passed or invalid
    by: str  # the test that failed
    seconds: float
    error: str = ""  # what it failed with: the name of an exception, of a signal


class Store:
    """Results on disk, one line of JSON each, and how long each test takes."""

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self.path = path
        self.known: dict[str, Result] = {}
        if fresh:
            path.unlink(missing_ok=True)
        elif path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                key = entry.pop("key")
                self.known[key] = Result(**entry)

    def get(self, key: str) -> Result | None:
        """Return the result filed under a key, if there is one."""
        return self.known.get(key)

    def put(self, key: str, result: Result) -> None:
        """File a result at once: the run may be interrupted at any time."""
        self.known[key] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **result._asdict()}) + "\n")

    def seconds(self) -> dict[str, float]:
        """Return what each test took, by its id."""
        path = self.path.with_name("seconds.json")
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def put_seconds(self, seconds: Mapping[str, float]) -> None:
        """Keep what each test took."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.with_name("seconds.json").write_text(json.dumps(seconds), encoding="utf-8")


class Fingerprints:
    """Hashes of the files that results depend on, as they are when this is made."""

    def __init__(self, root: Path) -> None:
        package = sorted((root / "npbert").rglob("*.py"))
        files = [path for path in sorted((root / "tests").rglob("*")) if path.is_file()]
        self.package = _digest(*(_content(path, root) for path in package))
        self.tests = {
            path.relative_to(root).as_posix(): _content(path, root) for path in files if path.suffix != ".pyc"
        }
        self.suite = _digest(*self.tests.values())
        shared = [name for name in self.tests if not name.rpartition("/")[2].startswith("test_")]
        self.shared = _digest(*(self.tests[name] for name in shared))
        compiled = [path for folder in COMPILED for path in sorted((root / folder).glob("*.*"))]
        self.compiled = _digest(*(_content(path, root) for path in compiled))

    def first_stage(self, mutant: Mutant, text: str, keyword: str = "") -> str:
        """Key of what the mirrored tests say of a mutant, or those of them that a keyword selects."""
        mirrored = (self.tests.get(test, "") for test in mutant.tests)
        kernels = self.compiled if runs_kernels(mutant) else ""
        return _digest(mutant.id, text, self.package, self.shared, kernels, keyword, *mirrored)

    def second_stage(self, mutant: Mutant, text: str) -> str:
        """Key of what the rest of the suite says of a mutant."""
        return _digest(mutant.id, text, self.package, self.suite, self.compiled)


def _content(path: Path, root: Path) -> str:
    return f"{path.relative_to(root)} {_digest(path.read_bytes())}"


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
