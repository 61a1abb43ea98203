"""The stream of batches: nothing lost, nothing wrong, and the same again from any position."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.data.masking import MaskingOptions
from npbert.data.pretraining import Batch, PretrainingData
from tests.data.text_corpora import draw_documents, make_tokenizer, write_text

TOKENIZER = make_tokenizer()
CLS, SEP, PAD, MASK = TOKENIZER.cls_id, TOKENIZER.sep_id, TOKENIZER.pad_id, TOKENIZER.mask_id

OPTIONS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 9),
        "max_length": st.integers(8, 64),
        "short_seq_prob": st.sampled_from([0.0, 0.1, 1.0]),
        "buffer_tokens": st.sampled_from([1, 200, 1000, 1 << 20]),
        "seed": st.integers(0, 2**64 - 1),
        "masking": st.builds(
            MaskingOptions,
            rate=st.sampled_from([0.15, 0.5]),
            whole_word=st.booleans(),
            max_ngram=st.integers(1, 3),
        ),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the corpora of property tests, which one example after another overwrites."""
    return tmp_path_factory.mktemp("corpora")


def rows(batch: Batch) -> list[dict[str, Any]]:
    """Return the examples of a batch as they were before masking, in parts."""
    result = []
    for row, length in enumerate(batch["attention_mask"].sum(axis=1).tolist()):
        labels = batch["labels"][row, :length]
        original = np.where(labels >= 0, labels, batch["input_ids"][row, :length])
        types = batch["token_type_ids"][row, :length]
        parts = [original[types == kind].tolist() for kind in (0, 1) if (types == kind).any()]
        assert parts[0].pop(0) == CLS
        assert all(part.pop() == SEP for part in parts)
        assert all(part and not {CLS, SEP, PAD} & set(part) for part in parts)
        label = batch["next_sentence_label"][row] if "next_sentence_label" in batch else None
        result.append({"parts": parts, "label": label})
    return result


def epoch(data: PretrainingData, number: int = 0) -> list[dict[str, Any]]:
    """Return the examples of one epoch, found by the positions; the batches must be of size 1."""
    result = []
    for batch, position in data.batches():
        if position["epoch"] > number and not (position["epoch"] == number + 1 and position["example"] == 0):
            return result
        if position["epoch"] >= number:
            result.append((batch, position))
    raise AssertionError


def text_tokens(documents: list[list[str]]) -> list[int]:
    """Return all tokens of some documents in order."""
    sentences = [sentence for document in documents for sentence in document]
    return [index for ids in TOKENIZER.encode_ids(sentences, add_special_tokens=False) for index in ids]


@given(options=OPTIONS, seed=st.integers(0, 1000), documents=st.integers(2, 30))
@settings(deadline=None, max_examples=60)
def test_each_token_is_once_in_an_epoch(
    folder: Path, options: Mapping[str, Any], seed: int, documents: int
) -> None:
    corpus = draw_documents(seed, documents)
    corpus[0] = ["w1 w2", "w3"]  # two sentences are needed
    data = PretrainingData(write_text(folder / "corpus.txt", corpus), TOKENIZER, **options)
    own: list[int] = []
    for batch in data.one_pass():
        for row in rows(batch):
            own += row["parts"][0] + (row["parts"][1] if row["label"] == 0 else [])
    # In the order of the text: so what has label 0 follows, too.
    assert own == text_tokens(corpus)


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@given(options=OPTIONS, seed=st.integers(0, 1000), next_sentence=st.booleans())
@settings(deadline=None, max_examples=25)
def test_going_on_from_any_position(
    folder: Path, options: Mapping[str, Any], seed: int, next_sentence: bool
) -> None:
    corpus = [["w1", "w2"], *draw_documents(seed, 12)]
    path = write_text(folder / "corpus.txt", corpus)
    stream = [*islice(PretrainingData(path, TOKENIZER, next_sentence=next_sentence, **options).batches(), 60)]
    again = PretrainingData(path, TOKENIZER, next_sentence=next_sentence, **options)
    for number, (_, position) in enumerate(stream[:-1]):
        resumed = again.batches(json.loads(json.dumps(position)))
        for (batch, after), (expected, expected_after) in zip(
            resumed, stream[number + 1 : number + 4], strict=False
        ):
            assert same(batch, expected)
            assert after == expected_after


@given(options=OPTIONS, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_a_random_second_part_is_from_another_document(
    folder: Path, options: Mapping[str, Any], seed: int
) -> None:
    corpus = [["w0", "w0"], *draw_documents(seed, 40, max_sentences=8, own_words=True)[1:]]
    data = PretrainingData(write_text(folder / "corpus.txt", corpus), TOKENIZER, **options)
    # Documents of more than a kilobyte may be cut: then the parts are documents.
    assert max(len("\n".join(document)) for document in corpus) < 1024 or options["buffer_tokens"] > 4096
    first_word, last_word = TOKENIZER.vocab["w0"], TOKENIZER.vocab["w299"]
    labels = set()
    for batch in data.one_pass():
        for row in rows(batch):
            words = [{index for index in part if first_word <= index <= last_word} for part in row["parts"]]
            if not all(words):  # the rest of a long word
                continue
            assert len(words[0]) == 1
            assert (words[1] != words[0]) == (row["label"] == 1)
            labels.add(int(row["label"]))
    assert 1 in labels
