"""Which engine a name stands for, and what is said where it cannot work."""

import sys
import types
from typing import NamedTuple

import numpy as np
import pytest

import npbert
from npbert import ops
from npbert.backends import BACKENDS, Backend, find_backend, in_turn
from npbert.errors import BackendError
from tests.models import random_params, tiny_config


class Pair(NamedTuple):
    """Arrays and other things, as inputs and labels are."""

    ids: np.ndarray
    none: None
    count: int


def test_the_names_are_those_of_the_documentation():
    assert tuple(BACKENDS) == ("reference", "cpu", "cuda", "cuda-emulated")


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_numpy_backends_always_work(name):
    backend = find_backend(name)
    assert backend.name == name
    assert set(ops.__all__) <= set(vars(backend.ops))
    assert backend.xp is np
    assert backend.dtypes == ("float32", "float64")


@pytest.mark.parametrize("name", ["gpu", "", "CUDA"])
def test_another_name_is_refused(name):
    with pytest.raises(ValueError, match=r"backend is .*; available: reference, cpu, cuda, cuda-emulated"):
        find_backend(name)


def test_cuda_without_cupy_says_that_it_is_missing_and_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"CuPy is not installed: pip install .*npbert\[cuda13\]"):
        find_backend("cuda")


def test_cuda_without_a_device_says_that_it_is_missing(monkeypatch):
    class CUDARuntimeError(RuntimeError):
        pass

    def no_device():
        raise CUDARuntimeError("cudaErrorInsufficientDriver")

    runtime = types.SimpleNamespace(
        getDeviceCount=no_device,
        driverGetVersion=lambda: 0,
        runtimeGetVersion=lambda: 13000,
        CUDARuntimeError=CUDARuntimeError,
    )
    cuda = types.SimpleNamespace(runtime=runtime)
    cupy = types.SimpleNamespace(cuda=cuda, __version__="14.2.0", ndarray=type("ndarray", (), {}))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(BackendError, match=r"CuPy 14.2.0 is installed, but there is no CUDA device"):
        find_backend("cuda")


def test_the_emulator_without_a_compiler_says_that_it_is_missing(monkeypatch, tmp_path):
    from npbert.cuda.emulator import compiler

    compiler.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendError, match=r"C\+\+ compiler.*apt install g\+\+"):
        find_backend("cuda-emulated")
    compiler.cache_clear()


def test_a_missing_backend_stops_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cupy", None)
    config = tiny_config()
    params = random_params(np.random.default_rng(0), config, "encoder")
    npbert.Bert(config, params, task="encoder").save(tmp_path / "model")
    with pytest.raises(BackendError, match="CuPy is not installed"):
        npbert.load(tmp_path / "model", backend="cuda")
    with pytest.raises(BackendError, match="CuPy is not installed"):
        npbert.Bert(config, params, task="encoder", backend="cuda")


def test_arrays_go_to_the_device_alone_and_in_named_tuples():
    moved = []

    def asarray(array):
        moved.append(array)
        return f"device {array.tolist()}"

    backend = Backend("stand-in", ops, types.SimpleNamespace(asarray=asarray), ("float32",))
    ids = np.array([1, 2])
    assert backend.to_device(Pair(ids, None, 3)) == Pair("device [1, 2]", None, 3)
    assert backend.to_device(ids) == "device [1, 2]"
    assert backend.to_device("text") == "text"
    assert len(moved) == 2


def test_in_turn():
    done = []
    in_turn(done.append, iter("abc"))
    assert done == ["a", "b", "c"]
