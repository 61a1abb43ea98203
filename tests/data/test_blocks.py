"""A corpus in blocks of token ids."""

from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.blocks import read_blocks
from npbert.tokenizer.wordpiece import CONTINUATION
from tests.data.text_corpora import draw_documents, make_tokenizer, write_text

TOKENIZER = make_tokenizer()
CONTINUATIONS = {index for token, index in TOKENIZER.vocab.items() if token.startswith(CONTINUATION)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for property tests, whose examples overwrite each other's files."""
    return tmp_path_factory.mktemp("blocks")


def documents(block) -> list[list[list[int]]]:
    """Return the sentences of each document of a block."""
    ids, bounds = block.ids.tolist(), block.bounds.tolist()
    sentences = [ids[start:end] for start, end in pairwise(bounds)]
    return [sentences[document.start : document.stop] for document in block.documents]


def read(paths, **options: Any):
    """Read blocks; no sentence drawn here, of at most 20 words of 3 tokens, is cut unless it is asked for."""
    return list(read_blocks(paths, TOKENIZER, **{"block_tokens": 1 << 20, "sentence_tokens": 60, **options}))


def encoded(corpus) -> list[list[list[int]]]:
    return [TOKENIZER.encode_ids(document, add_special_tokens=False) for document in corpus]


@given(
    seed=st.integers(0, 1000),
    count=st.integers(2, 40),
    files=st.integers(1, 3),
    block_tokens=st.sampled_from([1, 50, 300, 1000, 100_000]),
)
def test_blocks_are_the_corpus(folder, seed, count, files, block_tokens):
    corpora = [draw_documents(seed + file, count, max_sentences=5) for file in range(files)]
    paths = [write_text(folder / f"{file}.txt", corpus) for file, corpus in enumerate(corpora)]
    blocks = read(paths, block_tokens=block_tokens)
    assert list(chain.from_iterable(map(documents, blocks))) == encoded(chain.from_iterable(corpora))
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert [block.next_start for block in blocks] == [*(block.start for block in blocks[1:]), None]
    for block in blocks:
        assert block.bounds[0] == 0
        assert block.bounds[-1] == len(block.ids)
        assert len(block.documents) > 1
        # Complete without the last document, or with two; but the last block takes in what is left over.
        sizes = [block.bounds[document.stop] - block.bounds[document.start] for document in block.documents]
        extra = 1 if block.next_start is not None else 2
        assert sum(sizes[:-extra]) < block_tokens or len(sizes) <= 1 + extra
        assert block.next_start is None or sum(sizes) >= block_tokens


@given(seed=st.integers(0, 1000), block_tokens=st.sampled_from([1, 50, 300]))
def test_reading_starts_at_any_block(folder, seed, block_tokens):
    path = write_text(folder / "corpus.txt", draw_documents(seed, 20))
    blocks = read([path], block_tokens=block_tokens)
    assert len(blocks) > 1
    for number, block in enumerate(blocks):
        rest = read([path], block_tokens=block_tokens, start=block.start, number=number)
        assert [found.number for found in rest] == [expected.number for expected in blocks[number:]]
        assert list(map(documents, rest)) == list(map(documents, blocks[number:]))
        assert [found[:3] for found in rest] == [expected[:3] for expected in blocks[number:]]


@given(seed=st.integers(0, 1000), limit=st.integers(1, 12))
def test_long_sentences_are_cut_between_words(folder, seed, limit):
    corpus = draw_documents(seed, 3)
    found = list(
        chain.from_iterable(
            map(documents, read([write_text(folder / "corpus.txt", corpus)], sentence_tokens=limit))
        )
    )
    for pieces, sentences in zip(found, encoded(corpus), strict=True):
        assert list(chain.from_iterable(pieces)) == list(chain.from_iterable(sentences))
        assert all(0 < len(piece) <= limit for piece in pieces)
        assert limit < 3 or all(piece[0] not in CONTINUATIONS for piece in pieces)  # words have up to 3


@pytest.mark.parametrize(
    ("limit", "pieces"),
    [
        (9, ["w1 ##a w2 w3 ##b ##c"]),
        (6, ["w1 ##a w2 w3 ##b ##c"]),
        (5, ["w1 ##a w2", "w3 ##b ##c"]),
        (3, ["w1 ##a w2", "w3 ##b ##c"]),
        (2, ["w1 ##a", "w2", "w3 ##b", "##c"]),
        (1, ["w1", "##a", "w2", "w3", "##b", "##c"]),
    ],
)
def test_where_a_sentence_is_cut(tmp_path, limit, pieces):
    blocks = read([write_text(tmp_path / "corpus.txt", [["w1a w2 w3bc"]])], sentence_tokens=limit)
    found = [[TOKENIZER.id_to_token(index) for index in piece] for piece in documents(blocks[0])[0]]
    assert [" ".join(piece) for piece in found] == pieces


def test_what_has_no_token_is_left_out(tmp_path):
    path = write_text(tmp_path / "corpus.txt", [["\x01", "w1"], ["\x02"], ["w2", "\x03"]])
    [block] = read([path])
    assert documents(block) == encoded([["w1"], ["w2"]])
    assert read([write_text(path, [["\x01"]])]) == []


def test_one_document_is_a_block(tmp_path):
    [block] = read([write_text(tmp_path / "corpus.txt", [["w1", "w2"]])], block_tokens=1)
    assert documents(block) == encoded([["w1", "w2"]])


def test_a_document_longer_than_the_block_counts_as_several(tmp_path):
    corpus = [["w1 w2 w3 w4 w5"] * 1000]  # 15 kB, 5000 tokens; parts of 1 kB have 340
    blocks = read([write_text(tmp_path / "corpus.txt", corpus)], block_tokens=1000)
    assert list(chain.from_iterable(chain.from_iterable(map(documents, blocks)))) == encoded(corpus)[0]
    assert all(len(block.documents) > 1 for block in blocks)
    assert max(len(block.ids) for block in blocks) < 2000
