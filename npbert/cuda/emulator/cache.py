"""The folder of what was compiled before. Two processes may use it at once, and it may be deleted any time.

A file is written beside its place and renamed, so that it is whole or not there; it ends in the hash of what
comes before, so that one that was damaged later is noticed and made again. What was not used for longest goes
when the folder takes more than `LIMIT_BYTES`.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from npbert.cuda.emulator.errors import EmulatorError

LIMIT_BYTES = 256 * 2**20  # some thousand kernels
WORK_PREFIX = "building-"
ABANDONED_SECONDS = 24 * 60 * 60  # a work folder of a process that was killed

_DIGEST_BYTES = hashlib.sha256().digest_size
_intact: dict[Path, tuple[int, int]] = {}  # files that this process has checked: their time and size


def cache_folder() -> Path:
    """Return where compiled kernels are kept: ``npbert/kernels`` in the user's cache folder.

    That is ``$XDG_CACHE_HOME``, or ``~/.cache`` where it is not set.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "npbert" / "kernels"


def fetch(name: str, make: Callable[[Path], None]) -> Path:
    """Return the path of a file in the cache, made now if it is not there.

    Parameters
    ----------
    name : str
        Says everything that the content depends on.
    make : callable
        Writes the content to the path that it is given, in a folder that will be deleted.

    Returns
    -------
    path : Path

    Raises
    ------
    EmulatorError
        If the folder cannot be written to.
    """
    folder = cache_folder()
    path = folder / name
    if _is_intact(path):
        return path
    with _work_folder(folder) as work:
        made = work / "made"
        make(made)
        with _explained(folder):
            with made.open("ab") as file:
                file.write(_digest(made.read_bytes()))
            made.replace(path)
    _prune(folder, keep=path)
    return path


def _is_intact(path: Path) -> bool:
    try:
        status = path.stat()
        if _intact.get(path) == (status.st_mtime_ns, status.st_size):
            return True
        content = path.read_bytes()
        if content[-_DIGEST_BYTES:] != _digest(content[:-_DIGEST_BYTES]):
            return False
    except OSError:  # not there, or not ours to read
        return False
    try:
        os.utime(path)  # used just now
        status = path.stat()
    except OSError:  # a cache that somebody else fills
        pass
    _intact[path] = (status.st_mtime_ns, status.st_size)
    return True


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


@contextmanager
def _work_folder(folder: Path) -> Generator[Path, None, None]:
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(dir=folder, prefix=WORK_PREFIX)
    with work as name:
        yield Path(name)


@contextmanager
def _explained(folder: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise EmulatorError(
            f"the cache folder {folder} cannot be written to ({error.strerror}); compiled kernels are kept "
            "there: make it writable, or set XDG_CACHE_HOME to another folder"
        ) from error


def _prune(folder: Path, keep: Path) -> None:
    """Delete what was not used for longest, down to the limit, and what killed processes left."""
    entries = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except FileNotFoundError:  # another process prunes, too
            continue
        if path.is_file():
            entries.append((status.st_mtime, status.st_size, path))
        elif path.name.startswith(WORK_PREFIX) and time.time() - status.st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= LIMIT_BYTES:
            break
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
