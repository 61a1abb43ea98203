"""The tokenizer files of a Hugging Face checkpoint: vocab.txt, tokenizer.json and their settings.

Reading refuses what npbert does not do (another kind of tokenizer, padding on the left, ...) and says
which setting it was; ignoring one would give ids that the model was not trained on.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from npbert.tokenizer.wordpiece import CONTINUATION

VOCABULARY = "vocab.txt"
TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
ADDED_TOKENS = "added_tokens.json"

BERT_CLASSES = ("BertTokenizer", "BertTokenizerFast")
# Names for "whatever tokenizer.json says".
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")

DEFAULT_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}

# Settings of tokenizer_config.json that must have this value where they are present.
ONLY_SUPPORTED: dict[str, Any] = {
    "do_basic_tokenize": True,
    "never_split": None,
    "padding_side": "right",
    "truncation_side": "right",
    "wordpieces_prefix": CONTINUATION,
}

# transformers writes 1e30 for "no limit"; no model has a million positions.
LARGEST_MAX_LENGTH = 1_000_000


def read_settings(directory: Path | str) -> dict[str, Any]:
    """Read the arguments for `WordPieceTokenizer` from a checkpoint's files.

    Parameters
    ----------
    directory : path
        The checkpoint.

    Returns
    -------
    dict
        Keyword arguments of `WordPieceTokenizer`. The vocabulary comes from vocab.txt where there is
        one; tokenizer_config.json has the last word on settings, as in transformers.

    Raises
    ------
    ValueError
        If a file is missing, unreadable or asks for something unsupported.
    """
    directory = Path(directory)
    config = _read_json_if_present(directory / CONFIG)
    special_tokens = _read_json_if_present(directory / SPECIAL_TOKENS_MAP)
    tokenizer_class = config.get("tokenizer_class") or BERT_CLASSES[0]
    if tokenizer_class not in BERT_CLASSES + GENERIC_CLASSES:
        raise ValueError(
            f"{directory / CONFIG}: tokenizer_class {tokenizer_class!r} is not supported; "
            f"supported are {', '.join(BERT_CLASSES + GENERIC_CLASSES)}"
        )
    for name, supported in ONLY_SUPPORTED.items():
        if config.get(name, supported) not in (supported, None):
            raise ValueError(
                f"{directory / CONFIG}: {name} {config[name]!r} is not supported, only {supported!r}"
            )

    settings: dict[str, Any] = dict(DEFAULT_SPECIAL_TOKENS)
    if tokenizer_class in BERT_CLASSES and (directory / VOCABULARY).exists():
        settings["vocab"] = read_vocabulary(directory / VOCABULARY)
    elif (directory / TOKENIZER).exists():
        try:
            settings |= _settings_of_tokenizer_json(directory / TOKENIZER)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(
                f"{directory / TOKENIZER} is not laid out as a tokenizer.json: {error!r}"
            ) from error
    elif tokenizer_class in BERT_CLASSES:
        raise ValueError(f"{directory} has neither {VOCABULARY} nor {TOKENIZER}")
    else:
        raise ValueError(f"{directory} has no {TOKENIZER}, which tokenizer_class {tokenizer_class!r} needs")

    if tokenizer_class in BERT_CLASSES:
        settings |= _normalization_settings(config, directory / CONFIG)
    for name in DEFAULT_SPECIAL_TOKENS:
        token = config.get(name) or special_tokens.get(name)
        if token is not None:
            settings[name] = _token_content(token, directory / CONFIG)
    settings["model_max_length"] = _model_max_length(config, directory / CONFIG)

    listed = settings.get("additional_special_tokens", [])
    listed += _additional_special_tokens(config, special_tokens, directory / CONFIG)
    listed += _read_json_if_present(directory / ADDED_TOKENS)
    named = {settings[name] for name in DEFAULT_SPECIAL_TOKENS}
    settings["additional_special_tokens"] = [token for token in dict.fromkeys(listed) if token not in named]
    return settings


def settings_files(tokens: Sequence[str], settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the contents of the four files, by name.

    Parameters
    ----------
    tokens : sequence of str
        The vocabulary in the order of the ids.
    settings : mapping
        The other keyword arguments of `WordPieceTokenizer`.

    Returns
    -------
    dict of str to str

    Raises
    ------
    ValueError
        If a token holds a line break.
    """
    for index, token in enumerate(tokens):
        if "\n" in token or "\r" in token:
            raise ValueError(f"vocab[{index}] {token!r} holds a line break, which {VOCABULARY} cannot")
    special_tokens = {name: settings[name] for name in DEFAULT_SPECIAL_TOKENS}
    config = {
        name: settings[name] for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    } | special_tokens
    if settings["additional_special_tokens"]:
        special_tokens["additional_special_tokens"] = list(settings["additional_special_tokens"])
        config["additional_special_tokens"] = list(settings["additional_special_tokens"])
    if settings["model_max_length"] is not None:
        config["model_max_length"] = settings["model_max_length"]
    # BertTokenizer cannot be told these two; the generic class does as tokenizer.json says.
    is_plain_bert = settings["clean_text"] and settings["max_input_chars_per_word"] == 100
    config["tokenizer_class"] = BERT_CLASSES[0] if is_plain_bert else GENERIC_CLASSES[0]

    return {
        VOCABULARY: "".join(f"{token}\n" for token in tokens),
        TOKENIZER: _json_text(_tokenizer_json(tokens, settings)),
        SPECIAL_TOKENS_MAP: _json_text(special_tokens),
        CONFIG: _json_text(config),
    }


def read_vocabulary(path: Path) -> list[str]:
    """Return the lines of a vocabulary file; only line feeds (and CR LF) end a line."""
    text = _read_text(path).replace("\r\n", "\n")
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text.removesuffix("\n").split("\n")


def _settings_of_tokenizer_json(path: Path) -> dict[str, Any]:
    """Return the settings that a tokenizer.json gives, if it is BERT's pipeline."""
    tokenizer = _read_json(path)
    parts = {"model": "WordPiece", "normalizer": "BertNormalizer", "pre_tokenizer": "BertPreTokenizer"}
    for part, supported in parts.items():
        kind = (tokenizer.get(part) or {}).get("type")
        if kind != supported:
            raise ValueError(f"{path}: {part} type {kind!r} is not supported, only {supported!r}")
    model, normalizer = tokenizer["model"], tokenizer["normalizer"]
    if model.get("continuing_subword_prefix", CONTINUATION) != CONTINUATION:
        raise ValueError(
            f"{path}: continuing_subword_prefix {model['continuing_subword_prefix']!r} is not supported, "
            f"only {CONTINUATION!r}"
        )
    if not isinstance(model.get("vocab"), dict) or not model["vocab"]:
        raise ValueError(f"{path}: the model has no vocabulary")

    additional = []
    for token in tokenizer.get("added_tokens", []):
        content = _token_content(token, path)
        if not token.get("special"):
            raise ValueError(
                f"{path}: added token {content!r} is not special; only special ones are supported"
            )
        if model["vocab"].get(content) != token.get("id"):
            raise ValueError(
                f"{path}: added token {content!r} with id {token.get('id')} is not in the vocabulary"
            )
        additional.append(content)
    cls_token, sep_token = _cls_and_sep(tokenizer.get("post_processor"), path)
    return {
        "vocab": model["vocab"],
        "do_lower_case": normalizer.get("lowercase", True),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True),
        "clean_text": normalizer.get("clean_text", True),
        "max_input_chars_per_word": model.get("max_input_chars_per_word", 100),
        "unk_token": model.get("unk_token", "[UNK]"),
        "cls_token": cls_token,
        "sep_token": sep_token,
        "additional_special_tokens": additional,
    }


def _cls_and_sep(post_processor: dict[str, Any] | None, path: Path) -> tuple[str, str]:
    """Return the tokens put around texts, if they are put as BERT puts them."""
    kind = (post_processor or {}).get("type")
    if post_processor is not None and kind == "BertProcessing":
        return post_processor["cls"][0], post_processor["sep"][0]
    if post_processor is not None and kind == "TemplateProcessing":
        single, pair = post_processor["single"], post_processor["pair"]
        specials = [item["SpecialToken"]["id"] for item in single if "SpecialToken" in item]
        if len(specials) == 2 and (single, pair) == _templates(*specials):
            return specials[0], specials[1]
        raise ValueError(f"{path}: the post_processor's template is not BERT's [CLS] A [SEP] B [SEP]")
    raise ValueError(
        f"{path}: post_processor type {kind!r} is not supported, only TemplateProcessing and BertProcessing"
    )


def _templates(cls_token: str, sep_token: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the templates of one text and of a pair, as tokenizer.json writes them."""

    def special(token: str, type_id: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def sequence(name: str, type_id: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [special(cls_token, 0), sequence("A", 0), special(sep_token, 0)]
    return single, [*single, sequence("B", 1), special(sep_token, 1)]


def _tokenizer_json(tokens: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of tokenizer.json."""
    vocab = {token: index for index, token in enumerate(tokens)}
    cls_token, sep_token = settings["cls_token"], settings["sep_token"]
    single, pair = _templates(cls_token, sep_token)
    special_tokens = {settings[name] for name in DEFAULT_SPECIAL_TOKENS}
    special_tokens |= set(settings["additional_special_tokens"])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": vocab[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in sorted(special_tokens, key=vocab.__getitem__)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": settings["clean_text"],
            "handle_chinese_chars": settings["tokenize_chinese_chars"],
            "strip_accents": settings["strip_accents"],
            "lowercase": settings["do_lower_case"],
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": pair,
            "special_tokens": {
                token: {"id": token, "ids": [vocab[token]], "tokens": [token]}
                for token in (cls_token, sep_token)
            },
        },
        "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": settings["unk_token"],
            "continuing_subword_prefix": CONTINUATION,
            "max_input_chars_per_word": settings["max_input_chars_per_word"],
            "vocab": vocab,
        },
    }


def _normalization_settings(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the settings of tokenizer_config.json that change the text before WordPiece."""
    settings = {}
    for name in ("do_lower_case", "strip_accents", "tokenize_chinese_chars"):
        value = config.get(name)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"{path}: {name} must be true, false or null, it is {value!r}")
        if value is not None or (name == "strip_accents" and name in config):
            settings[name] = value
    return settings


def _model_max_length(config: dict[str, Any], path: Path) -> int | None:
    """Return the model's number of positions, None where the file says there is no limit."""
    length = config.get("model_max_length", LARGEST_MAX_LENGTH)
    if length is None or (isinstance(length, int | float) and length >= LARGEST_MAX_LENGTH):
        return None
    if not isinstance(length, int) or length < 1:
        raise ValueError(f"{path}: model_max_length must be a positive integer or null, it is {length!r}")
    return length


def _additional_special_tokens(
    config: dict[str, Any], special_tokens: dict[str, Any], path: Path
) -> list[str]:
    """Collect the special tokens that the settings list beyond the five named ones."""
    found = []
    for name in ("additional_special_tokens", "extra_special_tokens"):
        tokens = config.get(name) or special_tokens.get(name) or []
        # transformers 5 can write names for them, as it does for the five.
        found += [
            _token_content(token, path) for token in (tokens.values() if isinstance(tokens, dict) else tokens)
        ]
    for index, token in (config.get("added_tokens_decoder") or {}).items():
        content = _token_content(token, path)
        if isinstance(token, str) or not token.get("special"):
            raise ValueError(
                f"{path}: added token {index} {content!r} is not special; only special ones are supported"
            )
        found.append(content)
    return found


def _token_content(token: Any, path: Path) -> str:
    """Return the text of a token given as text or as an object, if it is matched as npbert does."""
    if isinstance(token, str):
        return token
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise ValueError(f"{path}: {token!r} is not a token")
    for flag in ("single_word", "lstrip", "rstrip", "normalized"):
        if token.get(flag):
            raise ValueError(f"{path}: token {token['content']!r} with {flag} is not supported")
    return str(token["content"])


def _read_json_if_present(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.exists() else {}


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        contents = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(contents, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds a {type(contents).__name__}")
    return contents


def _read_text(path: Path) -> str:
    """Return the text of a UTF-8 file."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _json_text(contents: dict[str, Any]) -> str:
    return json.dumps(contents, indent=2, ensure_ascii=False) + "\n"
