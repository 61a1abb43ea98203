"""What a model may be run on: every rejection names the argument, the value, its place and the limit."""

import numpy as np
import pytest

from npbert import Bert
from npbert.inputs import prepare_inputs
from tests import models

CONFIG = models.tiny_config()  # 11 words, 8 positions, 3 token types, 6 numbers a token
IDS = [[2, 5, 3, 4], [2, 6, 7, 3]]
VECTORS = np.arange(48.0).reshape(2, 4, 6) / 10
CHOICE_IDS = np.arange(24).reshape(2, 3, 4) % 11


def changed(array, index, value):
    array = np.array(array)
    array = array.astype(np.result_type(array, np.asarray(value)))
    array[index] = value
    return array


# Each: arguments, and what the message must say.
BAD = {
    "an id that is no word": (
        {"input_ids": changed(IDS, (1, 2), 11)},
        ["input_ids is 11 at [1, 2]", "[0, 11)", "vocab_size is 11"],
    ),
    "a negative id": ({"input_ids": changed(IDS, (0, 3), -1)}, ["input_ids is -1 at [0, 3]", "[0, 11)"]),
    "ids that are not whole": (
        {"input_ids": np.array(IDS, dtype=float)},
        ["input_ids has dtype float64", "integer"],
    ),
    "ids that are bool": ({"input_ids": np.array(IDS) > 4}, ["input_ids has dtype bool", "integer"]),
    "ids that are text": ({"input_ids": [["a", "b"]]}, ["input_ids has dtype", "integer"]),
    "ids of different lengths": ({"input_ids": [[2, 3], [2]]}, ["input_ids", "rows differ in length"]),
    "one text without a batch": ({"input_ids": IDS[0]}, ["input_ids has shape (4,)", "(batch, tokens)"]),
    "an axis too many": ({"input_ids": [IDS]}, ["input_ids has shape (1, 2, 4)", "(batch, tokens)"]),
    "one number": ({"input_ids": 3}, ["input_ids has shape ()", "(batch, tokens)"]),
    "more tokens than positions": (
        {"input_ids": np.full((2, 9), 3)},
        ["the text has 9 tokens", "max_position_embeddings is 8"],
    ),
    "more tokens than positions, positions given": (
        {"input_ids": np.full((2, 9), 3), "position_ids": np.zeros((2, 9), int)},
        ["the text has 9 tokens", "max_position_embeddings is 8"],
    ),
    "an empty batch": ({"input_ids": np.zeros((0, 4), int)}, ["the batch is empty", "0 texts of 4 tokens"]),
    "an empty list of texts": ({"input_ids": []}, ["input_ids has shape (0,)", "(batch, tokens)"]),
    "no tokens": ({"input_ids": [[], []]}, ["the batch is empty", "2 texts of 0 tokens"]),
    "no words": ({}, ["neither of input_ids and inputs_embeds"]),
    "words twice": ({"input_ids": IDS, "inputs_embeds": VECTORS}, ["both of input_ids and inputs_embeds"]),
    # inputs_embeds
    "a vector that is NaN": (
        {"inputs_embeds": changed(VECTORS, (1, 0, 5), np.nan)},
        ["inputs_embeds is nan at [1, 0, 5]", "finite"],
    ),
    "a vector that is infinite": (
        {"inputs_embeds": changed(VECTORS, (0, 3, 2), -np.inf)},
        ["inputs_embeds is -inf at [0, 3, 2]", "finite"],
    ),
    "vectors too narrow": (
        {"inputs_embeds": VECTORS[..., :5]},
        ["inputs_embeds has 5 numbers", "hidden_size is 6"],
    ),
    "vectors without a batch": (
        {"inputs_embeds": VECTORS[0]},
        ["inputs_embeds has shape (4, 6)", "(batch, tokens, hidden)"],
    ),
    "complex vectors": ({"inputs_embeds": VECTORS + 1j}, ["inputs_embeds has dtype complex128", "floating"]),
    "vectors that are text": ({"inputs_embeds": [[["a"] * 6]]}, ["inputs_embeds has dtype", "floating"]),
    "ragged vectors": ({"inputs_embeds": [[[1.0] * 6], [[1.0] * 5]]}, ["inputs_embeds", "differ in length"]),
    "no vectors": ({"inputs_embeds": VECTORS[:0]}, ["the batch is empty", "0 texts of 4 tokens"]),
    "more vectors than positions": (
        {"inputs_embeds": np.ones((1, 9, 6))},
        ["the text has 9 tokens", "max_position_embeddings is 8"],
    ),
    # token_type_ids
    "a token type too high": (
        {"input_ids": IDS, "token_type_ids": changed(np.zeros((2, 4), int), (1, 1), 3)},
        ["token_type_ids is 3 at [1, 1]", "[0, 3)", "type_vocab_size is 3"],
    ),
    "a negative token type": (
        {"input_ids": IDS, "token_type_ids": changed(np.zeros((2, 4), int), (0, 2), -2)},
        ["token_type_ids is -2 at [0, 2]", "[0, 3)"],
    ),
    "token types of another shape": (
        {"input_ids": IDS, "token_type_ids": np.zeros((2, 3), int)},
        ["token_type_ids has shape (2, 3)", "(2, 4)"],
    ),
    "token types of one text": (
        {"input_ids": IDS, "token_type_ids": np.zeros(4, int)},
        ["token_type_ids has shape (4,)", "(2, 4)"],
    ),
    "token types that are floats": (
        {"input_ids": IDS, "token_type_ids": np.zeros((2, 4))},
        ["token_type_ids has dtype float64", "integer"],
    ),
    "ragged token types": (
        {"input_ids": IDS, "token_type_ids": [[0], [0, 1]]},
        ["token_type_ids", "differ in length"],
    ),
    "token types with vectors": (
        {"inputs_embeds": VECTORS, "token_type_ids": np.full((2, 4), 5)},
        ["token_type_ids is 5 at [0, 0]", "[0, 3)"],
    ),
    # attention_mask
    "a mask of 2": (
        {"input_ids": IDS, "attention_mask": changed(np.ones((2, 4), int), (1, 3), 2)},
        ["attention_mask is 2 at [1, 3]", "1 (a token) or 0 (padding)"],
    ),
    "a mask of one half": (
        {"input_ids": IDS, "attention_mask": changed(np.ones((2, 4)), (0, 1), 0.5)},
        ["attention_mask is 0.5 at [0, 1]", "1 (a token) or 0 (padding)"],
    ),
    "a mask of NaN": (
        {"input_ids": IDS, "attention_mask": changed(np.ones((2, 4)), (1, 0), np.nan)},
        ["attention_mask is nan at [1, 0]"],
    ),
    "a negative mask": (
        {"input_ids": IDS, "attention_mask": changed(np.ones((2, 4), int), (0, 0), -1)},
        ["attention_mask is -1 at [0, 0]"],
    ),
    "a mask to be added": (
        {"input_ids": IDS, "attention_mask": changed(np.zeros((2, 4)), (0, 3), -10000.0)},
        ["attention_mask is -10000.0 at [0, 3]"],
    ),
    "a mask of another shape": (
        {"input_ids": IDS, "attention_mask": np.ones((1, 4), int)},
        ["attention_mask has shape (1, 4)", "(2, 4)"],
    ),
    "a mask of text": (
        {"input_ids": IDS, "attention_mask": [["1"] * 4] * 2},
        ["attention_mask has dtype", "bool, or 0 and 1"],
    ),
    "a ragged mask": (
        {"input_ids": IDS, "attention_mask": [[1, 1, 1, 1], [1]]},
        ["attention_mask", "differ in length"],
    ),
    # positions
    "a position too far": (
        {"input_ids": IDS, "position_ids": [0, 1, 8, 3]},
        ["position_ids is 8 at [2]", "[0, 8)", "max_position_embeddings is 8"],
    ),
    "a negative position": (
        {"input_ids": IDS, "position_ids": changed(np.zeros((2, 4), int), (1, 2), -1)},
        ["position_ids is -1 at [1, 2]", "[0, 8)"],
    ),
    "too few positions": (
        {"input_ids": IDS, "position_ids": [0, 1, 2]},
        ["position_ids has shape (3,)", "(2, 4)"],
    ),
    "positions of another batch": (
        {"input_ids": IDS, "position_ids": np.zeros((3, 4), int)},
        ["position_ids has shape (3, 4)", "(2, 4)"],
    ),
    "positions that are floats": (
        {"input_ids": IDS, "position_ids": np.zeros((2, 4))},
        ["position_ids has dtype float64", "integer"],
    ),
    "a negative past": (
        {"input_ids": IDS, "past_key_values_length": -1},
        ["past_key_values_length is -1", "at least 0"],
    ),
    "a past too long": (
        {"input_ids": IDS, "past_key_values_length": 5},
        ["4 tokens after past_key_values_length 5", "max_position_embeddings is 8"],
    ),
    "a past that is not whole": (
        {"input_ids": IDS, "past_key_values_length": 1.0},
        ["past_key_values_length is 1.0", "integer"],
    ),
    "a past that is bool": (
        {"input_ids": IDS, "past_key_values_length": True},
        ["past_key_values_length is True", "integer"],
    ),
    # dropout
    "a negative dropout seed": (
        {"input_ids": IDS, "dropout_seed": -1},
        ["dropout_seed is -1", "[0, 2^64)"],
    ),
    "a dropout seed too large": (
        {"input_ids": IDS, "dropout_seed": 2**64},
        ["dropout_seed is 18446744073709551616", "[0, 2^64)"],
    ),
    "a dropout seed that is not whole": (
        {"input_ids": IDS, "dropout_seed": 0.5},
        ["dropout_seed is 0.5", "integer"],
    ),
    "a dropout seed that is bool": ({"input_ids": IDS, "dropout_seed": True}, ["dropout_seed is True"]),
}

# The choices of a question are an axis of their own, and messages speak of it.
BAD_CHOICES = {
    "no choices": ({"input_ids": IDS}, ["input_ids has shape (2, 4)", "(batch, choices, tokens)"]),
    "an id that is no word": (
        {"input_ids": changed(CHOICE_IDS, (1, 2, 0), 99)},
        ["input_ids is 99 at [1, 2, 0]", "vocab_size is 11"],
    ),
    "choices and questions swapped": (
        {"input_ids": CHOICE_IDS, "attention_mask": np.ones((3, 2, 4), int)},
        ["attention_mask has shape (3, 2, 4)", "(2, 3, 4)"],
    ),
    "a mask laid out flat": (
        {"input_ids": CHOICE_IDS, "attention_mask": np.ones((6, 4), int)},
        ["attention_mask has shape (6, 4)", "(2, 3, 4)"],
    ),
    "token types laid out flat": (
        {"input_ids": CHOICE_IDS, "token_type_ids": np.zeros((6, 4), int)},
        ["token_type_ids has shape (6, 4)", "(2, 3, 4)"],
    ),
    "positions laid out flat": (
        {"input_ids": CHOICE_IDS, "position_ids": np.zeros((6, 4), int)},
        ["position_ids has shape (6, 4)", "(2, 3, 4)"],
    ),
    "a token type too high": (
        {"input_ids": CHOICE_IDS, "token_type_ids": changed(0 * CHOICE_IDS, (0, 1, 3), 3)},
        ["token_type_ids is 3 at [0, 1, 3]", "type_vocab_size is 3"],
    ),
    "vectors without choices": (
        {"inputs_embeds": VECTORS},
        ["inputs_embeds has shape (2, 4, 6)", "(batch, choices, tokens, hidden)"],
    ),
    "questions without choices": (
        {"input_ids": CHOICE_IDS[:, :0]},
        ["the batch is empty", "0 texts of 4 tokens"],
    ),
}


def model_of(task):
    return Bert(CONFIG, models.random_params(np.random.default_rng(0), CONFIG, task), task=task)


def assert_refused(call, arguments, parts):
    with pytest.raises(ValueError) as caught:
        call(**arguments)
    message = str(caught.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.parametrize("case", BAD)
def test_forward_refuses(case):
    assert_refused(model_of("encoder").forward, *BAD[case])


@pytest.mark.parametrize("case", BAD)
def test_loss_and_grads_refuses(case):
    """The same door, whatever the labels."""
    arguments, parts = BAD[case]
    assert_refused(model_of("next_sentence").loss_and_grads, arguments | {"labels": [0, 1]}, parts)


@pytest.mark.parametrize("case", BAD)
def test_vjp_refuses(case):
    arguments, parts = BAD[case]
    assert_refused(model_of("encoder").vjp, arguments | {"dpooler_output": np.ones((2, 6))}, parts)


@pytest.mark.parametrize("case", BAD_CHOICES)
def test_multiple_choice_refuses(case):
    assert_refused(model_of("multiple_choice").forward, *BAD_CHOICES[case])


# --- what is allowed -------------------------------------------------------------------------------------


def prepare(task="encoder", **arguments):
    return prepare_inputs(CONFIG, task, np.float32, **arguments)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type(dtype):
    found = prepare(input_ids=np.array(IDS, dtype=dtype), token_type_ids=np.ones((2, 4), dtype=dtype))
    np.testing.assert_array_equal(found.input_ids, IDS)
    assert found.input_ids.dtype == found.token_type_ids.dtype == np.int64


def test_the_first_and_the_last_of_each_range():
    found = prepare(
        input_ids=[[0, 10]], token_type_ids=[[0, 2]], position_ids=[[0, 7]], attention_mask=[[1, 0]]
    )
    assert found.input_ids.tolist() == [[0, 10]]
    assert found.token_type_ids.tolist() == [[0, 2]]
    assert found.position_ids.tolist() == [[0, 7]]
    assert found.key_mask.tolist() == [[True, False]]
    full = prepare(input_ids=[[1] * 8])
    assert full.position_ids.tolist() == [list(range(8))]
    last = prepare(input_ids=[[1] * 3], past_key_values_length=5)
    assert last.position_ids.tolist() == [[5, 6, 7]]
    assert prepare(input_ids=[[1]], past_key_values_length=np.int32(7)).position_ids.tolist() == [[7]]


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float32])
def test_any_type_of_mask(dtype):
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0]])
    found = prepare(input_ids=IDS, attention_mask=mask.astype(dtype))
    assert found.key_mask.dtype == bool
    np.testing.assert_array_equal(found.key_mask, mask)


@pytest.mark.parametrize("given", [{"input_ids": IDS}, {"inputs_embeds": VECTORS}], ids=["ids", "vectors"])
def test_what_is_left_out(given):
    """Token types 0, positions from 0, and everything attended to, also with word vectors."""
    found = prepare(**given)
    assert found.shape == (2, 4)
    assert found.token_type_ids.tolist() == [[0] * 4] * 2
    assert found.position_ids.tolist() == [[0, 1, 2, 3]] * 2
    assert found.key_mask is None
    assert found.choices == 1


@pytest.mark.parametrize("shape", [(4,), (1, 4), (2, 4)])
def test_positions_for_each_text_or_for_all(shape):
    positions = np.random.default_rng(0).integers(0, 8, shape)
    found = prepare(input_ids=IDS, position_ids=positions)
    np.testing.assert_array_equal(found.position_ids, np.broadcast_to(positions, (2, 4)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_vectors_are_cast_to_the_models_type(dtype):
    vectors = np.round(VECTORS * 4).astype(dtype)
    found = prepare(inputs_embeds=vectors)
    assert found.input_ids is None
    assert found.inputs_embeds.dtype == np.float32
    np.testing.assert_array_equal(found.inputs_embeds, vectors)


def test_word_vectors_leave_the_rest_as_it_is():
    """Mask, token types and positions count, whichever way the words come."""
    rest = {
        "attention_mask": [[1, 1, 1, 0], [1, 1, 0, 0]],
        "token_type_ids": [[0, 2, 1, 1], [1, 0, 0, 2]],
        "position_ids": [[3, 1, 0, 7], [0, 1, 2, 3]],
    }
    by_id, by_vector = prepare(input_ids=IDS, **rest), prepare(inputs_embeds=VECTORS, **rest)
    for name in ("key_mask", "token_type_ids", "position_ids"):
        assert getattr(by_id, name) is not None
        np.testing.assert_array_equal(getattr(by_vector, name), getattr(by_id, name), err_msg=name)


def test_choices_are_laid_out_as_texts():
    """Question by question, and each array alike."""
    mask = (CHOICE_IDS % 3 > 0).astype(int)
    types = CHOICE_IDS % 2
    positions = CHOICE_IDS % 8
    found = prepare(
        "multiple_choice",
        input_ids=CHOICE_IDS,
        attention_mask=mask,
        token_type_ids=types,
        position_ids=positions,
    )
    assert found.choices == 3
    assert found.shape == (6, 4)
    for name, given in {
        "input_ids": CHOICE_IDS,
        "key_mask": mask,
        "token_type_ids": types,
        "position_ids": positions,
    }.items():
        value = getattr(found, name)
        for text in range(6):
            np.testing.assert_array_equal(value[text], given[text // 3, text % 3], err_msg=name)
    vectors = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    found = prepare("multiple_choice", inputs_embeds=vectors)
    np.testing.assert_array_equal(found.inputs_embeds[4], vectors[1, 1])
    assert found.position_ids.tolist() == [[0, 1, 2, 3]] * 6


def test_a_fully_masked_text_is_allowed():
    found = prepare(input_ids=IDS, attention_mask=[[1] * 4, [0] * 4])
    assert found.key_mask.tolist() == [[True] * 4, [False] * 4]
