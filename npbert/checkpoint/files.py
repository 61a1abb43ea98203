"""Writing files so that a reader sees the old ones or the new ones, never a part.

Everything is first written under a temporary name in the directory it belongs to. Only when all of it
is on the disk are the temporary files renamed. If anything fails before or during the renaming (a full
disk, a raised exception, Ctrl-C), the old files are back in place and no temporary file is left.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class FileSet:
    """Files of one directory that appear together; made by `replacing_files`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._suffix = f".{os.urandom(4).hex()}.tmp"
        self._temporary: dict[Path, Path] = {}
        self._modes: dict[Path, int] = {}
        self._stale: list[Path] = []
        self._backups: dict[Path, Path | None] = {}
        self._new_directories: list[Path] = []
        self._committed = False

    def new_file(self, name: str) -> Path:
        """Return the temporary path to write the file ``name`` to.

        Parameters
        ----------
        name : str
            Relative to the directory; "/" separates subdirectories, which are made.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        ValueError
            If the file is already in the set.
        """
        final = self.directory / name
        if final in self._temporary:
            raise ValueError(f"{final} is written twice")
        self._make_directory(final.parent)
        temporary = self._hidden(final, "new")
        self._temporary[final] = temporary
        temporary.touch()
        self._modes[temporary] = temporary.stat().st_mode
        return temporary

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file whole; text as UTF-8."""
        self.new_file(name).write_bytes(data.encode() if isinstance(data, str) else data)

    def remove(self, name: str) -> None:
        """Remove the file ``name``, if it exists, when the new ones appear."""
        self._stale.append(self.directory / name)

    def commit(self) -> None:
        """Rename every temporary file to its name, in the order in which they were made."""
        for temporary in self._temporary.values():
            # safetensors leaves files that only their owner can read; give them the usual permissions.
            temporary.chmod(self._modes[temporary])
            _flush_to_disk(temporary)
        for final, temporary in self._temporary.items():
            self._back_up(final)
            temporary.replace(final)
        for stale in self._stale:
            if stale.exists():
                self._back_up(stale)
                stale.unlink(missing_ok=True)
        self._committed = True
        self._remove_backups()

    def roll_back(self) -> None:
        """Put every file back as it was and remove everything that was made."""
        if self._committed:  # interrupted after the last rename: the new files stay
            self._remove_backups()
            return
        try:
            for final, backup in self._backups.items():
                if backup is None:
                    final.unlink(missing_ok=True)
                elif backup.exists():
                    backup.replace(final)
                    # Renaming one name of a file to another name of the same file does nothing (POSIX).
                    backup.unlink(missing_ok=True)
        finally:
            for temporary in self._temporary.values():
                temporary.unlink(missing_ok=True)
            for directory in reversed(self._new_directories):
                with suppress(OSError):  # not empty: someone else has put something there
                    directory.rmdir()

    def _remove_backups(self) -> None:
        for backup in self._backups.values():
            if backup is not None:
                backup.unlink(missing_ok=True)

    def _back_up(self, final: Path) -> None:
        if not final.exists():
            self._backups[final] = None
            return
        backup = self._hidden(final, "old")
        self._backups[final] = backup
        try:
            backup.hardlink_to(final)  # the old file stays in place until the new one takes its name
        except OSError:
            final.replace(backup)  # a file system without hard links

    def _hidden(self, final: Path, what: str) -> Path:
        return final.with_name(f".{final.name}.{what}{self._suffix}")

    def _make_directory(self, directory: Path) -> None:
        if not directory.exists():
            self._make_directory(directory.parent)
            directory.mkdir(exist_ok=True)
            self._new_directories.append(directory)


@contextmanager
def replacing_files(directory: Path | str) -> Iterator[FileSet]:
    """Write a set of files into ``directory`` (made if need be) that appear all together or not at all.

    Parameters
    ----------
    directory : path

    Yields
    ------
    FileSet
        Write to it in the ``with`` block; the files appear at its end. An exception in the block, or in
        renaming, leaves the directory as it was. (A power cut between two renames can leave some
        files new and others old; each of them is whole.)

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with replacing_files(directory) as files:
    ...         files.write("a.txt", "1")
    ...         files.write("b/c.txt", "2")
    ...         before = [path.name for path in Path(directory).rglob("*.txt")]
    ...     before, sorted(path.name for path in Path(directory).rglob("*.txt"))
    ([], ['a.txt', 'c.txt'])
    """
    files = FileSet(Path(directory))
    try:
        yield files
        files.commit()
    except BaseException:  # KeyboardInterrupt too
        files.roll_back()
        raise


def write_bytes_atomically(path: Path | str, data: bytes) -> None:
    """Write a file so that a reader sees the old contents or the new ones.

    Parameters
    ----------
    path : path
        Its directory is made if need be.
    data : bytes
    """
    path = Path(path)
    with replacing_files(path.parent) as files:
        files.write(path.name, data)


def write_text_atomically(path: Path | str, text: str) -> None:
    """Write a text file, as UTF-8, so that a reader sees the old contents or the new ones.

    Parameters
    ----------
    path : path
        Its directory is made if need be.
    text : str
    """
    write_bytes_atomically(path, text.encode())


def _flush_to_disk(path: Path) -> None:
    # Without this, a power cut after the rename could leave a new name on an empty file.
    with path.open("rb+") as file:
        os.fsync(file.fileno())
