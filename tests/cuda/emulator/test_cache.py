"""The folder of compiled kernels: whole files or none, whoever uses it, whatever happens to it."""

import os
import re
import time

import pytest

from npbert.cuda.emulator import EmulatorError, cache, cache_folder

CONTENT = b"what was made"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache, "_intact", {})
    return tmp_path / "npbert" / "kernels"


class Maker:
    """Makes a file, and counts how often."""

    def __init__(self, content=CONTENT):
        self.content, self.calls = content, 0

    def __call__(self, path):
        self.calls += 1
        path.with_suffix(".o").write_bytes(b"on the way")
        path.write_bytes(self.content)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_where_it_is(folder, monkeypatch, tmp_path):
    assert cache_folder() == folder
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "npbert" / "kernels"


def test_a_file_is_made_once(folder):
    make = Maker()
    first = cache.fetch("name", make)
    assert (first, cache.fetch("name", make)) == (folder / "name", first)
    assert make.calls == 1
    assert first.read_bytes().startswith(CONTENT)
    assert names(folder) == ["name"]
    cache.fetch("another", make)
    assert make.calls == 2


def test_another_process_finds_it(monkeypatch):
    make = Maker()
    cache.fetch("name", make)
    monkeypatch.setattr(cache, "_intact", {})
    cache.fetch("name", make)
    assert make.calls == 1


@pytest.mark.parametrize("known", [True, False], ids=["used before", "of another process"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"made", b"fade")),
    ],
    ids=["deleted", "empty", "cut", "changed"],
)
def test_a_damaged_file_is_made_again(monkeypatch, damage, known):
    make = Maker()
    path = cache.fetch("name", make)
    whole = path.read_bytes()
    damage(path)
    if path.exists():
        os.utime(path, ns=(1, 1))
    if not known:
        monkeypatch.setattr(cache, "_intact", {})
    assert cache.fetch("name", make).read_bytes() == whole
    assert make.calls == 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, EmulatorError("does not compile"), MemoryError])
def test_what_is_not_finished_leaves_nothing(folder, stop):
    def make(path):
        path.write_bytes(b"half")
        raise stop

    with pytest.raises(stop if isinstance(stop, type) else type(stop)):
        cache.fetch("name", make)
    assert names(folder) == []


@pytest.mark.parametrize("blocked", ["", "npbert", "npbert/kernels"])
def test_a_folder_that_cannot_be_written_to(monkeypatch, tmp_path, blocked):
    """A file stands where the folder should: that stops the system's administrator, too."""
    base = tmp_path / "base"
    file = base / blocked
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    make = Maker()
    expected = (
        rf"the cache folder {re.escape(str(base))}/npbert/kernels cannot be written to \(.*\).*XDG_CACHE_HOME"
    )
    with pytest.raises(EmulatorError, match=expected):
        cache.fetch("name", make)
    assert make.calls == 0


def test_a_full_disk(folder, monkeypatch):
    def full(path, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.Path, "replace", full)
    with pytest.raises(EmulatorError, match="No space left on device"):
        cache.fetch("name", Maker())
    assert names(folder) == []


def test_what_was_not_used_for_longest_goes(folder, monkeypatch):
    monkeypatch.setattr(cache, "LIMIT_BYTES", 350)
    make = Maker(bytes(100 - 32))  # and a hash
    for age, name in enumerate(["used again", "old", "young"]):
        path = cache.fetch(name, make)
        os.utime(path, (1000 + age, 1000 + age))
    monkeypatch.setattr(cache, "_intact", {})
    cache.fetch("used again", make)  # by another process
    assert make.calls == 3
    cache.fetch("new", make)
    assert names(folder) == ["new", "used again", "young"]
    monkeypatch.setattr(cache, "LIMIT_BYTES", 50)
    cache.fetch("larger than the limit", make)
    assert names(folder) == ["larger than the limit"]


def test_work_folders_of_killed_processes_go_after_a_day(folder):
    folder.mkdir(parents=True)
    for name, hours in (("building-old", 25), ("building-new", 1), ("of somebody else", 25)):
        (folder / name).mkdir()
        (folder / name / "made").write_bytes(b"")
        then = time.time() - hours * 3600
        os.utime(folder / name, (then, then))
    cache.fetch("name", Maker())
    assert names(folder) == ["building-new", "name", "of somebody else"]
