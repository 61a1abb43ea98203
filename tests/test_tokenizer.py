"""The tokenizer against stored answers of the `tokenizers` library, and what must hold for any text."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.tokenizer import WordPieceTokenizer, normalization, wordpiece
from npbert.tokenizer.normalization import BertNormalizer
from npbert.tokenizer.truncation import kept_lengths
from npbert.tokenizer.wordpiece import WordPiece

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizer.json").read_text(encoding="ascii"))
VOCAB = GOLDEN["vocab"]
TOKENIZERS = [WordPieceTokenizer(VOCAB, **settings) for settings in GOLDEN["settings"]]
UNCASED, CASED = TOKENIZERS[:2]

# Text of whole characters: surrogates (Cs) are no characters, and have a test of their own.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# Text in which much of the vocabulary occurs.
KNOWN_TEXT = st.lists(st.sampled_from([*VOCAB, " ", " ", "\u0301", "\x00"]), max_size=30).map("".join)
TEXT = ANY_TEXT | KNOWN_TEXT


# --- stored answers of `tokenizers` ---------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(TOKENIZERS)), ids=lambda n: str(GOLDEN["settings"][n]))
def test_ids_and_offsets_are_those_of_tokenizers(number):
    cases = [case for case in GOLDEN["cases"] if case["settings"] == number]
    assert len(cases) > 90
    for case in cases:
        arguments = {name: case[name] for name in ("max_length", "add_special_tokens") if name in case}
        encoding = TOKENIZERS[number].encode(case["text"], case["pair"], **arguments)
        expected = {name: value for name, value in case.items() if name in encoding._fields}
        expected["offsets"] = [tuple(offset) for offset in case["offsets"]]
        assert {name: getattr(encoding, name) for name in expected} == expected, ascii(case)
        assert encoding.tokens == [VOCAB[index] for index in case["ids"]]

        pairs = None if case["pair"] is None else [case["pair"]]
        assert TOKENIZERS[number].encode_ids([case["text"]], pairs, **arguments) == [case["ids"]], ascii(case)


def test_decoding_is_that_of_tokenizers():
    for case in GOLDEN["decoded"]:
        assert UNCASED.decode(case["ids"]) == case["text"]
        assert (
            UNCASED.decode(np.array(case["ids"], dtype=np.int64), skip_special_tokens=False) == case["whole"]
        )
    assert any(case["text"] != case["whole"] for case in GOLDEN["decoded"])


@pytest.mark.parametrize("expected", GOLDEN["code_point_digests"], ids=lambda e: str(e["settings"]))
def test_every_code_point_is_read_as_tokenizers_reads_it(expected):
    """Under whatever Unicode version the running Python has."""
    arguments = expected["settings"]
    lowercase = arguments.get("do_lower_case", True)
    normalizer = BertNormalizer(
        lowercase=lowercase,
        strip_accents=arguments.get("strip_accents", lowercase),
        space_cjk=True,
        clean_text=arguments.get("clean_text", True),
    )
    block = GOLDEN["code_points_per_digest"]
    for start, digest in zip(range(0, 0x110000, block), expected["digests"], strict=True):
        code_points = [c for c in range(start, start + block) if not 0xD800 <= c <= 0xDFFF]
        text = "".join(f"a{chr(code_point)}a" for code_point in code_points)
        words = [word for word in normalizer.normalize(text).split(" ") if word]
        found = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
        assert found == digest, f"code points from U+{start:04X} to U+{start + block - 1:04X}"


# --- what must hold for any text ------------------------------------------------------------------------


@given(TEXT)
def test_offsets_ascend_and_lie_in_the_text(text):
    offsets = UNCASED.encode(text, add_special_tokens=False).offsets
    assert all(0 <= start < end <= len(text) for start, end in offsets)
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(offsets))


@given(TEXT)
def test_offsets_slice_the_tokens_out_of_a_text_that_is_not_changed(text):
    tokenizer = TOKENIZERS[-1]  # cased, not cleaned
    encoding = tokenizer.encode(text, add_special_tokens=False)
    for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        if token != tokenizer.unk_token:
            assert text[start:end] in (token, token.removeprefix("##"))


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_offsets_slice_the_tokens_out_of_ascii_text(text):
    encoding = UNCASED.encode(text, add_special_tokens=False)
    for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        # Control characters inside a word are dropped from it, but not from the text.
        spelled = "".join(character for character in text[start:end].lower() if character.isprintable())
        if token != UNCASED.unk_token and text[start:end] != token:
            assert spelled in (token, token.removeprefix("##"))


@given(TEXT, TEXT)
def test_texts_joined_by_a_space_are_tokens_joined(first, second):
    assert UNCASED.tokenize(f"{first} {second}") == UNCASED.tokenize(first) + UNCASED.tokenize(second)


@given(TEXT)
def test_normalizing_with_and_without_origins_gives_one_text(text):
    for lowercase in (True, False):
        normalizer = BertNormalizer(
            lowercase=lowercase, strip_accents=True, space_cjk=True, clean_text=lowercase
        )
        normalized, origins = normalizer.normalize_with_origins(text)
        assert normalized == normalizer.normalize(text)
        assert len(origins) == len(normalized)


@given(st.text(st.sampled_from("aé\u0301\u0323\u302e\U0001d15e\U0001d1bbx中 \u0344"), max_size=12))
def test_the_long_way_round_agrees_with_the_table(text):
    """Where nothing is sorted past a surviving character, both ways give the same words."""
    normalizer = BertNormalizer(lowercase=True, strip_accents=True, space_cjk=True, clean_text=True)
    long_way, origins = normalizer._normalize_in_canonical_order(text)
    assert sorted(long_way) == sorted(text.translate(normalizer._table))
    assert origins == sorted(origins)


@given(st.lists(TEXT, min_size=1, max_size=5), st.integers(2, 20))
def test_batch_ids_are_the_encodings_of_each_text(texts, max_length):
    encodings = [UNCASED.encode(text, max_length=max_length) for text in texts]
    assert UNCASED.encode_ids(texts, max_length=max_length) == [encoding.ids for encoding in encodings]
    batch = UNCASED.batch(texts, max_length=max_length)
    for row, encoding in enumerate(encodings):
        length = len(encoding.ids)
        assert batch["input_ids"][row, :length].tolist() == encoding.ids
        assert (batch["input_ids"][row, length:] == UNCASED.pad_id).all()
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (
            batch["input_ids"].shape[1] - length
        )
    assert batch["input_ids"].shape[1] == max(len(encoding.ids) for encoding in encodings)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.integers(3, 20))
def test_batch_pairs_are_the_encodings_of_each_pair(pairs, max_length):
    firsts, seconds = [list(texts) for texts in zip(*pairs, strict=True)]
    batch = UNCASED.batch(firsts, seconds, max_length=max_length, pad_to=25)
    assert all(array.shape == (len(pairs), 25) and array.dtype == np.int64 for array in batch.values())
    for row, (first, second) in enumerate(pairs):
        encoding = UNCASED.encode(first, second, max_length=max_length)
        padding = [0] * (25 - len(encoding.ids))
        assert batch["input_ids"][row].tolist() == encoding.ids + padding
        assert batch["token_type_ids"][row].tolist() == encoding.token_type_ids + padding
        assert batch["attention_mask"][row].tolist() == [1] * len(encoding.ids) + padding


@given(st.text(st.sampled_from("abunffaleing"), min_size=1, max_size=30))
def test_a_remembered_word_is_split_as_a_new_one(word):
    model = WordPiece({token: index for index, token in enumerate(VOCAB)}, UNCASED.unk_id, 100)
    assert model.word_ids(word) == model.word_ids(word) == model.split(word) == tuple(model.ids([word]))


def test_full_caches_change_nothing_but_memory(monkeypatch):
    monkeypatch.setattr(wordpiece, "MAX_CACHED_WORDS", 2)
    monkeypatch.setattr(normalization, "MAX_CACHED_CHARACTERS", 3)
    tokenizer = WordPieceTokenizer(VOCAB)
    for case in GOLDEN["cases"]:
        if case["settings"] == 0 and case["max_length"] is None:
            assert tokenizer.encode(case["text"], case["pair"]).ids == case["ids"]
    assert 0 < len(tokenizer._model._cache) <= 2
    assert len(tokenizer._normalizer._table) == 3


def test_a_word_too_long_to_split_is_not_remembered():
    tokenizer = WordPieceTokenizer(VOCAB)
    assert tokenizer.encode_ids(["ab" * 5000]) == [[tokenizer.cls_id, tokenizer.unk_id, tokenizer.sep_id]]
    assert not tokenizer._model._cache


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_longest_first_cuts_the_longer_text_and_uses_the_room(first, second, budget):
    kept_first, kept_second = kept_lengths([first, second], budget)
    assert kept_first + kept_second == min(first + second, budget)
    assert 0 <= kept_first <= first
    assert 0 <= kept_second <= second
    shorter, kept_shorter = min((first, kept_first), (second, kept_second))
    assert kept_shorter == shorter or kept_shorter >= budget // 2
    if first < second:
        assert kept_first <= kept_second


@given(TEXT, TEXT, st.integers(3, 20))
def test_truncation_keeps_the_beginnings(first, second, max_length):
    whole, cut = UNCASED.encode(first, second), UNCASED.encode(first, second, max_length=max_length)
    assert len(cut.ids) == min(len(whole.ids), max_length)
    for type_id in (0, 1):
        whole_ids, cut_ids = (
            [
                (index, offset)
                for index, offset, type_, special in zip(
                    e.ids, e.offsets, e.token_type_ids, e.special_tokens_mask, strict=True
                )
                if type_ == type_id and not special
            ]
            for e in (whole, cut)
        )
        assert cut_ids == whole_ids[: len(cut_ids)]


@given(st.lists(st.sampled_from(["un", "unffaing", "a", "inging", "0", "é"]), max_size=10))
def test_decoding_gives_plain_words_back(words):
    text = " ".join(words)
    assert CASED.decode(CASED.encode(text).ids) == text


# --- single facts -----------------------------------------------------------------------------------------


def test_special_ids_and_lookups():
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [getattr(UNCASED, f"{name}_id") for name in names] == [0, 2, 3, 4, 5]
    assert [UNCASED.id_to_token(getattr(UNCASED, f"{name}_id")) for name in names] == [
        f"[{name.upper()}]" for name in names
    ]
    assert UNCASED.vocab_size == len(VOCAB)
    assert UNCASED.token_to_id("##ing") == VOCAB.index("##ing")
    assert UNCASED.token_to_id("no such token") is None
    assert list(UNCASED.vocab) == VOCAB
    UNCASED.vocab.clear()  # a copy
    assert UNCASED.vocab_size == len(VOCAB)


def test_a_vocabulary_may_be_a_mapping_in_any_order():
    tokenizer = WordPieceTokenizer({token: index for index, token in reversed(list(enumerate(VOCAB)))})
    assert list(tokenizer.vocab) == VOCAB
    assert tokenizer.encode("unffaing") == UNCASED.encode("unffaing")


def test_empty_text_is_only_the_special_tokens():
    assert UNCASED.encode("").tokens == ["[CLS]", "[SEP]"]
    assert UNCASED.encode("", "").token_type_ids == [0, 0, 1]
    assert UNCASED.tokenize("") == UNCASED.tokenize("\x00\n ") == []
    assert UNCASED.decode([]) == ""


def test_no_texts_give_empty_arrays():
    assert UNCASED.encode_ids([]) == []
    assert {array.shape for array in UNCASED.batch([]).values()} == {(0, 0)}
    assert {array.shape for array in UNCASED.batch([], pad_to=7).values()} == {(0, 7)}


def test_other_names_for_the_special_tokens():
    vocab = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "a"]
    tokenizer = WordPieceTokenizer(
        vocab,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
    )
    assert tokenizer.encode("a <mask> b").tokens == ["<s>", "a", "<mask>", "<unk>", "</s>"]


def test_additional_special_tokens_are_recognised_whole_and_the_longest_wins():
    vocab = [*VOCAB, "[MASK]er"]
    tokenizer = WordPieceTokenizer(vocab, additional_special_tokens=["[unused1]", "[MASK]er"])
    assert tokenizer.tokenize("[unused1][MASK]er[MASK]") == ["[unused1]", "[MASK]er", "[MASK]"]
    assert "[unused1]" not in UNCASED.tokenize("[unused1]")
    assert tokenizer.decode(tokenizer.encode("a[unused1]").ids) == "a"


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocab", "arguments", "message"),
    [
        ([], {}, "vocab is empty"),
        ({}, {}, "vocab is empty"),
        ([*VOCAB, "[SEP]"], {}, rf"vocab has '\[SEP\]' twice, with the ids 4 and {len(VOCAB)}"),
        (
            [token for token in VOCAB if token != "[MASK]"],
            {},
            r"mask_token '\[MASK\]' is not in the vocabulary",
        ),
        (VOCAB, {"pad_token": "<pad>"}, "pad_token '<pad>' is not in the vocabulary"),
        (VOCAB, {"additional_special_tokens": ["[NEW]"]}, r"additional_special_tokens\[0\] '\[NEW\]'"),
        ({"a": 0, "b": 0}, {}, "id 0 to both 'a' and 'b'"),
        ({"a": 0, "b": 2}, {}, "id 2 to 'b'; 2 tokens have ids 0 to 1"),
        ({"a": 0, "b": -1}, {}, "id -1 to 'b'"),
        ([*VOCAB, "\ud800"], {}, rf"vocab\[{len(VOCAB)}\] has a lone surrogate U\+D800"),
        (VOCAB, {"max_input_chars_per_word": 0}, "max_input_chars_per_word must be at least 1, it is 0"),
        (VOCAB, {"model_max_length": 0}, "model_max_length must be at least 1 or None, it is 0"),
    ],
)
def test_bad_vocabularies(vocab, arguments, message):
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer(vocab, **arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNCASED.encode("ab\ud800"), r"text has a lone surrogate U\+D800 at character 2"),
        (lambda: UNCASED.encode("a", "\udfff"), r"pair has a lone surrogate U\+DFFF at character 0"),
        (lambda: UNCASED.encode_ids(["a", "\ud812"]), r"texts\[1\] has a lone surrogate U\+D812"),
        (lambda: UNCASED.batch(["a"], ["\ud812"]), r"pairs\[0\] has a lone surrogate"),
        (lambda: UNCASED.encode("a", max_length=1), "max_length=1 is too small.* take 2"),
        (lambda: UNCASED.encode("a", "b", max_length=2), "max_length=2 is too small.* take 3"),
        (lambda: UNCASED.encode("a", max_length=-1, add_special_tokens=False), "max_length=-1 is too small"),
        (lambda: UNCASED.encode_ids(["a"], max_length=0), "max_length=0 is too small"),
        (lambda: UNCASED.batch(["a", "b"], ["c"]), "pairs has 1 texts, texts has 2"),
        (lambda: UNCASED.batch(["a", "a b c"], pad_to=4), r"texts\[1\] has 5 tokens, more than pad_to=4"),
        (lambda: UNCASED.decode([3, 10_000]), r"ids\[1\]: id 10000 is out of range: the vocabulary has"),
        (lambda: UNCASED.decode([-1]), r"ids\[0\]: id -1 is out of range"),
        (lambda: UNCASED.id_to_token(len(VOCAB)), f"id {len(VOCAB)} is out of range"),
    ],
)
def test_bad_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNCASED.encode(b"bytes"), "text must be a string, got bytes"),
        (lambda: UNCASED.encode("a", 3), "pair must be a string, got int"),
        (lambda: UNCASED.tokenize(None), "text must be a string, got NoneType"),
        (lambda: UNCASED.encode_ids("one string"), r"texts must be a sequence of strings.*write \[texts\]"),
        (lambda: UNCASED.batch(["a"], "b"), "pairs must be a sequence of strings"),
        (lambda: UNCASED.batch(["a", None]), r"texts\[1\] must be a string, got NoneType"),
        (lambda: UNCASED.encode("a", max_length=2.5), "'float' object cannot be interpreted as an integer"),
        (lambda: UNCASED.decode(["a"]), "'str' object cannot be interpreted as an integer"),
        (lambda: WordPieceTokenizer("vocab.txt"), "got one string"),
        (lambda: WordPieceTokenizer(["a", 1]), r"vocab\[1\] must be a string, got int"),
        (lambda: WordPieceTokenizer({"a": "0"}), "the id '0', which is not an integer"),
    ],
)
def test_wrong_types(call, message):
    with pytest.raises(TypeError, match=message):
        call()
