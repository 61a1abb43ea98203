"""A whole `Bert` on an engine, held against the textbook's: what the tests of every engine ask of it."""

from typing import Any

import numpy as np

import npbert
from npbert.config import BertConfig
from npbert.ops.array_module import to_numpy
from tests.comparisons import assert_finite, assert_identical
from tests.models import LOSSES, random_inputs, random_labels, random_params, random_vectors
from tests.tolerances import REORDERED

# Every kind of encoder layer.
LAYERS: tuple[dict[str, Any], ...] = (
    {},
    {"hidden_act": "gelu_new"},
    {"hidden_act": "relu"},
    {"hidden_act": "gelu_10"},
    {"position_embedding_type": "relative_key"},
    {"position_embedding_type": "relative_key_query"},
    {"position_embedding_type": "sinusoidal"},
)


def config_of(**fields) -> BertConfig:
    """Heads of 8, the narrowest that the kernels take; the other sizes share no factor with them."""
    sizes = {
        "vocab_size": 37,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 29,
        "max_position_embeddings": 16,
        "type_vocab_size": 3,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-3,
    }
    return BertConfig(**(sizes | fields))


def models(backend, config, task, dtype=np.float64, seed=0):
    """The textbook's and the engine's model, with the same parameters."""
    params = random_params(np.random.default_rng(seed), config, task, spread=0.3)
    return (
        npbert.Bert(config, params, task=task, dtype=np.float64, backend="reference"),
        npbert.Bert(config, params, task=task, dtype=dtype, backend=backend),
    )


def assert_near(actual, expected, what, tolerance):
    """Largest difference, over the largest element."""
    actual, expected = to_numpy(actual).astype(np.float64), np.asarray(expected)
    assert actual.shape == expected.shape, what
    assert_finite(actual, what)
    assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3), what


# Beside padding at the end, which `random_inputs` has.
MASKS = ("none", "scattered", "first tokens", "a whole text", "everything")


def masked(rng, inputs, mask):
    """The same inputs with another attention mask: labels stand anywhere, on masked tokens, too."""
    shape = inputs["attention_mask"].shape
    attention_mask = np.ones(shape, np.int64)
    if mask == "scattered":
        attention_mask = rng.integers(0, 2, shape)
    elif mask == "first tokens":
        attention_mask[..., :2] = 0
    elif mask == "a whole text":
        attention_mask[-1] = 0
    elif mask == "everything":
        attention_mask[...] = 0
    return inputs | {"attention_mask": None if mask == "none" else attention_mask}


def check_loss_and_gradients(backend, loss, dropout_seed, mask=None):
    """Loss and every gradient of one of `LOSSES`, in float64; with one of `MASKS`."""
    task, fields = LOSSES[loss]
    config = config_of(**fields)
    textbook, engine = models(backend, config, task)
    rng = np.random.default_rng(1)
    inputs = random_inputs(rng, config, task)
    labels = random_labels(rng, config, task, inputs["input_ids"].shape)
    if mask is not None:
        inputs = masked(rng, inputs, mask)
    expected, expected_grads = textbook.loss_and_grads(**inputs, **labels, dropout_seed=dropout_seed)
    found, grads = engine.loss_and_grads(**inputs, **labels, dropout_seed=dropout_seed)
    assert_near(found, expected, "loss", REORDERED)
    assert list(grads) == list(expected_grads)
    for name, gradient in grads.items():
        assert gradient.dtype == np.float64
        assert_near(gradient, expected_grads[name], name, 100 * REORDERED)


def check_layers(backend, fields):
    """Hidden states, attentions and gradients of one of `LAYERS`, in float64."""
    config = config_of(**fields)
    textbook, engine = models(backend, config, "encoder", seed=2)
    rng = np.random.default_rng(3)
    inputs = random_inputs(rng, config, "encoder", texts=3, tokens=7)
    inputs["attention_mask"][1] = 0  # a text without a token to look at
    options = {"output_hidden_states": True, "output_attentions": True, "dropout_seed": 4}
    expected = textbook.forward(**inputs, **options)
    found = engine.forward(**inputs, **options)
    for name in ("hidden_states", "attentions"):
        for layer, (actual, value) in enumerate(
            zip(getattr(found, name), getattr(expected, name), strict=True)
        ):
            assert_near(actual, value, f"{name} {layer}", 100 * REORDERED)
    assert_near(found.pooler_output, expected.pooler_output, "pooler", 100 * REORDERED)

    dhidden = rng.normal(size=expected.last_hidden_state.shape)
    grads, _ = engine.vjp(dhidden, **inputs, dropout_seed=4)
    expected_grads, _ = textbook.vjp(dhidden, **inputs, dropout_seed=4)
    for name, gradient in grads.items():
        assert_near(gradient, expected_grads[name], name, 1000 * REORDERED)


def check_vectors(backend, mask, dropout_seed):
    """Gradients of `inputs_embeds` and of all parameters, of both outputs and of each alone."""
    config = config_of()
    textbook, engine = models(backend, config, "encoder", seed=12)
    rng = np.random.default_rng(13)
    inputs = masked(rng, random_inputs(rng, config, "encoder", texts=3, tokens=7), mask)
    inputs = random_vectors(rng, config, inputs)
    cotangents = {
        "dlast_hidden_state": rng.normal(size=(3, 7, config.hidden_size)),
        "dpooler_output": rng.normal(size=(3, config.hidden_size)),
    }
    for names in (("dlast_hidden_state",), ("dpooler_output",), tuple(cotangents)):
        given = {name: cotangents[name] for name in names} | inputs
        grads, dinputs_embeds = engine.vjp(**given, dropout_seed=dropout_seed)
        expected_grads, expected = textbook.vjp(**given, dropout_seed=dropout_seed)
        assert_near(dinputs_embeds, expected, "inputs_embeds", 100 * REORDERED)
        for name, gradient in grads.items():
            assert_near(gradient, expected_grads[name], name, 1000 * REORDERED)


def check_precision(backend, dtype, tolerance):
    """Scores, loss and gradients in another precision, relative to their largest."""
    config = config_of()
    textbook, engine = models(backend, config, "masked_lm", dtype, seed=5)
    for name, value in engine.params.items():  # the same numbers, rounded once
        textbook.params[name] = to_numpy(value).astype(np.float64)
    rng = np.random.default_rng(6)
    inputs = random_inputs(rng, config, "masked_lm", texts=3, tokens=9)
    labels = random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    found = engine.forward(**inputs, **labels)
    expected = textbook.forward(**inputs, **labels)
    assert found.logits.dtype == dtype
    assert_near(found.logits, expected.logits, "logits", tolerance)
    loss, grads = engine.loss_and_grads(**inputs, **labels)
    _, expected_grads = textbook.loss_and_grads(**inputs, **labels)
    assert_near(loss, expected.loss, "loss", tolerance)
    largest = max(np.abs(value).max() for value in expected_grads.values())
    for name, gradient in grads.items():
        assert gradient.dtype == dtype
        assert_finite(to_numpy(gradient), name)
        assert np.abs(to_numpy(gradient) - expected_grads[name]).max() <= 3 * tolerance * largest, name


def check_two_runs(backend):
    """The same bits twice."""
    config = config_of()
    _, engine = models(backend, config, "masked_lm", np.float32)
    rng = np.random.default_rng(8)
    inputs = random_inputs(rng, config, "masked_lm")
    labels = random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    _, first = engine.loss_and_grads(**inputs, **labels, dropout_seed=9)
    _, second = engine.loss_and_grads(**inputs, **labels, dropout_seed=9)
    for name in first:
        assert_identical(to_numpy(second[name]), to_numpy(first[name]), name)
