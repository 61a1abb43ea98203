"""CoNLL files, and the alignment of tags to word pieces."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.conll import Sentence, encode_sentences, read_conll, tag_names
from npbert.tokenizer import WordPieceTokenizer

TOKENIZER = WordPieceTokenizer(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "##c", "d", "e", "-", ".", "x", "##x"]
)
CLS, SEP, UNK = TOKENIZER.cls_id, TOKENIZER.sep_id, TOKENIZER.unk_id

CONLL_2003 = """\
-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


@pytest.fixture
def write(tmp_path):
    def writing(contents: str):
        path = tmp_path / "a.conll"
        path.write_bytes(contents.encode())
        return path

    return writing


class TestReading:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n\n", ""])
    def test_conll_2003(self, end, write):
        path = write(CONLL_2003.removesuffix("\n").replace("\n", "\r\n" if end == "\r\n" else "\n") + end)
        assert read_conll(path) == [
            Sentence(("EU", "rejects"), ("B-ORG", "O"), 3),
            Sentence(("Peter", "Blackburn"), ("B-PER", "I-PER"), 8),
        ]
        assert read_conll(path, tag_column=2)[0].tags == ("NNP", "VBZ")
        assert read_conll(path, tag_column=-3)[1].tags == ("NNP", "NNP")
        assert read_conll(path, token_column=3)[1].words == ("B-NP", "I-NP")
        assert read_conll(path, tag_column=None)[0] == Sentence(("EU", "rejects"), None, 3)

    def test_separators(self, write):
        assert read_conll(write("New York\tO\n"), separator="tab")[0].words == ("New York",)
        assert read_conll(write("a\tb O\n"), separator="space")[0].words == ("a\tb",)
        assert read_conll(write(" a \t b  O \t\n"))[0] == Sentence(("a",), ("O",), 1)

    def test_other_white_space_is_part_of_a_word(self, write):
        assert read_conll(write("a\u00a0b O\n\u2028 O\n"))[0].words == ("a\u00a0b", "\u2028")

    @pytest.mark.parametrize(
        ("contents", "options", "message"),
        [
            ("a O\nb\n", {}, "line 2 has 1 columns, not 2 like"),
            ("a O\n\nb x O\n", {}, "line 3 has 3 columns, not 2 like"),
            ("a O\n", {"tag_column": 3}, "line 1 has 2 columns, so no tag column 3: 'a O'"),
            ("a O\n", {"token_column": -3}, "line 1 has 2 columns, so no token column -3"),
            ("a\tO\nb\t\n", {"separator": "tab"}, r"line 2: the tag \(column -1\) is empty"),
            ("\tO\n", {"separator": "tab"}, r"line 1: the token \(column 1\) is empty"),
            ("a O\n", {"tag_column": 0}, "tag_column is 0; columns are counted from 1"),
            ("a O\n", {"token_column": 0}, "token_column is 0"),
            ("a O\n", {"separator": ","}, "separator is ','; it must be one of whitespace, tab, space"),
            ("\n \n-DOCSTART- O\n", {}, "no sentences"),
            ("", {}, "empty"),
            ("a O\nb\0 O\n", {}, "line 2, byte 2: a NUL"),
        ],
    )
    def test_bad_files(self, contents, options, message, write):
        with pytest.raises(ValueError, match=message):
            read_conll(write(contents), **options)

    def test_broken_utf8(self, tmp_path):
        path = tmp_path / "a.conll"
        path.write_bytes(b"a O\n\xe9 O\n")
        with pytest.raises(ValueError, match=r"a\.conll: line 2, byte 1: 0xe9 is not UTF-8"):
            read_conll(path)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"x\.conll"):
            read_conll(tmp_path / "x.conll")


def test_tag_names():
    sentences = [Sentence(("a", "b"), ("O", "B-X"), 1), Sentence(("c",), ("O",), 4)]
    assert tag_names("f", sentences) == ("B-X", "O")
    with pytest.raises(ValueError, match=r"f\.conll: all labels are 'O'"):
        tag_names("f.conll", sentences[1:])


class TestAlignment:
    def test_the_first_piece_has_the_tag(self):
        sentences = [
            Sentence(("abc", "d"), ("B", "O"), 1),
            Sentence(("e-d", "\u200d", "q"), ("O", "B", "I"), 4),
        ]
        examples, pieces = encode_sentences("f", sentences, TOKENIZER, 20, {"O": 0, "B": 1, "I": 2})
        ids = TOKENIZER.token_to_id
        assert [example.input_ids.tolist() for example in examples] == [
            [CLS, ids("a"), ids("##b"), ids("##c"), ids("d"), SEP],
            [CLS, ids("e"), ids("-"), ids("d"), UNK, UNK, SEP],
        ]
        assert [example.token_labels.tolist() for example in examples] == [
            [-100, 1, -100, -100, 0, -100],
            [-100, 0, -100, -100, 1, 2, -100],
        ]
        assert [(piece.sentence, piece.words, piece.first_tokens.tolist()) for piece in pieces] == [
            (0, range(2), [1, 4]),
            (1, range(3), [1, 4, 5]),
        ]

    def test_without_tags(self):
        (example,), _ = encode_sentences("f", [Sentence(("a",), None, 1)], TOKENIZER, 20)
        assert example.token_labels is None

    @given(
        lengths=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=4),
        max_length=st.integers(3, 12),
    )
    def test_long_sentences_lose_no_word(self, lengths, max_length):
        # The word "xxx" has three pieces; its tag is its number in the sentence.
        sentences = [
            Sentence(tuple("x" * n for n in some), tuple(map(str, range(len(some)))), 1) for some in lengths
        ]
        numbers = {str(number): number for number in range(8)}
        examples, pieces = encode_sentences("f", sentences, TOKENIZER, max_length, numbers)
        found = [[] for _ in sentences]
        for before, piece in pairwise(pieces):  # no example ends before it has to
            if before.sentence == piece.sentence:
                words = [*before.words, piece.words[0]]
                room = max_length - 2
                assert sum(min(lengths[piece.sentence][word], room) for word in words) > room
        for example, piece in zip(examples, pieces, strict=True):
            ids = example.input_ids
            assert len(ids) <= max_length and ids[0] == CLS and ids[-1] == SEP
            labels = example.token_labels
            first = np.flatnonzero(labels != -100)
            np.testing.assert_array_equal(first, piece.first_tokens)
            np.testing.assert_array_equal(labels[first], list(piece.words))
            sizes = np.diff([*first, len(ids) - 1])
            expected = [min(lengths[piece.sentence][word], max_length - 2) for word in piece.words]
            assert sizes.tolist() == expected
            found[piece.sentence] += piece.words
        assert found == [list(range(len(some))) for some in lengths]

    def test_unknown_tag(self):
        sentences = [Sentence(("a", "a"), ("O", "B-X"), 7)]
        with pytest.raises(ValueError, match=r"dev\.conll: line 8: unknown label 'B-X'; known: 'O', 'B-Y'"):
            encode_sentences("dev.conll", sentences, TOKENIZER, 20, {"O": 0, "B-Y": 1})

    def test_no_room(self):
        with pytest.raises(ValueError, match=r"max_length is 2; .* at least 3"):
            encode_sentences("f", [], TOKENIZER, 2)
