"""Names, shapes, fresh values and validation of parameters."""

import math

import numpy as np
import pytest

from npbert.config import BertConfig
from npbert.params import (
    DECODER_BIAS,
    DECODER_WEIGHT,
    PREDICTIONS_BIAS,
    TASKS,
    canonical_names,
    decoder_names,
    init_params,
    parameter_shapes,
    subset,
    validate_params,
    with_prefix,
)

# Sizes without a common factor: a transposed or mistaken axis cannot go unnoticed.
CONFIG = BertConfig(
    vocab_size=23,
    hidden_size=10,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=13,
    max_position_embeddings=11,
    type_vocab_size=3,
)
UNTIED = CONFIG.replace(tie_word_embeddings=False)
WORDS = "bert.embeddings.word_embeddings.weight"


def random_params(config, task, seed=0):
    """Parameters without a zero or a one in them, so that no two tensors are alike."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in parameter_shapes(config, task).items()}


def assert_same(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


class TestShapes:
    def test_bert_base_has_its_published_number_of_parameters(self):
        count = sum(math.prod(shape) for shape in parameter_shapes(BertConfig(), "encoder").values())
        assert count == 109_482_240

    def test_the_body_of_every_task_is_the_encoder(self):
        encoder = parameter_shapes(CONFIG, "encoder")
        without_pooler = {name: shape for name, shape in encoder.items() if not name.startswith("pooler.")}
        for task in TASKS[1:]:
            body = subset(parameter_shapes(CONFIG, task), "bert.")
            expected = (
                without_pooler
                if task in ("masked_lm", "token_classification", "question_answering")
                else encoder
            )
            assert list(body.items()) == list(expected.items()), task

    @pytest.mark.parametrize(
        ("task", "head"),
        [
            ("next_sentence", {"cls.seq_relationship.weight": (2, 10), "cls.seq_relationship.bias": (2,)}),
            ("sequence_classification", {"classifier.weight": (5, 10), "classifier.bias": (5,)}),
            ("token_classification", {"classifier.weight": (5, 10), "classifier.bias": (5,)}),
            ("multiple_choice", {"classifier.weight": (1, 10), "classifier.bias": (1,)}),
        ],
    )
    def test_small_heads(self, task, head):
        shapes = parameter_shapes(CONFIG.replace(num_labels=5), task)
        assert {name: shape for name, shape in shapes.items() if not name.startswith("bert.")} == head

    def test_question_answering_has_two_scores(self):
        assert parameter_shapes(CONFIG, "question_answering")["qa_outputs.weight"] == (2, 10)
        with pytest.raises(ValueError, match="num_labels is 5; question answering needs 2"):
            parameter_shapes(CONFIG.replace(num_labels=5), "question_answering")

    def test_tied_and_untied_decoder(self):
        tied, untied = parameter_shapes(CONFIG, "masked_lm"), parameter_shapes(UNTIED, "masked_lm")
        assert set(untied) - set(tied) == {DECODER_WEIGHT, DECODER_BIAS}
        assert untied[DECODER_WEIGHT] == (23, 10)
        assert decoder_names(CONFIG) == (WORDS, PREDICTIONS_BIAS)
        assert decoder_names(UNTIED) == (DECODER_WEIGHT, DECODER_BIAS)

    @pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
    def test_relative_positions(self, kind):
        shapes = parameter_shapes(CONFIG.replace(position_embedding_type=kind), "encoder")
        added = {name: shape for name, shape in shapes.items() if "distance_embedding" in name}
        assert len(added) == 3
        assert set(added.values()) == {(21, 5)}
        assert shapes["embeddings.position_embeddings.weight"] == (11, 10)

    def test_sinusoidal_positions_have_no_table(self):
        shapes = parameter_shapes(CONFIG.replace(position_embedding_type="sinusoidal"), "encoder")
        absent = set(parameter_shapes(CONFIG, "encoder")) - set(shapes)
        assert absent == {"embeddings.position_embeddings.weight"}

    def test_no_layers(self):
        shapes = parameter_shapes(CONFIG.replace(num_hidden_layers=0), "encoder")
        assert not any("layer." in name for name in shapes)

    def test_an_unknown_task_is_named(self):
        with pytest.raises(ValueError, match="'translation'; it must be one of encoder, pretraining"):
            parameter_shapes(CONFIG, "translation")


class TestInit:
    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_every_parameter_is_there_and_valid(self, task, config, dtype):
        params = init_params(config, task, seed=0, dtype=dtype)
        validate_params(params, config, task)
        assert {value.dtype for value in params.values()} == {np.dtype(dtype)}

    def test_distribution(self):
        config = CONFIG.replace(hidden_size=200, initializer_range=0.3, pad_token_id=4)
        params = init_params(config, "pretraining", seed=1, dtype=np.float64)
        for name, value in params.items():
            if name.endswith("LayerNorm.weight"):
                assert (value == 1).all(), name
            elif name.endswith("bias"):
                assert (value == 0).all(), name
            else:
                draws = np.delete(value, 4, axis=0) if name == WORDS else value
                # n draws: their standard deviation is off by 1 part in sqrt(2 n), their mean by one in
                # sqrt(n); five times that happens once in a million.
                assert abs(draws.std() / 0.3 - 1) < 5 / math.sqrt(2 * draws.size), name
                assert abs(draws.mean() / 0.3) < 5 / math.sqrt(draws.size), name
        assert (params[WORDS][4] == 0).all()
        assert (np.abs(np.delete(params[WORDS], 4, axis=0)).sum(axis=1) > 0).all()

    def test_no_padding_word(self):
        params = init_params(CONFIG.replace(pad_token_id=None), "encoder", seed=0)
        assert (np.abs(params["embeddings.word_embeddings.weight"]).sum(axis=1) > 0).all()

    def test_the_seed_decides(self):
        first, again, other = (init_params(CONFIG, "pretraining", seed=seed) for seed in (7, 7, 8))
        assert_same(again, first)
        weight = "bert.pooler.dense.weight"
        assert not np.array_equal(first[weight], other[weight])

    def test_no_two_tensors_share_their_numbers(self):
        params = init_params(CONFIG.replace(intermediate_size=10), "pretraining", seed=0)
        square = [value for value in params.values() if value.shape == (10, 10)]
        assert len(square) == 3 * 6 + 2
        assert len({value.tobytes() for value in square}) == len(square)

    def test_the_body_does_not_depend_on_the_task(self):
        encoder = init_params(CONFIG, "encoder", seed=3)
        for task in TASKS[1:]:
            for name, value in subset(init_params(CONFIG, task, seed=3), "bert.").items():
                np.testing.assert_array_equal(value, encoder[name], err_msg=f"{task} {name}")

    def test_float32_is_float64_rounded(self):
        wide = init_params(CONFIG, "encoder", seed=3, dtype=np.float64)
        narrow = init_params(CONFIG, "encoder", seed=3)
        assert_same(narrow, {name: value.astype(np.float32) for name, value in wide.items()})

    @pytest.mark.parametrize("seed", [-1, 1.5, None, True])
    def test_a_bad_seed_is_named(self, seed):
        with pytest.raises(ValueError, match="seed is"):
            init_params(CONFIG, "encoder", seed=seed)

    def test_a_bad_dtype_is_named(self):
        with pytest.raises(ValueError, match="dtype is int32"):
            init_params(CONFIG, "encoder", seed=0, dtype=np.int32)


def test_subset_undoes_with_prefix():
    params = {"a.weight": 1, "b.weight": 2}
    assert subset(with_prefix(params, "bert."), "bert.") == params
    assert subset(params, "a.") == {"weight": 1}


class TestCanonicalNames:
    @pytest.mark.parametrize("task", TASKS)
    @pytest.mark.parametrize("config", [CONFIG, UNTIED], ids=["tied", "untied"])
    def test_canonical_names_stay(self, task, config):
        params = random_params(config, task)
        assert_same(canonical_names(params, config, task), params)

    def test_the_prefix_is_optional(self):
        encoder = random_params(CONFIG, "encoder")
        assert_same(canonical_names(with_prefix(encoder, "bert."), CONFIG, "encoder"), encoder)
        pretraining = random_params(CONFIG, "pretraining")
        bare = {name.removeprefix("bert."): value for name, value in pretraining.items()}
        assert_same(canonical_names(bare, CONFIG, "pretraining"), pretraining)

    def test_the_order_of_the_file_does_not_matter(self):
        params = random_params(CONFIG, "pretraining")
        backwards = dict(reversed(params.items()))
        assert_same(canonical_names(backwards, CONFIG, "pretraining"), params)

    def test_gamma_and_beta(self):
        params = random_params(CONFIG, "pretraining")
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): value
            for name, value in params.items()
        }
        assert sum(name.endswith(("gamma", "beta")) for name in old) == 2 * (1 + 2 * 3 + 1)
        assert_same(canonical_names(old, CONFIG, "pretraining"), params)

    def test_buffers_are_left_out(self, recwarn):
        params = random_params(CONFIG, "masked_lm")
        buffers = {
            "bert.embeddings.position_ids": np.arange(11)[None],
            "embeddings.token_type_ids": np.zeros((1, 11), np.int64),
        }
        assert_same(canonical_names(params | buffers, CONFIG, "masked_lm"), params)
        assert not recwarn.list

    @pytest.mark.parametrize("task", TASKS)
    def test_other_heads_are_left_out(self, task, recwarn):
        everything = with_prefix(random_params(CONFIG, "encoder"), "bert.")
        for other in ("multiple_choice", "question_answering", "pretraining"):
            everything |= random_params(CONFIG, other)
        found = canonical_names(everything, CONFIG, task)
        assert list(found) == list(parameter_shapes(CONFIG, task))
        assert not recwarn.list

    def test_a_name_given_twice_is_refused(self):
        params = random_params(CONFIG, "encoder")
        params["bert.pooler.dense.bias"] = params["pooler.dense.bias"]
        with pytest.raises(ValueError, match=r"bert\.pooler\.dense\.bias is given twice"):
            canonical_names(params, CONFIG, "encoder")

    def test_a_layer_too_many_is_refused(self):
        params = random_params(CONFIG, "encoder")
        with pytest.raises(ValueError, match=r"num_hidden_layers 2 .*encoder\.layer\.2\..* and 8 more"):
            canonical_names(params, CONFIG.replace(num_hidden_layers=2), "encoder")

    def test_relative_positions_are_not_dropped_silently(self):
        params = random_params(CONFIG.replace(position_embedding_type="relative_key"), "encoder")
        with pytest.raises(ValueError, match=r"'absolute': .*distance_embedding"):
            canonical_names(params, CONFIG, "encoder")

    def test_a_stranger_is_reported(self):
        params = random_params(CONFIG, "encoder")
        with pytest.warns(UserWarning, match=r"crf\.transitions"):
            found = canonical_names(params | {"crf.transitions": np.ones(3)}, CONFIG, "encoder")
        assert_same(found, params)


class TestDecoder:
    def test_copies_of_tied_tensors_are_left_out(self):
        params = random_params(CONFIG, "masked_lm")
        copies = {DECODER_WEIGHT: params[WORDS].copy(), DECODER_BIAS: params[PREDICTIONS_BIAS].copy()}
        assert_same(canonical_names(params | copies, CONFIG, "masked_lm"), params)

    def test_either_name_of_a_tied_tensor_will_do(self):
        params = random_params(CONFIG, "masked_lm")
        renamed = dict(params)
        renamed[DECODER_WEIGHT] = renamed.pop(WORDS)
        renamed[DECODER_BIAS] = renamed.pop(PREDICTIONS_BIAS)
        assert_same(canonical_names(renamed, CONFIG, "masked_lm"), params)

    @pytest.mark.parametrize(
        ("copy", "original"), [(DECODER_WEIGHT, WORDS), (DECODER_BIAS, PREDICTIONS_BIAS)]
    )
    def test_a_tied_tensor_that_differs_is_refused(self, copy, original):
        params = random_params(CONFIG, "masked_lm")
        params[copy] = params[original].copy()
        params[copy][-1] += 1e-9
        with pytest.raises(
            ValueError, match=f"{copy} differs from {original}, but tie_word_embeddings is True"
        ):
            canonical_names(params, CONFIG, "masked_lm")

    def test_a_nan_in_both_copies_is_reported_as_a_nan(self):
        params = random_params(CONFIG, "masked_lm")
        params[WORDS][3, 4] = np.nan
        found = canonical_names(params | {DECODER_WEIGHT: params[WORDS].copy()}, CONFIG, "masked_lm")
        with pytest.raises(ValueError, match=rf"{WORDS} is nan at \(3, 4\)"):
            validate_params(found, CONFIG, "masked_lm")

    def test_untied_from_transformers_4(self):
        """There the one bias, saved as cls.predictions.bias, is the decoder's."""
        params = random_params(UNTIED, "masked_lm")
        del params[DECODER_BIAS]
        found = canonical_names(params, UNTIED, "masked_lm")
        validate_params(found, UNTIED, "masked_lm")
        np.testing.assert_array_equal(found[DECODER_BIAS], params[PREDICTIONS_BIAS])
        assert not np.shares_memory(found[DECODER_BIAS], found[PREDICTIONS_BIAS])

    def test_untied_without_the_unused_bias(self):
        params = random_params(UNTIED, "masked_lm")
        del params[PREDICTIONS_BIAS]
        found = canonical_names(params, UNTIED, "masked_lm")
        validate_params(found, UNTIED, "masked_lm")
        np.testing.assert_array_equal(found[PREDICTIONS_BIAS], params[DECODER_BIAS])

    def test_an_untied_decoder_is_not_invented(self):
        params = random_params(CONFIG, "masked_lm")
        with pytest.raises(ValueError, match=r"missing .* cls\.predictions\.decoder\.weight$"):
            validate_params(canonical_names(params, UNTIED, "masked_lm"), UNTIED, "masked_lm")


class TestValidate:
    @pytest.mark.parametrize("task", TASKS)
    def test_each_missing_tensor_is_named(self, task):
        params = random_params(CONFIG, task)
        pooler = "pooler.dense.weight"
        for name in params:
            rest = {other: value for other, value in params.items() if other != name}
            with pytest.raises(ValueError, match=f"missing .*: {name}$"):
                validate_params(rest, CONFIG, task)
        assert (pooler in params or f"bert.{pooler}" in params) == (
            task not in ("masked_lm", "token_classification", "question_answering")
        )

    def test_all_missing_tensors_are_in_one_message(self):
        params = random_params(CONFIG, "pretraining")
        lost = ["cls.predictions.bias", "cls.seq_relationship.bias"]
        rest = {name: value for name, value in params.items() if name not in lost}
        with pytest.raises(ValueError, match=r"cls\.predictions\.bias, cls\.seq_relationship\.bias$"):
            validate_params(rest, CONFIG, "pretraining")
        with pytest.raises(ValueError, match=r"and \d+ more$"):
            validate_params({}, CONFIG, "pretraining")

    def test_the_encoder_may_lack_its_pooler_but_not_half_of_it(self):
        params = random_params(CONFIG, "encoder")
        del params["pooler.dense.bias"]
        with pytest.raises(ValueError, match=r"missing .*pooler\.dense\.bias"):
            validate_params(params, CONFIG, "encoder")
        del params["pooler.dense.weight"]
        validate_params(params, CONFIG, "encoder")

    def test_an_unexpected_tensor_is_named(self):
        params = random_params(CONFIG, "encoder") | {"pooler.dense.scale": np.ones(3)}
        with pytest.raises(ValueError, match=r"not parameters .*pooler\.dense\.scale"):
            validate_params(params, CONFIG, "encoder")

    def test_a_wrong_shape_is_named(self):
        params = random_params(CONFIG, "encoder")
        name = "encoder.layer.1.output.dense.weight"
        params[name] = params[name].T
        with pytest.raises(ValueError, match=rf"{name} has the shape \(13, 10\).* asks for \(10, 13\)"):
            validate_params(params, CONFIG, "encoder")

    @pytest.mark.parametrize("dtype", [np.int64, np.complex128, np.bool_])
    def test_a_wrong_dtype_is_named(self, dtype):
        params = random_params(CONFIG, "encoder")
        params["pooler.dense.bias"] = params["pooler.dense.bias"].astype(dtype)
        with pytest.raises(ValueError, match=r"pooler\.dense\.bias has the dtype"):
            validate_params(params, CONFIG, "encoder")

    def test_a_list_is_refused(self):
        params = random_params(CONFIG, "encoder")
        params["pooler.dense.bias"] = [0.0] * 10
        with pytest.raises(ValueError, match=r"pooler\.dense\.bias is a list"):
            validate_params(params, CONFIG, "encoder")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_the_first_value_that_is_not_finite_is_named(self, value):
        params = random_params(CONFIG, "encoder")
        params["pooler.dense.weight"][2, 3] = value
        params["pooler.dense.weight"][7, 1] = np.nan
        with pytest.raises(ValueError, match=rf"pooler\.dense\.weight is {value} at \(2, 3\)"):
            validate_params(params, CONFIG, "encoder")
