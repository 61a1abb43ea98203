"""All optimisers: what no result depends on, float32, going on from a saved state, and bad input."""

import numpy as np
import pytest

from npbert.config import BertConfig
from npbert.cpu.workers import share_out, workers
from npbert.params import parameter_shapes
from npbert.training import optimizer as optimizer_module
from npbert.training.optimizers import LAMB, OPTIMIZERS, SGD, AdamW, bert_adam, decays_by_default
from tests.comparisons import assert_finite, assert_identical
from tests.cuda import fake_cupy
from tests.tolerances import ROUND_OFF, U32
from tests.training.optimizer_cases import (
    RATES,
    SHAPES,
    backwards,
    copied,
    draw_grads,
    draw_params,
    take_steps,
)

LARGE = {"a.weight": (40, 13), "b.bias": (7,), "c.weight": (11, 3), "none.weight": (0,), "d.bias": (300,)}
names = pytest.mark.parametrize("name", OPTIMIZERS)


def test_names():
    assert list(OPTIMIZERS.values()) == [AdamW, bert_adam, LAMB, SGD]
    assert list(OPTIMIZERS) == ["adamw", "bert_adam", "lamb", "sgd"]


def test_no_weight_decay_on_biases_and_layer_norms():
    shapes = parameter_shapes(BertConfig(num_hidden_layers=1), "pretraining")
    without = [name for name in shapes if not decays_by_default(name, None)]
    vectors = [name for name, shape in shapes.items() if len(shape) == 1]
    assert without == vectors  # in a BERT, these are all its vectors
    assert 0 < len(without) < len(shapes)


# --- what no result depends on ----------------------------------------------------------------------------


def final(name, dtype, *, grads=None, **options):
    """Parameters and state after some steps with large parameters."""
    params = draw_params(2, dtype, LARGE)
    optimizer = OPTIMIZERS[name](params, **options)
    take_steps(optimizer, draw_grads(3, dtype, LARGE) if grads is None else grads)
    return params | optimizer.state()


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert_identical(value, expected[name], name)


@names
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_number_of_workers(name, dtype, monkeypatch):
    monkeypatch.setattr("npbert.training.blocks.BLOCK", 50)
    expected = final(name, dtype)
    assert_same(final(name, dtype, share_out=backwards), expected)
    for count in (1, 2, 3, 2):
        with workers(count):
            assert_same(final(name, dtype, share_out=share_out), expected)


@pytest.mark.parametrize("name", ["adamw", "bert_adam", "sgd"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_size_of_the_blocks(name, dtype, monkeypatch):
    """LAMB's norms are sums over the blocks."""
    expected = final(name, dtype)
    for size in (1, 7, 64, 520):
        monkeypatch.setattr("npbert.training.blocks.BLOCK", size)
        assert_same(final(name, dtype), expected)


@names
def test_order_in_memory_of_the_gradients(name):
    grads = draw_grads(3, np.float32, LARGE)
    other_order = [{key: np.asfortranarray(grad) for key, grad in g.items()} for g in grads]
    assert not other_order[0]["a.weight"].flags.c_contiguous
    assert_same(final(name, np.float32, grads=other_order), final(name, np.float32, grads=grads))


@names
def test_order_of_the_gradients(name):
    grads = draw_grads(3, np.float32, LARGE)
    reversed_order = [dict(reversed(g.items())) for g in grads]
    assert_same(final(name, np.float32, grads=reversed_order), final(name, np.float32, grads=grads))


@names
def test_numbers_of_numpy_are_as_good(name):
    """Were the number of NumPy's float64 used as it is, NumPy would work in float64 and round at the end."""
    options = {"weight_decay": 0.1} | ({"momentum": 0.9} if name == "sgd" else {"beta1": 0.9, "epsilon": 0.1})
    grads = draw_grads(3, np.float32, LARGE)
    found = draw_params(2, np.float32, LARGE)
    numpys = {key: np.float64(value) for key, value in options.items()}
    take_steps(OPTIMIZERS[name](found, **numpys), grads, [np.float64(rate) for rate in RATES])
    expected = draw_params(2, np.float32, LARGE)
    take_steps(OPTIMIZERS[name](expected, **options), grads)
    assert_same(found, expected)


@names
def test_gradients_are_not_changed(name):
    grads = draw_grads()
    before = [copied(g) for g in grads]
    take_steps(OPTIMIZERS[name](draw_params()), grads)
    for found, expected in zip(grads, before, strict=True):
        assert_same(found, expected)


@names
def test_parameters_are_changed_in_place(name):
    params = draw_params()
    arrays, start = dict(params), copied(params)
    take_steps(OPTIMIZERS[name](params), draw_grads())
    assert all(params[key] is arrays[key] for key in SHAPES)
    assert not np.array_equal(params["dense.weight"], start["dense.weight"])


# --- float32 ------------------------------------------------------------------------------------------------


@names
def test_float32(name):
    """Of each step's move, a dozen roundings are lost, and of the parameter that it is taken from, two."""
    params, grads = draw_params(2, np.float32, LARGE), draw_grads(3, np.float32, LARGE)
    exact = {key: value.astype(np.float64) for key, value in params.items()}
    optimizer, reference = OPTIMIZERS[name](params), OPTIMIZERS[name](exact)
    lengths = dict.fromkeys(LARGE, 0.0)  # of the ways gone, and of the parameters
    for of_one_step, rate in zip(grads, RATES, strict=True):
        before = copied(exact)
        optimizer.step(of_one_step, rate)
        reference.step({key: grad.astype(np.float64) for key, grad in of_one_step.items()}, rate)
        for key in LARGE:
            lengths[key] += np.linalg.norm(exact[key] - before[key]) + np.linalg.norm(before[key])
    for key, value in params.items():
        assert value.dtype == np.float32
        assert_finite(value, key)
        error = np.linalg.norm(value.astype(np.float64) - exact[key])
        assert error <= ROUND_OFF * U32 * lengths[key], key


@names
def test_averages_do_not_become_subnormal(name):
    """A gradient that comes once, and then no more, leaves averages behind that shrink for ever."""
    optimizer = OPTIMIZERS[name]({"weight": np.ones(2, np.float32)}, weight_decay=0.0)
    smallest = np.finfo(np.float32).smallest_normal
    grads = {"weight": np.array([1e-3, 1e-20], np.float32)}
    for step in range(1500):
        optimizer.step(grads, 1e-3)
        grads = {"weight": np.zeros(2, np.float32)}
        for key, value in optimizer.state().items():
            if step > optimizer_module.STEPS_BETWEEN_CLEANINGS:
                assert np.all((value == 0) | (abs(value) >= smallest)), (key, step)
    kinds = [key for key in optimizer.state() if key != "square.weight"]
    assert all(np.all(optimizer.state()[key] == 0) for key in kinds)


@names
def test_averages_are_cleaned_every_so_many_steps(name):
    """What goes is far below anything that moves a parameter; what is larger stays, and so do parameters."""
    every = optimizer_module.STEPS_BETWEEN_CLEANINGS
    params = {"weight": np.array([1.0, 1.0, 1.0, 1e-35], np.float32)}
    optimizer = OPTIMIZERS[name](params, weight_decay=0.0)
    sizes = np.array([1e-33, 1e-31, 1.0, 0.0], np.float32)
    state = {key: sizes if key.startswith("square.") else -sizes for key in optimizer.state()}
    optimizer.load_state(state, every - 2)
    grads = {"weight": np.zeros(4, np.float32)}
    optimizer.step(grads, 1e-3)
    for value in optimizer.state().values():
        np.testing.assert_array_equal(value != 0, [True, True, True, False])
    optimizer.step(grads, 1e-3)
    for value in optimizer.state().values():
        np.testing.assert_array_equal(value != 0, [False, True, True, False])
    assert params["weight"][3] == np.float32(1e-35)


# --- going on -----------------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_goes_on_from_a_saved_state(name, dtype):
    params, grads = draw_params(dtype=dtype), draw_grads(dtype=dtype, steps=8)
    optimizer = OPTIMIZERS[name](params)
    take_steps(optimizer, grads[:4])
    assert optimizer.steps == 4
    saved_params, saved_state = copied(params), copied(optimizer.state())
    take_steps(optimizer, grads[4:])

    resumed = OPTIMIZERS[name](saved_params)
    resumed.load_state(saved_state, 4)
    for key, value in resumed.state().items():
        assert not np.shares_memory(value, saved_state[key])
    take_steps(resumed, grads[4:])
    assert resumed.steps == optimizer.steps == 8
    assert_same(saved_params | resumed.state(), params | optimizer.state())


def test_names_of_the_state():
    params = {"a.weight": np.ones(2), "b.bias": np.ones(3)}
    both = ["mean.a.weight", "mean.b.bias", "square.a.weight", "square.b.bias"]
    assert list(AdamW(params).state()) == list(LAMB(params).state()) == both
    assert list(SGD(params).state()) == ["momentum.a.weight", "momentum.b.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean.a": None}, r"there is no array of the optimiser's state named mean\.a"),
        ({"mean.z": np.zeros(2)}, r"there is an unexpected array of the optimiser's state, named mean\.z"),
        ({"mean.a": np.zeros(3)}, r"mean\.a has the shape \(3,\); it must be \(2, 2\)"),
        ({"mean.a": np.zeros((2, 2), np.float32)}, r"mean\.a has the dtype float32; it must be float64"),
        ({"mean.a": np.array([[0, 0], [np.inf, 0]])}, r"mean\.a is inf at \(1, 0\); it must be finite"),
        ({"square.a": np.array([[0, np.nan], [0, 0]])}, r"square\.a is nan at \(0, 1\)"),
        ({"square.s": np.array(-1.0)}, r"square\.s is -1\.0 at \(\); it must be finite and not negative"),
    ],
)
def test_bad_state(change, message):
    optimizer = AdamW({"a": np.ones((2, 2)), "s": np.array(1.0)})
    state = {key: value + 1 for key, value in optimizer.state().items()} | change
    state = {key: value for key, value in state.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        optimizer.load_state(state, 3)
    assert optimizer.steps == 0
    assert not any(np.any(value) for value in optimizer.state().values())


def test_a_mean_may_be_negative():
    optimizer = AdamW({"a": np.ones(1)})
    optimizer.load_state({"mean.a": -np.ones(1), "square.a": np.ones(1)}, 3)
    assert optimizer.state()["mean.a"] == -1


@pytest.mark.parametrize("steps", [-1, 1.5, True, "3"])
def test_bad_number_of_steps(steps):
    with pytest.raises(ValueError, match=f"steps is {steps!r}; it must be an integer of at least 0"):
        SGD(draw_params(), momentum=0.0).load_state({}, steps)


# --- CuPy ---------------------------------------------------------------------------------------------------


@names
def test_arrays_of_cupys(name, monkeypatch):
    """On a stand-in, whose arrays do not work together with NumPy's."""
    cupy = fake_cupy.install(monkeypatch)
    params, grads = draw_params(2, np.float32, LARGE), draw_grads(3, np.float32, LARGE, steps=3)
    on_device = {key: cupy.asarray(value) for key, value in params.items()}
    optimizer, expected = OPTIMIZERS[name](on_device), OPTIMIZERS[name](params)
    every = optimizer_module.STEPS_BETWEEN_CLEANINGS
    optimizer.load_state(expected.state(), every - 2)  # NumPy's, from a file
    expected.load_state(expected.state(), every - 2)
    for of_one_step in grads:
        optimizer.step({key: cupy.asarray(grad) for key, grad in of_one_step.items()}, 0.1)
        expected.step(of_one_step, 0.1)
    found = {key: cupy.asnumpy(value) for key, value in (on_device | optimizer.state()).items()}
    assert_same(found, params | expected.state())


# --- bad input ----------------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dense.bias": None}, r"there is no gradient named dense\.bias"),
        ({"other": np.zeros(2)}, "there is an unexpected gradient, named other"),
        (
            {"dense.weight": np.zeros((5, 3))},
            r"the gradient of dense\.weight has the shape \(5, 3\); .* \(3, 5\)",
        ),
        ({"one.weight": np.zeros(())}, r"the gradient of one\.weight has the shape \(\); it must be \(1,\)"),
        ({"one.weight": np.zeros(1, np.float32)}, r"has the dtype float32; it must be float64"),
    ],
)
def test_bad_gradients(name, change, message):
    params = draw_params()
    start = copied(params)
    optimizer = OPTIMIZERS[name](params)
    grads = {key: value for key, value in (draw_grads()[0] | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        optimizer.step(grads, 0.1)
    assert optimizer.steps == 0
    assert_same(params, start)


@names
@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf")])
def test_bad_learning_rate(name, rate):
    params = draw_params()
    start = copied(params)
    optimizer = OPTIMIZERS[name](params)
    with pytest.raises(ValueError, match=f"learning_rate is {rate!r}; it must be at least 0, and finite"):
        optimizer.step(draw_grads()[0], rate)
    assert optimizer.steps == 0
    assert_same(params, start)


def read_only(value):
    value.flags.writeable = False
    return value


@names
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3, np.float16), "weight has the dtype float16; an optimiser needs float32 or float64"),
        (np.ones(3, int), "weight has the dtype int64"),
        (np.ones((2, 3)).T, "weight is not C-contiguous"),
        (read_only(np.ones(3)), "weight is read-only"),
    ],
)
def test_bad_parameters(name, value, message):
    with pytest.raises(ValueError, match=message):
        OPTIMIZERS[name]({"bias": np.ones(1), "weight": value})
