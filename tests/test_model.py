"""The body of BERT: its backward passes against the complex step, and what its forward promises.

Values are compared with transformers, in tests/test_tasks_golden.py and tests/oracle.
"""

import itertools
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npbert import gradcheck, model, ops
from npbert.inputs import prepare_inputs
from npbert.ops.activations import ACTIVATIONS
from npbert.ops.dropout import (
    SITE_ATTENTION_OUTPUT,
    SITE_ATTENTION_PROBS,
    SITE_EMBEDDING,
    SITE_FEED_FORWARD_OUTPUT,
)
from npbert.params import subset
from tests import models
from tests.comparisons import assert_finite, assert_rows_close
from tests.strategies import flags, seeds
from tests.tolerances import COMPLEX_STEP, FLOAT32_MODEL, REORDERED

POSITIONS = ("absolute", "relative_key", "relative_key_query", "sinusoidal")
# Those with a corner, where a derivative jumps, are left to tests/ops.
SMOOTH = ("gelu", "gelu_new", "gelu_fast", "quick_gelu", "silu", "mish", "tanh", "sigmoid", "linear")
WORDS = "embeddings.word_embeddings.weight"

# (number of heads, width of one): one head, many heads of width 1, and in between.
head_shapes = st.sampled_from([(1, 6), (5, 1), (2, 3), (3, 2)])
positions = st.sampled_from(POSITIONS)
dropout_seeds = st.none() | st.integers(0, 2**64 - 1)


def config_of(heads=(2, 3), **fields):
    """Without padding id: the padding word is held constant, which the complex step cannot know."""
    number, width = heads
    rates = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.15}
    sizes = {"num_attention_heads": number, "hidden_size": number * width, "pad_token_id": None}
    return models.tiny_config(**(rates | sizes | fields))


def draw(rng, config, **sizes):
    """Parameters of the body and its checked inputs."""
    given = models.random_inputs(rng, config, "encoder", **sizes)
    return models.random_params(rng, config, "encoder"), prepare_inputs(
        config, "encoder", np.float64, **given
    )


def assert_backward(forward, backward, args, zeros=()):
    gradcheck.check(
        forward, backward, args, oracle="complex_step", rtol=COMPLEX_STEP, structural_zeros=zeros
    ).raise_if_failed()


def run(params, config, inputs, **options):
    return model.model_forward(params, config, inputs, ops, **options)


# --- the parts -------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(seed=seeds, positions=positions, vectors=flags, eps=st.sampled_from((1e-3, 0.3)), key=dropout_seeds)
def test_embeddings_backward(seed, positions, vectors, eps, key):
    rng = np.random.default_rng(seed)
    config = config_of(position_embedding_type=positions, layer_norm_eps=eps)
    params, inputs = draw(rng, config)
    params = subset(params, "embeddings.")
    word_vectors = rng.standard_normal((*inputs.shape, config.hidden_size))

    def forward(params, word_vectors):
        given = inputs._replace(input_ids=None, inputs_embeds=word_vectors) if vectors else inputs
        return model.embeddings_forward(params, config, given, key, ops)

    def backward(dhidden, cache):
        dvectors, grads = model.embeddings_backward(dhidden, cache, params, config, ops)
        assert vectors == (dvectors is not None)
        return grads, dvectors

    zeros = ["word_vectors"] if not vectors else ["word_embeddings.weight"]
    if positions.startswith("relative"):
        zeros.append("position_embeddings.weight")
    assert_backward(forward, backward, (params, word_vectors), zeros)


@settings(max_examples=15)
@given(
    seed=seeds,
    heads=head_shapes,
    positions=positions,
    activation=st.sampled_from(SMOOTH),
    masked=st.sampled_from(["nothing", "padding", "a whole text"]),
    key=dropout_seeds,
    layer=st.integers(0, 3),
)
def test_encoder_layer_backward(seed, heads, positions, activation, masked, key, layer):
    rng = np.random.default_rng(seed)
    config = config_of(heads, position_embedding_type=positions, hidden_act=activation)
    params, inputs = draw(rng, config, tokens=4)
    hidden = rng.standard_normal((*inputs.shape, config.hidden_size))
    key_mask = None if masked == "nothing" else inputs.key_mask.copy()
    if masked == "a whole text":
        key_mask[-1] = False

    def forward(params, hidden):
        return model.encoder_layer_forward(params, config, hidden, key_mask, key, layer, ops)

    def backward(dy, cache):
        dhidden, grads = model.encoder_layer_backward(dy, cache, config, ops)
        return grads, dhidden

    zeros = [name.removeprefix("*") for name in models.structural_zeros(config, "encoder")]
    assert_backward(forward, backward, (subset(params, "encoder.layer.0."), hidden), zeros)


@pytest.mark.parametrize("part", ["self_attention", "feed_forward"])
def test_half_layer_backward(part):
    """Each half of a layer takes its input twice, once around it: the residual."""
    rng = np.random.default_rng(1)
    config = config_of()
    params, inputs = draw(rng, config)
    mine = ("attention.",) if part == "self_attention" else ("intermediate.", "output.")
    params = {n: v for n, v in subset(params, "encoder.layer.0.").items() if n.startswith(mine)}
    hidden = rng.standard_normal((*inputs.shape, config.hidden_size))
    attention = part == "self_attention"

    def forward(params, hidden):
        if attention:
            return model.self_attention_forward(params, config, hidden, inputs.key_mask, 5, 0, ops)
        return model.feed_forward_forward(params, config, hidden, 5, 0, ops)

    def backward(dy, cache):
        if attention:
            dhidden, grads = model.self_attention_backward(dy, cache, config, ops)
        else:
            dhidden, grads = model.feed_forward_backward(dy, cache, ops)
        return grads, dhidden

    assert_backward(forward, backward, (params, hidden), ["attention.self.key.bias"] if attention else ())


@given(seed=seeds)
def test_pooler_backward(seed):
    rng = np.random.default_rng(seed)
    config = config_of()
    params, inputs = draw(rng, config)
    hidden = rng.standard_normal((*inputs.shape, config.hidden_size))

    def backward(dpooled, cache):
        dhidden, grads = model.pooler_backward(dpooled, cache, ops)
        assert not np.any(dhidden[:, 1:])  # only the first token is looked at
        return grads, dhidden

    def forward(params, hidden):
        return model.pooler_forward(params, hidden, ops)

    assert_backward(forward, backward, (subset(params, "pooler."), hidden[:, :1]))
    assert_backward(forward, backward, (subset(params, "pooler."), hidden))


# --- the whole body --------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    seed=seeds,
    layers=st.integers(0, 2),
    positions=positions,
    outputs=st.sampled_from(["both", "last_hidden_state", "pooler_output", "no pooler"]),
    vectors=flags,
    key=dropout_seeds,
)
def test_model_backward(seed, layers, positions, outputs, vectors, key):
    rng = np.random.default_rng(seed)
    config = config_of(num_hidden_layers=layers, position_embedding_type=positions)
    params, inputs = draw(rng, config, tokens=4)
    if outputs in ("no pooler", "last_hidden_state"):
        no_pooler = {name: value for name, value in params.items() if not name.startswith("pooler.")}
        params = no_pooler if outputs == "no pooler" else params
    word_vectors = rng.standard_normal((*inputs.shape, config.hidden_size))

    def forward(params, word_vectors):
        given = inputs._replace(input_ids=None, inputs_embeds=word_vectors) if vectors else inputs
        output, cache = run(params, config, given, dropout_seed=key)
        last, pooled = output.last_hidden_state, output.pooler_output
        assert (pooled is None) == (outputs == "no pooler")
        chosen = {"both": (last, pooled), "pooler_output": (None, pooled)}.get(outputs, (last, None))
        return chosen, cache

    def backward(doutputs, cache):
        dvectors, grads = model.model_backward(*doutputs, cache, params, config, ops)
        assert list(grads) == list(params)
        return grads, dvectors

    zeros = {*models.structural_zeros(config, "encoder"), *models.unused_params(config, "encoder")}
    zeros.add(WORDS if vectors else "word_vectors")
    if outputs == "last_hidden_state":
        zeros.add("pooler.*")
    assert_backward(forward, backward, (params, word_vectors), zeros)


def test_gradient_of_both_outputs_is_the_sum_of_each_alone():
    rng = np.random.default_rng(2)
    config = config_of()
    params, inputs = draw(rng, config)
    output, cache = run(params, config, inputs)
    dhidden = rng.standard_normal(output.last_hidden_state.shape)
    dpooled = rng.standard_normal(output.pooler_output.shape)
    _, both = model.model_backward(dhidden, dpooled, cache, params, config, ops)
    _, of_hidden = model.model_backward(dhidden, None, cache, params, config, ops)
    _, of_pooled = model.model_backward(None, dpooled, cache, params, config, ops)
    for name, grad in both.items():
        parts = np.abs(of_hidden[name]) + np.abs(of_pooled[name])
        assert_rows_close(
            grad, of_hidden[name] + of_pooled[name], what=name, round_off=REORDERED, terms=parts + 1
        )


def test_word_of_the_padding_id_is_read_but_gets_no_gradient():
    """As nn.Embedding(padding_idx=...): all other gradients are those of a model without a padding id."""
    rng = np.random.default_rng(3)
    config = config_of(pad_token_id=4)
    params, inputs = draw(rng, config)
    assert (inputs.input_ids == 4).any()
    dhidden = rng.standard_normal((*inputs.shape, config.hidden_size))

    def gradients(config):
        output, cache = run(params, config, inputs)
        return output, model.model_backward(dhidden, None, cache, params, config, ops)[1]

    output, grads = gradients(config)
    expected_output, expected = gradients(config.replace(pad_token_id=None))
    np.testing.assert_array_equal(output.last_hidden_state, expected_output.last_hidden_state)
    assert np.any(expected[WORDS][4])
    expected[WORDS][4] = 0
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, expected[name], err_msg=name)


def test_absent_words_positions_and_types_get_no_gradient():
    rng = np.random.default_rng(4)
    config = config_of()
    params, _ = draw(rng, config)
    ids = [[2, 7, 2, 5]]
    types = [[0, 2, 0, 0]]
    inputs = prepare_inputs(
        config, "encoder", np.float64, ids, token_type_ids=types, past_key_values_length=3
    )
    _, cache = run(params, config, inputs)
    dhidden = rng.standard_normal((1, 4, config.hidden_size))
    _, grads = model.model_backward(dhidden, None, cache, params, config, ops)
    for name, used in {
        WORDS: {2, 5, 7},
        "embeddings.position_embeddings.weight": {3, 4, 5, 6},
        "embeddings.token_type_embeddings.weight": {0, 2},
    }.items():
        assert set(np.flatnonzero(np.any(grads[name], axis=1))) == used, name


def test_masked_tokens_give_and_get_nothing():
    """Where nothing comes back through padding's own outputs, its word gets exactly zero gradient."""
    rng = np.random.default_rng(5)
    config = config_of(num_hidden_layers=2)
    params, _ = draw(rng, config)
    ids, mask = [[2, 3, 9, 9]], [[1, 1, 0, 0]]
    inputs = prepare_inputs(config, "encoder", np.float64, ids, mask)
    _, cache = run(params, config, inputs)
    dhidden = rng.standard_normal((1, 4, config.hidden_size))
    _, grads = model.model_backward(dhidden, None, cache, params, config, ops)
    assert np.any(grads[WORDS][9])  # padding has hidden states too; this loss looks at them
    dhidden[:, 2:] = 0
    _, grads = model.model_backward(dhidden, None, cache, params, config, ops)
    assert not np.any(grads[WORDS][9])
    assert np.any(grads[WORDS][2])


# --- what the forward promises ---------------------------------------------------------------------------


def test_hidden_states_and_attentions():
    rng = np.random.default_rng(6)
    config = config_of(num_hidden_layers=3)
    params, inputs = draw(rng, config)
    output, _ = run(params, config, inputs, output_hidden_states=True, output_attentions=True)
    embeddings, _ = model.embeddings_forward(subset(params, "embeddings."), config, inputs, None, ops)
    assert len(output.hidden_states) == 4
    np.testing.assert_array_equal(output.hidden_states[0], embeddings)
    np.testing.assert_array_equal(output.hidden_states[3], output.last_hidden_state)
    hidden = embeddings
    for layer in range(3):
        layer_params = subset(params, f"encoder.layer.{layer}.")
        hidden, cache = model.encoder_layer_forward(
            layer_params, config, hidden, inputs.key_mask, None, layer, ops
        )
        np.testing.assert_array_equal(output.hidden_states[layer + 1], hidden)
        np.testing.assert_array_equal(output.attentions[layer], cache.self_attention.attention.probs)
    assert len(output.attentions) == 3
    for probs in output.attentions:
        assert probs.shape == (2, 2, 5, 5)
        np.testing.assert_allclose(probs.sum(axis=-1), 1, rtol=REORDERED)
        hidden_keys = np.broadcast_to(~inputs.key_mask[:, None, None, :], probs.shape)
        assert hidden_keys.any()
        assert not np.any(probs[hidden_keys])


def test_attentions_are_what_dropout_left():
    """The weights that the values are averaged with, which is what Hugging Face reports too."""
    rng = np.random.default_rng(16)
    config = config_of(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.4)
    params, inputs = draw(rng, config)
    clean, _ = run(params, config, inputs, output_attentions=True)
    dropped, _ = run(params, config, inputs, output_attentions=True, dropout_seed=3)
    probs = clean.attentions[0]
    keep = ops.dropout_keep_mask(probs.shape, 0.4, 3, 0, SITE_ATTENTION_PROBS)
    assert np.any(probs[~keep])
    np.testing.assert_allclose(dropped.attentions[0], np.where(keep, probs / 0.6, 0), rtol=REORDERED)


def test_nothing_is_returned_that_was_not_asked_for():
    rng = np.random.default_rng(7)
    config = config_of()
    output, cache = run(*_problem(rng, config), keep_cache=False)
    assert output.hidden_states is None
    assert output.attentions is None
    assert cache is None


def test_cache_changes_no_result():
    rng = np.random.default_rng(8)
    problem = _problem(rng, config_of(num_hidden_layers=2))
    kept, _ = run(*problem, output_hidden_states=True)
    dropped, _ = run(*problem, output_hidden_states=True, keep_cache=False)
    np.testing.assert_array_equal(kept.hidden_states, dropped.hidden_states)
    np.testing.assert_array_equal(kept.pooler_output, dropped.pooler_output)


def test_without_layers_the_embeddings_are_the_result():
    rng = np.random.default_rng(9)
    config = config_of(num_hidden_layers=0)
    params, inputs = draw(rng, config)
    output, _ = run(params, config, inputs, output_hidden_states=True, output_attentions=True)
    embeddings, _ = model.embeddings_forward(subset(params, "embeddings."), config, inputs, None, ops)
    np.testing.assert_array_equal(output.last_hidden_state, embeddings)
    assert len(output.hidden_states) == 1
    assert output.attentions == ()


def test_embeddings_are_the_normalised_sum_of_three_tables():
    """By hand, for one token, with explicit and with default positions."""
    rng = np.random.default_rng(10)
    config = config_of(layer_norm_eps=0.3)
    params, _ = draw(rng, config)
    ids, types = [[3, 8, 5]], [[2, 0, 1]]
    for options, position in (({"past_key_values_length": 4}, 5), ({"position_ids": [7, 6, 2]}, 6), ({}, 1)):
        inputs = prepare_inputs(config, "encoder", np.float64, ids, token_type_ids=types, **options)
        hidden, _ = model.embeddings_forward(subset(params, "embeddings."), config, inputs, None, ops)
        total = (
            params[WORDS][8]
            + params["embeddings.position_embeddings.weight"][position]
            + params["embeddings.token_type_embeddings.weight"][0]
        )
        normalised = (total - total.mean()) / np.sqrt(total.var() + 0.3)
        want = normalised * params["embeddings.LayerNorm.weight"] + params["embeddings.LayerNorm.bias"]
        np.testing.assert_allclose(hidden[0, 1], want, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_of_the_tokens_matters(positions):
    """Whichever way positions enter: reversing a text is not reversing its hidden states."""
    rng = np.random.default_rng(11)
    config = config_of(position_embedding_type=positions)
    params, _ = draw(rng, config)
    ids = np.array([[2, 7, 4, 9]])
    forwards, backwards = (
        run(params, config, prepare_inputs(config, "encoder", np.float64, given))[0].last_hidden_state
        for given in (ids, ids[:, ::-1])
    )
    assert np.abs(forwards - backwards[:, ::-1]).max() > 0.01


@pytest.mark.parametrize("positions", POSITIONS)
@given(seed=seeds, more=st.integers(1, 3))
@settings(max_examples=5)
def test_more_padding_changes_nothing(positions, seed, more):
    rng = np.random.default_rng(seed)
    config = config_of(num_hidden_layers=2, position_embedding_type=positions)
    params, inputs = draw(rng, config)
    tokens = inputs.shape[1]
    longer = prepare_inputs(
        config,
        "encoder",
        np.float64,
        np.pad(inputs.input_ids, ((0, 0), (0, more)), constant_values=3),
        np.pad(inputs.key_mask, ((0, 0), (0, more))),
        np.pad(inputs.token_type_ids, ((0, 0), (0, more)), constant_values=1),
    )
    short, _ = run(params, config, inputs)
    long, _ = run(params, config, longer)
    want = short.last_hidden_state
    assert_rows_close(
        long.last_hidden_state[:, :tokens], want, what="hidden states", round_off=REORDERED, terms=want
    )


def test_fully_masked_text():
    """Its attention yields 0; it is finite; the other texts do not know it is there."""
    rng = np.random.default_rng(12)
    config = config_of(num_hidden_layers=2)
    params, inputs = draw(rng, config, texts=3)
    masked = inputs._replace(key_mask=inputs.key_mask.copy())
    masked.key_mask[1] = False
    wanted = {"output_hidden_states": True, "output_attentions": True}
    before, _ = run(params, config, inputs, **wanted)
    after, cache = run(params, config, masked, **wanted)
    for name in ("hidden_states", "attentions"):
        for one, other in zip(getattr(before, name), getattr(after, name), strict=True):
            assert_finite(other, name)
            np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])
    for probs in after.attentions:
        assert not np.any(probs[1])

    # With attention at 0, the first half of a layer is the layer norm of its input plus a bias.
    layer = subset(params, "encoder.layer.0.")
    total = after.hidden_states[0][1] + layer["attention.output.dense.bias"]
    want, _ = ops.layernorm_forward(
        total,
        layer["attention.output.LayerNorm.weight"],
        layer["attention.output.LayerNorm.bias"],
        config.layer_norm_eps,
    )
    hidden = after.hidden_states[0]
    attended, _ = model.self_attention_forward(layer, config, hidden, masked.key_mask, None, 0, ops)
    np.testing.assert_allclose(attended[1], want, rtol=1e-13, atol=1e-14)

    # What comes back through this text alone changes no attention parameter.
    dhidden = np.zeros_like(after.last_hidden_state)
    dhidden[1] = rng.standard_normal(dhidden[1].shape)
    _, grads = model.model_backward(dhidden, None, cache, params, config, ops)
    for name, grad in grads.items():
        assert_finite(grad, name)
        if "attention.self" in name or name.endswith("attention.output.dense.weight"):
            assert not np.any(grad), name
    assert np.any(grads["encoder.layer.0.attention.output.dense.bias"])


def test_float32_is_near_float64():
    rng = np.random.default_rng(13)
    config = config_of(num_hidden_layers=2, layer_norm_eps=0.1)
    params, inputs = draw(rng, config)
    single = {name: value.astype(np.float32) for name, value in params.items()}
    params = {name: value.astype(np.float64) for name, value in single.items()}
    dhidden = rng.standard_normal((*inputs.shape, config.hidden_size)).astype(np.float32)
    dpooled = dhidden[:, -1]
    results = []
    for values, dtype in ((single, np.float32), (params, np.float64)):
        output, cache = run(values, config, inputs, dropout_seed=1)
        cotangents = dhidden.astype(dtype), dpooled.astype(dtype)
        _, grads = model.model_backward(*cotangents, cache, values, config, ops)
        results.append({"last_hidden_state": output.last_hidden_state} | grads)
        assert {value.dtype for value in results[-1].values()} == {np.dtype(dtype)}
    for name, want in results[1].items():
        if not name.endswith("attention.self.key.bias"):
            error = np.abs(results[0][name] - want).max() / np.abs(want).max()
            assert error <= FLOAT32_MODEL, f"{name} is off by {error:.1e}"


# --- dropout ---------------------------------------------------------------------------------------------


def test_every_place_draws_its_own_mask():
    """Shape, rate, seed, layer and site of every draw, in order."""
    rng = np.random.default_rng(14)
    config = config_of(num_hidden_layers=2)
    drawn = []

    def spy(shape, rate, seed, layer, site, xp):
        drawn.append((shape, rate, seed, layer, site))
        return ops.dropout_keep_mask(shape, rate, seed, layer, site, xp)

    spying = types.SimpleNamespace(**(vars(ops) | {"dropout_keep_mask": spy}))
    params, inputs = draw(rng, config)
    model.model_forward(params, config, inputs, spying, dropout_seed=77)
    hidden, scores = (2, 5, 6), (2, 2, 5, 5)
    expected = [(hidden, 0.25, 77, 0, SITE_EMBEDDING)]
    for layer in range(2):
        expected += [
            (scores, 0.15, 77, layer, SITE_ATTENTION_PROBS),
            (hidden, 0.25, 77, layer, SITE_ATTENTION_OUTPUT),
            (hidden, 0.25, 77, layer, SITE_FEED_FORWARD_OUTPUT),
        ]
    assert drawn == expected
    drawn.clear()
    model.model_forward(params, config, inputs, spying, dropout_seed=None)
    assert drawn == []


def test_dropout_seed_decides():
    rng = np.random.default_rng(15)
    problem = _problem(rng, config_of())
    keys = (3, 4, 0, None)  # 0 is a seed like any other
    states = [run(*problem, dropout_seed=key)[0].last_hidden_state for key in keys]
    again = run(*problem, dropout_seed=3)[0].last_hidden_state
    np.testing.assert_array_equal(again, states[0])
    for one, other in itertools.combinations(states, 2):
        assert np.abs(one - other).max() > 0.01


def test_rate_zero_is_no_dropout():
    rng = np.random.default_rng(16)
    config = config_of(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    problem = _problem(rng, config)
    states = [run(*problem, dropout_seed=key)[0].last_hidden_state for key in (3, None)]
    np.testing.assert_array_equal(*states)


def test_embeddings_are_dropped_and_scaled():
    """The first dropout, seen from outside: zeros where the mask says so, the rest over 1 - rate."""
    rng = np.random.default_rng(17)
    config = config_of(num_hidden_layers=0, hidden_dropout_prob=0.5)
    params, inputs = draw(rng, config)
    plain, dropped = (run(params, config, inputs, dropout_seed=key)[0].last_hidden_state for key in (None, 3))
    keep = ops.dropout_keep_mask(plain.shape, 0.5, 3, 0, SITE_EMBEDDING)
    np.testing.assert_array_equal(dropped, np.where(keep, 2 * plain, 0))


def test_a_layer_is_dropped_and_scaled_in_three_places():
    """By hand, in plain NumPy: the attention's probabilities, and what either half adds to its input."""
    rng = np.random.default_rng(18)
    config = config_of(layer_norm_eps=0.2, hidden_act="relu")
    params, inputs = draw(rng, config)
    params = subset(params, "encoder.layer.0.")
    hidden = rng.standard_normal((*inputs.shape, 6))
    seed, layer = 9, 3

    def linear(x, name):
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    def heads(x):
        return x.reshape(2, 5, 2, 3).swapaxes(1, 2)

    def dropped(x, rate, site):
        return np.where(ops.dropout_keep_mask(x.shape, rate, seed, layer, site), x / (1 - rate), 0)

    def layernorm(x, name):
        normalised = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.2)
        return normalised * params[f"{name}.weight"] + params[f"{name}.bias"]

    q, k, v = (heads(linear(hidden, f"attention.self.{name}")) for name in ("query", "key", "value"))
    scores = np.where(inputs.key_mask[:, None, None], q @ k.swapaxes(-1, -2) / np.sqrt(3), -np.inf)
    probs = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    probs = dropped(probs, 0.15, SITE_ATTENTION_PROBS)
    merged = (probs @ v).swapaxes(1, 2).reshape(2, 5, 6)
    projected = dropped(linear(merged, "attention.output.dense"), 0.25, SITE_ATTENTION_OUTPUT)
    attended = layernorm(projected + hidden, "attention.output.LayerNorm")
    widened = np.maximum(linear(attended, "intermediate.dense"), 0)
    narrowed = dropped(linear(widened, "output.dense"), 0.25, SITE_FEED_FORWARD_OUTPUT)
    want = layernorm(narrowed + attended, "output.LayerNorm")

    found, cache = model.encoder_layer_forward(params, config, hidden, inputs.key_mask, seed, layer, ops)
    np.testing.assert_allclose(cache.self_attention.attention.probs, probs, rtol=1e-12)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-12)


def test_smooth_activations_exist():
    assert set(SMOOTH) <= set(ACTIVATIONS)


def _problem(rng, config):
    params, inputs = draw(rng, config)
    return params, config, inputs
