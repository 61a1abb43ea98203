"""BertConfig: what it accepts, what it refuses by name, and the way to config.json and back."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.config import FIELDS_WITHOUT_EFFECT, POSITION_EMBEDDING_TYPES, PROBLEM_TYPES, BertConfig
from npbert.ops.activations import ACTIVATIONS

# bert-base-chinese's file, with the fields of Google's that transformers carries along.
BERT_BASE_CHINESE = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "directionality": "bidi",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "type_vocab_size": 2,
    "vocab_size": 21128,
}

BAD_FIELDS = [
    ("vocab_size", 0, "at least 1"),
    ("vocab_size", 30522.0, "integer"),
    ("vocab_size", True, "integer"),
    ("hidden_size", -12, "at least 1"),
    ("hidden_size", 770, "num_attention_heads 12 does not divide"),
    ("num_hidden_layers", -1, "at least 0"),
    ("num_hidden_layers", None, "integer"),
    ("num_attention_heads", 0, "at least 1"),
    ("intermediate_size", "3072", "integer"),
    ("max_position_embeddings", 0, "at least 1"),
    ("type_vocab_size", 0, "at least 1"),
    ("num_labels", 0, "at least 1"),
    ("hidden_act", "geluu", "supported: .*gelu"),
    ("hidden_act", None, "supported: .*gelu"),
    ("hidden_dropout_prob", 1.0, "below 1"),
    ("hidden_dropout_prob", -0.1, "at least 0"),
    ("attention_probs_dropout_prob", math.nan, "finite"),
    ("attention_probs_dropout_prob", "0.1", "number"),
    ("classifier_dropout", 2, "below 1"),
    ("classifier_dropout", True, "number"),
    ("initializer_range", math.inf, "finite"),
    ("layer_norm_eps", -1e-12, "at least 0"),
    ("layer_norm_eps", None, "number"),
    ("pad_token_id", 30522, "below vocab_size 30522"),
    ("pad_token_id", -1, "at least 0"),
    ("position_embedding_type", "rotary", "supported: absolute"),
    ("problem_type", "ranking", "supported: regression"),
    ("tie_word_embeddings", 1, "True or False"),
    ("architectures", "BertModel", "tuple of names"),
    ("id2label", {}, "map numbers to names"),
    ("id2label", {"one": "a"}, "keys must be numbers"),
    ("label2id", {"a": 0}, "id2label is not given"),
    ("extra", [], "dictionary"),
    ("extra", {"hidden_size": 3}, "fields of their own"),
]

UNSUPPORTED = [
    ("model_type", "roberta"),
    ("is_decoder", True),
    ("add_cross_attention", True),
    ("cross_attention_hidden_size", 768),
    ("is_encoder_decoder", True),
    ("pruned_heads", {"0": [1]}),
    ("quantization_config", {"bits": 8}),
    ("auto_map", {"AutoModel": "modeling.Model"}),
    ("position_embedding_type", "alibi"),
]


def test_defaults_are_those_of_bert_base():
    config = BertConfig()
    assert (config.vocab_size, config.hidden_size, config.head_width) == (30522, 768, 64)
    assert (config.layer_norm_eps, config.pad_token_id, config.num_labels) == (1e-12, 0, 2)


@pytest.mark.parametrize(("name", "value", "limit"), BAD_FIELDS)
def test_a_bad_field_is_named_with_its_value_and_limit(name, value, limit):
    with pytest.raises(ValueError, match=limit) as error:
        BertConfig(**{name: value})
    assert name in str(error.value)


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_an_unsupported_value_is_never_ignored(name, value):
    with pytest.raises(ValueError, match="does not support") as error:
        BertConfig.from_dict({name: value})
    assert name in str(error.value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 0},
        {"pad_token_id": None},
        {"classifier_dropout": 0},
        {"type_vocab_size": 1},
        {"layer_norm_eps": 1e-5},
        *({"hidden_act": name} for name in ACTIVATIONS),
        *({"position_embedding_type": name} for name in POSITION_EMBEDDING_TYPES),
        *({"problem_type": name} for name in PROBLEM_TYPES),
    ],
    ids=repr,
)
def test_values_that_a_transformers_config_can_hold_are_accepted(changes):
    config = BertConfig(**changes)
    assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert all(getattr(config, name) == value for name, value in changes.items())


def test_a_published_file_is_read_without_a_warning_and_written_back_whole(recwarn):
    config = BertConfig.from_dict(BERT_BASE_CHINESE)
    assert not recwarn.list
    assert config.vocab_size == 21128
    assert config.architectures == ("BertForMaskedLM",)
    assert config.extra["pooler_type"] == "first_token_transform"
    written = config.to_dict()
    assert {name: written[name] for name in BERT_BASE_CHINESE} == BERT_BASE_CHINESE
    assert set(written) - set(BERT_BASE_CHINESE) == {
        "classifier_dropout",
        "position_embedding_type",
        "tie_word_embeddings",
    }


def test_a_field_nobody_knows_is_reported_and_kept():
    with pytest.warns(UserWarning, match="hidden_szie"):
        config = BertConfig.from_dict({"hidden_szie": 12})
    assert config.hidden_size == 768
    assert config.to_dict()["hidden_szie"] == 12


@pytest.mark.parametrize("name", sorted(FIELDS_WITHOUT_EFFECT))
def test_a_field_without_effect_is_kept_silently(name, recwarn):
    config = BertConfig.from_dict({name: "anything"})
    assert not recwarn.list
    assert config.to_dict()[name] == "anything"


def test_extra_is_no_way_round_what_is_unsupported():
    with pytest.raises(ValueError, match="is_decoder is True"):
        BertConfig(extra={"is_decoder": True})


def test_neutral_values_of_unsupported_fields_are_kept():
    values = {"is_decoder": False, "pruned_heads": {}, "add_cross_attention": False, "model_type": "bert"}
    written = BertConfig.from_dict(values).to_dict()
    assert {name: written[name] for name in values} == values


def test_an_unknown_argument_and_a_non_dictionary_are_refused():
    with pytest.raises(TypeError, match="hidden_szie"):
        BertConfig(hidden_szie=12)
    with pytest.raises(ValueError, match="dictionary, not list"):
        BertConfig.from_dict([])


class TestLabels:
    def test_names_set_the_number(self):
        config = BertConfig.from_dict({"id2label": {"0": "plot", "1": "fresh", "2": "rotten"}})
        assert config.num_labels == 3
        assert config.id2label == {0: "plot", 1: "fresh", 2: "rotten"}
        assert config.to_dict()["label2id"] == {"plot": 0, "fresh": 1, "rotten": 2}

    def test_the_number_alone_is_written_as_transformers_does(self):
        written = BertConfig(num_labels=3).to_dict()
        assert "num_labels" not in written
        assert written["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
        assert written["label2id"] == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
        assert BertConfig.from_dict(written) == BertConfig(num_labels=3)
        assert "id2label" not in BertConfig().to_dict()

    def test_names_in_order(self):
        assert BertConfig(id2label={1: "b", 0: "a"}).label_names == ("a", "b")
        assert BertConfig(num_labels=3).label_names == ("LABEL_0", "LABEL_1", "LABEL_2")

    def test_a_contradiction_is_refused(self):
        with pytest.raises(ValueError, match="num_labels is 5, but id2label has 3"):
            BertConfig(num_labels=5, id2label={0: "a", 1: "b", 2: "c"})

    def test_a_map_back_that_is_not_the_inverse_survives(self):
        values = {"id2label": {"0": "a", "1": "b"}, "label2id": {"A": 0, "B": 1}}
        written = BertConfig.from_dict(values).to_dict()
        assert {name: written[name] for name in values} == values

    def test_replacing_the_number_drops_the_names(self):
        config = BertConfig(id2label={0: "a", 1: "b", 2: "c"})
        assert config.replace(hidden_size=24).id2label == config.id2label
        assert config.replace(num_labels=3).id2label == config.id2label
        assert config.replace(num_labels=2) == BertConfig()
        assert config.replace(num_labels=7).num_labels == 7

    def test_replacing_the_names_sets_the_number(self):
        config = BertConfig(id2label={0: "a", 1: "b", 2: "c"})
        assert config.replace(id2label={0: "x", 1: "y", 2: "z", 3: "w"}).num_labels == 4


def test_replace_validates_and_refuses_unknown_names():
    config = BertConfig()
    assert config.replace(hidden_size=24).hidden_size == 24
    assert config.hidden_size == 768
    with pytest.raises(ValueError, match="num_attention_heads 12 does not divide"):
        config.replace(hidden_size=23)
    with pytest.raises(ValueError, match="no field 'hidden_szie'"):
        config.replace(hidden_szie=24)


def test_it_is_immutable_and_hashable():
    extra = {"use_cache": True}
    config = BertConfig(extra=extra)
    extra["use_cache"] = False
    assert config.extra == {"use_cache": True}
    assert hash(config) == hash(BertConfig(extra={"use_cache": True}))
    with pytest.raises(AttributeError):
        config.hidden_size = 3


@given(
    heads=st.integers(1, 9),
    width=st.integers(1, 9),
    layers=st.integers(0, 9),
    vocabulary=st.integers(1, 99),
    eps=st.floats(0, 1),
    tied=st.booleans(),
    labels=st.integers(1, 9),
    data=st.data(),
)
def test_any_configuration_survives_json(heads, width, layers, vocabulary, eps, tied, labels, data):
    config = BertConfig(
        hidden_size=heads * width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        pad_token_id=data.draw(st.none() | st.integers(0, vocabulary - 1)),
        layer_norm_eps=eps,
        tie_word_embeddings=tied,
        num_labels=labels,
    )
    assert config.head_width == width
    assert BertConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
