"""`Bert` on the CUDA engine: the same model as the textbook's, to round-off."""

import numpy as np
import pytest

import npbert
from npbert import init_params
from npbert.ops.array_module import to_numpy
from tests.comparisons import assert_identical
from tests.cuda.kernel_contract import backend
from tests.engine_models import (
    LAYERS,
    check_layers,
    check_loss_and_gradients,
    check_precision,
    check_two_runs,
    config_of,
    models,
)
from tests.models import LOSSES, random_inputs
from tests.tolerances import FLOAT32_MODEL

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.mark.parametrize("dropout_seed", [None, 5])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_gradient_in_float64(loss, dropout_seed):
    check_loss_and_gradients(backend(), loss, dropout_seed)


@pytest.mark.parametrize("fields", LAYERS, ids=str)
def test_hidden_states_attentions_and_gradients_of_every_kind_of_layer(fields):
    check_layers(backend(), fields)


# Half precision rounds each of some hundred steps to 11 bits, and layer norms of nearly constant rows stretch
# that; single precision is held to the bound of the textbook's own float32 model.
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, FLOAT32_MODEL), (np.float16, 3e-2)])
def test_single_and_half_precision(dtype, tolerance):
    check_precision(backend(), dtype, tolerance)


def test_nothing_labelled_gives_a_loss_of_zero_and_no_gradient():
    config = config_of()
    _, engine = models(backend(), config, "masked_lm")
    inputs = random_inputs(np.random.default_rng(7), config, "masked_lm")
    loss, grads = engine.loss_and_grads(**inputs, labels=np.full(inputs["input_ids"].shape, -100))
    assert loss == 0
    assert not any(gradient.any() for gradient in grads.values())


def test_two_runs_give_the_same_bits():
    check_two_runs(backend())


def test_a_head_width_without_a_kernel_is_refused_by_name():
    config = config_of(hidden_size=18, num_attention_heads=3)
    bert = npbert.Bert(config, init_params(config, "encoder", seed=0), task="encoder", backend=backend())
    with pytest.raises(ValueError, match=r"head width is 6.*multiples of 8"):
        bert.forward(input_ids=[[2, 3]])


def test_save_and_load(tmp_path):
    config = config_of()
    _, engine = models(backend(), config, "masked_lm", dtype=np.float32)
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
