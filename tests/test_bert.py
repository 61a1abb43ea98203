"""`Bert` and `load`: what the object that users hold promises, beyond what model and heads compute."""

import copy
import inspect
import json
import pickle
import re
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import npbert
from npbert import Bert, WordPieceTokenizer, init_params, load
from npbert.checkpoint import PoolingSettings
from npbert.encoding import TextEncoder
from npbert.params import TASKS, parameter_shapes, subset
from tests import models
from tests.comparisons import assert_finite, assert_identical
from tests.models import LOSSES
from tests.tolerances import FLOAT32_MODEL, REORDERED

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sat", "##s", "down"]
TEXTS = ["the cat sat", "the", "dogs sat down the cat sat", "", "down the dog", "cats sat"]
CONFIG = models.tiny_config(num_hidden_layers=2, pad_token_id=0)


def tokenizer_of(**settings):
    return WordPieceTokenizer(WORDS, **settings)


def model_of(task="encoder", seed=0, dtype=np.float64, config=CONFIG, **settings):
    params = models.random_params(np.random.default_rng(seed), config, task)
    return Bert(config, params, task=task, dtype=dtype, **settings)


def encoder(**settings):
    return model_of(tokenizer=tokenizer_of(), **settings)


def batch_of(task, seed=1, config=CONFIG):
    rng = np.random.default_rng(seed)
    arguments = models.random_inputs(rng, config, task)
    return arguments, models.random_labels(rng, config, task, arguments["input_ids"].shape)


def assert_same_params(actual, expected):
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert_identical(actual[name], value, name)


# --- forward and gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_dtypes_and_names(loss, dtype):
    task, fields = LOSSES[loss]
    config = CONFIG.replace(**fields)
    bert = model_of(task, config=config, dtype=dtype)
    arguments, labels = batch_of(task, config=config)
    output = bert.forward(**arguments, **labels, output_hidden_states=True, output_attentions=True)
    loss_value, grads = bert.loss_and_grads(**arguments, **labels)

    texts = models.TEXTS * (models.CHOICES if task == "multiple_choice" else 1)
    tokens, count = models.TOKENS, config.num_labels
    shapes = {
        "pretraining": {"prediction_logits": (texts, tokens, 11), "seq_relationship_logits": (texts, 2)},
        "masked_lm": {"logits": (texts, tokens, 11)},
        "next_sentence": {"logits": (texts, 2)},
        "sequence_classification": {"logits": (texts, count)},
        "token_classification": {"logits": (texts, tokens, count)},
        "question_answering": {"start_logits": (texts, tokens), "end_logits": (texts, tokens)},
        "multiple_choice": {"logits": (models.TEXTS, models.CHOICES)},
    }[task]
    shapes |= {"loss": (), "last_hidden_state": (texts, tokens, 6)}
    if any("pooler" in name for name in bert.params):
        shapes["pooler_output"] = (texts, 6)
    found = {name: value for name, value in vars(output).items() if value is not None}
    assert [hidden.shape for hidden in found.pop("hidden_states")] == [(texts, tokens, 6)] * 3
    assert [probs.shape for probs in found.pop("attentions")] == [(texts, 2, tokens, tokens)] * 2
    assert {name: value.shape for name, value in found.items()} == shapes
    for name, value in found.items():
        assert value.dtype == dtype, name
        assert_finite(value, name)

    assert loss_value.shape == ()
    assert loss_value.dtype == dtype
    np.testing.assert_allclose(loss_value, output.loss, rtol=1e-5 if dtype == np.float32 else 1e-13)
    assert list(grads) == list(bert.params) == list(parameter_shapes(config, task))
    for name, grad in grads.items():
        assert grad.shape == bert.params[name].shape, name
        assert grad.dtype == dtype, name
        assert_finite(grad, name)


@pytest.mark.parametrize("task", models.TASKS_WITH_LOSS)
def test_float32_is_near_float64(task):
    config = CONFIG.replace(layer_norm_eps=0.1)
    single = model_of(task, dtype=np.float32, config=config)
    double = Bert(config, single.params, task=task, dtype=np.float64)
    arguments, labels = batch_of(task)
    loss, grads = single.loss_and_grads(**arguments, **labels)
    expected_loss, expected = double.loss_and_grads(**arguments, **labels)
    np.testing.assert_allclose(loss, expected_loss, rtol=FLOAT32_MODEL)
    largest = max(np.abs(grad).max() for grad in expected.values())
    for name, grad in grads.items():
        error = np.abs(grad - expected[name]).max()
        # A structural zero is round-off of other gradients: the largest is its measure.
        assert error <= FLOAT32_MODEL * max(np.abs(expected[name]).max(), 0.1 * largest), name


@pytest.mark.parametrize("task", models.TASKS_WITH_LOSS)
def test_two_runs_are_alike_and_nothing_is_modified(task):
    bert = model_of(task)
    arguments, labels = batch_of(task)
    params_before = {name: value.copy() for name, value in bert.params.items()}
    arguments_before = {name: value.copy() for name, value in (arguments | labels).items()}
    runs = [bert.loss_and_grads(**arguments, **labels, dropout_seed=5) for _ in range(2)]
    outputs = [bert.forward(**arguments, **labels, dropout_seed=5) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert_same_params(runs[1][1], runs[0][1])
    assert_identical(outputs[0].last_hidden_state, outputs[1].last_hidden_state, "last_hidden_state")
    assert_same_params(bert.params, params_before)
    for name, value in (arguments | labels).items():
        assert_identical(value, arguments_before[name], name)
    for name, grad in runs[0][1].items():
        grad[...] = 7  # a gradient is the caller's own
        assert not np.any(bert.params[name] == 7), name


@pytest.mark.parametrize("task", ["pretraining", "multiple_choice", "question_answering"])
def test_lists_and_other_memory_layouts_are_as_good(task):
    bert = model_of(task)
    arguments, labels = batch_of(task)
    loss, grads = bert.loss_and_grads(**arguments, **labels)

    def layouts(array):
        every_second = np.zeros([2 * n for n in array.shape], array.dtype)
        every_second = every_second[tuple(slice(None, None, 2) for _ in array.shape)]
        every_second[...] = array
        return array.tolist(), np.asfortranarray(array), every_second, array[::-1].copy()[::-1]

    given = {name: layouts(value) for name, value in (arguments | labels).items()}
    for index in range(4):
        found, found_grads = bert.loss_and_grads(**{name: values[index] for name, values in given.items()})
        assert found == loss
        assert_same_params(found_grads, grads)


def test_parameters_in_other_memory_layouts():
    bert = model_of("masked_lm")
    arguments, labels = batch_of("masked_lm")
    loss, grads = bert.loss_and_grads(**arguments, **labels)
    fortran = {name: np.asfortranarray(value) for name, value in bert.params.items()}
    found, found_grads = Bert(CONFIG, fortran, task="masked_lm").loss_and_grads(**arguments, **labels)
    np.testing.assert_allclose(found, loss, rtol=REORDERED)
    for name, grad in found_grads.items():
        scale = np.abs(grads[name]).max() + 1
        np.testing.assert_allclose(grad, grads[name], rtol=0, atol=REORDERED * scale, err_msg=name)


@pytest.mark.parametrize("task", ["masked_lm", "sequence_classification"])
def test_dropout_seed(task):
    """The same seed is the same loss and gradients; another one, or none, is not."""
    bert = model_of(task)
    arguments, labels = batch_of(task)
    losses = [bert.loss_and_grads(**arguments, **labels, dropout_seed=seed)[0] for seed in (1, 1, 2, None)]
    assert losses[0] == losses[1]
    assert abs(losses[0] - losses[2]) > 1e-3
    assert abs(losses[0] - losses[3]) > 1e-3
    assert bert.loss_and_grads(**arguments, **labels)[0] == losses[3]
    forward = bert.forward(**arguments, **labels, dropout_seed=2)
    np.testing.assert_allclose(forward.loss, losses[2], rtol=1e-13)
    numpy_seed = bert.loss_and_grads(**arguments, **labels, dropout_seed=np.uint64(2))[0]
    assert numpy_seed == losses[2]


def test_sum_and_mean():
    bert = model_of("masked_lm")
    arguments, labels = batch_of("masked_lm")
    count = (labels["labels"] != -100).sum()
    assert count > 1
    mean, mean_grads = bert.loss_and_grads(**arguments, **labels)
    total, total_grads = bert.loss_and_grads(**arguments, **labels, reduction="sum")
    np.testing.assert_allclose(total, count * mean, rtol=1e-13)
    np.testing.assert_allclose(bert.forward(**arguments, **labels, reduction="sum").loss, total, rtol=1e-13)
    bias = "cls.predictions.bias"
    np.testing.assert_allclose(total_grads[bias], count * mean_grads[bias], rtol=1e-11, atol=1e-14)


def test_forward_and_loss_and_grads_and_vjp_take_the_same_inputs():
    inputs = [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "position_ids",
        "inputs_embeds",
        "past_key_values_length",
        "dropout_seed",
    ]
    found = {
        method: list(inspect.signature(getattr(Bert, method)).parameters)
        for method in ("forward", "loss_and_grads", "vjp")
    }
    for method, names in found.items():
        assert [name for name in names if name in inputs] == inputs, method
    only_forward = {"output_hidden_states", "output_attentions"}
    assert set(found["forward"]) - set(found["loss_and_grads"]) == only_forward


@pytest.mark.parametrize("task", models.TASKS_WITH_LOSS)
def test_every_input_is_used(task):
    """By forward and by loss_and_grads alike: each argument changes the loss of both."""
    bert = model_of(task)
    arguments, labels = batch_of(task)
    ids = arguments["input_ids"]
    rng = np.random.default_rng(2)
    changes = [
        {"input_ids": (ids + 1) % 11},
        {"attention_mask": np.broadcast_to(np.arange(models.TOKENS) < 3, ids.shape)},
        {"token_type_ids": (arguments["token_type_ids"] + 1) % 3},
        {"position_ids": np.array([1, 0, 2, 4, 3])},
        {"past_key_values_length": 2},
        {"input_ids": None, "inputs_embeds": rng.standard_normal((*ids.shape, 6))},
        {"dropout_seed": 3},
    ]
    plain, _ = bert.loss_and_grads(**arguments, **labels)
    for change in changes:
        changed = arguments | change
        loss, _ = bert.loss_and_grads(**changed, **labels)
        assert abs(loss - plain) > 1e-6, change
        np.testing.assert_allclose(bert.forward(**changed, **labels).loss, loss, rtol=1e-12)


@pytest.mark.parametrize("task", models.TASKS_WITH_LOSS)
def test_the_vectors_of_words_are_as_good_as_their_ids(task):
    """Bit for bit, and with the same gradients, but for those of the table the vectors were taken from."""
    bert = model_of(task)
    arguments, labels = batch_of(task)
    table = "bert.embeddings.word_embeddings.weight"
    vectors = {"inputs_embeds": bert.params[table][arguments["input_ids"]], "input_ids": None}
    loss, grads = bert.loss_and_grads(**arguments, **labels)
    found, found_grads = bert.loss_and_grads(**(arguments | vectors), **labels)
    assert found == loss
    del grads[table], found_grads[table]
    assert_same_params(found_grads, grads)


def test_input_ids_by_position():
    bert = model_of()
    by_position = bert.forward([[2, 3]]).last_hidden_state
    assert_identical(by_position, bert.forward(input_ids=[[2, 3]]).last_hidden_state, "last_hidden_state")


@pytest.mark.parametrize("task", ["encoder", "pretraining", "multiple_choice"])
def test_vjp_is_the_gradient_of_a_loss_of_ones_own(task):
    """``sum(d * output)``, moved a little along a random direction, moves as the gradients say."""
    bert = model_of(task)
    rng = np.random.default_rng(3)
    arguments, _ = batch_of(task)
    vectors = models.random_vectors(rng, CONFIG, arguments)
    output = bert.forward(**vectors, dropout_seed=4)
    dhidden = rng.standard_normal(output.last_hidden_state.shape)
    dpooled = rng.standard_normal(output.pooler_output.shape)
    grads, dvectors = bert.vjp(dhidden, dpooled, **vectors, dropout_seed=4)
    assert list(grads) == list(bert.params)
    for name, grad in grads.items():
        assert grad.shape == bert.params[name].shape
        if not name.removeprefix("bert.").startswith(("embeddings", "encoder", "pooler")):
            assert not np.any(grad), name

    def objective(step):
        moved = {name: value + step * directions[name] for name, value in bert.params.items()}
        given = vectors | {"inputs_embeds": vectors["inputs_embeds"] + step * along}
        out = Bert(CONFIG, moved, task=task).forward(**given, dropout_seed=4)
        return np.sum(dhidden * out.last_hidden_state) + np.sum(dpooled * out.pooler_output)

    directions = {name: rng.standard_normal(value.shape) for name, value in bert.params.items()}
    along = rng.standard_normal(vectors["inputs_embeds"].shape)
    dvectors = dvectors.reshape(along.shape)
    slope = np.sum(along * dvectors) + sum(np.sum(directions[name] * grad) for name, grad in grads.items())
    step = 1e-5
    measured = (objective(step) - objective(-step)) / (2 * step)
    assert abs(slope) > 1
    np.testing.assert_allclose(slope, measured, rtol=1e-6)  # central differences: step² and round-off / step


def test_vjp_of_the_gradient_of_the_loss_is_the_loss_gradient():
    """A head of one's own: the linear layer of sequence classification, done by hand."""
    config = CONFIG.replace(num_labels=1, problem_type="regression")
    bert = model_of("sequence_classification", config=config)
    arguments, labels = batch_of("sequence_classification", config=config)
    _, expected = bert.loss_and_grads(**arguments, **labels)
    output = bert.forward(**arguments)
    dlogits = 2 * (output.logits - labels["labels"]) / output.logits.size
    grads, dvectors = bert.vjp(dpooler_output=dlogits @ bert.params["classifier.weight"], **arguments)
    assert dvectors is None
    for name, grad in grads.items():
        if name.startswith("bert."):
            scale = np.abs(expected[name]).max() + 1
            np.testing.assert_allclose(grad, expected[name], rtol=0, atol=1e-13 * scale, err_msg=name)
    assert np.any(expected["bert.embeddings.word_embeddings.weight"])


@pytest.mark.parametrize(
    ("cotangents", "parts"),
    [
        ({}, ["neither dlast_hidden_state nor dpooler_output"]),
        ({"dlast_hidden_state": np.ones((2, 5))}, ["dlast_hidden_state has shape (2, 5)", "(2, 5, 6)"]),
        ({"dpooler_output": np.ones((3, 6))}, ["dpooler_output has shape (3, 6)", "(2, 6)"]),
        ({"dpooler_output": [[1.0], [1.0, 2.0]]}, ["dpooler_output", "differ in length"]),
        ({"dpooler_output": np.full((2, 6), np.nan)}, ["dpooler_output is nan at [0, 0]"]),
    ],
)
def test_vjp_refuses(cotangents, parts):
    arguments, _ = batch_of("encoder")
    with pytest.raises(ValueError) as caught:
        model_of().vjp(**cotangents, **arguments)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_vjp_without_a_pooler():
    bert = model_of("masked_lm")
    arguments, _ = batch_of("masked_lm")
    with pytest.raises(ValueError, match=r"dpooler_output is given, but the model has no pooler"):
        bert.vjp(dpooler_output=np.ones((2, 6)), **arguments)


def test_a_fully_masked_text_changes_no_other():
    """By the public door: finite, and bit for bit what the others are without it."""
    bert = model_of("token_classification")
    ids = [[2, 5, 6, 3], [2, 7, 8, 3], [2, 9, 9, 3]]
    mask = np.ones((3, 4), int)
    before = bert.forward(input_ids=ids, attention_mask=mask)
    mask[1] = 0
    after = bert.forward(input_ids=ids, attention_mask=mask, output_attentions=True)
    assert_finite(after.logits, "logits")
    np.testing.assert_array_equal(after.logits[[0, 2]], before.logits[[0, 2]])
    assert np.abs(after.logits[1] - before.logits[1]).max() > 1e-3
    for probs in after.attentions:
        assert not np.any(probs[1])
    labels = np.where(mask == 0, 1, -100)  # the loss is of the masked text alone
    loss, grads = bert.loss_and_grads(input_ids=ids, attention_mask=mask, labels=labels)
    assert np.isfinite(loss)
    for name, grad in grads.items():
        assert_finite(grad, name)
    assert not np.any(grads["bert.encoder.layer.0.attention.self.value.weight"])


# --- construction ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_names_with_and_without_prefix(task):
    params = models.random_params(np.random.default_rng(0), CONFIG, task)
    with_prefix = {
        n if n.startswith(("bert.", "cls", "class", "qa")) else f"bert.{n}": v for n, v in params.items()
    }
    without = {name.removeprefix("bert."): value for name, value in params.items()}
    assert set(with_prefix) != set(without)
    for given in (with_prefix, without):
        assert_same_params(Bert(CONFIG, given, task=task).params, params)


def test_an_encoder_from_the_parameters_of_a_task():
    """The head is left out; an encoder without a pooler has no pooler_output."""
    masked_lm = model_of("masked_lm")
    bert = Bert(CONFIG, masked_lm.params, task="encoder")
    assert not any(name.startswith(("cls", "pooler")) for name in bert.params)
    output = bert.forward(input_ids=[[2, 5, 3]])
    assert output.pooler_output is None
    expected = masked_lm.forward(input_ids=[[2, 5, 3]]).last_hidden_state
    assert_identical(output.last_hidden_state, expected, "last_hidden_state")


def test_dtype_is_by_default_that_of_the_parameters():
    params = init_params(CONFIG, "encoder", seed=0)
    assert Bert(CONFIG, params, task="encoder").dtype == np.float32
    half = {name: value.astype(np.float16) for name, value in params.items()}
    assert Bert(CONFIG, half, task="encoder").dtype == np.float32
    double = params | {"pooler.dense.bias": params["pooler.dense.bias"].astype(np.float64)}
    bert = Bert(CONFIG, double, task="encoder")
    assert bert.dtype == np.float64
    assert {value.dtype for value in bert.params.values()} == {np.dtype(np.float64)}
    assert Bert(CONFIG, double, task="encoder", dtype="float32").dtype == np.float32


def test_parameters_are_used_as_they_are():
    """No copy: a model can be trained by changing the arrays."""
    params = models.random_params(np.random.default_rng(0), CONFIG, "encoder")
    bert = Bert(CONFIG, params, task="encoder")
    assert all(np.shares_memory(bert.params[name], value) for name, value in params.items())
    before = bert.forward(input_ids=[[2, 3]]).pooler_output
    bert.params["pooler.dense.bias"] += 1
    assert np.abs(bert.forward(input_ids=[[2, 3]]).pooler_output - before).max() > 1e-3


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_backends_agree(backend):
    arguments, labels = batch_of("masked_lm")
    bert = model_of("masked_lm", backend=backend)
    assert bert.backend == backend
    loss, _ = bert.loss_and_grads(**arguments, **labels)
    expected, _ = model_of("masked_lm").loss_and_grads(**arguments, **labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


WORD_TABLE = "embeddings.word_embeddings.weight"
VALUE = "encoder.layer.1.attention.self.value.weight"


@pytest.mark.parametrize(
    ("settings", "change", "parts"),
    [
        ({"task": "translation"}, {}, ["task is 'translation'", "masked_lm"]),
        ({"backend": "abacus"}, {}, ["backend is 'abacus'", "reference", "cpu", "cuda", "cuda-emulated"]),
        ({"dtype": np.float16}, {}, ["dtype is float16", "float32", "float64"]),
        ({"dtype": "int32"}, {}, ["dtype is int32", "float32"]),
        ({"dtype": "real"}, {}, ["dtype is 'real'", "float32"]),
        ({}, {VALUE: None}, ["missing", VALUE]),
        ({}, {"pooler.dense.bias": None}, ["missing", "pooler.dense.bias"]),
        ({}, {VALUE: np.ones((6, 5))}, [VALUE, "(6, 5)", "(6, 6)"]),
        ({}, {WORD_TABLE: np.ones((12, 6))}, [WORD_TABLE, "(12, 6)", "(11, 6)"]),
        ({}, {VALUE: np.ones((6, 6), int)}, [VALUE, "int64", "floating"]),
        ({}, {"encoder.layer.2.output.dense.bias": np.ones(6)}, ["encoder.layer.2", "num_hidden_layers 2"]),
        ({"tokenizer": WordPieceTokenizer([*WORDS, "more"])}, {}, ["12 words", "vocab_size 11"]),
        ({"tokenizer": WORDS}, {}, ["tokenizer is ['[PAD]'", "WordPieceTokenizer"]),
        ({"pooling": "cls"}, {}, ["pooling is 'cls'", "PoolingSettings"]),
    ],
)
def test_construction_refuses(settings, change, parts):
    params = models.random_params(np.random.default_rng(0), CONFIG, "encoder") | change
    params = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(ValueError) as caught:
        Bert(CONFIG, params, **({"task": "encoder"} | settings))
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_parameter_that_is_not_finite(bad):
    params = models.random_params(np.random.default_rng(0), CONFIG, "encoder")
    params[VALUE][3, 1] = bad
    with pytest.raises(ValueError, match=re.escape(f"{VALUE} is {bad} at (3, 1)")):
        Bert(CONFIG, params, task="encoder")


def test_repr_says_what_it_is():
    text = repr(model_of("masked_lm", dtype=np.float32))
    for part in ("masked_lm", "layers=2", "hidden_size=6", "float32", "backend='cpu'", "parameters="):
        assert part in text


# --- save and load ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("task", TASKS)
def test_round_trip_bit_for_bit(tmp_path, task, dtype):
    pooling = PoolingSettings("cls", normalize=True, max_seq_length=6)
    tokenizer = tokenizer_of(do_lower_case=False, model_max_length=7)
    bert = model_of(task, dtype=dtype, tokenizer=tokenizer, pooling=pooling)
    bert.save(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(tmp_path / "saved", dtype=dtype)
    assert again.task == task
    assert again.dtype == dtype
    assert again.pooling == pooling
    assert_same_params(again.params, bert.params)
    for name in parameter_fields():
        assert getattr(again.config, name) == getattr(CONFIG, name), name
    assert again.tokenizer.vocab == tokenizer.vocab
    assert again.tokenizer.do_lower_case is False
    assert again.tokenizer.model_max_length == 7
    assert_identical(again.encode(TEXTS), bert.encode(TEXTS), "embeddings")


def parameter_fields():
    """Everything that describes the computation; the rest is about the file."""
    return [
        name
        for name in inspect.signature(npbert.BertConfig).parameters
        if name not in ("architectures", "extra")
    ]


@pytest.mark.parametrize("fields", [{"tie_word_embeddings": False}, {"pad_token_id": None}])
def test_round_trip_of_other_configurations(tmp_path, fields):
    config = CONFIG.replace(**fields)
    bert = model_of("pretraining", config=config, dtype=np.float32)
    bert.save(tmp_path)
    again = load(tmp_path)
    assert_same_params(again.params, bert.params)
    arguments, labels = batch_of("pretraining", config=config)
    loss, grads = bert.loss_and_grads(**arguments, **labels)
    found, found_grads = again.loss_and_grads(**arguments, **labels)
    assert found == loss
    assert_same_params(found_grads, grads)


def test_save_without_tokenizer_and_pooling(tmp_path):
    model_of(dtype=np.float32).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = load(tmp_path)
    assert again.tokenizer is None
    assert again.pooling is None


@pytest.mark.parametrize("copied", [lambda bert: pickle.loads(pickle.dumps(bert)), copy.deepcopy])
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_pickles_and_copies_are_whole(copied, backend):
    settings = {"tokenizer": tokenizer_of(), "pooling": PoolingSettings("cls"), "backend": backend}
    bert = model_of("masked_lm", dtype=np.float32, **settings)
    again = copied(bert)
    assert (again.task, again.dtype, again.backend) == (bert.task, bert.dtype, backend)
    assert (again.config, again.pooling) == (bert.config, bert.pooling)
    assert_same_params(again.params, bert.params)
    assert_identical(again.encode(TEXTS), bert.encode(TEXTS), "vectors")
    again.params["cls.predictions.bias"] += 1
    assert not np.array_equal(again.params["cls.predictions.bias"], bert.params["cls.predictions.bias"])


def test_load_in_another_precision(tmp_path):
    bert = model_of(dtype=np.float64)
    bert.save(tmp_path)
    single, double = load(tmp_path), load(tmp_path, dtype="float64")
    assert single.dtype == np.float32
    assert_same_params(double.params, bert.params)
    for name, value in single.params.items():
        np.testing.assert_array_equal(value, bert.params[name].astype(np.float32))


def test_load_for_another_task_draws_its_head(tmp_path):
    """With a warning that names what was drawn; the body is the checkpoint's."""
    bert = model_of(dtype=np.float32)
    bert.save(tmp_path)
    with pytest.warns(UserWarning, match=r"classifier\.weight, classifier\.bias: freshly drawn") as caught:
        found = load(tmp_path, task="sequence_classification", num_labels=5)
    assert caught[0].filename == __file__  # whoever called load is who should know
    assert found.params["classifier.weight"].shape == (5, 6)
    assert np.any(found.params["classifier.weight"])
    for name, value in bert.params.items():
        assert_identical(found.params[f"bert.{name}"], value, name)
    assert found.config.num_labels == 5
    with pytest.warns(UserWarning):
        again = load(tmp_path, task="sequence_classification", num_labels=5)
    assert_same_params(again.params, found.params)


def test_load_with_a_head_of_a_seed(tmp_path):
    """Drawn whatever the checkpoint has, of another size too, and without a warning."""
    config = CONFIG.replace(num_labels=4)
    bert = model_of("sequence_classification", config=config, dtype=np.float32)
    bert.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [
            load(tmp_path, num_labels=labels, head_seed=seed) for labels, seed in ((3, 0), (3, 1), (4, 0))
        ]
    weights = [one.params["classifier.weight"] for one in found]
    assert [weight.shape for weight in weights] == [(3, 6), (3, 6), (4, 6)]
    assert not np.any(weights[0] == weights[1])
    assert not np.any(weights[2] == bert.params["classifier.weight"])
    for name in subset(bert.params, "bert."):
        assert_identical(found[0].params[f"bert.{name}"], bert.params[f"bert.{name}"], name)


def test_load_with_a_pooler_missing(tmp_path):
    """A part that is missing altogether is drawn; an encoder is complete without its pooler."""
    model_of("masked_lm", dtype=np.float32).save(tmp_path)
    assert load(tmp_path, task="encoder").forward(input_ids=[[2, 3]]).pooler_output is None
    with pytest.warns(UserWarning, match="pooler"):
        found = load(tmp_path, task="next_sentence")
    assert np.any(found.params["bert.pooler.dense.weight"])


def test_load_of_another_head_uses_what_is_there(tmp_path):
    pretrained = model_of("pretraining", dtype=np.float32)
    pretrained.save(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load(tmp_path, task="masked_lm")
    for name, value in found.params.items():
        assert_identical(value, pretrained.params[name], name)


def break_checkpoint(directory, change):
    """Rewrite the tensors of a saved model."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


DENSE_BIAS = "cls.predictions.transform.dense.bias"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda t: t.pop(DENSE_BIAS), ["missing", DENSE_BIAS]),
        (lambda t: t.pop("bert." + WORD_TABLE), ["missing", WORD_TABLE]),
        (lambda t: t.pop("bert." + VALUE), ["missing", VALUE]),
        (lambda t: t.update({"bert." + VALUE: np.ones((5, 6), np.float32)}), [VALUE, "(5, 6)", "(6, 6)"]),
        (lambda t: t.update({DENSE_BIAS: np.full(6, np.nan, np.float32)}), [DENSE_BIAS, "nan", "(0,)"]),
    ],
    ids=["part of a head", "part of the body", "part of a layer", "a wrong shape", "NaN"],
)
def test_load_refuses_a_damaged_checkpoint(tmp_path, change, parts):
    """A part of which something is there is never completed with fresh numbers."""
    model_of("masked_lm", dtype=np.float32).save(tmp_path)
    break_checkpoint(tmp_path, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as caught:
            load(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert all(part in message for part in parts), message


def test_load_without_any_body(tmp_path):
    model_of("masked_lm", dtype=np.float32).save(tmp_path)
    break_checkpoint(tmp_path, lambda t: [t.pop(name) for name in list(t) if name.startswith("bert.")])
    with pytest.raises(ValueError, match="missing for the task 'masked_lm'"):
        load(tmp_path)


def test_load_with_a_head_of_another_size(tmp_path):
    model_of("token_classification", dtype=np.float32).save(tmp_path)
    with pytest.raises(ValueError, match=r"classifier\.weight has the shape \(2, 6\).*\(3, 6\)"):
        load(tmp_path, num_labels=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "translation"}, "task is 'translation'"),
        ({"dtype": "float16"}, "dtype is float16"),
        ({"backend": "abacus"}, "backend is 'abacus'"),
        ({"layers": 3}, "no field 'layers'"),
        ({"hidden_act": "step"}, "hidden_act is 'step'"),
    ],
)
def test_load_refuses_settings(tmp_path, settings, message):
    model_of(dtype=np.float32).save(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, **settings)


def test_load_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        load(tmp_path)


# --- encode ----------------------------------------------------------------------------------------------


def expected_embedding(bert, text, mode="mean", normalize=False, max_tokens=8):
    """One text alone, by forward and by hand."""
    ids = bert.tokenizer.encode(text).ids
    if len(ids) > max_tokens:
        ids = [*ids[: max_tokens - 1], bert.tokenizer.sep_id]
    hidden = bert.forward(input_ids=[ids]).last_hidden_state[0]
    vector = hidden.mean(axis=0) if mode == "mean" else hidden[0]
    return vector / np.linalg.norm(vector) if normalize else vector


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("normalize", [True, False])
def test_encode_is_pooling_of_each_text_alone(mode, normalize):
    """In the order given, whatever order they are run in, and however long the others are."""
    bert = encoder(pooling=PoolingSettings(mode, normalize=normalize))
    found = bert.encode(TEXTS)
    want = [expected_embedding(bert, text, mode, normalize) for text in TEXTS]
    assert found.shape == (6, 6)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-13)
    distances = np.abs(found[:, None] - found[None]).max(axis=-1) + np.eye(6)
    assert distances.min() > 1e-6  # no two are alike: a wrong order would show
    if normalize:
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-14)


def test_mean_is_the_default():
    np.testing.assert_array_equal(encoder().encode(TEXTS), encoder(pooling=PoolingSettings()).encode(TEXTS))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch_tokens", [1, 7, 16, 10_000])
def test_batch_tokens_changes_round_off_only(batch_tokens, dtype):
    bert = encoder(dtype=dtype)
    found = bert.encode(TEXTS, batch_tokens=batch_tokens)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, bert.encode(TEXTS), rtol=0, atol=1e-13 if dtype == np.float64 else 3e-6)


def test_batches_stay_below_the_limit(monkeypatch):
    """Padding included; a text that is longer than the limit runs alone; the longest come first."""
    bert = encoder(backend="reference")
    shapes = []
    encode_padded = TextEncoder.encode_padded

    def spy(encoder, rows):
        shapes.append((len(rows), max(map(len, rows))))
        return encode_padded(encoder, rows)

    monkeypatch.setattr(TextEncoder, "encode_padded", spy)
    bert.encode(TEXTS, batch_tokens=12)
    assert sum(texts for texts, _ in shapes) == len(TEXTS)
    assert all(texts * tokens <= 12 or texts == 1 for texts, tokens in shapes)
    assert len(shapes) == 4
    assert [tokens for _, tokens in shapes] == sorted((tokens for _, tokens in shapes), reverse=True)


@pytest.mark.parametrize("batch_tokens", [0, -1, 2.5, True, None, "9"])
def test_batch_tokens_must_be_positive(batch_tokens):
    with pytest.raises(ValueError, match=f"batch_tokens is {batch_tokens!r}"):
        encoder().encode(TEXTS, batch_tokens=batch_tokens)


@pytest.mark.parametrize("batch_invariant", ["yes", 2, []])
def test_batch_invariant_is_yes_or_no(batch_invariant):
    with pytest.raises(ValueError, match="batch_invariant is"):
        encoder().encode(TEXTS, batch_invariant=batch_invariant)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_batch_invariant_vectors_have_the_bits_of_each_text_alone(backend):
    """For any engine and dtype: the reference encodes each alone."""
    for dtype in (np.float32, np.float64):
        bert = encoder(backend=backend, dtype=dtype)
        together = bert.encode(TEXTS, batch_invariant=True)
        alone = [bert.encode(text, batch_invariant=True) for text in TEXTS]
        np.testing.assert_array_equal(together, alone)
        np.testing.assert_allclose(together, bert.encode(TEXTS), rtol=0, atol=3e-6)


def test_windows_are_encoded_one_by_one(monkeypatch):
    """More texts than a window holds; ids of the next window are made meanwhile, in the right order."""
    bert = encoder()
    want = bert.encode(TEXTS * 3)
    monkeypatch.setattr("npbert.encoding.WINDOW_TEXTS", 4)
    np.testing.assert_allclose(bert.encode(TEXTS * 3), want, rtol=0, atol=1e-13)
    with pytest.raises(TypeError, match=r"texts\[17\] is 3"):
        bert.encode([*(TEXTS * 3)[:17], 3])


def test_no_text():
    found = encoder(dtype=np.float32).encode([])
    assert found.shape == (0, 6)
    assert found.dtype == np.float32


def test_an_empty_text_is_its_special_tokens():
    bert = encoder()
    want = bert.forward(input_ids=[[2, 3]]).last_hidden_state[0].mean(axis=0)
    np.testing.assert_allclose(bert.encode([""])[0], want, rtol=1e-13)


def test_one_text_gives_one_vector():
    bert = encoder()
    found = bert.encode("the cat sat")
    assert found.shape == (6,)
    np.testing.assert_array_equal(found, bert.encode(["the cat sat"])[0])


def test_any_sequence_of_texts():
    bert = encoder()
    want = bert.encode(TEXTS)
    np.testing.assert_array_equal(bert.encode(tuple(TEXTS)), want)
    np.testing.assert_array_equal(bert.encode(text for text in TEXTS), want)
    np.testing.assert_array_equal(bert.encode(np.array(TEXTS, dtype=object)), want)


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({}, 8),  # as many as there are positions
        ({"max_seq_length": 5}, 5),
        ({"model_max_length": 4}, 4),
        ({"max_seq_length": 7, "model_max_length": 6}, 6),
        ({"max_seq_length": 50, "model_max_length": 60}, 8),
        ({"model_max_length": None}, 8),
    ],
)
def test_long_texts_are_cut(limits, tokens):
    """To the smallest of three limits."""
    tokenizer = tokenizer_of(model_max_length=limits.get("model_max_length", 512))
    pooling = PoolingSettings(max_seq_length=limits.get("max_seq_length"))
    bert = model_of(tokenizer=tokenizer, pooling=pooling)
    long = " ".join(["the cat sat down"] * 5)
    assert bert.max_tokens == tokens
    want = expected_embedding(bert, long, max_tokens=tokens)
    np.testing.assert_allclose(bert.encode(long), want, rtol=1e-12, atol=1e-14)


def test_lower_case_on_request():
    """sentence-transformers' do_lower_case, before a tokenizer that keeps case."""
    cased = tokenizer_of(do_lower_case=False)
    plain = model_of(tokenizer=cased)
    lowering = model_of(tokenizer=cased, pooling=PoolingSettings(do_lower_case=True))
    np.testing.assert_array_equal(lowering.encode("THE Cat"), plain.encode("the cat"))
    assert np.abs(plain.encode("THE Cat") - plain.encode("the cat")).max() > 1e-3


@pytest.mark.parametrize("task", [task for task in TASKS if task != "encoder"])
def test_any_task_encodes_with_its_body(task):
    bert = model_of(task, tokenizer=tokenizer_of())
    body = Bert(CONFIG, bert.params, bert.tokenizer, task="encoder")
    np.testing.assert_array_equal(bert.encode(TEXTS), body.encode(TEXTS))


@pytest.mark.parametrize("pad_token_id", [None, 7])
def test_padding_word_has_no_effect(pad_token_id):
    config = CONFIG.replace(pad_token_id=pad_token_id)
    np.testing.assert_allclose(encoder(config=config).encode(TEXTS), encoder().encode(TEXTS), atol=1e-13)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("progress", [True, False])
def test_progress_goes_to_the_standard_error(capsys, monkeypatch, progress, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    found = encoder().encode(TEXTS, progress=progress)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert bool(printed.err) == (progress and terminal)
    np.testing.assert_array_equal(found, encoder().encode(TEXTS))


@pytest.mark.parametrize("texts", [["the", 3], [None], [b"the"], ["the", ["cat"]]])
def test_a_text_that_is_none(texts):
    with pytest.raises(TypeError, match="str"):
        encoder().encode(texts)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(ValueError, match="surrogate"):
        encoder().encode(["the", "\ud800"])


# --- fill_mask -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["masked_lm", "pretraining"])
def test_fill_mask(task):
    """For each mask the most probable words, by softmax of its scores."""
    bert = model_of(task, tokenizer=tokenizer_of())
    found = bert.fill_mask("the [MASK] sat [MASK]", top_k=3)
    output = bert.forward(input_ids=[[2, 5, 4, 8, 4, 3]])
    scores = output.logits if task == "masked_lm" else output.prediction_logits
    assert len(found) == 2
    assert found[0] != found[1]
    for predictions, logits in zip(found, scores[0, [2, 4]], strict=True):
        probs = np.exp(logits) / np.exp(logits).sum()
        best = np.argsort(-probs)[:3]
        assert [p.token_id for p in predictions] == best.tolist()
        assert [p.token for p in predictions] == [WORDS[i] for i in best]
        np.testing.assert_allclose([p.probability for p in predictions], probs[best], rtol=1e-12)
        assert all(type(p.probability) is float and type(p.token_id) is int for p in predictions)


def test_fill_mask_of_every_word():
    found = model_of("masked_lm", tokenizer=tokenizer_of()).fill_mask("[MASK]", top_k=11)
    assert sorted(p.token for p in found[0]) == sorted(WORDS)
    assert abs(sum(p.probability for p in found[0]) - 1) < 1e-12
    assert len(model_of("masked_lm", tokenizer=tokenizer_of()).fill_mask("[MASK]")[0]) == 5


def test_fill_mask_proposes_only_words_of_the_tokenizer():
    """The table may have more rows than the tokenizer has words; those beyond have no name."""
    config = CONFIG.replace(vocab_size=40)
    bert = model_of("masked_lm", config=config, tokenizer=tokenizer_of())
    found = bert.fill_mask("the [MASK]", top_k=11)[0]
    assert {p.token for p in found} == set(WORDS)
    assert abs(sum(p.probability for p in found) - 1) < 1e-12


@pytest.mark.parametrize("top_k", [0, -1, 12, 2.0, True, None])
def test_fill_mask_top_k(top_k):
    bert = model_of("masked_lm", tokenizer=tokenizer_of())
    with pytest.raises(ValueError, match=re.escape(f"top_k is {top_k!r}; it must be an integer in [1, 11]")):
        bert.fill_mask("the [MASK]", top_k=top_k)


def test_fill_mask_refuses():
    bert = model_of("masked_lm", tokenizer=tokenizer_of())
    with pytest.raises(ValueError, match=re.escape("the text has no [MASK] to fill")):
        bert.fill_mask("the cat")
    with pytest.raises(ValueError, match=re.escape("the text has no [MASK] to fill")):
        bert.fill_mask("")
    with pytest.raises(ValueError, match=r"the text has 11 tokens; max_position_embeddings is 8"):
        bert.fill_mask("[MASK] " + "the cat sat down " * 2)
    with pytest.raises(TypeError):
        bert.fill_mask(None)


@pytest.mark.parametrize("task", [t for t in TASKS if t not in ("masked_lm", "pretraining")])
def test_fill_mask_needs_word_scores(task):
    bert = model_of(task, tokenizer=tokenizer_of())
    with pytest.raises(ValueError, match=f"the task '{task}' has no word scores.*pretraining, masked_lm"):
        bert.fill_mask("the [MASK]")


@pytest.mark.parametrize(("method", "task"), [("encode", "encoder"), ("fill_mask", "masked_lm")])
def test_no_tokenizer(method, task):
    with pytest.raises(ValueError, match=f"{method} needs a tokenizer"):
        getattr(model_of(task), method)("the [MASK]")
