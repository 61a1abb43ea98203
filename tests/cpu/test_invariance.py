"""Columns of products do not depend on each other: of this BLAS, and of its kernels for other processors."""

import os
import subprocess
import sys

import numpy as np
import pytest

from npbert.cpu import invariance
from npbert.cpu.invariance import (
    ALONE,
    ANYHOW,
    BY_COLUMNS,
    ON_ONE_THREAD,
    choose_packing,
    columns_are_independent,
    invariant_packing,
)
from npbert.cpu.workers import single_threaded_blas
from tests.comparisons import assert_identical

DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]

# Widths and inner sizes of MiniLM, of a small model, and of none in particular.
SHAPES = [(384, 384), (1536, 384), (384, 1536), (64, 64), (100, 37), (77, 130), (12, 12)]


def check_columns(packing, dtype):
    """Multiply the same columns alone, and at every place among others."""
    rng = np.random.default_rng(0)
    for width, inner in SHAPES:
        weight = rng.standard_normal((width, inner)).astype(dtype)
        some = rng.standard_normal((inner, 5)).astype(dtype)
        alone = None
        for wanted in (5, 17, 100, 333):
            columns = packing.columns(wanted, weight.size)
            for start in (0, 1, columns // 2, columns - 5):
                x = rng.standard_normal((inner, columns)).astype(dtype)
                x[:, start : start + 5] = some
                found = (weight @ x)[:, start : start + 5]
                alone = found if alone is None else alone
                assert_identical(found, alone, f"{weight.shape} times {x.shape}")


def check_invariant_packing(dtype):
    packing = invariant_packing(dtype)
    if packing.one_text:
        return
    with single_threaded_blas():
        check_columns(packing, dtype)
    if not packing.one_thread:
        check_columns(packing, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_columns_are_independent(dtype):
    check_invariant_packing(dtype)


@pytest.mark.parametrize("kernel", ["Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX"])
def test_with_openblas_kernels_for_other_processors(kernel):
    """A vector's bits are its text's; of the kernels that this processor can run."""
    script = (
        "from tests.cpu.test_invariance import DTYPES, check_invariant_packing\n"
        "from tests.cpu.test_packed import test_a_text_has_the_same_bits_in_any_company as check_vectors\n"
        "for dtype in DTYPES:\n"
        "    check_invariant_packing(dtype)\n"
        "    check_vectors(dtype)\n"
        "print('fine')\n"
    )
    environment = {**os.environ, "OPENBLAS_CORETYPE": kernel}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    if done.returncode < 0:
        pytest.skip(f"this processor does not run the kernels for {kernel}")
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("tokens", [1, 16, 17, 1008])
@pytest.mark.parametrize("packing", [ANYHOW, BY_COLUMNS, ON_ONE_THREAD, ALONE])
def test_number_of_columns(packing, tokens):
    for weight in (384 * 384, 64 * 64, 12 * 12):
        columns = packing.columns(tokens, weight)
        assert columns >= tokens
        assert columns % packing.multiple == 0
        assert columns * weight >= packing.least
        if packing in (ANYHOW, ALONE):
            assert columns == tokens


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_choice(dtype):
    assert choose_packing(dtype, False) is ANYHOW
    assert choose_packing(dtype, True) is invariant_packing(dtype)
    assert choose_packing(dtype, None) in (ANYHOW, BY_COLUMNS)
    assert BY_COLUMNS.least > 100**3  # OpenBLAS's own limit of small products


def test_edges_that_differ_are_noticed(monkeypatch):
    """A product whose last columns are summed in another order, as the kernels for AVX2 do it."""

    def edges_differ(weight, x):
        x = np.ascontiguousarray(x)
        product = weight @ x
        product[:, -8:] = weight[:, ::-1] @ x[::-1, -8:]
        return product

    monkeypatch.setattr(invariance, "multiply", edges_differ)
    invariance.invariant_packing.cache_clear()
    assert not columns_are_independent(BY_COLUMNS, np.dtype(np.float32))
    assert invariant_packing(np.dtype(np.float32)) is ALONE
    invariance.invariant_packing.cache_clear()
