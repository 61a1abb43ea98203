"""The corpus of npbert-tiny: WordNet, the King James Bible and the Jargon File, from Debian's packages."""

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from npbert.checkpoint.files import replacing_files
from npbert.checkpoint.huggingface import json_text
from npbert.recipes.npbert_tiny.jargon_file import jargon_file_documents
from npbert.recipes.npbert_tiny.king_james import king_james_documents
from npbert.recipes.npbert_tiny.sentences import Document
from npbert.recipes.npbert_tiny.wordnet import wordnet_documents

TRAIN_NAME: Final = "train.txt"
HELD_OUT_NAME: Final = "held_out.txt"
COUNTS_NAME: Final = "counts.json"
HELD_OUT_ONE_IN: Final = 50


class Source(NamedTuple):
    """A text of the corpus.

    Attributes
    ----------
    package : str
        The Debian package that holds it.
    version : str
        Of the package from which npbert-tiny was made.
    title : str
    path : str
        Where the package puts it, relative to the root.
    documents : callable
        Given the path, yields the documents.
    licence : str
    """

    package: str
    version: str
    title: str
    path: str
    documents: Callable[[Path], Iterator[Document]]
    licence: str


SOURCES: Final = (
    Source(
        "wordnet-base",
        "1:3.0-37",
        "WordNet 3.0",
        "usr/share/wordnet",
        wordnet_documents,
        "WordNet 3.0 licence",
    ),
    Source(
        "bible-kjv-text",
        "4.38",
        "King James Bible",
        "usr/lib/bible.data",
        king_james_documents,
        "public domain",
    ),
    Source(
        "dict-jargon",
        "4.4.7-3.1",
        "Jargon File 4.4.7",
        "usr/share/dictd/jargon.dict.dz",
        jargon_file_documents,
        "public domain",
    ),
)


def build_corpus(root: Path, out: Path) -> dict[str, dict[str, int]]:
    """Write the training and the held-out text: a sentence a line, a blank line between documents.

    The documents of all sources are shuffled, by a hash of their text: what is read together in training is
    then of all kinds.

    Parameters
    ----------
    root : pathlib.Path
        Where the packages are unpacked; "/" where they are installed.
    out : pathlib.Path
        The directory for `TRAIN_NAME`, `HELD_OUT_NAME` and `COUNTS_NAME`; all appear, or none.

    Returns
    -------
    dict of str to dict of str to int
        Of each source and of each file, how many documents, sentences and words: the contents of
        `COUNTS_NAME`.

    Raises
    ------
    FileNotFoundError
        If a package's files are not there. Names the package.
    ValueError
        If a file is not what it should be.
    """
    for source in SOURCES:
        if not (root / source.path).exists():
            raise FileNotFoundError(
                f"{root / source.path}: no such file; the Debian package {source.package} has it "
                "(install it, unpack it with dpkg --extract, or ask for --download)"
            )
    counts: dict[str, dict[str, int]] = {}
    parts: dict[str, list[Document]] = {TRAIN_NAME: [], HELD_OUT_NAME: []}
    for source in SOURCES:
        documents = list(source.documents(root / source.path))
        counts[source.package] = count(documents)
        for document in documents:
            parts[HELD_OUT_NAME if is_held_out(document) else TRAIN_NAME].append(document)
    with replacing_files(out) as files:
        for name, documents in parts.items():
            counts[name] = count(documents)
            documents.sort(key=document_hash)
            files.write(name, "\n".join("".join(f"{line}\n" for line in document) for document in documents))
        files.write(COUNTS_NAME, json_text(counts))
    return counts


def is_held_out(document: Document) -> bool:
    """Return whether a document is kept for evaluation: by a hash of its text, whatever is around it."""
    return document_hash(document) % HELD_OUT_ONE_IN == 0


def document_hash(document: Document) -> int:
    """Return a number that depends on nothing but the text of a document."""
    return int.from_bytes(hashlib.sha256("\n".join(document).encode()).digest(), "big")


def count(documents: Iterable[Document]) -> dict[str, int]:
    """Return how many documents, sentences and words (between spaces) there are.

    Examples
    --------
    >>> count([["hay is for horses.", "so it is."], ["yes."]])
    {'documents': 2, 'sentences': 3, 'words': 8}
    """
    documents = list(documents)
    sentences = [sentence for document in documents for sentence in document]
    words = sum(len(sentence.split()) for sentence in sentences)
    return {"documents": len(documents), "sentences": len(sentences), "words": words}


def download_packages(root: Path) -> None:
    """Fetch the Debian packages and unpack them under ``root``, without installing anything.

    Raises
    ------
    FileNotFoundError
        Where there is no apt-get or no dpkg.
    ValueError
        If a package could not be fetched or unpacked; says what the program said.
    """
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise FileNotFoundError(f"{program}: no such program; --download needs Debian or one of its kin")
    with tempfile.TemporaryDirectory() as directory:
        for source in SOURCES:
            _run(["apt-get", "download", source.package], directory)
        for package in sorted(Path(directory).glob("*.deb")):
            _run(["dpkg", "--extract", str(package), str(root)], directory)


def _run(command: list[str], directory: str) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"{' '.join(command)} failed: {done.stderr.strip()}")
