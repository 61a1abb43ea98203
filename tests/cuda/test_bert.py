"""`Bert` on the CUDA engine: the same model as the textbook's, to round-off."""

import numpy as np
import pytest

import npbert
from npbert import init_params
from npbert.config import BertConfig
from npbert.ops.array_module import to_numpy
from tests.comparisons import assert_finite, assert_identical
from tests.cuda.kernel_contract import backend
from tests.models import LOSSES, random_inputs, random_labels, random_params
from tests.tolerances import FLOAT32_MODEL, REORDERED

pytestmark = pytest.mark.usefixtures("compiler")


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


def models(config, task, dtype=np.float64, seed=0):
    """The textbook's and the CUDA engine's model, with the same parameters."""
    params = random_params(np.random.default_rng(seed), config, task, spread=0.3)
    return (
        npbert.Bert(config, params, task=task, dtype=np.float64, backend="reference"),
        npbert.Bert(config, params, task=task, dtype=dtype, backend=backend()),
    )


def assert_near(actual, expected, what, tolerance):
    """Largest difference, over the largest element."""
    actual, expected = to_numpy(actual).astype(np.float64), np.asarray(expected)
    assert actual.shape == expected.shape, what
    assert_finite(actual, what)
    assert np.abs(actual - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3), what


@pytest.mark.parametrize("dropout_seed", [None, 5])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_gradient_in_float64(loss, dropout_seed):
    task, fields = LOSSES[loss]
    config = config_of(**fields)
    textbook, engine = models(config, task)
    rng = np.random.default_rng(1)
    inputs = random_inputs(rng, config, task)
    labels = random_labels(rng, config, task, inputs["input_ids"].shape)
    expected, expected_grads = textbook.loss_and_grads(**inputs, **labels, dropout_seed=dropout_seed)
    found, grads = engine.loss_and_grads(**inputs, **labels, dropout_seed=dropout_seed)
    assert_near(found, expected, "loss", REORDERED)
    assert list(grads) == list(expected_grads)
    for name, gradient in grads.items():
        assert gradient.dtype == np.float64
        assert_near(gradient, expected_grads[name], name, 100 * REORDERED)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_10"},
        {"position_embedding_type": "relative_key"},
        {"position_embedding_type": "relative_key_query"},
        {"position_embedding_type": "sinusoidal"},
    ],
    ids=str,
)
def test_hidden_states_attentions_and_gradients_of_every_kind_of_layer(fields):
    config = config_of(**fields)
    textbook, engine = models(config, "encoder", seed=2)
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


# Half precision rounds each of some hundred steps to 11 bits, and layer norms of nearly constant rows stretch
# that; single precision is held to the bound of the textbook's own float32 model.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, FLOAT32_MODEL), (np.float16, 3e-2)])
def test_single_and_half_precision(dtype, tolerance):
    config = config_of()
    textbook, engine = models(config, "masked_lm", dtype=dtype, seed=5)
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


def test_nothing_labelled_gives_a_loss_of_zero_and_no_gradient():
    config = config_of()
    _, engine = models(config, "masked_lm")
    inputs = random_inputs(np.random.default_rng(7), config, "masked_lm")
    loss, grads = engine.loss_and_grads(**inputs, labels=np.full(inputs["input_ids"].shape, -100))
    assert loss == 0
    assert not any(gradient.any() for gradient in grads.values())


def test_two_runs_give_the_same_bits():
    config = config_of()
    _, engine = models(config, "masked_lm", dtype=np.float32)
    rng = np.random.default_rng(8)
    inputs = random_inputs(rng, config, "masked_lm")
    labels = random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    _, first = engine.loss_and_grads(**inputs, **labels, dropout_seed=9)
    _, second = engine.loss_and_grads(**inputs, **labels, dropout_seed=9)
    for name in first:
        assert_identical(to_numpy(second[name]), to_numpy(first[name]), name)


def test_a_head_width_without_a_kernel_is_refused_by_name():
    config = config_of(hidden_size=18, num_attention_heads=3)
    bert = npbert.Bert(config, init_params(config, "encoder", seed=0), task="encoder", backend=backend())
    with pytest.raises(ValueError, match=r"head width is 6.*multiples of 8"):
        bert.forward(input_ids=[[2, 3]])


def test_save_and_load(tmp_path):
    config = config_of()
    _, engine = models(config, "masked_lm", dtype=np.float32)
    engine.save(tmp_path / "model")
    again = npbert.load(tmp_path / "model", backend=backend())
    for name, value in engine.params.items():
        assert_identical(to_numpy(again.params[name]), to_numpy(value), name)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_half_precision_is_for_cuda(backend):
    config = config_of()
    params = init_params(config, "encoder", seed=0)
    with pytest.raises(ValueError, match="dtype is float16; it must be one of float32, float64"):
        npbert.Bert(config, params, task="encoder", dtype=np.float16, backend=backend)
