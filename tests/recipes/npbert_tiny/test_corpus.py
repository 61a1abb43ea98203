"""The corpus and the vocabulary of npbert-tiny, as the command makes them."""

import json
from pathlib import Path

import pytest

from npbert.recipes.npbert_tiny import corpus
from npbert.recipes.npbert_tiny.__main__ import main
from npbert.recipes.npbert_tiny.corpus import HELD_OUT_NAME, TRAIN_NAME, build_corpus, count, is_held_out
from tests.recipes.npbert_tiny.packages import write_packages


@pytest.fixture
def root(tmp_path):
    """Return a directory with the packages, unpacked."""
    write_packages(tmp_path / "root")
    return tmp_path / "root"


def documents(path):
    """Return the documents of a text file."""
    return [block.splitlines() for block in path.read_text(encoding="utf-8").split("\n\n")]


def test_both_files_have_all_documents_once(root, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "HELD_OUT_ONE_IN", 3)
    counts = build_corpus(root, tmp_path / "out")
    parts = {name: documents(tmp_path / "out" / name) for name in (TRAIN_NAME, HELD_OUT_NAME)}
    assert all(map(is_held_out, parts[HELD_OUT_NAME])) and not any(map(is_held_out, parts[TRAIN_NAME]))
    assert {name: count(part) for name, part in parts.items()} == {name: counts[name] for name in parts}
    expected = [document for source in corpus.SOURCES for document in source.documents(root / source.path)]
    assert sorted(parts[TRAIN_NAME] + parts[HELD_OUT_NAME]) == sorted(expected)
    assert sum(counts[source.package]["documents"] for source in corpus.SOURCES) == len(expected) == 15
    assert all(1 < len(part) < 14 for part in parts.values())
    for part in parts.values():  # of all sources, mixed
        assert part != [document for document in expected if document in part]


def test_the_same_corpus_every_time(root, tmp_path):
    for name in ("one", "two"):
        build_corpus(root, tmp_path / name)
    for name in (TRAIN_NAME, HELD_OUT_NAME):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_held_out_does_not_depend_on_what_else_there_is():
    sentences = [[f"sentence {number}."] for number in range(5000)]
    assert 60 < sum(map(is_held_out, sentences)) < 140  # 2 % are 100; +- 4 standard deviations
    assert [is_held_out(document) for document in sentences] == [
        is_held_out(list(document)) for document in sentences
    ]


@pytest.mark.parametrize("source", corpus.SOURCES, ids=lambda source: source.package)
def test_a_missing_package_is_named(source, root, tmp_path, capsys):
    (root / source.path).rename(tmp_path / "gone")
    assert main(["corpus", str(tmp_path / "out"), "--root", str(root)]) == 1
    error = capsys.readouterr().err
    assert source.package in error and str(root / source.path) in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command(root, tmp_path, capsys):
    assert main(["corpus", str(tmp_path / "out"), "--root", str(root)]) == 0
    counts = json.loads(capsys.readouterr().out)
    assert counts["bible-kjv-text"] == {"documents": 3, "sentences": 4, "words": 25}


@pytest.mark.oracle
def test_a_text_that_is_too_small_for_the_vocabulary(root, tmp_path, capsys):
    pytest.importorskip("tokenizers")
    build_corpus(root, tmp_path)
    assert main(["vocabulary", str(tmp_path)]) == 1
    assert "word pieces, of 8000" in capsys.readouterr().err
    assert not (tmp_path / "vocab.txt").exists()


def test_download(root, tmp_path, monkeypatch, capsys):
    """What apt-get and dpkg are asked for, without a network."""
    commands = []

    def run(command, directory):
        commands.append(command)
        if command[0] == "apt-get":
            (tmp_path / directory / f"{command[-1]}.deb").touch()
        elif not (Path(command[-1]) / "usr").exists():
            write_packages(Path(command[-1]))

    monkeypatch.setattr(corpus, "_run", run)
    monkeypatch.setattr(corpus.shutil, "which", lambda program: program)
    assert main(["corpus", str(tmp_path / "out"), "--download"]) == 0
    assert [command[2] for command in commands[:3]] == [source.package for source in corpus.SOURCES]
    assert [command[:2] for command in commands] == [["apt-get", "download"]] * 3 + [
        ["dpkg", "--extract"]
    ] * 3
    assert (tmp_path / "out" / TRAIN_NAME).exists()


def test_download_without_debian(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corpus.shutil, "which", lambda program: None)
    assert main(["corpus", str(tmp_path), "--download"]) == 1
    assert "apt-get" in capsys.readouterr().err


def test_a_download_that_fails_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(corpus.shutil, "which", lambda program: program)
    monkeypatch.setattr(corpus, "SOURCES", (corpus.SOURCES[0]._replace(package="no/such package"),))
    original = corpus._run
    monkeypatch.setattr(
        corpus,
        "_run",
        lambda command, directory: original(["sh", "-c", "echo no network >&2; exit 100"], directory),
    )
    assert main(["corpus", str(tmp_path), "--download"]) == 1
    assert "no network" in capsys.readouterr().err
