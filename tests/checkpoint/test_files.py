"""Files appear all together or not at all, whatever goes wrong."""

import os
import stat
from pathlib import Path

import pytest

from npbert.checkpoint.files import replacing_files, write_bytes_atomically, write_text_atomically

OLD = {"a.txt": "old a", "b.txt": "old b", "stale.txt": "old stale"}
NEW = {"a.txt": "new a", "b.txt": "new b", "deep/er/c.txt": "new c"}


def contents(directory):
    """Every file below the directory, hidden ones too, and every subdirectory."""
    return {
        str(path.relative_to(directory)): path.read_text() if path.is_file() else "directory"
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def directory(tmp_path):
    for name, text in OLD.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def write_new(directory):
    with replacing_files(directory) as files:
        for name, text in NEW.items():
            files.write(name, text)
        files.remove("stale.txt")
        files.remove("never-there.txt")


def fail_at_call(monkeypatch, function, number, error):
    """Make the call of ``os.<function>`` with this number raise; return the list of calls so far."""
    original, calls = getattr(os, function), []

    def sometimes(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(os, function, sometimes)
    return calls


def test_all_is_written_and_nothing_else_is_left(directory):
    write_new(directory)
    assert contents(directory) == NEW | {"deep": "directory", "deep/er": "directory"}


def test_nothing_is_seen_before_the_end(directory):
    with replacing_files(directory) as files:
        files.write("a.txt", "new a")
        files.remove("stale.txt")
        assert {name: (directory / name).read_text() for name in OLD} == OLD
    assert contents(directory) == {"a.txt": "new a", "b.txt": "old b"}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("bad tensor")])
def test_a_failing_writer_changes_nothing(directory, error):
    with pytest.raises(type(error)), replacing_files(directory) as files:
        files.write("a.txt", "new a")
        files.write("deep/er/c.txt", "new c")
        files.new_file("b.txt").write_text("half of b")
        files.remove("stale.txt")
        raise error
    assert contents(directory) == OLD


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_failing_rename_puts_everything_back(directory, monkeypatch, number, error):
    calls = fail_at_call(monkeypatch, "replace", number, error)
    with pytest.raises(type(error)):
        write_new(directory)
    assert len(calls) >= number
    assert contents(directory) == OLD


def test_a_failing_removal_puts_everything_back(directory, monkeypatch):
    calls = fail_at_call(monkeypatch, "unlink", 1, OSError("busy"))
    with pytest.raises(OSError, match="busy"):
        write_new(directory)
    assert Path(calls[0][0]).name == "stale.txt"
    assert contents(directory) == OLD


def test_an_interruption_while_cleaning_up_keeps_the_new_files(directory, monkeypatch):
    calls = fail_at_call(monkeypatch, "unlink", 2, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_new(directory)
    assert ".old." in Path(calls[1][0]).name
    assert contents(directory) == NEW | {"deep": "directory", "deep/er": "directory"}


def test_a_new_directory_goes_away_again(tmp_path, monkeypatch):
    fail_at_call(monkeypatch, "replace", 2, OSError("no space"))
    with pytest.raises(OSError, match="no space"):
        write_new(tmp_path / "new" / "model")
    assert contents(tmp_path) == {}


def test_a_file_system_without_hard_links(directory, monkeypatch):
    def no_links(*args, **kwargs):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as failing:
        # Two renames a file here: the old one aside, the new one into place.
        fail_at_call(failing, "replace", 4, OSError("no space"))
        with pytest.raises(OSError, match="no space"):
            write_new(directory)
    assert contents(directory) == OLD
    write_new(directory)
    assert contents(directory) == NEW | {"deep": "directory", "deep/er": "directory"}


def test_permissions_are_the_usual_ones_whatever_the_writer_leaves(tmp_path):
    (tmp_path / "usual").touch()
    with replacing_files(tmp_path) as files:
        path = files.new_file("model")
        path.write_text("weights")
        path.chmod(0o600)
    usual, model = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "model"))
    assert usual != 0o600, "the umask of this process hides what the test is about"
    assert model == usual


def test_a_file_given_twice_is_refused(directory):
    with pytest.raises(ValueError, match=r"a\.txt is written twice"), replacing_files(directory) as files:
        files.write("a.txt", "one")
        files.write("a.txt", "two")
    assert contents(directory) == OLD


def test_single_files(tmp_path):
    write_text_atomically(tmp_path / "new" / "text.txt", "naïve ☃\n")
    write_bytes_atomically(str(tmp_path / "bytes"), b"\x00\xff")
    assert (tmp_path / "new" / "text.txt").read_bytes() == "naïve ☃\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_a_single_file_keeps_its_old_contents(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    fail_at_call(monkeypatch, "replace", 1, OSError("no space"))
    with pytest.raises(OSError, match="no space"):
        write_text_atomically(tmp_path / "a", "new")
    assert contents(tmp_path) == {"a": "old"}
