"""WordNet as documents: what each word means, in a sentence, and examples of its use.

References
----------
G. A. Miller (1995), WordNet: A Lexical Database for English. Communications of the ACM 38 (11).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from npbert.recipes.npbert_tiny.definitions import definition_sentence, nouns_with_articles
from npbert.recipes.npbert_tiny.sentences import (
    Document,
    documents_of_groups,
    first_time_only,
    with_full_stop,
)
from npbert.recipes.npbert_tiny.wordnet_format import Synset, read_synsets

DATA_FILES: Final = ("data.noun", "data.verb", "data.adj", "data.adv")

# A model should not learn to propose these.
_RUDE: Final = re.compile(
    r"\b(?:slurs?|obscene|disparaging|derogatory|"
    r"vulgar (?:slang|term|word)|offensive (?:name|term|word|slang))\b"
)


def wordnet_documents(directory: Path) -> Iterator[Document]:
    """Yield WordNet as documents: the synsets under one hypernym follow each other.

    Parameters
    ----------
    directory : pathlib.Path
        Holds `DATA_FILES`.

    Yields
    ------
    list of str
        The sentences of a document; none occurs in two.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a line is not a synset. Names the file and the line.
    """
    synsets = {synset.key: synset for name in DATA_FILES for synset in read_synsets(directory / name)}
    counted = nouns_with_articles(synsets.values())
    groups: dict[tuple[str, str, int], list[Synset]] = {}
    for synset in synsets.values():
        if _RUDE.search(synset.definition):
            continue
        groups.setdefault((*(synset.parent or (synset.key[0], "")), synset.subject), []).append(synset)
    seen: set[str] = set()

    def sentences(group: list[Synset]) -> Document:
        return [
            sentence
            for synset in group
            for sentence in first_time_only(
                (definition_sentence(synset, synsets, counted), *map(with_full_stop, synset.examples)), seen
            )
        ]

    # Documents do not cross from one part of speech or subject to another.
    by_subject: dict[tuple[str, int], list[list[Synset]]] = {}
    for (part_of_speech, _, subject), group in groups.items():
        by_subject.setdefault((part_of_speech, subject), []).append(group)
    for neighbours in by_subject.values():
        yield from documents_of_groups(map(sentences, neighbours))
