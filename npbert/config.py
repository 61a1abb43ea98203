"""BertConfig: what describes a BERT, under the names and defaults of Hugging Face's ``config.json``.

A field that npbert does not implement is an error that names it; it is never ignored. A field that
cannot change a result (how transformers splits its work, what it was called, how it would generate
text) is kept in ``extra``, so that a configuration read from a file is written back whole.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from npbert.ops.activations import ACTIVATIONS

POSITION_EMBEDDING_TYPES: Final = ("absolute", "relative_key", "relative_key_query", "sinusoidal")
PROBLEM_TYPES: Final = ("regression", "single_label_classification", "multi_label_classification")

# Fields that would change the model, with the values under which they do not. Any other value is an error.
NEUTRAL_VALUES: Final[dict[str, tuple[Any, ...]]] = {
    "model_type": ("bert",),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False, None),
    "tie_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "per_layer_config": ({}, None),
    "quantization_config": (None,),
    "auto_map": ({}, None),  # names Python code beside the checkpoint that would replace the model
}

# Fields that cannot change what a BERT encoder computes.
# fmt: off
FIELDS_WITHOUT_EFFECT: Final = frozenset({
    # How transformers runs, returns and stores a model.
    "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "_num_labels",
    "attn_implementation",
    "chunk_size_feed_forward", "dtype", "gradient_checkpointing", "output_attentions",
    "output_hidden_states", "output_past", "return_dict", "tf_legacy_loss", "torch_dtype", "torchscript",
    "transformers_version", "use_bfloat16", "use_cache", "xla_device",
    # What the checkpoint is for, and its tokenizer.
    "bos_token_id", "decoder_start_token_id", "eos_token_id", "finetuning_task", "language",
    "model_max_length", "name", "prefix", "sep_token_id", "task_specific_params", "tokenizer_class",
    # Google's Chinese and multilingual BERT: a pooler that was never used.
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
    "pooler_size_per_head", "pooler_type",
    # Text generation, which transformers 4 wrote into every configuration.
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
    "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values",
    "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p",
    "typical_p",
})
# fmt: on


@dataclass(frozen=True)
class BertConfig:
    """The configuration of a BERT; validates itself.

    Parameters
    ----------
    vocab_size : int
        Number of word pieces, V.
    hidden_size : int
        Width of a token's vector, D; divisible by ``num_attention_heads``.
    num_hidden_layers : int
        Number of encoder layers; may be 0.
    num_attention_heads : int
        Number of attention heads, N.
    intermediate_size : int
        Width of the feed-forward layer, F.
    hidden_act : str
        Name of the activation, one of ``npbert.ops.activations.ACTIVATIONS``.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Dropout rates in [0, 1).
    max_position_embeddings : int
        Longest sequence, P.
    type_vocab_size : int
        Number of token types (segments), S.
    initializer_range : float
        Standard deviation of freshly drawn weights.
    layer_norm_eps : float
        Added to the variance in layer normalisation.
    pad_token_id : int or None
        The word whose embedding receives no gradient; None: there is no such word.
    position_embedding_type : str
        "absolute", "relative_key", "relative_key_query" or "sinusoidal".
    classifier_dropout : float or None
        Dropout rate before a classifier; None: ``hidden_dropout_prob``.
    tie_word_embeddings : bool
        Whether the masked-language-model decoder is the word embedding.
    num_labels : int
        Number of classes. Where ``id2label`` is given it is the number of its entries.
    problem_type : str or None
        The loss of sequence classification: "regression", "single_label_classification",
        "multi_label_classification"; None: decided from ``num_labels`` and the labels' dtype.
    id2label, label2id : dict or None
        Names of the classes; None: "LABEL_0", "LABEL_1", ...
    architectures : tuple of str or None
        The transformers classes whose checkpoint this is.
    extra : dict
        Every other field of a ``config.json``, kept to be written back.

    Raises
    ------
    ValueError
        If a field has the wrong type, is out of its range, or asks for something npbert does not
        implement. The message names the field, its value and the limit.

    Examples
    --------
    >>> config = BertConfig(hidden_size=24, num_attention_heads=3)
    >>> config.head_width
    8
    >>> config.replace(num_attention_heads=5)
    Traceback (most recent call last):
        ...
    ValueError: hidden_size is 24, which num_attention_heads 5 does not divide
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    position_embedding_type: str = "absolute"
    classifier_dropout: float | None = None
    tie_word_embeddings: bool = True
    num_labels: int = 2
    problem_type: str | None = None
    # Dictionaries have no hash; two configurations that differ only there hash alike and compare unequal.
    id2label: Mapping[int, str] | None = field(default=None, hash=False)
    label2id: Mapping[str, int] | None = field(default=None, hash=False)
    architectures: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _normalise_labels(self)
        _check_sizes(self)
        _check_rates(self)
        _check_choices(self)
        if not isinstance(self.extra, Mapping):
            raise ValueError(f"extra is {self.extra!r}; it must be a dictionary")
        if shadowed := sorted(FIELD_NAMES & set(self.extra)):
            raise ValueError(f"extra holds {shadowed}, which are fields of their own")
        _check_supported(self.extra)
        object.__setattr__(self, "extra", dict(self.extra))

    @property
    def head_width(self) -> int:
        """Width of one attention head, H = D / N."""
        return self.hidden_size // self.num_attention_heads

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the classes in the order of their numbers: ``id2label``'s, or "LABEL_0" and so on."""
        names = _placeholder_labels(self.num_labels) | dict(self.id2label or {})
        return tuple(names[number] for number in range(self.num_labels))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Build a configuration from the contents of a ``config.json``.

        Parameters
        ----------
        values : dict
            As parsed from JSON: lists, and dictionaries with string keys.

        Returns
        -------
        BertConfig

        Raises
        ------
        ValueError
            As for `BertConfig`.

        Warns
        -----
        UserWarning
            For a field that nobody knows: it is kept in ``extra`` and has no effect.

        Examples
        --------
        >>> BertConfig.from_dict({"model_type": "bert", "is_decoder": True})
        Traceback (most recent call last):
            ...
        ValueError: is_decoder is True, which npbert does not support; supported: False
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"a configuration is a dictionary, not {type(values).__name__}")
        known = {name: value for name, value in values.items() if name in FIELD_NAMES and name != "extra"}
        extra = {name: value for name, value in values.items() if name not in known}
        _check_supported(extra)
        extra.pop("model_type", None)
        unknown = sorted(set(extra) - FIELDS_WITHOUT_EFFECT - set(NEUTRAL_VALUES))
        if unknown:
            warnings.warn(
                f"configuration fields unknown to npbert are kept but have no effect: {', '.join(unknown)}",
                UserWarning,
                stacklevel=2,
            )
        if known.get("num_labels", 0) is None:
            del known["num_labels"]
        if isinstance(architectures := known.get("architectures"), list):
            known["architectures"] = tuple(architectures)
        return cls(**known, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of a ``config.json``, as transformers lays it out.

        The number of labels is written as ``id2label`` and ``label2id``, and only where it is not the
        default of two nameless ones.

        Returns
        -------
        dict
            Values that JSON can hold; ``BertConfig.from_dict`` gives this configuration back.
        """
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        for name in ("extra", "num_labels", "id2label", "label2id", "architectures", "problem_type"):
            del values[name]
        if self.architectures is not None:
            values["architectures"] = list(self.architectures)
        if self.problem_type is not None:
            values["problem_type"] = self.problem_type
        if self.id2label is not None or self.num_labels != 2:
            names = dict(self.id2label) if self.id2label is not None else _placeholder_labels(self.num_labels)
            values["id2label"] = {str(index): name for index, name in names.items()}
            values["label2id"] = (
                dict(self.label2id)
                if self.label2id is not None
                else {name: index for index, name in names.items()}
            )
        return dict(sorted({**self.extra, **values, "model_type": "bert"}.items()))

    def replace(self, **changes: Any) -> "BertConfig":
        """Return a copy with the given fields changed, validated again.

        Changing ``num_labels`` to a number that ``id2label`` does not have drops the labels' names.

        Parameters
        ----------
        **changes
            Fields and their new values.

        Returns
        -------
        BertConfig

        Raises
        ------
        ValueError
            For a name that is no field, and as for `BertConfig`.
        """
        if unknown := sorted(set(changes) - FIELD_NAMES):
            raise ValueError(f"BertConfig has no field {unknown[0]!r}")
        if changes.get("num_labels", self.num_labels) != self.num_labels and "id2label" not in changes:
            changes = {"id2label": None, "label2id": None, **changes}
        elif "id2label" in changes:
            changes = {"label2id": None, "num_labels": 2, **changes}
        return replace(self, **changes)


FIELD_NAMES: Final = frozenset(item.name for item in fields(BertConfig))


def _placeholder_labels(num_labels: int) -> dict[int, str]:
    return {index: f"LABEL_{index}" for index in range(num_labels)}


def _normalise_labels(config: BertConfig) -> None:
    """Turn JSON's string keys into numbers, let ``id2label`` set ``num_labels``, forget placeholder names."""
    if config.id2label is None:
        if config.label2id is not None:
            raise ValueError(f"label2id is {config.label2id!r}, but id2label is not given")
        return
    id2label = _parse_id2label(config.id2label)
    if config.num_labels not in (2, len(id2label)):
        raise ValueError(f"num_labels is {config.num_labels!r}, but id2label has {len(id2label)} entries")
    object.__setattr__(config, "num_labels", len(id2label))
    inverse = {name: index for index, name in id2label.items()}
    label2id = inverse if config.label2id is None else config.label2id
    if not isinstance(label2id, Mapping) or not all(_is_int(index) for index in label2id.values()):
        raise ValueError(f"label2id is {label2id!r}; it must map names to numbers")
    # Placeholders carry no information beyond their number: without them, equal configurations compare equal.
    nameless = id2label == _placeholder_labels(len(id2label)) and label2id == inverse
    object.__setattr__(config, "id2label", None if nameless else id2label)
    object.__setattr__(config, "label2id", None if nameless or label2id == inverse else dict(label2id))


def _parse_id2label(id2label: Any) -> dict[int, str]:
    if not isinstance(id2label, Mapping) or not id2label:
        raise ValueError(f"id2label is {id2label!r}; it must map numbers to names")
    parsed: dict[int, str] = {}
    for key, name in id2label.items():
        if not (_is_int(key) or (isinstance(key, str) and key.isascii() and key.isdigit())):
            raise ValueError(f"id2label has the key {key!r}; keys must be numbers")
        parsed[int(key)] = name if isinstance(name, str) else str(name)
    return parsed


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_int(name: str, value: Any, minimum: int) -> None:
    if not _is_int(value):
        raise ValueError(f"{name} is {value!r}; it must be an integer")
    if value < minimum:
        raise ValueError(f"{name} is {value}; it must be at least {minimum}")


def _check_sizes(config: BertConfig) -> None:
    for name in (
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "num_labels",
    ):
        _check_int(name, getattr(config, name), minimum=1)
    _check_int("num_hidden_layers", config.num_hidden_layers, minimum=0)
    if config.hidden_size % config.num_attention_heads != 0:
        raise ValueError(
            f"hidden_size is {config.hidden_size}, "
            f"which num_attention_heads {config.num_attention_heads} does not divide"
        )
    if config.pad_token_id is not None:
        _check_int("pad_token_id", config.pad_token_id, minimum=0)
        if config.pad_token_id >= config.vocab_size:
            raise ValueError(
                f"pad_token_id is {config.pad_token_id}; it must be below vocab_size {config.vocab_size}"
            )


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; it must be a number")
    if not 0 <= value < math.inf:  # also false for NaN
        raise ValueError(f"{name} is {value}; it must be finite and at least 0")


def _check_rates(config: BertConfig) -> None:
    for name in ("initializer_range", "layer_norm_eps"):
        _check_number(name, getattr(config, name))
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
        rate = getattr(config, name)
        if name == "classifier_dropout" and rate is None:
            continue
        _check_number(name, rate)
        if rate >= 1:
            raise ValueError(f"{name} is {rate}; it must be below 1")


def _check_choices(config: BertConfig) -> None:
    _check_choice("hidden_act", config.hidden_act, tuple(ACTIVATIONS))
    _check_choice("position_embedding_type", config.position_embedding_type, POSITION_EMBEDDING_TYPES)
    if config.problem_type is not None:
        _check_choice("problem_type", config.problem_type, PROBLEM_TYPES)
    if not isinstance(config.tie_word_embeddings, bool):
        raise ValueError(f"tie_word_embeddings is {config.tie_word_embeddings!r}; it must be True or False")
    names = () if config.architectures is None else config.architectures
    if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"architectures is {names!r}; it must be a tuple of names")


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        supported = ", ".join(choices)
        raise ValueError(f"{name} is {value!r}, which npbert does not support; supported: {supported}")


def _check_supported(extra: Mapping[str, Any]) -> None:
    for name, neutral in NEUTRAL_VALUES.items():
        if name in extra and extra[name] not in neutral:
            raise ValueError(
                f"{name} is {extra[name]!r}, which npbert does not support; supported: {neutral[0]!r}"
            )
