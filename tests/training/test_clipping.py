"""Clipping: the norm in exact arithmetic, torch, what no result depends on, and what is not finite."""

import math

import numpy as np
import pytest

from npbert.cpu.workers import share_out, workers
from npbert.training.clipping import clip_by_global_norm, global_norm, sums_of_squares
from tests.comparisons import assert_identical
from tests.cuda import fake_cupy
from tests.training.optimizer_cases import backwards

SHAPES = {"a": (40, 13), "b": (5,), "none": (0, 2), "zero": (3,), "scalar": ()}


def draw(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    grads = {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}
    grads["zero"][...] = 0
    return grads


def exact_norm(grads):
    return math.sqrt(math.fsum(float(x) ** 2 for grad in grads.values() for x in grad.ravel()))


@pytest.fixture(params=[1 << 17, 50], ids=["one block", "blocks"])
def block(request, monkeypatch):
    """Norms of one block and of several."""
    monkeypatch.setattr("npbert.training.blocks.BLOCK", request.param)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_norm(dtype, block):
    """In both precisions as in exact arithmetic: the squares are added up in float64."""
    grads = draw(dtype)
    assert global_norm(grads) == pytest.approx(exact_norm(grads), rel=1e-14)


def test_sum_of_each_array(block):
    grads = draw()
    sums = sums_of_squares(grads)
    assert list(sums) == list(grads)
    for name, grad in grads.items():
        assert sums[name] == pytest.approx(math.fsum(x * x for x in grad.ravel()), rel=1e-14)
    assert sums["none"] == sums["zero"] == 0


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_squares_that_float32_cannot_hold(size):
    grads = {"a": np.full(9, size, np.float32)}
    assert global_norm(grads) == pytest.approx(3 * float(np.float32(size)), rel=1e-14)


@pytest.mark.parametrize("max_norm", [0.5, 3, np.float64(0.7), 1e3, math.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_clipped_gradients(max_norm, dtype, block):
    grads = draw(dtype)
    before, arrays = {name: grad.astype(np.float64) for name, grad in grads.items()}, dict(grads)
    norm = exact_norm(grads)
    found = clip_by_global_norm(grads, max_norm)
    assert type(found) is float
    assert found == pytest.approx(norm, rel=1e-14)
    scale = min(1.0, max_norm / (norm + 1e-6))
    for name, grad in grads.items():
        assert grad is arrays[name]
        assert grad.dtype == dtype
        np.testing.assert_allclose(grad, scale * before[name], rtol=1e-14 if dtype == np.float64 else 2e-7)


def test_small_gradients_are_not_changed():
    """Not even by the 1e-6: a norm below, but next to, the largest allowed."""
    grads = {"a": np.array([0.6, 0.8 - 2e-6])}
    before = grads["a"].copy()
    clip_by_global_norm(grads, 1.0)
    assert_identical(grads["a"], before, "a")


def test_just_above_the_largest_norm():
    """The 1e-6 is part of what torch divides by."""
    grads = {"a": np.array([0.6, 0.8])}
    clip_by_global_norm(grads, 1.0)
    np.testing.assert_allclose(grads["a"], np.array([0.6, 0.8]) / (1 + 1e-6), rtol=1e-14)


def test_no_gradients():
    grads = {"a": np.zeros(3)}
    assert clip_by_global_norm(grads, 1.0) == 0.0 == global_norm({})
    np.testing.assert_array_equal(grads["a"], 0)


def test_numbers_of_numpy_are_as_good():
    """Were the number of NumPy's float64 used as it is, NumPy would work in float64 and round at the end."""
    found, expected = draw(np.float32), draw(np.float32)
    clip_by_global_norm(found, np.float64(0.3))
    clip_by_global_norm(expected, 0.3)
    for name in SHAPES:
        assert_identical(found[name], expected[name], name)


def test_any_order_in_memory(block):
    found, expected = draw(), draw()
    found["a"] = np.asfortranarray(found["a"])
    found["zero"] = np.zeros(6)[::2]
    arrays = dict(found)
    assert clip_by_global_norm(found, 0.5) == clip_by_global_norm(expected, 0.5)
    for name in SHAPES:
        assert found[name] is arrays[name]
        assert_identical(found[name], expected[name], name)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_number_of_workers(dtype, monkeypatch):
    monkeypatch.setattr("npbert.training.blocks.BLOCK", 50)
    expected = draw(dtype)
    norm = clip_by_global_norm(expected, 0.5)
    assert global_norm(draw(dtype), backwards) == norm
    for count in (1, 2, 3, 2):
        found = draw(dtype)
        with workers(count):
            assert global_norm(found, share_out) == norm
            assert clip_by_global_norm(found, 0.5, share_out) == norm
        for name in SHAPES:
            assert_identical(found[name], expected[name], name)


def test_arrays_of_cupys(monkeypatch, block):
    """On a stand-in, whose arrays do not work together with NumPy's; these are not cut into blocks."""
    cupy = fake_cupy.install(monkeypatch)
    grads = draw(np.float32)
    on_device = {name: cupy.asarray(grad) for name, grad in grads.items()}
    norm = clip_by_global_norm(on_device, 0.5)
    assert norm == pytest.approx(clip_by_global_norm(grads, 0.5), rel=1e-14)
    for name, grad in grads.items():
        np.testing.assert_allclose(cupy.asnumpy(on_device[name]), grad, rtol=2e-7)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_gradients_that_are_not_finite_stay_where_they_are(value):
    grads = draw()
    grads["b"][2] = value
    before = {name: grad.copy() for name, grad in grads.items()}
    assert not math.isfinite(clip_by_global_norm(grads, 0.5))
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, before[name])


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_bad_largest_norm(max_norm):
    with pytest.raises(ValueError, match=f"max_norm is {max_norm!r}; it must be above 0"):
        clip_by_global_norm(draw(), max_norm)


@pytest.mark.oracle
@pytest.mark.parametrize("max_norm", [0.5, 1e3])
def test_torch(max_norm):
    torch = pytest.importorskip("torch")
    grads = draw()
    tensors = {name: torch.zeros(grad.shape, dtype=torch.float64) for name, grad in grads.items()}
    for name, tensor in tensors.items():
        tensor.grad = torch.tensor(grads[name])
    expected = torch.nn.utils.clip_grad_norm_(tensors.values(), max_norm)
    assert clip_by_global_norm(grads, max_norm) == pytest.approx(expected.item(), rel=1e-12)
    for name, tensor in tensors.items():
        np.testing.assert_allclose(grads[name], tensor.grad.numpy(), rtol=1e-12, err_msg=name)
