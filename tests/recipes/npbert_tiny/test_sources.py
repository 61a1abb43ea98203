"""WordNet, the King James Bible and the Jargon File, as documents."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.recipes.npbert_tiny.jargon_file import jargon_file_documents
from npbert.recipes.npbert_tiny.king_james import king_james_documents
from npbert.recipes.npbert_tiny.sentences import (
    FEWEST_SENTENCES,
    MOST_SENTENCES,
    documents_of_groups,
    first_time_only,
)
from npbert.recipes.npbert_tiny.wordnet import wordnet_documents
from tests.recipes.npbert_tiny.packages import JARGON, VERSES, bible_data, write_wordnet


@pytest.fixture
def wordnet(tmp_path):
    """Return a directory with a small WordNet."""
    write_wordnet(tmp_path)
    return tmp_path


def test_wordnet(wordnet):
    """Every kind of sentence; documents of one part of speech and subject; nothing rude."""
    assert list(wordnet_documents(wordnet)) == [
        ["entity is that which is perceived to have its own distinct existence.", "the entity."],
        [
            "an animal is a living being that moves.",
            "a dog or domestic dog is an animal that barks.",
            "it barked.",
            "a dog.",
            "a sea dog is a large dog of the sea.",
        ],
        ["Paris or City of Light is the capital of France."],
        ["in chemistry, gold is a yellow metal, as in a gold medal."],
        ["Rosaceae comprises roses and apples."],
        ["joy: great happiness.", "rejoicing is feeling great joy.", "mirth: noisy joy."],
        ["ivan the dog is the first dog."],
        ["a bar or bar1 is a rod."],
        [
            "to run or dash is to move fast.",
            "don't run.",
            "of bees, to swarm is to leave in large numbers.",
            "to move is to change position.",
        ],
        [
            "short means having little length.",
            "short hair.",
            "of clothing, abbreviated or brief means very short.",
            "a brief bikini.",
            "tall means great in height.",
        ],
        ["deftly means in a deft manner.", "she deftly removed it."],
    ]


def test_what_wordnet_repeats_comes_once(wordnet):
    path = wordnet / "data.adv"
    again = path.read_text().replace("400 02", "401 02")
    path.write_text(path.read_text() + again + again.replace("401 02", "402 02"))
    *_, adverbs = wordnet_documents(wordnet)
    assert adverbs == ["deftly means in a deft manner.", "she deftly removed it."]


@pytest.mark.parametrize("line", ["", "400 02 r", "400 02 r 01 no_gloss 0 000", "x y z 01 | gloss"])
def test_a_line_that_is_no_synset(wordnet, line):
    path = wordnet / "data.verb"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"data\.verb, line 4: not a synset") as error:
        list(wordnet_documents(wordnet))
    assert repr(line) in str(error.value) or line == ""


def test_king_james(tmp_path):
    path = tmp_path / "bible.data"
    path.write_bytes(bible_data())
    assert list(king_james_documents(path)) == [
        ["In the beginning God created the heaven and the earth.", "And the earth was without form."],
        ["Thus the heavens were finished."],
        ["The song of songs."],
    ]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: b"", "not the text"),
        (lambda data: b"#!/bin/sh" + data, "not the text"),
        (lambda data: data[:100], "damaged"),
        (lambda data: data[:-60] + b"\xff" * 60, "damaged"),
        (lambda data: bible_data(VERSES[:1]), "no verse"),
    ],
)
def test_a_damaged_bible(tmp_path, damage, words):
    path = tmp_path / "bible.data"
    path.write_bytes(damage(bible_data()))
    with pytest.raises(ValueError, match=rf"bible\.data: {words}"):
        list(king_james_documents(path))


def test_jargon_file(tmp_path):
    path = tmp_path / "jargon.dict.dz"
    path.write_bytes(gzip.compress(JARGON.encode()))
    assert list(jargon_file_documents(path)) == [
        [
            "A process that has died but has not yet gone.",
            "These can be seen in ps(1) listings occasionally, e.g. Unix ones.",
            "A machine that has been cracked, home box or not.",
            'To attack with an "inverse heat sink".',
        ]
    ]


@pytest.mark.parametrize(
    "data", [b"", b"plain text", gzip.compress(b"\xff\xfe"), gzip.compress(b"x" * 99)[:-9]]
)
def test_a_damaged_jargon_file(tmp_path, data):
    path = tmp_path / "jargon.dict.dz"
    path.write_bytes(data)
    if data == b"":  # which gzip takes for nothing, compressed
        assert list(jargon_file_documents(path)) == []
        return
    with pytest.raises(ValueError, match="not a compressed dictionary"):
        list(jargon_file_documents(path))


@given(st.lists(st.lists(st.integers(), max_size=70), max_size=12))
def test_documents_have_a_useful_length(groups):
    documents = list(documents_of_groups(groups))
    assert [item for document in documents for item in document] == [
        item for group in groups for item in group
    ]
    assert all(FEWEST_SENTENCES <= len(document) <= MOST_SENTENCES for document in documents[:-1])
    assert all(0 < len(document) <= MOST_SENTENCES for document in documents)


def test_eight_sentences_are_a_document():
    assert [len(document) for document in documents_of_groups([["a"] * 5, ["b"] * 3, ["c"]])] == [8, 1]


def test_first_time_only():
    seen = set()
    assert list(first_time_only(["A dog.", "a  dog!", "a cat."], seen)) == ["A dog.", "a cat."]
    assert list(first_time_only(["a cat.", "cats."], seen)) == ["cats."]
