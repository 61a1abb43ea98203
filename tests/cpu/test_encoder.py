"""The encoder without padding against the textbook's with it: values, gradients, dropout; and its memory."""

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npbert
from npbert import cpu, model, ops
from npbert.cpu import encoder, packed_layer, rows
from npbert.cpu.encoder import PackedEncoderCache
from npbert.cpu.workers import workers
from npbert.params import subset
from tests.comparisons import assert_finite, assert_identical
from tests.engine_models import assert_near, config_of
from tests.models import random_params

# Float64 of either way: sums in another order.
TOLERANCE = 1e-12
# Float32 of a few layers.
SINGLE = 3e-5
MASKS = ("none", "prefix", "scattered", "empty text", "first token masked")
READS = ("all", "first", "some", "none")


def problem(seed: int, config, mask: str = "prefix", read: str = "all", texts: int = 5, tokens: int = 11):
    """Arguments of `encoder_forward`, and a cotangent that is zero where nobody reads."""
    rng = np.random.default_rng(seed)
    params = subset(random_params(rng, config, "encoder", spread=0.4), "encoder.")
    hidden = rng.normal(size=(texts, tokens, config.hidden_size))
    keys = np.arange(tokens) < rng.integers(1, tokens + 1, texts)[:, None]
    if mask == "scattered":
        keys = rng.random((texts, tokens)) < 0.5
    if mask == "empty text":
        keys[-1] = False
    if mask == "first token masked":
        keys[:, 0] = False
    is_read = {
        "all": np.ones((texts, tokens), bool),
        "first": np.arange(tokens) == np.zeros((texts, 1)),
        "some": rng.random((texts, tokens)) < 0.3,
        "none": np.zeros((texts, tokens), bool),
    }[read]
    dy = rng.normal(size=hidden.shape) * is_read[..., None]
    return params, hidden, None if mask == "none" else keys, None if read == "all" else is_read, dy


def run(engine, config, args, seed: int | None = None, dtype: Any = np.float64):
    """Return the last hidden state, the input's gradient and those of the parameters."""
    params, hidden, keys, read, dy = args
    params = {name: value.astype(dtype) for name, value in params.items()}
    forward = getattr(engine, "encoder_forward", model.encoder_forward)
    backward = getattr(engine, "encoder_backward", model.encoder_backward)
    output, cache = forward(params, config, hidden.astype(dtype), keys, read, seed, engine)
    dhidden, grads = backward(dy.astype(dtype), cache, config, engine)
    return output.last_hidden_state, dhidden, grads


def check(config, args, seed: int | None = None, dtype: Any = np.float64, tolerance: float = TOLERANCE):
    """Hold the engine against the textbook: where nobody reads, both may be anything."""
    _, hidden, keys, read, _ = args
    y, dhidden, grads = run(cpu, config, args, seed, dtype)
    expected_y, expected_dhidden, expected_grads = run(ops, config, args, seed)
    is_read = np.ones(hidden.shape[:2], bool) if read is None else read
    left_out = np.zeros_like(is_read) if keys is None else ~(is_read | keys)
    assert_near(y * is_read[..., None], expected_y * is_read[..., None], "last hidden state", tolerance)
    assert_near(dhidden, expected_dhidden, "gradient of the input", tolerance)
    assert not np.any(y[~is_read])
    assert not np.any(dhidden[left_out])
    assert set(grads) == set(expected_grads)
    # Some gradients are zero up to round-off: errors are measured against the largest of a layer, too.
    largest = max(np.abs(value).max() for value in expected_grads.values())
    for name, gradient in grads.items():
        assert gradient.dtype == dtype
        assert gradient.shape == expected_grads[name].shape
        assert_finite(gradient, name)
        is_zero = name.endswith("self.key.bias")  # in exact arithmetic: what is computed is round-off
        scale = largest if is_zero else max(np.abs(expected_grads[name]).max(), 1e-2 * largest)
        assert np.abs(gradient - expected_grads[name]).max() <= tolerance * max(scale, 1e-3), name


def test_it_is_packed():
    config = config_of()
    params, hidden, keys, read, _ = problem(0, config)
    _, cache = cpu.encoder_forward(params, config, hidden, keys, read, None, cpu)
    assert isinstance(cache, PackedEncoderCache)


@pytest.mark.parametrize("dropout_seed", [None, 7])
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("mask", MASKS)
def test_values_and_gradients(mask, read, dropout_seed):
    config = config_of()
    check(config, problem(1, config, mask, read), dropout_seed)


@pytest.mark.parametrize("rates", [(0.0, 0.4), (0.4, 0.0), (0.0, 0.0), (0.3, 0.5)], ids=str)
def test_either_dropout_alone(rates):
    config = config_of(hidden_dropout_prob=rates[0], attention_probs_dropout_prob=rates[1])
    check(config, problem(2, config, "scattered", "some"), 2**40 + 3)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "tanh", "gelu_10"])
def test_activations(activation):
    config = config_of(hidden_act=activation)
    check(config, problem(3, config, "scattered", "some"))


@pytest.mark.parametrize(
    "fields", [{"num_hidden_layers": 1}, {"num_hidden_layers": 4}, {"num_attention_heads": 1}]
)
def test_sizes(fields):
    config = config_of(**fields)
    check(config, problem(4, config, "empty text", "first"), 5)


@pytest.mark.parametrize("dropout_seed", [None, 11])
def test_single_precision(dropout_seed):
    config = config_of()
    check(config, problem(5, config, "scattered", "some"), dropout_seed, np.float32, SINGLE)


@pytest.fixture(params=[1, 3, 8])
def small_chunks(request, monkeypatch):
    """Many chunks, of which some go to each lane, and of each chunk several blocks."""
    monkeypatch.setattr(rows, "CHUNK_ROWS", 40)
    monkeypatch.setattr(rows, "LEAST_CHUNK_ROWS", 10)
    monkeypatch.setattr(encoder, "LANES", request.param)
    monkeypatch.setattr(encoder, "SUMS", 1000)
    monkeypatch.setattr(packed_layer, "BLOCK", 5 * 24)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dropout_seed", [None, 13])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_several_chunks(dtype, dropout_seed):
    config = config_of()
    args = problem(6, config, "scattered", "first", texts=40, tokens=16)
    assert len(rows.pack((40, 16), *args[2:4]).chunks) >= 8
    check(config, args, dropout_seed, dtype, TOLERANCE if dtype == np.float64 else SINGLE)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    mask=st.sampled_from(MASKS),
    read=st.sampled_from(READS),
    texts=st.integers(1, 6),
    tokens=st.integers(1, 16),
    dropout_seed=st.none() | st.integers(0, 2**64 - 1),
)
def test_any_batch(seed, mask, read, texts, tokens, dropout_seed):
    config = config_of(num_hidden_layers=1)
    check(config, problem(seed, config, mask, read, texts, tokens), dropout_seed)


@pytest.mark.parametrize("read", ["all", "first"])
def test_inputs_are_not_written(read):
    config = config_of()
    args = problem(7, config, "scattered", read)
    before = [{n: v.copy() for n, v in args[0].items()}, *(a if a is None else a.copy() for a in args[1:])]
    run(cpu, config, args, 3)
    for name, value in args[0].items():
        assert_identical(value, before[0][name], name)
    for slot, (value, old) in enumerate(zip(args[1:], before[1:], strict=True)):
        if old is not None:
            assert_identical(value, old, f"argument {slot + 1}")


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_workers_changes_no_bit(dtype):
    config = config_of()
    args = problem(8, config, "prefix", "first", texts=40, tokens=16)
    found = []
    for count in (1, 2, 3, 2):
        with workers(count):
            found.append(run(cpu, config, args, 17, dtype))
    for y, dhidden, grads in found[1:]:
        assert_identical(y, found[0][0], "last hidden state")
        assert_identical(dhidden, found[0][1], "gradient of the input")
        for name, gradient in grads.items():
            assert_identical(gradient, found[0][2][name], name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_workers_changes_no_bit_of_large_products(dtype):
    config = config_of(
        hidden_size=96, intermediate_size=290, hidden_act="gelu_new", max_position_embeddings=64
    )
    args = problem(9, config, "prefix", "first", texts=40, tokens=50)
    found = []
    for count in (1, 2, 3):
        with workers(count):
            found.append(run(cpu, config, args, 17, dtype))
    for _, dhidden, grads in found[1:]:
        assert_identical(dhidden, found[0][1], "gradient of the input")
        for name, gradient in grads.items():
            assert_identical(gradient, found[0][2][name], name)


def test_steps_that_overlap_do_not_share_memory():
    """Forward, forward, backward, backward; then other steps, which leave all results as they were."""
    config = config_of()
    problems = [problem(seed, config, "prefix", "some") for seed in (21, 22)]
    expected = [run(cpu, config, args) for args in problems]
    copies = [(y.copy(), dx.copy(), {n: g.copy() for n, g in grads.items()}) for y, dx, grads in expected]
    forwards = []
    for params, hidden, keys, read, dy in problems:
        output, cache = cpu.encoder_forward(params, config, hidden, keys, read, None, cpu)
        forwards.append((output, cache, dy))
    for order in ((1, 0), (0, 1)):
        for index in order:
            output, cache, dy = forwards[index]
            dhidden, grads = cpu.encoder_backward(dy, cache, config, cpu)
            y, expected_dhidden, expected_grads = copies[index]
            assert_identical(output.last_hidden_state, y, "last hidden state")
            assert_identical(dhidden, expected_dhidden, "gradient of the input")
            for name, gradient in grads.items():
                assert_identical(gradient, expected_grads[name], name)
    del forwards
    run(cpu, config, problem(23, config))
    for (y, dhidden, grads), (old_y, old_dhidden, old_grads) in zip(expected, copies, strict=True):
        assert_identical(y, old_y, "last hidden state of an earlier step")
        assert_identical(dhidden, old_dhidden, "input's gradient of an earlier step")
        for name, gradient in grads.items():
            assert_identical(gradient, old_grads[name], name)


def test_a_step_takes_the_memory_of_the_last():
    config = config_of()
    params, hidden, keys, read, _ = problem(24, config)
    addresses = set()
    for _ in range(3):
        _, cache = cpu.encoder_forward(params, config, hidden, keys, read, None, cpu)
        addresses.add(cache.hiddens[0].ctypes.data)
        del cache
        gc.collect()
    assert len(addresses) == 1


def test_gradients_of_earlier_steps_of_a_model_are_left_alone():
    config = config_of(num_labels=2)
    rng = np.random.default_rng(25)
    params = random_params(rng, config, "sequence_classification")
    bert = npbert.Bert(config, params, task="sequence_classification")
    ids = rng.integers(0, config.vocab_size, (2, 4, 9))
    _, first = bert.loss_and_grads(ids[0], labels=[0, 1, 1, 0])
    kept = {name: value.copy() for name, value in first.items()}
    bert.loss_and_grads(ids[1], labels=[1, 1, 1, 0])
    for name, value in kept.items():
        assert_identical(first[name], value, name)


@pytest.mark.parametrize(
    "fields", [{"position_embedding_type": "relative_key"}, {"position_embedding_type": "relative_key_query"}]
)
def test_what_is_not_packed_is_the_textbooks(fields):
    config = config_of(**fields)
    params, hidden, keys, read, dy = problem(26, config)
    _, cache = cpu.encoder_forward(params, config, hidden, keys, read, None, cpu)
    assert isinstance(cache, model.EncoderCache)
    check(config, (params, hidden, keys, None, dy))


@pytest.mark.parametrize("option", ["output_hidden_states", "output_attentions"])
def test_other_outputs_are_the_textbooks(option):
    config = config_of()
    params, hidden, keys, read, _ = problem(27, config)
    output, cache = cpu.encoder_forward(params, config, hidden, keys, read, None, cpu, **{option: True})
    assert isinstance(cache, model.EncoderCache)
    expected, _ = model.encoder_forward(params, config, hidden, keys, read, None, ops, **{option: True})
    name = option.removeprefix("output_")
    for found, value in zip(getattr(output, name), getattr(expected, name), strict=True):
        assert_near(found, value, name, TOLERANCE)
