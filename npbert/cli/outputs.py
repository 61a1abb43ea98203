"""Files that commands write: what can be wrong with their names is found before the work, not after it."""

import os
from pathlib import Path

from npbert.cli.errors import CommandError


def checked_output(name: str) -> Path:
    """Return where to write, with links followed; refuse what cannot be written or must not be replaced."""
    path = Path(name)
    if path.is_dir():
        raise CommandError(f"{name}: a directory; the output needs the name of a file")
    if path.exists() and not path.is_file():
        raise CommandError(f"{name}: not a regular file; the output can only be written to one")
    path = path.resolve()
    if not path.parent.is_dir():
        raise CommandError(f"{name}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise CommandError(f"{name}: no permission to write in {path.parent}")
    return path
