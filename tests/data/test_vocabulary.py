"""Choosing word pieces: useful ones, the same every time, and clear errors."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from npbert.data.vocabulary import SPECIAL_TOKENS, train_wordpiece
from npbert.tokenizer import WordPieceTokenizer

TEXT = """\
The dog barks. A dog, the dogs; the Élan of dogs!

中文 and kanji 中 stand alone. Dogs bark: the barking dogs' bark.
"""


@pytest.fixture
def corpus(tmp_path):
    """Return a text file."""
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT * 3, encoding="utf-8")
    return path


@pytest.fixture
def library():
    """Skip the test where tokenizers is not installed."""
    return pytest.importorskip("tokenizers")


@pytest.mark.oracle
class TestWithTheLibrary:
    """What is found, and in which order."""

    def test_the_pieces(self, corpus, library):
        tokenizer = train_wordpiece([corpus], 73)
        assert isinstance(tokenizer, WordPieceTokenizer) and tokenizer.do_lower_case
        tokens = list(tokenizer.vocab)
        assert tuple(tokens[:5]) == SPECIAL_TOKENS
        letters = sorted({letter for letter in TEXT.lower() if "a" <= letter <= "z"})
        assert [token for token in tokens if len(token) == 1] == sorted([*letters, *"!',.:;", *"中文"])
        assert [token for token in tokens if len(token) == 3 and token[:2] == "##"] == [
            f"##{letter}" for letter in letters
        ]
        assert {"the", "dogs", "bark"} <= set(tokens)
        assert "É" not in tokens and "é" not in tokens and "##中" not in tokens
        assert tokenizer.unk_id not in tokenizer.encode(TEXT).ids
        assert tokenizer.tokenize("The barking dogs") == ["the", "barking", "dogs"]

    def test_the_case_is_kept_on_demand(self, corpus, library):
        tokens = train_wordpiece([corpus], 90, do_lower_case=False).vocab
        assert {"T", "É", "The"} <= set(tokens)

    def test_more_pieces_for_a_larger_vocabulary(self, corpus, library):
        small, large = (list(train_wordpiece([corpus], size).vocab) for size in (60, 72))
        assert (len(small), len(large)) == (60, 72)
        assert large[:60] == small

    def test_no_more_than_the_corpus_has(self, corpus, library):
        assert train_wordpiece([corpus], 10_000).vocab_size < 120

    def test_rare_pairs_are_not_joined(self, corpus, library):
        tokens = train_wordpiece([corpus], 10_000, min_frequency=4).vocab
        assert "dogs" in tokens and "kanji" not in tokens  # 12 times, 3 times

    def test_rare_characters_are_unknown(self, tmp_path, library):
        path = tmp_path / "corpus.txt"
        path.write_text("aaa bb c\n")
        tokenizer = train_wordpiece([path], 20, limit_alphabet=2)
        assert {"a", "b"} < set(tokenizer.vocab) and "c" not in tokenizer.vocab
        assert tokenizer.tokenize("c a") == ["[UNK]", "a"]

    def test_several_files_count_as_one(self, tmp_path, corpus, library):
        halves = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
        halves[0].write_text(TEXT * 2)
        halves[1].write_text(json.dumps({"text": TEXT}) + "\n")
        assert train_wordpiece(halves, 73).vocab == train_wordpiece([corpus], 73).vocab

    def test_the_same_in_every_process(self, corpus, library):
        """The library numbers letters in the order of a hash table, which differs from process to process."""
        program = (
            "import sys; from npbert.data.vocabulary import train_wordpiece; "
            "print(*train_wordpiece(sys.argv[1:], 70).vocab)"
        )
        found = Counter(
            subprocess.run(
                [sys.executable, "-c", program, str(corpus)], capture_output=True, text=True, check=True
            ).stdout
            for _ in range(3)
        )
        assert len(found) == 1
        assert next(iter(found)).split() == list(train_wordpiece([corpus], 70).vocab)

    def test_too_small_a_vocabulary(self, corpus, library):
        with pytest.raises(ValueError, match=r"vocab_size is 20, but .* 45 tokens already"):
            train_wordpiece([corpus], 20)

    def test_no_text(self, tmp_path, library):
        path = tmp_path / "empty.txt"
        path.write_text("\n\n")
        with pytest.raises(ValueError, match=r"empty\.txt: no text"):
            train_wordpiece([path], 100)
        with pytest.raises(ValueError, match="no files: no text"):
            train_wordpiece([], 100)

    def test_broken_utf8(self, tmp_path, library):
        path = tmp_path / "latin1.txt"
        path.write_bytes("a\né\n".encode("latin1"))
        with pytest.raises(ValueError, match=r"latin1\.txt: line 2, byte 1: 0xe9 is not UTF-8"):
            train_wordpiece([path], 100)

    def test_a_missing_file(self, tmp_path, library):
        with pytest.raises(ValueError, match=r"gone\.txt: no such file"):
            train_wordpiece([tmp_path / "gone.txt"], 100)

    @pytest.mark.parametrize("name", ["min_frequency", "limit_alphabet"])
    def test_a_limit_of_nothing(self, corpus, library, name):
        with pytest.raises(ValueError, match=f"{name} is 0; it must be at least 1"):
            train_wordpiece([corpus], 100, **{name: 0})


def test_without_the_library(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install \"npbert\[tokenizers\]\""):
        train_wordpiece([corpus], 100)
