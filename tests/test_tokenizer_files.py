"""Reading and writing the tokenizer files of a checkpoint."""

import json

import pytest

from npbert.tokenizer import WordPieceTokenizer

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "hello",
    "Hello",
    "w",
    "##orld",
    "ö",
    "中",
    "[unused1]",
]
TEXTS = ["Hello wörld 中中 [MASK]", "hello\x07world [unused1]", "w" * 101]

SETTINGS = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False, "tokenize_chinese_chars": False},
    {"clean_text": False},
    {"max_input_chars_per_word": 7},
    {"model_max_length": None},
    {"model_max_length": 128, "additional_special_tokens": ["[unused1]"]},
    {"cls_token": "hello", "sep_token": "w"},
]


def write_json(path, contents):
    path.write_text(json.dumps(contents), encoding="utf-8")


def edit_json(path, **changes):
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)


@pytest.fixture
def saved(tmp_path):
    """A directory with all files of an ordinary tokenizer."""
    WordPieceTokenizer(VOCAB).save(tmp_path)
    return tmp_path


# --- what is written is read ------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("missing", ["", "tokenizer.json", "vocab.txt", "special_tokens_map.json"])
def test_what_is_saved_is_read_back(tmp_path, settings, missing):
    tokenizer = WordPieceTokenizer(VOCAB, **settings)
    tokenizer.save(tmp_path / "new" / "directory")
    if missing:
        (tmp_path / "new" / "directory" / missing).unlink()
    if missing == "tokenizer.json" and {"clean_text", "max_input_chars_per_word"} & settings.keys():
        # Only tokenizer.json can say these two.
        with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
            WordPieceTokenizer.from_directory(tmp_path / "new" / "directory")
        return
    again = WordPieceTokenizer.from_directory(str(tmp_path / "new" / "directory"))
    assert again.files() == tokenizer.files()
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_saving_writes_four_files_and_leaves_no_others(saved):
    WordPieceTokenizer(VOCAB[:7]).save(saved)  # over the older ones
    names = {"vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in saved.iterdir()} == names
    assert list(WordPieceTokenizer.from_directory(saved).vocab) == VOCAB[:7]


def test_saving_a_token_with_a_line_break_changes_nothing(saved):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with pytest.raises(ValueError, match=r"vocab\[12\] 'a\\nb' holds a line break"):
        WordPieceTokenizer([*VOCAB, "a\nb"]).save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_vocab_txt_alone_is_an_uncased_tokenizer_without_limit(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\n".join(VOCAB).encode())  # no line feed at the end
    tokenizer = WordPieceTokenizer.from_directory(tmp_path)
    assert list(tokenizer.vocab) == VOCAB
    assert tokenizer.do_lower_case
    assert tokenizer.strip_accents is None
    assert tokenizer.model_max_length is None


def test_only_line_feeds_end_a_line_of_vocab_txt(tmp_path):
    vocab = [*VOCAB, "a\u2028b", "\x85", "\x0c", ""]
    (tmp_path / "vocab.txt").write_bytes("".join(f"{token}\r\n" for token in vocab).encode())
    assert list(WordPieceTokenizer.from_directory(tmp_path).vocab) == vocab


def test_settings_of_tokenizer_config(saved):
    edit_json(
        saved / "tokenizer_config.json",
        do_lower_case=False,
        strip_accents=True,
        tokenize_chinese_chars=False,
        model_max_length=int(1e30),
        mask_token={"content": "[unused1]", "lstrip": False, "normalized": False},
        added_tokens_decoder={"4": {"content": "[MASK]", "special": True}},
    )
    tokenizer = WordPieceTokenizer.from_directory(saved)
    assert tokenizer.do_lower_case is False
    assert tokenizer.strip_accents is True
    assert tokenizer.tokenize_chinese_chars is False
    assert tokenizer.model_max_length is None
    assert tokenizer.mask_token == "[unused1]"
    assert tokenizer.additional_special_tokens == ["[MASK]"]


def test_special_tokens_map_is_used_where_the_config_is_silent(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB), encoding="utf-8")
    write_json(
        tmp_path / "special_tokens_map.json",
        {"mask_token": "[unused1]", "additional_special_tokens": ["[MASK]"]},
    )
    tokenizer = WordPieceTokenizer.from_directory(tmp_path)
    assert tokenizer.mask_token == "[unused1]"
    assert tokenizer.additional_special_tokens == ["[MASK]"]


def test_a_generic_class_does_as_tokenizer_json_says(saved):
    edit_json(saved / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False)
    assert WordPieceTokenizer.from_directory(saved).do_lower_case is True


def test_bert_processing_is_another_way_to_write_the_template(saved):
    (saved / "vocab.txt").unlink()
    processor = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    edit_json(saved / "tokenizer.json", post_processor=processor)
    assert WordPieceTokenizer.from_directory(saved).encode("hello").tokens == ["[CLS]", "hello", "[SEP]"]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_class": "RobertaTokenizer"}, "tokenizer_class 'RobertaTokenizer' is not supported"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize False is not supported, only True"),
        ({"never_split": ["a"]}, r"never_split \['a'\] is not supported"),
        ({"padding_side": "left"}, "padding_side 'left' is not supported, only 'right'"),
        ({"truncation_side": "left"}, "truncation_side 'left' is not supported"),
        ({"do_lower_case": "yes"}, "do_lower_case must be true, false or null, it is 'yes'"),
        ({"model_max_length": 0}, "model_max_length must be a positive integer or null, it is 0"),
        ({"model_max_length": "512"}, "model_max_length must be .* it is '512'"),
        ({"mask_token": "<mask>"}, "mask_token '<mask>' is not in the vocabulary"),
        ({"mask_token": {"content": "[MASK]", "lstrip": True}}, r"token '\[MASK\]' with lstrip"),
        ({"mask_token": 5}, "5 is not a token"),
        ({"added_tokens_decoder": {"12": {"content": "x"}}}, "added token 12 'x' is not special"),
        ({"extra_special_tokens": {"boa": "<boa>"}}, "'<boa>' is not in the vocabulary"),
    ],
)
def test_unsupported_settings_of_tokenizer_config(saved, changes, message):
    edit_json(saved / "tokenizer_config.json", **changes)
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.from_directory(saved)


WORDPIECE = {"type": "WordPiece", "vocab": {token: index for index, token in enumerate(VOCAB)}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"type": "BPE"}}, "model type 'BPE' is not supported, only 'WordPiece'"),
        ({"model": WORDPIECE | {"continuing_subword_prefix": "@@"}}, "continuing_subword_prefix '@@'"),
        ({"model": WORDPIECE | {"vocab": {}}}, "the model has no vocabulary"),
        ({"normalizer": None}, "normalizer type None is not supported, only 'BertNormalizer'"),
        ({"normalizer": {"type": "NFC"}}, "normalizer type 'NFC'"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer type 'Whitespace'"),
        ({"post_processor": None}, "post_processor type None is not supported"),
        ({"post_processor": {"type": "BertProcessing"}}, "is not laid out as a tokenizer.json: KeyError"),
        (
            {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": []}},
            "the post_processor's template is not BERT's",
        ),
        (
            {"added_tokens": [{"id": 12, "content": "x", "special": True}]},
            "added token 'x' with id 12 is not",
        ),
        ({"added_tokens": [{"id": 5, "content": "hello"}]}, "added token 'hello' is not special"),
        (
            {"added_tokens": [{"id": 5, "content": "hello", "special": True, "rstrip": True}]},
            "token 'hello' with rstrip is not supported",
        ),
    ],
)
def test_unsupported_settings_of_tokenizer_json(saved, changes, message):
    (saved / "vocab.txt").unlink()
    edit_json(saved / "tokenizer.json", **changes)
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.from_directory(saved)


def test_tokens_added_beyond_the_vocabulary_are_refused(saved):
    write_json(saved / "added_tokens.json", {"[NEW]": 12})
    with pytest.raises(ValueError, match=r"'\[NEW\]' is not in the vocabulary"):
        WordPieceTokenizer.from_directory(saved)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("vocab.txt", b"", "vocab.txt is empty"),
        ("vocab.txt", b"\n\n", "vocab.txt is empty"),
        ("vocab.txt", b"[PAD]\n\xff\xfe", "vocab.txt is not UTF-8: invalid start byte at byte 6"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[PAD]\n", r"'\[PAD\]' twice, with the ids 0 and 2"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[SEP]\n[MASK]\n", r"cls_token '\[CLS\]' is not in the vocabulary"),
        ("tokenizer_config.json", b"{", "tokenizer_config.json is not JSON: .* line 1"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json must hold a JSON object, it holds a list"),
        ("special_tokens_map.json", b"\xff", "special_tokens_map.json is not UTF-8"),
    ],
)
def test_broken_files(saved, name, contents, message):
    (saved / name).write_bytes(contents)
    with pytest.raises(ValueError, match=message):
        WordPieceTokenizer.from_directory(saved)


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"has neither vocab\.txt nor tokenizer\.json"):
        WordPieceTokenizer.from_directory(tmp_path)
    with pytest.raises(ValueError, match="neither"):
        WordPieceTokenizer.from_directory(tmp_path / "nowhere")
    (tmp_path / "vocab.txt").mkdir()
    with pytest.raises(ValueError, match=r"vocab\.txt cannot be read"):
        WordPieceTokenizer.from_directory(tmp_path)
