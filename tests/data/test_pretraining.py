"""The stream of batches: nothing lost, nothing wrong, and the same again from any position."""

import json
import re
import tracemalloc
from collections import Counter
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert.data.masking import MaskingOptions
from npbert.data.pretraining import PretrainingData
from tests.data.text_corpora import PIECES, draw_documents, make_tokenizer, write_text

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
def folder(tmp_path_factory):
    """A folder for the corpora of property tests, which one example after another overwrites."""
    return tmp_path_factory.mktemp("corpora")


def rows(batch) -> list[dict[str, Any]]:
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


def text_tokens(documents) -> list[int]:
    """Return all tokens of some documents in order."""
    sentences = [sentence for document in documents for sentence in document]
    return [index for ids in TOKENIZER.encode_ids(sentences, add_special_tokens=False) for index in ids]


@given(options=OPTIONS, seed=st.integers(0, 1000), documents=st.integers(2, 30))
@settings(max_examples=60)
def test_each_token_is_once_in_an_epoch(folder, options, seed, documents):
    corpus = draw_documents(seed, documents)
    corpus[0] = ["w1 w2", "w3"]  # two sentences are needed
    data = PretrainingData(write_text(folder / "corpus.txt", corpus), TOKENIZER, **options)
    own = []
    for batch in data.one_pass():
        for row in rows(batch):
            own += row["parts"][0] + (row["parts"][1] if row["label"] == 0 else [])
    # In the order of the text: so what has label 0 follows, too.
    assert own == text_tokens(corpus)


@given(options=OPTIONS, seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_without_pairs(folder, options, seed):
    corpus = draw_documents(seed, 10)
    path = write_text(folder / "corpus.txt", corpus)
    own = []
    for batch in PretrainingData(path, TOKENIZER, next_sentence=False, **options).one_pass():
        assert batch.keys() == {"input_ids", "attention_mask", "token_type_ids", "labels"}
        assert not batch["token_type_ids"].any()
        for row in rows(batch):
            own += row["parts"][0]
    assert own == text_tokens(corpus)


@given(options=OPTIONS, seed=st.integers(0, 1000))
def test_a_random_second_part_is_from_another_document(folder, options, seed):
    # Of words that tell the document; short enough that none is cut into several.
    corpus = [["w0", "w0"], *draw_documents(seed, 20, max_sentences=8, own_words=True)[1:]]
    assert max(len("\n".join(document)) for document in corpus) < 1024
    data = PretrainingData(write_text(folder / "corpus.txt", corpus), TOKENIZER, **options)
    first_word, last_word = TOKENIZER.vocab["w0"], TOKENIZER.vocab["w299"]
    labels = set()
    for batch in data.one_pass():
        for row in rows(batch):
            words = [{index for index in part if first_word <= index <= last_word} for part in row["parts"]]
            if not all(words):  # the rest of a word that was cut
                continue
            assert len(words[0]) == 1
            assert (words[1] != words[0]) == (row["label"] == 1)
            labels.add(int(row["label"]))
    assert 1 in labels


@given(options=OPTIONS, seed=st.integers(0, 1000))
@settings(max_examples=40)
def test_shapes(folder, options, seed):
    path = write_text(folder / "corpus.txt", [["w1", "w2"], *draw_documents(seed, 10)])
    for batch, _ in islice(PretrainingData(path, TOKENIZER, **options).batches(), 20):
        tokens = batch["attention_mask"].sum(axis=1)
        assert batch.pop("next_sentence_label").shape == (options["batch_size"],)
        for array in batch.values():
            assert array.dtype == np.int64
            assert array.shape == (options["batch_size"], tokens.max())
        assert tokens.max() <= options["max_length"]
        padding = np.arange(tokens.max()) >= tokens[:, None]
        assert np.array_equal(batch["attention_mask"] == 0, padding)
        assert (batch["input_ids"][padding] == PAD).all()
        assert (batch["labels"][padding] == -100).all()
        assert (batch["token_type_ids"][padding] == 0).all()


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def contents(batches) -> Counter[bytes]:
    """Return what examples there are, however they are batched."""
    found: Counter[bytes] = Counter()
    for batch in batches:
        for row, length in enumerate(batch["attention_mask"].sum(axis=1).tolist()):
            found[
                b"".join(
                    array[row, ..., :length].tobytes() if array.ndim > 1 else array[row].tobytes()
                    for _, array in sorted(batch.items())
                )
            ] += 1
    return found


class TestPositions:
    @given(options=OPTIONS, seed=st.integers(0, 1000), next_sentence=st.booleans())
    @settings(max_examples=15)
    def test_going_on_from_any_position(self, folder, options, seed, next_sentence):
        path = write_text(folder / "corpus.txt", [["w1", "w2"], *draw_documents(seed, 12)])
        options = {**options, "next_sentence": next_sentence}
        stream = [*islice(PretrainingData(path, TOKENIZER, **options).batches(), 40)]
        again = PretrainingData(path, TOKENIZER, **options)
        for number, (_, position) in enumerate(stream[:-1]):
            resumed = again.batches(json.loads(json.dumps(position)))
            for (batch, after), expected in zip(resumed, stream[number + 1 : number + 4], strict=False):
                assert same(batch, expected[0])
                assert after == expected[1]

    def test_going_on_over_epochs_and_files(self, tmp_path):
        paths = [write_text(tmp_path / f"{file}.txt", draw_documents(file, 15)) for file in range(3)]
        paths.append(tmp_path / "last.jsonl")
        paths[-1].write_text('{"text": "w1\\nw2\\nw3"}\n{"text": "w4"}\n', encoding="utf-8")
        data = PretrainingData(paths, TOKENIZER, batch_size=7, max_length=32, buffer_tokens=400, seed=3)
        stream = []
        for batch, position in data.batches():
            stream.append((batch, position))
            if position["epoch"] == 3:
                break
        assert {position["file"] for _, position in stream} == {0, 1, 2}
        assert len({position["block"] for _, position in stream}) > 5
        for number, (_, position) in enumerate(stream[:-1]):
            batch, after = next(data.batches(position))
            assert same(batch, stream[number + 1][0])
            assert after == stream[number + 1][1]

    @pytest.mark.parametrize("buffer_tokens", [100, 1 << 20])
    def test_epochs_are_counted(self, tmp_path, buffer_tokens):
        path = write_text(tmp_path / "corpus.txt", draw_documents(1, 10))
        options = {"next_sentence": False, "short_seq_prob": 0, "buffer_tokens": buffer_tokens}
        data = PretrainingData(path, TOKENIZER, batch_size=1, **options)
        examples = sum(1 for _ in data.one_pass())
        assert examples > 10
        epochs = [position["epoch"] for _, position in islice(data.batches(), 3 * examples)]
        assert epochs == [0] * (examples - 1) + [1] * examples + [2] * examples + [3]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"epoch": -1}, "position: epoch is -1; it must be an integer, at least 0"),
            ({"block": None}, "position: block is None"),
            ({"offset": "3"}, "position: offset is '3'"),
            ({"file": 1}, "position: file is 1; there are 1 files"),
            ({"example": 1000}, "position: example is 1000; its block has"),
            ({"corpus_bytes": 7}, "the position is one of a corpus of 7 bytes; this one has"),
        ],
    )
    def test_a_position_that_is_none(self, tmp_path, change, message):
        data = PretrainingData(write_text(tmp_path / "corpus.txt", draw_documents(1, 10)), TOKENIZER)
        _, position = next(data.batches())
        with pytest.raises(ValueError, match=message):
            next(data.batches({**position, **change}))
        with pytest.raises(ValueError, match="position: epoch is None"):
            next(data.batches({}))


class TestEpochs:
    """What the seed, the epoch and static_copies change."""

    @pytest.fixture
    def path(self, tmp_path):
        return write_text(tmp_path / "corpus.txt", draw_documents(4, 60))

    def epochs(self, path, count, **options):
        """Return the batches of some epochs; each is the next when all examples of a batch are."""
        data = PretrainingData(path, TOKENIZER, **{"batch_size": 1, "max_length": 32, "seed": 5, **options})
        found = [[]]
        for batch, position in data.batches():
            found[-1].append(batch)
            if position["epoch"] == len(found):
                if len(found) == count:
                    return found
                found.append([])

    def test_the_seed_decides_everything(self, path):
        one, other = self.epochs(path, 2), self.epochs(path, 2)
        assert all(map(same, one[0] + one[1], other[0] + other[1]))
        assert contents(one[0]) != contents(self.epochs(path, 1, seed=6)[0])
        assert contents(one[0]) != contents(self.epochs(path, 1, seed=5 + 2**63)[0])

    def test_dynamic(self, path):
        first, second = self.epochs(path, 2)
        assert not contents(first) & contents(second)  # whatever is the same text has other masks

    def test_static(self, path):
        epochs = list(map(contents, self.epochs(path, 6, static_copies=2)))
        assert epochs[0] == epochs[2] == epochs[4]
        assert epochs[1] == epochs[3] == epochs[5]
        assert not epochs[0] & epochs[1]

    def test_static_epochs_have_their_own_order(self, path):
        first, second = self.epochs(path, 2, static_copies=1)
        assert contents(first) == contents(second)
        assert sum(map(same, first, second)) < 0.1 * len(first)

    def test_examples_are_shuffled(self, path):
        data = PretrainingData(path, TOKENIZER, batch_size=1, max_length=32, seed=5)
        in_order = [*data.one_pass()]
        shuffled = self.epochs(path, 1)[0]
        assert contents(in_order) == contents(shuffled)
        places = [next(i for i, one in enumerate(in_order) if same(one, batch)) for batch in shuffled]
        assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 0.3

    def test_blocks_have_draws_of_their_own(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", draw_documents(4, 2, max_words=40) * 20)
        examples = contents(self.epochs(path, 1, max_length=64, buffer_tokens=1)[0])
        assert examples.total() > 100
        assert len(examples) > 0.9 * examples.total()  # the texts of all blocks are the same

    def test_one_pass_is_the_same_each_time(self, path):
        data = PretrainingData(path, TOKENIZER, batch_size=7, max_length=32)
        first, second = list(data.one_pass()), list(data.one_pass())
        assert all(map(same, first, second))
        sizes = [len(batch["input_ids"]) for batch in first]
        assert set(sizes[:-1]) == {7}
        assert 0 < sizes[-1] <= 7


class TestMasks:
    def test_shares_of_a_corpus(self, tmp_path):
        """15 % of the tokens, and of these 80 % are [MASK], within five standard deviations."""
        data = PretrainingData(write_text(tmp_path / "corpus.txt", draw_documents(1, 200)), TOKENIZER, seed=2)
        batches = list(data.one_pass())
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        chosen = np.concatenate([batch["labels"][batch["labels"] >= 0] for batch in batches])
        seen = np.concatenate([batch["input_ids"][batch["labels"] >= 0] for batch in batches])
        assert tokens > 20_000
        assert abs(len(chosen) / tokens - 0.15) < 0.005
        assert abs((seen == MASK).mean() - 0.8) < 5 * np.sqrt(0.16 / len(seen))
        assert abs((seen == chosen).mean() - 0.1) < 5 * np.sqrt(0.09 / len(seen))

    def test_options_are_used(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", draw_documents(1, 50))
        masking = MaskingOptions(rate=0.3, whole_word=True, mask_share=1, random_share=0)
        pieces = {TOKENIZER.vocab[piece] for piece in PIECES}
        chosen = []
        for batch in PretrainingData(path, TOKENIZER, masking=masking, next_sentence=False).one_pass():
            assert (batch["input_ids"][batch["labels"] >= 0] == MASK).all()
            chosen.append((batch["labels"] >= 0).sum() / batch["attention_mask"].sum())
            for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
                original = np.where(labels >= 0, labels, ids).tolist()
                for place in range(1, len(original)):
                    if original[place] in pieces and original[place - 1] != CLS:
                        assert (labels[place] >= 0) == (labels[place - 1] >= 0)
        assert 0.25 < np.mean(chosen) < 0.31

    def test_special_tokens_in_the_text_are_never_chosen(self, tmp_path):
        corpus = [["[CLS] w1 [SEP] w2", "[PAD] w3 [MASK]"]] * 5
        path = write_text(tmp_path / "corpus.txt", corpus)
        masking = MaskingOptions(rate=0.9)
        for batch in PretrainingData(path, TOKENIZER, masking=masking).one_pass():
            chosen = batch["labels"][batch["labels"] >= 0]
            assert len(chosen)
            assert not {CLS, SEP, PAD, MASK} & set(chosen.tolist())

    def test_unknown_tokens_may_be(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", [["?", "?"], ["?"]])
        batch = next(PretrainingData(path, TOKENIZER, masking=MaskingOptions(rate=0.9)).one_pass())
        assert (batch["labels"] == TOKENIZER.unk_id).any()


class TestBadCorpora:
    def test_one_document(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", [["w1", "w2", "w3"]])
        with pytest.raises(ValueError, match=re.escape(f"{path}: one document, and next-sentence")):
            PretrainingData(path, TOKENIZER)
        [batch] = PretrainingData(path, TOKENIZER, next_sentence=False).one_pass()
        assert rows(batch)[0]["parts"] == [text_tokens([["w1", "w2", "w3"]])]

    def test_documents_of_one_sentence(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", [["w1"], ["w2"], ["w3"]])
        with pytest.raises(ValueError, match=re.escape(f"{path}: 3 documents, all of one sentence")):
            PretrainingData(path, TOKENIZER)
        assert len(list(PretrainingData(path, TOKENIZER, next_sentence=False).one_pass())) == 1

    def test_one_document_with_two_sentences_is_enough(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", [["w1"]] * 20 + [["w2", "w3"], ["w4"]])
        PretrainingData(path, TOKENIZER, buffer_tokens=1)

    @pytest.mark.parametrize("text", ["", "\n \n", "\x01\n\n\x02\n"], ids=["empty", "blank", "no tokens"])
    @pytest.mark.parametrize("next_sentence", [True, False])
    def test_no_text(self, tmp_path, text, next_sentence):
        path = tmp_path / "corpus.txt"
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(f"{path}: no text")):
            PretrainingData([path], TOKENIZER, next_sentence=next_sentence)

    def test_missing_file(self, tmp_path):
        there = write_text(tmp_path / "corpus.txt", [["w1", "w2"], ["w3"]])
        missing = str(tmp_path / "none.txt")
        with pytest.raises(ValueError, match=re.escape(f"{missing}: no such file or directory")):
            PretrainingData([there, missing], TOKENIZER)
        with pytest.raises(ValueError, match="paths is empty"):
            PretrainingData([], TOKENIZER)

    def test_what_is_wrong_is_found_at_the_beginning(self, tmp_path):
        path = write_text(tmp_path / "corpus.txt", draw_documents(1, 100))
        path.write_bytes(path.read_bytes() + b"w1\xff\n")
        with pytest.raises(ValueError, match=r"line \d+, byte 3: 0xff is not UTF-8"):
            PretrainingData(path, TOKENIZER, buffer_tokens=10)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
            ({"static_copies": 0}, "static_copies is 0; it must be at least 1"),
            ({"buffer_tokens": 0}, "buffer_tokens is 0; it must be at least 1"),
            ({"max_length": 4}, "max_length is 4; it must be at least 5"),
            ({"max_length": 3, "next_sentence": False}, "max_length is 3; it must be at least 4"),
            ({"short_seq_prob": 1.5}, "short_seq_prob is 1.5; it must be between 0 and 1"),
            ({"seed": -1}, "seed is -1; it must be 0 to 2"),
            ({"seed": 2**64}, "seed is 18446744073709551616; it must be"),
        ],
    )
    def test_options_out_of_range(self, tmp_path, options, message):
        path = write_text(tmp_path / "corpus.txt", [["w1", "w2"], ["w3"]])
        with pytest.raises(ValueError, match=re.escape(message)):
            PretrainingData(path, TOKENIZER, **options)

    @pytest.mark.parametrize(("max_length", "next_sentence"), [(5, True), (4, False)])
    def test_the_shortest_examples(self, tmp_path, max_length, next_sentence):
        corpus = [["w1a w2", "w3"], ["w4 w5"]]
        data = PretrainingData(
            write_text(tmp_path / "corpus.txt", corpus),
            TOKENIZER,
            max_length=max_length,
            next_sentence=next_sentence,
        )
        found = [row for batch in data.one_pass() for row in rows(batch)]
        own = [row["parts"][0] + (row["parts"][1] if row["label"] == 0 else []) for row in found]
        assert list(chain.from_iterable(own)) == text_tokens(corpus)
        assert max(len(part) for row in found for part in row["parts"]) == (1 if next_sentence else 2)


def test_memory_is_bounded_by_the_buffer(tmp_path):
    """Ten times the corpus, the same memory."""
    peaks = []
    for times in (1, 10):
        corpus = draw_documents(1, 60) * times
        data = PretrainingData(
            write_text(tmp_path / "corpus.txt", corpus), TOKENIZER, buffer_tokens=2000, next_sentence=False
        )
        tracemalloc.start()
        try:
            for _ in data.one_pass():
                pass
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[0] > 50_000
    assert peaks[1] < 1.2 * peaks[0]
