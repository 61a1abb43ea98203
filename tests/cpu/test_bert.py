"""`Bert` on the fast engine: the same model as the textbook's, to round-off."""

import numpy as np
import pytest

import npbert
from npbert.cpu.workers import workers
from tests.comparisons import assert_identical
from tests.engine_models import (
    LAYERS,
    MASKS,
    assert_near,
    check_layers,
    check_loss_and_gradients,
    check_precision,
    check_two_runs,
    check_vectors,
    config_of,
    masked,
    models,
)
from tests.models import LOSSES, random_inputs, random_labels
from tests.tolerances import FLOAT32_MODEL


def test_it_is_the_default():
    config = config_of()
    assert npbert.Bert(config, npbert.init_params(config, "encoder", seed=0), task="encoder").backend == "cpu"


@pytest.mark.parametrize("dropout_seed", [None, 5])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_gradient_in_float64(loss, dropout_seed):
    check_loss_and_gradients("cpu", loss, dropout_seed)


@pytest.mark.parametrize("dropout_seed", [None, 2**50 + 5])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_gradient_with_any_mask(loss, mask, dropout_seed):
    check_loss_and_gradients("cpu", loss, dropout_seed, mask)


@pytest.mark.parametrize("dropout_seed", [None, 6])
@pytest.mark.parametrize("mask", MASKS)
def test_gradients_of_vectors(mask, dropout_seed):
    check_vectors("cpu", mask, dropout_seed)


@pytest.mark.parametrize("fields", LAYERS, ids=str)
def test_hidden_states_attentions_and_gradients_of_every_kind_of_layer(fields):
    check_layers("cpu", fields)


def test_single_precision():
    check_precision("cpu", np.float32, FLOAT32_MODEL)


def test_two_runs_give_the_same_bits():
    check_two_runs("cpu")


def test_the_number_of_workers_changes_no_bit_of_what_is_not_blas():
    """BLAS has one thread here: with several, its own sums may be cut elsewhere."""
    config = config_of()
    _, engine = models("cpu", config, "masked_lm", np.float32)
    rng = np.random.default_rng(10)
    inputs = random_inputs(rng, config, "masked_lm", texts=5, tokens=13)
    labels = random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    found = []
    for count in (1, 2, 3):
        with workers(count):
            found.append(engine.loss_and_grads(**inputs, **labels, dropout_seed=3)[1])
    for other in found[1:]:
        for name, gradient in other.items():
            assert_identical(gradient, found[0][name], name)


@pytest.mark.parametrize("mask", MASKS)
def test_a_model_without_layers(mask):
    """Embeddings, and what comes after the encoder: words on padding are read, too."""
    config = config_of(num_hidden_layers=0)
    textbook, engine = models("cpu", config, "masked_lm")
    rng = np.random.default_rng(11)
    inputs = masked(rng, random_inputs(rng, config, "masked_lm", texts=4, tokens=7), mask)
    labels = random_labels(rng, config, "masked_lm", inputs["input_ids"].shape)
    loss, grads = engine.loss_and_grads(**inputs, **labels, dropout_seed=4)
    expected_loss, expected = textbook.loss_and_grads(**inputs, **labels, dropout_seed=4)
    assert_near(loss, expected_loss, "loss", 1e-12)
    assert max(np.abs(gradient).max() for gradient in expected.values()) > 1e-3
    for name, gradient in grads.items():
        assert_near(gradient, expected[name], name, 1e-12)
