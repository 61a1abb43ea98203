"""What came of each mutant, kept on disk, so that an interrupted run can go on where it stopped.

A result is filed under a hash of everything that it depends on: the changed module, the rest of the package,
and the tests. A mutant that its mirrored tests killed depends on these and on what tests share; one that went
on to the rest of the suite depends on the whole of it.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.mutants.catalogue import ROOT, Mutant

CACHE = ROOT / ".mutants" / "results.jsonl"

# What a stage of the tests can end in.
KILLED, TIMEOUT, PASSED, INVALID = "killed", "timeout", "passed", "invalid"


class Result(NamedTuple):
    """The end of one stage for one mutant."""

    id: str
    outcome: str  # killed, timeout, passed or invalid
    by: str  # the test that failed
    seconds: float


class Store:
    """Results on disk, one line of JSON each."""

    def __init__(self, path: Path = CACHE, fresh: bool = False) -> None:
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


class Fingerprints:
    """Hashes of the files that results depend on, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = self._hash(sorted((root / "npbert").rglob("*.py")))
        tests = [
            path for path in sorted((root / "tests").rglob("*")) if path.is_file() and path.suffix != ".pyc"
        ]
        self.suite = self._hash(tests)
        self.shared = self._hash(path for path in tests if not path.name.startswith("test_"))

    def first_stage(self, mutant: Mutant, text: str) -> str:
        """Key of what the mirrored tests say of a mutant."""
        mirrored = self._hash(self.root / test for test in mutant.tests)
        return _digest(mutant.id, text, self.package, self.shared, mirrored)

    def second_stage(self, mutant: Mutant, text: str) -> str:
        """Key of what the rest of the suite says of a mutant."""
        return _digest(mutant.id, text, self.package, self.suite)

    def _hash(self, paths: Iterable[Path]) -> str:
        parts = [
            f"{path.relative_to(self.root)} {_digest(path.read_bytes())}" for path in paths if path.exists()
        ]
        return _digest(*parts)


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
