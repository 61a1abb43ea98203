"""Batches of labelled examples."""

import json
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.labelled import EncodedExample, LabelledData, encode_texts, pad_batch
from npbert.tokenizer import WordPieceTokenizer

TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"])


def numbered(count: int) -> list[EncodedExample]:
    """Examples whose only word and label are their number."""
    return [
        EncodedExample(np.array([word], np.int32), np.array([0], np.int8), {"labels": np.array(word)})
        for word in range(count)
    ]


def words(batches) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


class TestEncoding:
    def test_pairs_and_cuts(self, monkeypatch):
        monkeypatch.setattr("npbert.data.labelled.TOKENIZED_TOGETHER", 2)
        found = encode_texts(["a b c", "a", "d [SEP] d"], ["d", "b", ""], TOKENIZER, max_length=6)
        assert [example.input_ids.tolist() for example in found] == [
            [2, 5, 6, 3, 8, 3],
            [2, 5, 3, 6, 3],
            [2, 8, 3, 8, 3, 3],
        ]
        assert [example.token_type_ids.tolist() for example in found] == [
            [0, 0, 0, 0, 1, 1],
            [0, 0, 0, 1, 1],
            [0, 0, 0, 0, 0, 1],
        ]

    def test_single_texts_are_the_tokenizers(self):
        texts = ["", "a b", "c " * 50]
        found = [example.input_ids.tolist() for example in encode_texts(texts, None, TOKENIZER, 10)]
        assert found == TOKENIZER.encode_ids(texts, max_length=10)

    def test_too_little_room(self):
        with pytest.raises(ValueError, match="max_length=2"):
            encode_texts(["a"], ["b"], TOKENIZER, 2)


class TestPadding:
    def test_labels_of_texts(self):
        batch = pad_batch(
            [
                EncodedExample(np.array([2, 5, 3]), np.array([0, 0, 1]), {"labels": np.array([0.0, 1.0])}),
                EncodedExample(np.array([2, 3]), np.array([1, 1]), {"labels": np.array([1.0, 0.0])}),
            ],
            pad_id=7,
        )
        assert {name: array.tolist() for name, array in batch.items()} == {
            "input_ids": [[2, 5, 3], [2, 3, 7]],
            "attention_mask": [[1, 1, 1], [1, 1, 0]],
            "token_type_ids": [[0, 0, 1], [1, 1, 0]],
            "labels": [[0, 1], [1, 0]],
        }
        assert batch["input_ids"].dtype == batch["attention_mask"].dtype == np.int64

    def test_labels_of_tokens(self):
        batch = pad_batch(
            [
                EncodedExample(np.array([2, 3]), np.array([0, 0]), token_labels=np.array([-100, 1])),
                EncodedExample(np.array([2, 5, 3]), np.array([0, 0, 0]), token_labels=np.array([4, 0, 2])),
            ],
            pad_id=0,
        )
        assert batch["labels"].tolist() == [[-100, 1, -100], [4, 0, 2]]

    def test_without_labels(self):
        batch = pad_batch([EncodedExample(np.array([2, 3]), np.array([0, 0]))], pad_id=0)
        assert set(batch) == {"input_ids", "attention_mask", "token_type_ids"}


class TestBatches:
    @given(
        count=st.integers(1, 20),
        batch_size=st.integers(1, 25),
        seed=st.integers(0, 9),
        cut=st.integers(1, 30),
    )
    def test_goes_on_exactly(self, count, batch_size, seed, cut):
        def data():
            return LabelledData(numbered(count), pad_id=0, batch_size=batch_size, seed=seed)

        whole = list(islice(data().batches(), cut + 10))
        position = json.loads(json.dumps(whole[cut - 1][1]))
        rest = list(islice(data().batches(position), 10))
        assert words(batch for batch, _ in rest) == words(batch for batch, _ in whole[cut:])
        assert [place for _, place in rest] == [place for _, place in whole[cut:]]

    @given(count=st.integers(1, 20), batch_size=st.integers(1, 25))
    def test_an_epoch_has_each_example_once(self, count, batch_size):
        data = LabelledData(numbered(count), pad_id=0, batch_size=batch_size)
        stream = data.batches()
        for epoch in range(1, 4):
            found = list(islice(stream, data.batches_per_epoch))
            assert sorted(chain(*words(batch for batch, _ in found))) == list(range(count))
            assert all(len(batch["input_ids"]) == batch_size for batch, _ in found[:-1])
            assert [place["epoch"] for _, place in found] == [epoch - 1] * (len(found) - 1) + [epoch]
            for batch, _ in found:
                np.testing.assert_array_equal(batch["labels"], batch["input_ids"][:, 0])

    def test_epochs_and_seeds_differ(self):
        def order(seed, epoch):
            data = LabelledData(numbered(50), pad_id=0, batch_size=50, seed=seed)
            return tuple(words([next(data.batches({"epoch": epoch, "batch": 0}))[0]])[0])

        orders = {order(seed, epoch) for seed in range(3) for epoch in range(3)}
        assert len(orders) == 9
        assert tuple(range(50)) not in orders

    def test_one_pass_is_in_order(self):
        data = LabelledData(numbered(7), pad_id=0, batch_size=3)
        assert words(data.one_pass()) == [[0, 1, 2], [3, 4, 5], [6]]

    @pytest.mark.parametrize(
        "position",
        [
            {},
            {"epoch": 0},
            {"epoch": -1, "batch": 0},
            {"epoch": 0, "batch": 3},
            {"epoch": 0, "batch": -1},
            {"epoch": 0.0, "batch": 0},
        ],
    )
    def test_no_such_position(self, position):
        data = LabelledData(numbered(5), pad_id=0, batch_size=2)
        with pytest.raises(ValueError, match=r"the position is .*\[0, 3\)"):
            next(data.batches(position))

    @pytest.mark.parametrize(
        ("count", "options", "message"),
        [
            (0, {}, "no examples"),
            (1, {"batch_size": 0}, "batch_size is 0"),
            (1, {"seed": -1}, "seed is -1"),
        ],
    )
    def test_bad_arguments(self, count, options, message):
        with pytest.raises(ValueError, match=message):
            LabelledData(numbered(count), pad_id=0, **options)
